"""JSON read in pieces, so that other threads have their turn; knows nothing of what is in it.

The standard reader is one call for a whole text, and Python runs nothing else meanwhile: ten million pixels take it
over a second, in whatever thread. Here long arrays are cut at their own commas and read by it piece by piece.
"""

import json
import re
from collections.abc import Callable
from functools import partial
from json import scanner
from typing import Any

PIECE_CHARACTERS = 16 * 1024
"""Read in one call: about a millisecond."""

OPENING = re.compile(r"[\s\[]*")
MISSING = "a comma without an element"
STANDARD: Any = json.JSONDecoder()

Scan = Callable[[str, int], tuple[Any, int]]


def loads_in_pieces(body: bytes, piece_characters: int = PIECE_CHARACTERS) -> Any:
    """What `json.loads` makes of it, refusing the same with ValueError or RecursionError; it takes a little longer."""
    reader: Any = json.JSONDecoder()
    reader.parse_array = partial(_array, piece_characters)
    reader.scan_once = vars(scanner)["py_make_scanner"](reader)
    return reader.decode(body.decode(json.detect_encoding(body), "surrogatepass"))


def _array(piece_characters: int, state: tuple[str, int], scan: Scan) -> tuple[list[Any], int]:
    """The array whose first element begins at a place in the text, and the place behind its end."""
    text, at = state
    values: list[Any] = []
    # What follows an element of this array: a comma, after as many brackets as its first element opens.
    opening = OPENING.match(text, at)
    behind = "]" * (opening.group().count("[") if opening else 0) + ","
    while True:
        cut = text.rfind(behind, at, at + piece_characters)
        piece = f"[{text[at : cut + len(behind) - 1]}]" if cut >= 0 else f"[{text[at : at + piece_characters]}"
        try:
            found, length = STANDARD.raw_decode(piece)
        except ValueError:
            # Cut inside an element, a long text or a whole image, if it is JSON at all: the rest is read one by one.
            found, end = STANDARD.parse_array((text, at), scan)
            if values and not found:
                raise json.JSONDecodeError(MISSING, text, at) from None
            return values + found, end
        ended = cut < 0 or length < len(piece)
        if not found and (values or not ended):
            raise json.JSONDecodeError(MISSING, text, at)
        values += found
        if ended:
            return values, at + length - 1
        at = cut + len(behind)

"""Turns a record into plain JSON values, or says which part of it is not; knows nothing of tables."""

import math
import re
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Any

import numpy as np

from continual.domain.errors import RegistryError
from continual.domain.texts import MOST_CHARACTERS, unstorable

_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def plain(value: Any, name: str) -> Any:
    """The value with mappings, tuples, enums, aware times and numpy scalars made plain; `name` heads any complaint.

    Raises RegistryError on a number that is not finite, on text no database can hold, and on any other type.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return _finite(value, name)
    if isinstance(value, str):
        return _storable(value, name)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {_storable(str(key), name): plain(item, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(item, f"{name}[{place}]") for place, item in enumerate(value)]
    raise RegistryError(f"{name} is a {type(value).__name__}, not plain JSON; store numbers, text, lists or mappings")


def check_text(text: str, name: str) -> str:
    """The text itself, if it has 1 to 500 characters that a database can hold; RegistryError otherwise."""
    if not 1 <= len(text) <= MOST_CHARACTERS:
        raise RegistryError(f"{name} has {len(text)} characters, must have 1 to {MOST_CHARACTERS}; shorten or fill it")
    return _storable(text, name)


def check_name(name: str, kind: str) -> str:
    """The name itself, if it can stand in a URL and in a file path as it is; RegistryError otherwise."""
    if _PLAIN_NAME.fullmatch(name) is None:
        raise RegistryError(
            f"{kind} {name[:80]!r} is not a plain name; use 1 to 100 letters, digits, dots, dashes and underscores, "
            "and start with a letter or digit"
        )
    return name


def _finite(value: float, name: str) -> float:
    if not math.isfinite(value):
        raise RegistryError(f"{name} is {value}, must be a finite number; leave it out or store null")
    return value


def _storable(text: str, name: str) -> str:
    if unstorable(text):
        raise RegistryError(f"{name} holds a zero character or half a surrogate pair; remove it before storing")
    return text

"""SHA-256 names for bytes and for plain values; knows nothing of files."""

import hashlib
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray


def sha256_bytes(data: bytes) -> str:
    """Lower-case hexadecimal SHA-256 (FIPS 180-4) of the bytes, 64 characters."""
    return hashlib.sha256(data).hexdigest()


def canonical_json(value: Any) -> str:
    """The one textual form of a JSON value: sorted keys, no spaces, NaN refused (RFC 8785 in spirit)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256_json(value: Any) -> str:
    """SHA-256 of the canonical JSON text; equal values have equal digests on every machine."""
    return sha256_bytes(canonical_json(value).encode())


def sha256_volume(values: NDArray[np.float32], spacing_mm: tuple[float, float, float]) -> str:
    """Digest of a volume's content: its shape, spacing and values in C order, whatever file they came in."""
    header = f"volume{values.dtype.str}{values.shape}{spacing_mm}".encode()
    digest = hashlib.sha256(header)
    digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


def sha256_pixels(pixels: NDArray[np.uint8]) -> str:
    """Digest of an image's content: its shape and its values in C order, whatever file they came in."""
    header = f"{pixels.dtype.str}{pixels.shape}".encode()
    return hashlib.sha256(header + np.ascontiguousarray(pixels).tobytes()).hexdigest()

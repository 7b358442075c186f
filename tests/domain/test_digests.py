"""Digests: published vectors, and what must and must not change them."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from continual.domain.digests import canonical_json, sha256_bytes, sha256_json, sha256_pixels

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def test_bytes_have_the_digest_of_the_standard():
    # FIPS 180-4, the one-block example "abc".
    assert sha256_bytes(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@given(st.dictionaries(st.text(max_size=5), PLAIN, max_size=4))
@settings(deadline=None, max_examples=40)
def test_the_order_of_keys_does_not_change_a_digest_and_the_text_says_the_same(value):
    backwards = dict(reversed(value.items()))
    assert sha256_json(value) == sha256_json(backwards)
    assert json.loads(canonical_json(value)) == value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"deep": [float("-inf")]}])
def test_numbers_that_json_does_not_know_are_refused(value):
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json(value)


def test_an_images_digest_depends_on_values_and_shape_and_not_on_memory_layout():
    pixels = np.arange(24, dtype=np.uint8).reshape(4, 6)
    assert sha256_pixels(pixels) == sha256_pixels(np.asfortranarray(pixels))
    assert sha256_pixels(pixels) == sha256_pixels(np.repeat(pixels, 2, axis=0)[::2])
    changed = pixels.copy()
    changed[0, 0] += 1
    others = [pixels.reshape(6, 4), pixels.reshape(4, 6, 1), changed, pixels.T]
    assert sha256_pixels(pixels) not in {sha256_pixels(other) for other in others}

"""One clean image or one quarantine entry per source, in order, whatever the files hold."""

import hashlib
import io
from datetime import UTC, datetime

import numpy as np
import pytest
from PIL import Image

from continual.domain.digests import sha256_pixels
from continual.domain.errors import SettingsError
from continual.domain.samples import CleanImage, QuarantineEntry, Split
from continual.imaging import clean_images, decode_image

KEY = b"key"


def test_a_clean_image_holds_the_pixels_without_loss_and_what_the_source_said(picture_bytes, source_of) -> None:
    moment = datetime(2026, 3, 17, 10, tzinfo=UTC)
    data = picture_bytes(seed=1)
    (clean,) = clean_images([source_of(data, label="cat", split=Split.TEST, acquired_at=moment)], KEY)
    assert isinstance(clean, CleanImage)
    stored = Image.open(io.BytesIO(clean.data))
    assert (stored.format, stored.mode, stored.size) == ("PNG", "RGB", (clean.width, clean.height))
    np.testing.assert_array_equal(np.asarray(stored), decode_image(data).pixels)
    assert clean.digest == sha256_pixels(decode_image(data).pixels)
    assert (clean.label, clean.split, clean.site) == ("cat", Split.TEST, "north")
    assert clean.acquired_at == datetime(2026, 3, 1, tzinfo=UTC)


def test_one_picture_in_two_containers_has_one_digest_and_one_png(ramp, dicom_bytes, source_of) -> None:
    data = dicom_bytes(ramp, PatientID="other")
    buffer = io.BytesIO()
    Image.fromarray(decode_image(data).pixels).save(buffer, "PNG", compress_level=9)
    first, second = clean_images([source_of(data), source_of(buffer.getvalue(), position=2)], KEY)
    assert isinstance(first, CleanImage)
    assert isinstance(second, CleanImage)
    assert (first.digest, first.data) == (second.digest, second.data)


def test_bad_files_are_held_back_and_never_stop_the_others(picture_bytes, source_of) -> None:
    good = picture_bytes()
    blank = io.BytesIO()
    Image.new("RGB", (32, 32), (90, 90, 90)).save(blank, "PNG")
    contents = [good, b"", good[:200], b"text", blank.getvalue(), picture_bytes(side=8), picture_bytes(seed=2)]
    yielded = list(clean_images((source_of(data, at) for at, data in enumerate(contents, start=1)), KEY))
    assert [isinstance(each, CleanImage) for each in yielded] == [True, False, False, False, False, False, True]
    entries = [each for each in yielded if isinstance(each, QuarantineEntry)]
    assert [entry.position for entry in entries] == [2, 3, 4, 5, 6]
    assert [entry.file_digest for entry in entries] == [hashlib.sha256(data).hexdigest() for data in contents[1:6]]
    assert all(entry.site == "north" for entry in entries)


def test_a_vanished_file_is_held_back_under_the_digest_of_its_position(source_of) -> None:
    source = source_of(b"", position=7)
    source.path.unlink()
    (entry,) = clean_images([source], KEY)
    assert isinstance(entry, QuarantineEntry)
    assert entry.file_digest == hashlib.sha256(b"7").hexdigest()
    assert "No such file" in entry.reason


def test_an_image_that_nobody_gives_a_subject_is_held_back(picture_bytes, ramp, dicom_bytes, source_of) -> None:
    for data in (picture_bytes(), dicom_bytes(ramp, PatientID="")):
        (entry,) = clean_images([source_of(data, subject=None)], KEY)
        assert isinstance(entry, QuarantineEntry)
        assert "names a subject" in entry.reason


def test_nothing_is_read_before_it_is_asked_for(picture_bytes, source_of) -> None:
    source = source_of(picture_bytes())
    stream = clean_images([source], KEY)
    source.path.unlink()
    assert isinstance(next(stream), QuarantineEntry)


def test_an_empty_key_is_refused_at_the_call(picture_bytes, source_of) -> None:
    with pytest.raises(SettingsError, match="key is empty"):
        clean_images([source_of(picture_bytes())], b"")

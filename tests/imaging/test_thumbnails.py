"""Small pictures for a page: of pictures and volumes, upright, never larger, and none of what cannot be read."""

import nibabel as nib
import numpy as np

from continual.domain.drift_views import ExampleImage
from continual.imaging import decode_image, thumbnails
from continual.imaging.rasters import encode_png


def small(data):
    return thumbnails({"one": ExampleImage(data)})["one"]


def test_a_picture_keeps_its_shape_and_what_is_where():
    pixels = np.zeros((300, 600, 3), np.uint8)
    pixels[:, 300:] = (200, 100, 50)
    found = decode_image(small(encode_png(pixels)).data).pixels
    assert found.shape == (56, 112, 3)
    assert found[20, 20].tolist() == [0, 0, 0]
    assert found[20, 90].tolist() == [200, 100, 50]


def test_a_small_picture_is_not_blown_up():
    assert decode_image(small(encode_png(np.full((20, 30, 3), 9, np.uint8))).data).pixels.shape == (20, 30, 3)


def test_of_a_volume_the_middle_slice_across_the_widest_spacing_is_shown_as_it_is_hung():
    values = np.zeros((40, 30, 5), np.int16)
    values[30:, 20:, 2] = 1000  # the patient's right, in front, in the middle slice
    found = decode_image(small(nib.Nifti1Image(values, np.diag([1.0, 1.0, 4.0, 1.0])).to_bytes()).data).pixels[..., 0]
    assert found.shape == (30, 40)
    assert (found[:10, :10] == 255).all()
    assert np.count_nonzero(found) == 100


def test_what_is_missing_stays_missing_and_what_is_damaged_is_said_to_be():
    assert small(None) == ExampleImage(None)
    assert small(b"\x89PNG\r\n\x1a\nbroken") == ExampleImage(None, "cannot be read")

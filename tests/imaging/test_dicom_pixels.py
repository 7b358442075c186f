"""From stored values to grey levels, and the limits that hold before anything is decoded."""

import struct
import tracemalloc
import zlib

import numpy as np
import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGLSLossless, RLELossless

from continual.domain.errors import UnreadableImageError
from continual.imaging import decode_image


def grey(data: bytes) -> np.ndarray:
    pixels = decode_image(data).pixels
    assert pixels.dtype == np.uint8
    assert (pixels[..., 0] == pixels[..., 1]).all()
    assert (pixels[..., 0] == pixels[..., 2]).all()
    return pixels[..., 0]


def test_a_detector_image_without_window_is_mapped_by_all_it_can_store(ramp, dicom_bytes) -> None:
    decoded = decode_image(dicom_bytes(ramp))
    assert decoded.tags["grey_mapping"] == "stored_range"
    np.testing.assert_array_equal(decoded.pixels[..., 0], np.rint(ramp * (255 / 4095)))


def test_a_change_of_detector_gain_survives_decoding(ramp, dicom_bytes) -> None:
    full, half = (grey(dicom_bytes((ramp * gain).astype(np.uint16))).mean() for gain in (1.0, 0.5))
    assert half == pytest.approx(full / 2, abs=0.6)


def test_arbitrary_units_are_mapped_by_the_images_own_percentiles(ramp, dicom_bytes) -> None:
    decoded = decode_image(dicom_bytes(ramp // 16, Modality="MR"))
    assert decoded.tags["grey_mapping"] == "percentile"
    assert (decoded.pixels.min(), decoded.pixels.max()) == (0, 255)


def test_hounsfield_units_have_one_fixed_range(ramp, dicom_bytes) -> None:
    decoded = decode_image(dicom_bytes(ramp, Modality="CT", RescaleSlope=1, RescaleIntercept=-1024))
    assert decoded.tags["grey_mapping"] == "hounsfield"
    np.testing.assert_array_equal(decoded.pixels[..., 0], np.rint(ramp * (255 / 4095)))


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        # PS3.3 C.11.2.1.2.1, c=1000, w=500: lowest at c-0.5-(w-1)/2 = 750, highest at 1249.
        (None, {749: 0, 750: 0, 1000: 128, 1249: 255, 1250: 255}),
        ("LINEAR_EXACT", {750: 0, 1000: 128, 1250: 255, 800: 26}),
        # C.11.2.1.3.1: 255 / (1 + exp(-4 (x - c) / w)).
        ("SIGMOID", {1000: 128, 1250: 225, 750: 30}),
    ],
)
def test_windows_follow_the_standards_formulas(dicom_bytes, function: str | None, expected: dict[int, int]) -> None:
    stored = np.full((16, 16), 1000, dtype=np.uint16)
    stored[0, : len(expected)] = list(expected)
    levels = grey(dicom_bytes(stored, WindowCenter=1000, WindowWidth=500, VOILUTFunction=function))
    assert levels[0, : len(expected)].tolist() == list(expected.values())


def test_the_window_acts_on_rescaled_values(dicom_bytes, ramp) -> None:
    plain = grey(dicom_bytes(ramp, WindowCenter=1000, WindowWidth=500))
    moved = grey(dicom_bytes(ramp, WindowCenter=976, WindowWidth=1000, RescaleSlope=2, RescaleIntercept=-1024))
    np.testing.assert_allclose(moved, plain, atol=1)


def test_a_window_of_no_width_is_ignored(ramp, dicom_bytes) -> None:
    assert decode_image(dicom_bytes(ramp, WindowCenter=10, WindowWidth=0)).tags["grey_mapping"] == "stored_range"


@pytest.mark.parametrize("window", [{}, {"WindowCenter": 1000, "WindowWidth": 500}])
def test_monochrome1_is_inverted_after_the_window(ramp, dicom_bytes, window: dict[str, int]) -> None:
    upright = grey(dicom_bytes(ramp, **window))
    inverted = grey(dicom_bytes(ramp, PhotometricInterpretation="MONOCHROME1", **window))
    np.testing.assert_array_equal(inverted, 255 - upright)


def test_a_voi_lut_is_followed_and_its_ends_hold_beyond_it(dicom_dataset, dataset_bytes) -> None:
    dataset = dicom_dataset(np.array([[0, 100, 101, 102, 103, 4000] + [100] * 10] * 16))
    table = pydicom.Dataset()
    table.LUTDescriptor = [4, 100, 8]
    table.add_new(0x00283006, "US", [10, 60, 110, 250])
    table["LUTDescriptor"].VR = "US"
    dataset.VOILUTSequence = [table]
    assert grey(dataset_bytes(dataset))[0, :6].tolist() == [10, 10, 60, 110, 250, 250]


def test_the_middle_frame_stands_for_a_multi_frame_image(ramp, dicom_bytes) -> None:
    frames = np.stack([ramp // 4, ramp // 2, ramp])
    levels = grey(dicom_bytes(frames, NumberOfFrames=3))
    np.testing.assert_array_equal(levels, grey(dicom_bytes(ramp // 2)))


def test_functional_groups_of_an_enhanced_image_are_read_for_the_frame_taken(
    ramp, dicom_dataset, dataset_bytes
) -> None:
    def frame_group(centre: int) -> pydicom.Dataset:
        group, voi, measures = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
        voi.WindowCenter, voi.WindowWidth = centre, 500
        measures.PixelSpacing = [0.7, 0.9]
        group.FrameVOILUTSequence, group.PixelMeasuresSequence = [voi], [measures]
        return group

    dataset = dicom_dataset(np.stack([ramp, ramp]), NumberOfFrames=2)
    dataset.PerFrameFunctionalGroupsSequence = [frame_group(3000), frame_group(1000)]
    decoded = decode_image(dataset_bytes(dataset))
    assert decoded.tags["pixel_spacing_column_mm"] == 0.9
    expected = decode_image(dataset_bytes(dicom_dataset(ramp, WindowCenter=1000, WindowWidth=500)))
    np.testing.assert_array_equal(decoded.pixels, expected.pixels)


def test_colour_images_keep_their_channels(dicom_dataset, dataset_bytes) -> None:
    rgb = np.random.default_rng(1).integers(0, 256, size=(16, 16, 3), dtype=np.uint8)
    dataset = dicom_dataset(
        np.zeros((16, 16)), SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0,
        BitsAllocated=8, BitsStored=8, HighBit=7,
    )  # fmt: skip
    dataset.add_new(0x7FE00010, "OW", rgb.tobytes())
    np.testing.assert_array_equal(decode_image(dataset_bytes(dataset)).pixels, rgb)


def test_run_length_and_deflated_files_decode_to_the_same_pixels(ramp, dicom_dataset, dataset_bytes) -> None:
    plain = decode_image(dataset_bytes(dicom_dataset(ramp)))
    for syntax in (RLELossless, DeflatedExplicitVRLittleEndian):
        dataset = dicom_dataset(ramp)
        if syntax == RLELossless:
            dataset.compress(syntax, generate_instance_uid=False)
        else:
            dataset.file_meta.TransferSyntaxUID = syntax
        decoded = decode_image(dataset_bytes(dataset))
        np.testing.assert_array_equal(decoded.pixels, plain.pixels)
        assert decoded.tags["transfer_syntax"] == syntax.name


def test_a_transfer_syntax_without_decoder_is_named(ramp, dicom_dataset, dataset_bytes) -> None:
    dataset = dicom_dataset(ramp)
    dataset.file_meta.TransferSyntaxUID = JPEGLSLossless
    dataset.PixelData = pydicom.encaps.encapsulate([dataset.PixelData])
    dataset["PixelData"].VR = "OB"
    if pydicom.pixels.get_decoder(JPEGLSLossless).is_available:
        pytest.skip("a JPEG-LS plugin is installed here")
    with pytest.raises(UnreadableImageError, match="no decoder is installed for transfer syntax JPEG-LS Lossless"):
        decode_image(dataset_bytes(dataset))


def test_an_image_above_the_side_limit_is_refused_by_its_header_alone(ramp, dicom_bytes) -> None:
    with pytest.raises(UnreadableImageError, match="9000 x 32 pixels, the longest side allowed is 8192"):
        decode_image(dicom_bytes(ramp, Columns=9000))


@pytest.mark.parametrize("rows", [0, None])
def test_an_image_without_rows_is_refused(ramp, dicom_bytes, rows: int | None) -> None:
    with pytest.raises(UnreadableImageError):
        decode_image(dicom_bytes(ramp, Rows=rows))


def test_a_file_without_pixels_is_refused_as_such(ramp, dicom_dataset, dataset_bytes) -> None:
    dataset = dicom_dataset(ramp)
    del dataset.PixelData
    with pytest.raises(UnreadableImageError, match="holds no pixel data"):
        decode_image(dataset_bytes(dataset))


def test_a_deflated_bomb_is_refused_within_bounded_memory(ramp, dicom_dataset, dataset_bytes) -> None:
    claimed = 512 * 2**20
    whole = dataset_bytes(dicom_dataset(ramp))
    meta_end = 132 + 12 + struct.unpack("<I", whole[140:144])[0]
    meta = whole[:meta_end].replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99", 1)
    # The value grew by two bytes: correct its length and its group's.
    at = meta.index(b"1.2.840.10008.1.2.1.99")
    meta = meta[: at - 2] + struct.pack("<H", 22) + meta[at:]
    meta = meta[:140] + struct.pack("<I", meta_end - 144 + 2) + meta[144:]
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = deflate.compress(struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, claimed))
    zeros = bytes(2**24)
    body += b"".join(deflate.compress(zeros) for _ in range(claimed // 2**24)) + deflate.flush()
    assert len(body) < 2**20
    tracemalloc.start()
    try:
        with pytest.raises(UnreadableImageError, match="exceeds 64 MiB when inflated"):
            decode_image(meta + body)
        assert tracemalloc.get_traced_memory()[1] < 200 * 2**20
    finally:
        tracemalloc.stop()


def test_acquisition_values_carry_their_units_and_malformed_ones_are_left_out(
    ramp, dicom_dataset, dataset_bytes
) -> None:
    dataset = dicom_dataset(
        ramp, KVP=120, PixelSpacing=[0.5, 0.6], SoftwareVersions=["a 1", " b\t2 "], Manufacturer="M" * 64,
        MagneticFieldStrength=3, AcquisitionDate="20260317",
    )  # fmt: skip
    dataset.add(pydicom.dataelem.RawDataElement(pydicom.tag.Tag(0x00180050), "DS", 4, b"thin", 0, False, True))
    decoded = decode_image(dataset_bytes(dataset))
    assert decoded.tags["kvp_kv"] == 120.0
    assert decoded.tags["magnetic_field_strength_t"] == 3.0
    assert (decoded.tags["pixel_spacing_row_mm"], decoded.tags["pixel_spacing_column_mm"]) == (0.5, 0.6)
    assert decoded.tags["software_versions"] == "a 1 / b 2"
    assert "slice_thickness_mm" not in decoded.tags
    assert decoded.acquired_at is not None
    assert (decoded.acquired_at.year, decoded.acquired_at.month, decoded.acquired_at.day) == (2026, 3, 1)
    assert (decoded.subject, decoded.sop_instance_uid) == ("P1", dataset.SOPInstanceUID)

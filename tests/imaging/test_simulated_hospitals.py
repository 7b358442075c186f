"""The three simulated hospitals: real DICOM files that make the round trip and differ as they should."""

import csv
from pathlib import Path

import numpy as np
import pydicom
import pytest

from continual.domain.errors import SettingsError
from continual.domain.samples import CleanImage
from continual.imaging import clean_images, list_dicom_folder, write_simulated_hospitals

SITES = ("northgate", "riverside", "hillcrest")
PER_SITE = 60


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hospitals")
    assert write_simulated_hospitals(folder, seed=11, per_site=PER_SITE) == folder / "labels.csv"
    return folder


@pytest.fixture(scope="module")
def cleaned(hospitals: Path) -> list[CleanImage]:
    intake = list_dicom_folder(hospitals, hospitals / "labels.csv", sites=SITES)
    assert intake.problems == ()
    assert intake.sites == SITES
    yielded = list(clean_images(intake.sources, b"key"))
    assert all(isinstance(each, CleanImage) for each in yielded)
    return [each for each in yielded if isinstance(each, CleanImage)]


def of(cleaned: list[CleanImage], site: str) -> list[CleanImage]:
    return [image for image in cleaned if image.site == site]


def test_every_file_comes_back_as_a_labelled_clean_image(cleaned: list[CleanImage]) -> None:
    assert [len(of(cleaned, site)) for site in SITES] == [PER_SITE] * 3
    assert {image.label for image in cleaned} == {"nodule", "no_finding"}
    assert {(image.width, image.height) for image in cleaned} == {(64, 64)}
    assert len({image.digest for image in cleaned}) == 3 * PER_SITE


@pytest.mark.parametrize("site", SITES)
def test_labels_are_balanced_and_subjects_have_one_or_two_images(cleaned: list[CleanImage], site: str) -> None:
    images = of(cleaned, site)
    assert 0.3 < np.mean([image.label == "nodule" for image in images]) < 0.7
    subjects = [image.subject for image in images]
    assert {subjects.count(subject) for subject in subjects} == {1, 2}
    assert 1.25 < len(subjects) / len(set(subjects)) < 1.75
    # A subject has one finding: a split by subject never tears a case.
    assert len({(image.subject, image.label) for image in images}) == len(set(subjects))


@pytest.mark.parametrize("site", SITES)
def test_mean_brightness_does_not_give_the_finding_away(cleaned: list[CleanImage], site: str) -> None:
    images = of(cleaned, site)
    means = [[i.pixel_statistics["mean"] for i in images if i.label == label] for label in ("nodule", "no_finding")]
    assert abs(np.mean(means[0]) - np.mean(means[1])) < 0.7 * np.std(means[0] + means[1])


def test_scanners_differ_in_tags_and_in_pixels(cleaned: list[CleanImage]) -> None:
    assert [of(cleaned, site)[0].tags["kvp_kv"] for site in SITES] == [120, 90, 105]
    assert [of(cleaned, site)[0].tags["photometric_interpretation"] for site in SITES] == [
        "MONOCHROME2", "MONOCHROME2", "MONOCHROME1",
    ]  # fmt: skip
    noise = [np.mean([i.pixel_statistics["noise"] for i in of(cleaned, site)]) for site in SITES]
    means = [np.mean([i.pixel_statistics["mean"] for i in of(cleaned, site)]) for site in SITES]
    assert noise[1] > 1.5 * noise[0]
    assert means[2] < means[0] < means[1]


def test_headers_name_people_and_say_simulated(hospitals: Path) -> None:
    header = pydicom.dcmread(hospitals / "hillcrest" / "IM00001.dcm", stop_before_pixels=True)
    assert header.ImageComments == "SIMULATED"
    assert header.PatientName
    assert header.PatientBirthDate
    assert (header.BitsAllocated, header.BitsStored, header.Rows, header.Columns) == (16, 12, 64, 64)


def test_the_table_names_every_file_by_its_uid(hospitals: Path) -> None:
    with (hospitals / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["sop_instance_uid", "site", "label"]
    assert len({row["sop_instance_uid"] for row in rows}) == 3 * PER_SITE


def test_equal_seeds_give_equal_files_and_other_seeds_do_not(tmp_path: Path) -> None:
    counted: list[int] = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_simulated_hospitals(tmp_path / name, seed, 4, counted.append if name == "a" else None)
    files = {
        name: [path.read_bytes() for path in sorted((tmp_path / name).rglob("*")) if path.is_file()]
        for name in ("a", "b", "c")
    }
    assert len(files["a"]) == 13
    assert files["a"] == files["b"]
    assert not set(files["a"]) & set(files["c"])
    assert counted == [1] * 12


def test_writing_again_finishes_a_broken_run_and_refuses_to_mix_two(tmp_path: Path) -> None:
    write_simulated_hospitals(tmp_path, 1, 4)
    broken = tmp_path / "northgate" / "IM00002.dcm"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:100])
    write_simulated_hospitals(tmp_path, 1, 4)
    assert broken.read_bytes() == whole
    with pytest.raises(SettingsError, match="holds 1 files that 3 images per site would not overwrite"):
        write_simulated_hospitals(tmp_path, 1, 3)


def test_each_site_may_have_a_number_of_its_own(tmp_path: Path) -> None:
    write_simulated_hospitals(tmp_path, 1, {"northgate": 3, "riverside": 1, "hillcrest": 2})
    assert [len(list((tmp_path / site).iterdir())) for site in SITES] == [3, 1, 2]
    with pytest.raises(SettingsError, match="images for northgate: give a number for each of northgate, riverside"):
        write_simulated_hospitals(tmp_path, 1, {"northgate": 3})


@pytest.mark.parametrize(("seed", "per_site"), [(0, 0), (-1, 5)])
def test_impossible_orders_are_refused(tmp_path: Path, seed: int, per_site: int) -> None:
    with pytest.raises(SettingsError, match="at least 1 image"):
        write_simulated_hospitals(tmp_path, seed, per_site)

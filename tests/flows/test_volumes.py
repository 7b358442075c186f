"""Volumes with masks through the flows' own functions: taken in once, corrected, held back, erased, let go."""

import csv
import gzip
import io
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from rich.console import Console

from continual.domain.adapters import Task
from continual.domain.errors import ArtifactError
from continual.domain.samples import Split, pseudonym
from continual.imaging import decode_volume, decode_volume_mask

SUBJECTS = ("anna", "bert", "carl")
SHAPE = (20, 24, 18)
AFFINE = np.diag([0.7, 0.7, 3.0, 1.0])


def scan(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1500, size=SHAPE).astype(np.int16)


def save(path: Path, voxels: np.ndarray, axes: str = "RAS") -> None:
    """A file whose header says more than it should, with its voxels along the axes named."""
    image = nib.Nifti1Image(voxels, AFFINE)
    image.header["descrip"] = path.name.split("-")[0].encode()
    turn = nib.orientations.ornt_transform(nib.io_orientation(AFFINE), nib.orientations.axcodes2ornt(axes))
    nib.save(image.as_reoriented(turn), path)


@pytest.fixture
def scans(desk):
    """Takes in one volume of each subject with a mask `rows` voxels high, the files stored along `axes`."""

    def take(rows=5, axes="RAS", extra=()):
        from flows.ingest import take_in
        from flows.requests import Incoming

        table = [("path", "mask", "site", "subject", "label"), *extra]
        for seed, subject in enumerate(SUBJECTS):
            mask = np.zeros(SHAPE, dtype=np.uint8)
            mask[4:9, :rows, 6:] = 1
            save(desk.folder / f"{subject}-scan.nii.gz", scan(seed), axes)
            save(desk.folder / f"{subject}-mask.nii", mask, axes)
            table.append((f"{subject}-scan.nii.gz", f"{subject}-mask.nii", "ward", subject, "ill"))
        with (desk.folder / "volumes.csv").open("w", newline="") as file:
            csv.writer(file).writerows(table)
        return take_in(desk.workspace, Incoming(str(desk.folder / "volumes.csv")), "ward", None)

    return take


def everything(workspace: str) -> bytes:
    """All that the workspace's files hold, what is gzipped inflated."""
    files = (path.read_bytes() for path in sorted(Path(workspace).rglob("*")) if path.is_file())
    return b"\n".join(gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data for data in files)


def test_volumes_are_stored_once_whatever_axes_their_files_have_and_masks_are_corrected(desk, scans):
    from flows.ingest import intake_line

    assert intake_line(scans()) == "ward: 3 new, 0 already stored, 0 quarantined"
    turned = scans(axes="LPS")
    assert (turned.new, turned.duplicates, turned.relabelled, turned.batch) == (0, 3, 0, None)
    assert scans(rows=7, axes="SAR").relabelled == 3
    with desk.registry() as registry:
        held = registry.samples.list(labelled=Task.SEGMENTATION)
        assert [sample.is_volume for sample in held] == [True] * 3
        for sample in held:
            volume = decode_volume(registry.samples.read(sample))
            mask = decode_volume_mask(registry.samples.read_mask(sample))
            assert volume.spacing_mm == sample.spacing_mm == (0.7, 0.7, 3)
            assert volume.values.shape == mask.shape == SHAPE
            assert mask.sum() == mask[4:9, :7, 6:].sum() == 5 * 7 * 12
    for name in SUBJECTS:
        assert name.encode() not in everything(desk.workspace)


def test_bad_volumes_are_held_back_and_the_good_ones_stored(desk, scans):
    save(desk.folder / "dora-scan.nii", scan(9) * 0)
    save(desk.folder / "erik-scan.nii", np.stack([scan(9)] * 5, axis=-1)[..., :2])
    whole = desk.folder / "fred-scan.nii.gz"
    save(whole, scan(10))
    whole.write_bytes(whole.read_bytes()[:-40])
    save(desk.folder / "gina-scan.nii", scan(11))
    save(desk.folder / "gina-mask.nii", scan(11)[1:] % 2)
    bad = [(f"{name}-scan.nii{gz}", "", "ward", name, "") for name, gz in (("dora", ""), ("erik", ""), ("fred", ".gz"))]
    summary = scans(extra=[*bad, ("gina-scan.nii", "gina-mask.nii", "ward", "gina", "")])
    assert (summary.new, summary.quarantined) == (3, 4)
    with desk.registry() as registry:
        reasons = {entry.position: entry.reason for entry in registry.samples.quarantine("ward")}
    for position, reason in enumerate(("is blank", "send one time point", "cut short", "resample it to its grid"), 1):
        assert reason in reasons[position]
    for name in (b"dora", b"erik", b"fred", b"gina"):
        assert name not in everything(desk.workspace)


def test_status_counts_volumes_as_samples(desk, scans):
    from flows.commands.overview import overview, show_overview
    from flows.workplace import open_workplace

    scans()
    with open_workplace(desk.workspace) as workplace:
        found = overview(workplace)
        show_overview(Console(file=io.StringIO(), width=120), found)
    row = found["sites"][0]
    assert (row["samples"], row["labelled"], row["masks"]) == (3, 3, 3)


def test_an_erased_subject_leaves_neither_volume_nor_masks(desk, scans):
    from flows.erasure import Person, erase_person
    from flows.workplace import open_workplace

    scans()
    scans(rows=7)
    with open_workplace(desk.workspace) as workplace:
        report = erase_person(workplace, Person(patient_id="anna", site="ward"), "consent withdrawn")
        left = workplace.registry.samples.list()
        assert pseudonym(workplace.key, "ward", "anna") not in {sample.subject for sample in left}
        for sample in left:
            assert decode_volume(workplace.registry.samples.read(sample)).values.shape == SHAPE
    # The two masks are the other subjects', too, and stay.
    assert (report.erased.samples, report.erased.artifacts, report.erased.masks) == (1, 1, 0)


def test_volumes_that_are_let_go_leave_their_rows_with_their_spacing(desk, scans):
    scans()
    with desk.registry() as registry:
        held = registry.samples.list()
        (entry,) = registry.images.let_go("cord", held, "test")
        assert (entry.images, entry.masks) == (3, 1)
        assert [sample.spacing_mm for sample in registry.samples.list()] == [(0.7, 0.7, 3)] * 3
        with pytest.raises(ArtifactError, match="missing"):
            registry.samples.read(held[0])


def test_every_spinal_cord_is_taken_in_with_its_grey_matter_and_no_name(desk, real_data):
    from flows.ingest import take_in
    from flows.requests import Incoming

    folder = real_data("spinal_cord")
    with (folder / "manifest.csv").open() as file:
        rows = list(csv.DictReader(file))
    with (desk.folder / "cords.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "mask", "site", "subject"))
        for row in rows:
            paths = (folder / row["id"] / name for name in ("t2star.nii.gz", "gm.nii.gz"))
            writer.writerow((*paths, row["manufacturer"], row["id"]))
    for site in sorted({row["manufacturer"] for row in rows}):
        summary = take_in(desk.workspace, Incoming(str(desk.folder / "cords.csv")), site, None)
        assert (summary.new, summary.quarantined) == (sum(row["manufacturer"] == site for row in rows), 0)
    with desk.registry() as registry:
        held = registry.samples.list(labelled=Task.SEGMENTATION)
        voxels = {int(decode_volume_mask(registry.samples.read_mask(sample)).sum()) for sample in held}
        assert voxels == {int(row["gm_vox"]) for row in rows}
        assert {sample.split for sample in held} <= set(Split)
    kept = everything(desk.workspace)
    for word in (b"sub-", b"t2star", b"phaseDir", b"FSL5", b"Philips Medical"):
        assert word not in kept

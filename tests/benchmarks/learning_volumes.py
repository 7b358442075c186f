"""Volumes by `continual backbone train` and `continual benchmark`: adrenal shapes classified, spinal cords segmented.

adrenal3d has one site. The second is SIMULATED from other subjects of it: thick slices, four averaged into one. The
millimetres are invented, as the published shapes tell none. spinal_cord has six volumes, so that what is measured on it
shows that the way works and nothing about any scanner.
"""

import csv
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
from report import Row, arguments, data_folder, publish

STRATEGIES = "naive,replay,joint"
THICKNESS = 4
LEARNT = {"adrenal3d": 0.55, "spinal_cord": 0.1}
"""Scores on the first site that a release must pass before its forgetting means anything."""
ADRENAL = ("as_published", "thick_slices")
CORD = ("siemens", "philips")
MOST = {"train": 300, "validation": 49, "test": 149}
MOST_QUICK = {"train": 48, "validation": 12, "test": 40}


def adrenal(folder: Path, most: dict[str, int]) -> Path:
    """A manifest of adrenal shapes at two sites, every subject at one of them."""
    shapes = np.load(data_folder() / "adrenal3d" / "adrenalmnist3d.npz")
    rows = []
    for split, name in (("train", "train"), ("validation", "val"), ("test", "test")):
        labels = shapes[f"{name}_labels"].ravel()
        for number, label in enumerate(labels[: 2 * most[split]]):
            values = shapes[f"{name}_images"][number].astype(np.uint8)
            spacing = (1.0, 1.0, 1.0)
            if number % 2:
                values = values.reshape(28, 28, 28 // THICKNESS, THICKNESS).mean(axis=3).round().astype(np.uint8)
                spacing = (1.0, 1.0, float(THICKNESS))
            path = folder / f"{split}-{number}.nii.gz"
            nib.save(nib.Nifti1Image(values, np.diag([*spacing, 1.0])), path)
            rows.append([path, ADRENAL[number % 2], ("normal", "hyperplasia")[label], f"{split}-{number}", split])
    return _manifest(folder, ["path", "site", "label", "subject", "split"], rows)


def cords(folder: Path) -> Path:
    """A manifest of the spinal cords by manufacturer; the last subject of either is its test, the others are learnt."""
    source = data_folder() / "spinal_cord"
    with (source / "manifest.csv").open(newline="") as table:
        found = list(csv.DictReader(table))
    rows = []
    for row in found:
        site = row["manufacturer"].lower()
        subject = row["id"].split("Ses")[0]
        last = [each["id"].split("Ses")[0] for each in found if each["manufacturer"] == row["manufacturer"]][-1]
        split = "test" if subject == last else "train"
        place = source / row["id"]
        rows.append([place / "t2star.nii.gz", site, place / "cord.nii.gz", subject, split])
    return _manifest(folder, ["path", "site", "mask", "subject", "split"], rows)


def _manifest(folder: Path, columns: list[str], rows: list[list]) -> Path:
    target = folder / "manifest.csv"
    with target.open("w", newline="") as sink:
        csv.writer(sink).writerows([columns, *rows])
    return target


def measure(folder: Path, manifest: Path, sites: tuple[str, ...], base: list[str], learning: list[str]) -> dict:
    """The benchmark's JSON, and seconds of base model and of everything after it."""
    workspace, backbone, out = folder / "workspace", folder / "base.safetensors", folder / "benchmark.json"
    command = (sys.executable, "-m", "flows.commands.command_line")
    place = ("--manifest", str(manifest), "--workspace", str(workspace))
    started = time.perf_counter()
    subprocess.run(
        [*command, "backbone", "train", *place, "--site", sites[0], "--out", str(backbone), *base], check=True
    )
    trained = time.perf_counter()
    subprocess.run(
        [*command, "benchmark", *place, "--sites", ",".join(sites), "--backbone", str(backbone), "--json", str(out)]
        + ["--strategies", STRATEGIES, "--seeds", "1", "--orders", "1", *learning],
        check=True,
    )
    seconds = {"base_model": trained - started, "streams": time.perf_counter() - trained}
    return json.loads(out.read_text()) | {"seconds": seconds}


def rows(task: str, found: dict) -> list[Row]:
    """Last rows of the result matrices, what was forgotten, and what it cost."""
    table = []
    for cell in found["cells"]:
        last = " / ".join(f"{value:.3f}" for value in cell["result_matrix"][-1])
        lost, spent = cell["scores"]["forgetting"], cell["costs"]["cpu_seconds"]
        told = f"{last}, {lost:+.3f} lost, {spent:.0f} CPU s"
        table.append(Row(f"{task}, {cell['strategy']}: last row", "-", told, None))
    first = found["cells"][0]["result_matrix"][0]
    table.append(Row(f"{task}: released on the first site", "-", " / ".join(f"{value:.3f}" for value in first), None))
    # What was never learnt cannot be forgotten.
    learnt = first[0] > LEARNT[task]
    by_name = {cell["strategy"]: cell for cell in found["cells"]}
    kept, naive = (by_name[name]["scores"]["forgetting"] for name in ("replay", "naive"))
    table.append(
        Row(f"{task}: replay forgets no more than naive", "<= naive", f"{kept:+.3f}", kept <= naive if learnt else None)
    )
    return table


def main() -> None:
    options = arguments(__doc__ or "").parse_args()
    steps = (60, 150) if options.quick else (300, 150)
    patches = (30, 12) if options.quick else (300, 80)
    table, raw = [], {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "adrenal"
        folder.mkdir()
        grid = ["--architecture", "resnet10", "--spacing", "1,1,1", "--volume-size", "28,28,28"]
        manifest = adrenal(folder, MOST_QUICK if options.quick else MOST)
        raw["adrenal"] = measure(
            folder, manifest, ADRENAL, [*grid, "--steps", str(steps[0])], ["--steps", str(steps[1])]
        )
        table += rows("adrenal3d", raw["adrenal"])
        folder = Path(name) / "cord"
        folder.mkdir()
        spacing = "1.5,1.5,4" if options.quick else "1,1,4"
        grid = ["--architecture", "unetr", "--spacing", spacing, "--volume-size", "64,64,16"]
        learning = ["--task", "segmentation", "--classes", "cord", "--steps", str(patches[1])]
        raw["cord"] = measure(folder, cords(folder), CORD, [*grid, "--steps", str(patches[0])], learning)
        table += rows("spinal_cord", raw["cord"])
    publish(table, raw, options.json)


if __name__ == "__main__":
    main()

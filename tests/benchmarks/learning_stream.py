"""`continual run` on the four white-blood-cell sites, with the naive reference beside it."""

import csv
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from report import Row, arguments, data_folder, publish, weights_file

SITES = ("barcelona", "bangkok_chula", "bccd", "tecom_jiangxi")
QUICK_PER_CELL = 16


def thin(manifest: Path, folder: Path) -> Path:
    """A manifest of the first few images of every site and class."""
    kept: Counter[tuple[str, str]] = Counter()
    target = folder / "manifest.csv"
    with manifest.open(newline="") as source, target.open("w", newline="") as sink:
        reader = csv.DictReader(source)
        writer = csv.DictWriter(sink, reader.fieldnames or [])
        writer.writeheader()
        for row in reader:
            kept[row["site"], row["label"]] += 1
            if kept[row["site"], row["label"]] <= QUICK_PER_CELL:
                writer.writerow(row | {"path": str(manifest.parent / row["path"])})
    return target


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--compare", default="naive", help="reference strategies, e.g. naive,joint")
    options = parser.parse_args()
    manifest = data_folder() / "white_blood_cells" / "manifest.csv"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = thin(manifest, folder) if options.quick else manifest
        command = [
            *(
                sys.executable,
                "-m",
                "flows.commands.command_line",
                "run",
                "--manifest",
                str(source),
                "--sites",
                ",".join(SITES),
            ),
            *("--adapter", "white-blood-cells", "--backbone", str(weights_file()), "--image-size", "126"),
            *("--workspace", str(folder / "workspace"), "--json", str(folder / "result.json")),
            *(("--steps", "40", "--lora-blocks", "2", "--margin", "-0.5", "--drop", "0.5") if options.quick else ()),
            *(("--compare", options.compare) if options.compare else ()),
        ]
        started = time.perf_counter()
        subprocess.run(command, check=True)
        wall = time.perf_counter() - started
        result = json.loads((folder / "result.json").read_text())
    publish(rows(result), {"result": result, "wall_seconds": wall, "command": command[1:]}, options.json)


def rows(result: dict) -> list[Row]:
    """What the first issue asked of the stream, beside what came out."""
    first = SITES[0]
    mean, lost = result["acc"], result["forgetting"][first]
    seconds = sum(result["seconds"].values())
    per_site = "/".join(f"{value:.2f}" for value in result["result_matrix"][-1])
    table = [
        Row("mean balanced accuracy after the last update", ">= .80", f"{mean:.3f} ({per_site})", mean >= 0.80),
        Row(f"forgetting on {first}", "<= .03", f"{lost:+.3f}", lost <= 0.03),
        Row(
            "trainable share of the backbone",
            "< 2 %",
            f"{100 * result['trainable_share']:.2f} %",
            result["trainable_share"] < 0.02,
        ),
        Row(
            "size of a version's weights",
            "< 5 MB",
            f"{result['weights_bytes'] / 1e6:.2f} MB",
            result["weights_bytes"] < 5e6,
        ),
        Row("run without references", "<= 1500 s", f"{seconds:.0f} s", seconds <= 1500),
        Row(
            "drift called on every later site",
            "3 of 3",
            f"{sum(v == 'covariate_shift' for v in result['drift'].values())} of 3",
            set(result["drift"].values()) == {"covariate_shift"} and len(result["drift"]) == 3,
        ),
    ]
    for name, reference in result.get("references", {}).items():
        matrix = reference["result_matrix"]
        measured = (
            f"{reference['acc']:.3f}, {first} {reference['forgetting'][first]:+.3f} lost, {matrix[-1][0]:.2f} left"
        )
        table.append(Row(f"reference {name}: mean", "-", measured, None))
    return table


if __name__ == "__main__":
    main()

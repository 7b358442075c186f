"""Rows of what was asked and what was measured: a table for people, JSON for machines."""

import argparse
import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. `holds` is None where nothing was asked for and the figure only stands beside another."""

    what: str
    target: str
    measured: str
    holds: bool | None


def arguments(description: str) -> argparse.ArgumentParser:
    """The options every benchmark takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, help="write rows and raw numbers here")
    parser.add_argument("--quick", action="store_true", help="the same code on less data, to see that it runs")
    return parser


def data_folder() -> Path:
    """Where the test data lies: CONTINUAL_TEST_DATA, else beside the repository."""
    return Path(os.environ.get("CONTINUAL_TEST_DATA", REPOSITORY.parent / "shared" / "data"))


def weights_file() -> Path:
    """The real backbone under the folder CONTINUAL_TEST_WEIGHTS, else beside the repository."""
    folder = Path(os.environ.get("CONTINUAL_TEST_WEIGHTS", REPOSITORY.parent / "shared" / "weights"))
    return folder / "dinov2_small" / "model.safetensors"


def publish(rows: list[Row], raw: dict[str, Any], path: Path | None) -> None:
    """Print the table and, where asked, write the JSON."""
    width = max(len(row.what) for row in rows)
    for row in rows:
        verdict = "" if row.holds is None else ("holds" if row.holds else "MISSED")
        print(f"{row.what:<{width}}  {row.target:>16}  {row.measured:>28}  {verdict}")
    machine = {"python": platform.python_version(), "processor": platform.machine(), "cores": os.cpu_count()}
    if path is not None:
        path.write_text(json.dumps({"rows": [asdict(row) for row in rows], "machine": machine, "raw": raw}, indent=2))

"""What flows are asked: plain frozen values that Prefect can store and show."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Incoming:
    """Where new files lie: a manifest (CSV), or a folder of DICOM files with its labels.csv."""

    source: str
    labels: str | None = None


@dataclass(frozen=True, slots=True)
class Release:
    """How an adapter's first version is made: its backbone and `AdapterOptions` as a record."""

    adapter: str
    backbone: str
    backbone_name: str | None
    options: dict[str, Any]

"""What an intake offers, read without Prefect, so that a faulty manifest is refused before anything starts."""

from pathlib import Path

from continual.imaging import IntakeList, list_dicom_folder, read_manifest
from flows.requests import Incoming


def read_source(incoming: Incoming, sites: list[str], known_labels: tuple[str, ...] | None = None) -> IntakeList:
    """What a manifest (CSV) or a folder of DICOM files offers; raises ManifestError when it cannot be used."""
    path = Path(incoming.source)
    if path.is_dir():
        return list_dicom_folder(path, Path(incoming.labels) if incoming.labels else None, sites)
    return read_manifest(path, sites, known_labels)

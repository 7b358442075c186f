"""Detectors, one file each; adding one means writing its file and one line in `DETECTORS`."""

from monitoring.detectors import joint, mmd, outlying, tabular
from monitoring.detectors.detector import Detector, Effort, Finding

DETECTORS: dict[str, Detector] = {
    detector.name: detector for detector in (mmd.DETECTOR, tabular.DETECTOR, outlying.DETECTOR, joint.DETECTOR)
}

__all__ = ["DETECTORS", "Detector", "Effort", "Finding"]

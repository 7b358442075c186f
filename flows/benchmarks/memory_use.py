"""Peak memory of a stretch of work, as the operating system and the GPU driver count it."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from continual.learning import gpu_peak_bytes, reset_gpu_peak

STATUS = Path("/proc/self/status")
RESET = Path("/proc/self/clear_refs")
KIBIBYTE = 1024
PEAK_RESIDENT = "5"
"""What Linux takes as: forget the peak of the resident memory (proc(5), clear_refs)."""


class PeakMemory:
    """Resident memory at its highest while it is open; None where the system does not tell. GPU memory likewise."""

    def __init__(self, device: Any) -> None:
        self._device = device
        self.memory_bytes: int | None = None
        self.gpu_memory_bytes: int | None = None

    def __enter__(self) -> "PeakMemory":
        with suppress(OSError):
            RESET.write_text(PEAK_RESIDENT)
        if self._device.type == "cuda":
            reset_gpu_peak(self._device)
        return self

    def __exit__(self, *_: object) -> None:
        self.memory_bytes = _peak_resident()
        if self._device.type == "cuda":
            self.gpu_memory_bytes = gpu_peak_bytes(self._device)


def _peak_resident() -> int | None:
    with suppress(OSError, ValueError):
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * KIBIBYTE
    return None

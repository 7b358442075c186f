"""Peak memory of a stretch of work, as the operating system and the GPU driver count it."""

import ctypes
import gc
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
    """What a stretch of work takes while it is open, in bytes.

    `memory_bytes` is the work's own: the peak of the process's resident memory less `resident_bytes`, what was held at
    the opening. Both are None where the system does not tell. `gpu_memory_bytes` is all that tensors took on the GPU at
    once, those from before with them; None without a GPU.
    """

    def __init__(self, device: Any) -> None:
        self._device = device
        self.resident_bytes: int | None = None
        self.memory_bytes: int | None = None
        self.gpu_memory_bytes: int | None = None

    def __enter__(self) -> "PeakMemory":
        _return_freed_memory()
        self.resident_bytes = _peak_resident() if _forget_peak() else None
        if self._device.type == "cuda":
            reset_gpu_peak(self._device)
        return self

    def __exit__(self, *_: object) -> None:
        peak = _peak_resident()
        if peak is not None and self.resident_bytes is not None:
            self.memory_bytes = max(peak - self.resident_bytes, 0)
        if self._device.type == "cuda":
            self.gpu_memory_bytes = gpu_peak_bytes(self._device)


def _return_freed_memory() -> None:
    """To the system: what earlier work freed would otherwise be taken again without a trace in the peak."""
    gc.collect()
    # Only glibc has it.
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def _forget_peak() -> bool:
    """Let the peak begin at what is resident now; False where the system cannot."""
    try:
        RESET.write_text(PEAK_RESIDENT)
    except OSError:
        return False
    return True


def _peak_resident() -> int | None:
    with suppress(OSError, ValueError):
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * KIBIBYTE
    return None

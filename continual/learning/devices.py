"""Where tensors live: CPU or GPU, how many threads, and mixed precision where it helps."""

from contextlib import AbstractContextManager, nullcontext

import torch

from continual.domain.errors import LearningError

_NO_MEMORY = ("out of memory", "can't allocate memory", "_STATUS_ALLOC_FAILED")


def choose_device(wanted: str) -> torch.device:
    """`auto` is the first GPU, else the CPU. Raises LearningError when the named device is not there."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise LearningError(f"{wanted!r} is no device; use auto, cpu, cuda or cuda:N") from error
    if device.type not in {"cpu", "cuda"}:
        raise LearningError(f"device {wanted!r} is not supported; use auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise LearningError(
            f"device {wanted} is not there: this machine shows {torch.cuda.device_count()} GPUs; use --device auto"
        )
    return device


def bound_threads(threads: int) -> None:
    """Bound torch's threads; 0 leaves torch's own choice, one per core."""
    if threads > 0:
        torch.set_num_threads(threads)


def mixed_precision(device: torch.device) -> AbstractContextManager[object]:
    """bfloat16 autocast on a GPU; nothing on a CPU, where it is slower without matrix units for it."""
    if device.type == "cuda":
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return nullcontext()


def reset_gpu_peak(device: torch.device) -> None:
    """Start counting a GPU's peak memory anew."""
    torch.cuda.reset_peak_memory_stats(device)


def gpu_peak_bytes(device: torch.device) -> int:
    """Most memory that tensors took on a GPU at once since the last reset, in bytes."""
    return int(torch.cuda.max_memory_allocated(device))


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch raised this for want of memory, on a GPU or, by its words alone, on the CPU or inside a library."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _NO_MEMORY)


def release_memory(device: torch.device) -> None:
    """Give a GPU's cached blocks back, so that smaller ones can be cut from them."""
    if device.type == "cuda":
        torch.cuda.empty_cache()

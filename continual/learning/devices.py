"""Where tensors live: CPU or GPU, how many threads, and mixed precision where it helps."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

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


@contextmanager
def full_precision() -> Iterator[None]:
    """32-bit convolutions as on a CPU: a GPU's round their factors to 10 bits (TF32) unless told."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def reset_gpu_peak(device: torch.device) -> None:
    """Start counting a GPU's peak memory anew."""
    torch.cuda.reset_peak_memory_stats(device)


def gpu_peak_bytes(device: torch.device) -> int:
    """Most memory that tensors took on a GPU at once since the last reset, in bytes."""
    return int(torch.cuda.max_memory_allocated(device))


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch raised this for want of memory, on a GPU or, by its words alone, on the CPU or inside a library."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _NO_MEMORY)


def no_room(tokens: int, device: torch.device, tried: str) -> LearningError:
    """What is raised where not even one image fits; `tried` says in what way it was the only one."""
    return LearningError(
        f"one image of {tokens} tokens does not fit into the memory of {device}, {tried}; free memory there, or "
        "release with a smaller --image-size (masks: --tile, volumes: --volume-size) or fewer --lora-blocks"
    )


def release_memory(device: torch.device) -> None:
    """Give a GPU's cached blocks back, so that smaller ones can be cut from them."""
    if device.type == "cuda":
        torch.cuda.empty_cache()

"""What a training run ran on: library versions and hardware, for the version's record."""

import platform
from importlib.metadata import version

import torch

RECORDED_LIBRARIES = ("torch", "timm", "peft", "avalanche-lib", "numpy", "continual-imaging")


def training_environment(device: torch.device) -> dict[str, str]:
    """Library versions, Python, processor and device as plain strings; no host name."""
    versions = {name: version(name) for name in RECORDED_LIBRARIES}
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        **versions,
        "python": platform.python_version(),
        "device": str(device),
        "hardware": hardware,
        "threads": str(torch.get_num_threads()),
    }

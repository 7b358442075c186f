"""An update's training state on disk: all that its next step depends on, written whole or not at all.

One file per update, safetensors with JSON in its header: no pickle. A file that does not fit is passed over with a word
on why. Knows tensors, the optimizer and files; knows nothing of strategies, of data or of who asked.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor, nn

from continual.domain.digests import canonical_json
from continual.learning.whole_files import write_whole

FORMAT = 3
HEADER = "continual_training_state"
CHECK = "sha256"
EVERY_SECONDS = 15.0
"""A write takes some 30 ms, so it costs 0.2 % of the time at this pace, and a kill loses a quarter of a minute."""


def _silent(_message: str) -> None:
    """Nobody listens."""


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """Where an update's training state is kept; None keeps none. A state is written after the last step, and after a
    step that ends `every_seconds` or more after the last write; 0 writes after each. `say` hears what a person should.
    """

    path: Path | None = None
    every_seconds: float = EVERY_SECONDS
    say: Callable[[str], None] = _silent


@dataclass(frozen=True, slots=True, eq=False)
class Moving:
    """What training moves: weights by name, the AdamW that holds some of them, its rate course."""

    weights: Mapping[str, nn.Parameter]
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    device: torch.device


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds on the wall and of the processors, all threads together, that a training took."""

    wall: float
    cpu: float


@dataclass(frozen=True, slots=True, eq=False)
class TrainingState:
    """All that the step after `step` steps depends on, besides the update's own inputs.

    `spent` went into those steps, `accumulate` is the number of micro-batches in force, `course` holds rates and
    momenta as plain JSON, `tensors` weights, optimizer state and torch's generators, on the CPU. Numpy's generators are
    made from the seed and used up before the first step.
    """

    step: int
    spent: Spent
    accumulate: int
    course: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


def capture(moving: Moving, step: int, spent: Spent, accumulate: int) -> TrainingState:
    """The state as it is now, between two steps."""
    names = {id(weight): name for name, weight in moving.weights.items()}
    tensors = {f"weight/{name}": weight.detach() for name, weight in moving.weights.items()}
    for weight, kept in moving.optimizer.state.items():
        tensors |= {f"optimizer/{names[id(weight)]}/{key}": value for key, value in kept.items()}
    tensors["chance/cpu"] = torch.get_rng_state()
    if moving.device.type == "cuda":
        tensors["chance/cuda"] = torch.cuda.get_rng_state(moving.device)
    course = {
        "groups": [{"lr": group["lr"], "betas": list(group["betas"])} for group in moving.optimizer.param_groups],
        "schedule": {key: moving.schedule.state_dict()[key] for key in ("last_epoch", "_step_count", "_last_lr")},
    }
    held = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    return TrainingState(step, spent, accumulate, course, held)


def restore(state: TrainingState, moving: Moving) -> None:
    """Put weights, optimizer and rates back; the generators wait for `restore_chance`."""
    with torch.no_grad():
        for name, weight in moving.weights.items():
            weight.copy_(state.tensors[f"weight/{name}"])
    names = {id(weight): name for name, weight in moving.weights.items()}
    packed = moving.optimizer.state_dict()
    packed["state"] = {}
    held = [weight for group in moving.optimizer.param_groups for weight in group["params"]]
    for position, weight in enumerate(held):
        prefix = f"optimizer/{names[id(weight)]}/"
        kept = {key.removeprefix(prefix): value for key, value in state.tensors.items() if key.startswith(prefix)}
        # A weight that sleeps until later has no optimizer state yet.
        if kept:
            packed["state"][position] = kept
    for group, was in zip(packed["param_groups"], state.course["groups"], strict=True):
        group |= {"lr": was["lr"], "betas": tuple(was["betas"])}
    moving.optimizer.load_state_dict(packed)
    moving.schedule.load_state_dict(dict(state.course["schedule"]))


def restore_chance(state: TrainingState, device: torch.device) -> None:
    """Put torch's generators back where the state found them."""
    torch.set_rng_state(state.tensors["chance/cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state.tensors["chance/cuda"], device)


class StateKeeper:
    """Reads and writes the state of one run of one update; holds when it last wrote and what went before.

    `update` is a digest of everything that decides the update's result: a state under another one is never loaded.
    """

    def __init__(self, checkpoints: Checkpoints, update: str) -> None:
        self.say = checkpoints.say
        self._path = checkpoints.path
        self._every_seconds = checkpoints.every_seconds
        self._update = update
        self._started = self._written = time.perf_counter()
        self._started_cpu = time.process_time()
        self._earlier = Spent(0.0, 0.0)
        self._failed = False

    @property
    def spent(self) -> Spent:
        """What this update took so far, what an earlier run of it kept included."""
        wall, cpu = time.perf_counter() - self._started, time.process_time() - self._started_cpu
        return Spent(self._earlier.wall + wall, self._earlier.cpu + cpu)

    def read(self) -> TrainingState | None:
        """The state that an earlier run left, or None; a file that does not fit is said and passed over."""
        if self._path is None or not self._path.exists():
            return None
        try:
            state = _unpacked(self._path, self._update)
        except (OSError, SafetensorError, ValueError) as error:
            self.say(f"the kept training state is not used, training starts anew: {str(error)[:200]}")
            return None
        self._earlier = state.spent
        return state

    def due(self) -> bool:
        """Whether enough time has passed since the last write; never where no state is kept."""
        return self._path is not None and time.perf_counter() - self._written >= self._every_seconds

    def write(self, state: TrainingState) -> None:
        """Replace what is kept. Training does not end because a disk is full: that is said once."""
        if self._path is None:
            return
        try:
            write_whole(self._path, _packed(state, self._update), flushed=True)
        except OSError as error:
            if not self._failed:
                self.say(f"the training state cannot be kept ({error.strerror}): a kill now would lose the steps done")
            self._failed = True
        self._written = time.perf_counter()


def digest_of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _packed(state: TrainingState, update: str) -> bytes:
    header = {
        "format": FORMAT,
        "update": update,
        "step": state.step,
        "spent": asdict(state.spent),
        "accumulate": state.accumulate,
        "course": state.course,
        "tensors": digest_of_tensors(state.tensors),
    }
    text = canonical_json(header)
    # The header tells what the tensors are, the second entry what the header is: one flipped bit anywhere is found.
    check = hashlib.sha256(text.encode()).hexdigest()
    packed: bytes = save(dict(state.tensors), metadata={HEADER: text, CHECK: check})
    return packed


def _unpacked(path: Path, update: str) -> TrainingState:
    """Raises ValueError, OSError or SafetensorError when the file does not fit."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    text = metadata.get(HEADER, "")
    if hashlib.sha256(text.encode()).hexdigest() != metadata.get(CHECK):
        raise ValueError("its header is damaged")
    header = json.loads(text)
    if header["format"] != FORMAT:
        raise ValueError(f"its format is {header['format']}, this release reads {FORMAT}")
    if header["update"] != update:
        raise ValueError("it belongs to another update: samples, options, champion or machine differ")
    tensors = load(path.read_bytes())
    if digest_of_tensors(tensors) != header["tensors"]:
        raise ValueError("its tensors are damaged")
    return TrainingState(header["step"], Spent(**header["spent"]), header["accumulate"], header["course"], tensors)

"""A kept training state: when it is written, what does not fit, and a disk that refuses it.

That an update cut off anywhere ends with the same weights is checked for every strategy in `tests/conformance`.
"""

from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from continual.domain.samples import Split
from continual.learning import Checkpoints, UpdateRequest, forget_training_state, learn
from continual.learning.training_state import Spent, StateKeeper, TrainingState

STEPS = 4


class _PowerCutError(Exception):
    """Ends an update from inside, between two steps."""


class _Run:
    """One small update with its state in a file; writes down what is said and how it moves on."""

    def __init__(self, toy, path):
        self.toy, self.path = toy, path
        self.said, self.told = [], []

    def __call__(self, *, cut=0, every_seconds=0.0, samples=None, **changed):
        """The network after the update; `cut` ends it after so many steps."""
        network = self.toy.fresh()
        self.said.clear()
        self.told.clear()

        def progress(steps):
            self.told.append(steps)
            if cut and sum(self.told) == cut:
                raise _PowerCutError

        request = UpdateRequest("naive", samples or self.toy.samples["north", Split.TRAIN])
        options = replace(self.toy.options, steps=STEPS, **changed)
        learn(
            network, self.toy.cache, request, options, progress, Checkpoints(self.path, every_seconds, self.said.append)
        )
        return network

    def cut_off(self, step=2, **changed):
        with pytest.raises(_PowerCutError):
            self(cut=step, **changed)

    def anew(self, network):
        """Whether the last run began with the first step, said so once, and ended as if no state had been there."""
        plain = _Run(self.toy, None)()
        started = self.told == [1] * STEPS and len(self.said) == 1
        same = all(torch.equal(value, plain.state_dict()[name]) for name, value in network.state_dict().items())
        return started and same and self.said[0].startswith("the kept training state is not used, training starts anew")


@pytest.fixture
def run(toy, tmp_path):
    return _Run(toy, tmp_path / "training" / "state.safetensors")


def test_a_run_that_is_not_cut_off_writes_its_last_state_and_none_before_its_time(run):
    with pytest.raises(_PowerCutError):
        run(cut=STEPS - 1, every_seconds=3600.0)
    assert not run.path.exists()
    run(every_seconds=3600.0)
    assert run.said == []
    again = run(every_seconds=3600.0)
    assert run.told == [STEPS]
    assert run.said == [f"training goes on from step {STEPS} of {STEPS}"]
    plain = _Run(run.toy, None)()
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in again.state_dict().items())


def test_seconds_of_a_run_that_was_cut_off_are_not_forgotten(toy, tmp_path):
    path = tmp_path / "state"
    keeper = StateKeeper(Checkpoints(path), "one")
    keeper.write(TrainingState(3, Spent(1000.0, 3000.0), 1, {}, {"weight/a": torch.zeros(1)}))
    later = StateKeeper(Checkpoints(path), "one")
    assert later.spent.wall < 1000
    later.read()
    assert 1000 <= later.spent.wall < 1100
    assert 3000 <= later.spent.cpu < 3100


@pytest.mark.parametrize("changed", [{"seed": 2}, {"lora_rate": 1e-4}, {"accumulate": 2}, {"batch_size": 8}])
def test_the_state_of_other_options_is_passed_over(run, changed):
    run.cut_off(**changed)
    assert run.anew(run())
    assert "belongs to another update" in run.said[0]


def test_the_state_of_other_samples_or_of_another_order_of_them_is_passed_over(run, toy):
    samples = toy.samples["north", Split.TRAIN]
    for others in (samples[:-1], samples[::-1], (replace(samples[0], label="bright"), *samples[1:])):
        run.cut_off(samples=others)
        assert run.anew(run())


@pytest.mark.parametrize("kept", [0, 7, 500, -100, -1])
def test_a_state_that_was_cut_short_is_passed_over(run, kept):
    run.cut_off()
    run.path.write_bytes(run.path.read_bytes()[:kept])
    assert run.anew(run())


def test_a_state_that_is_no_such_file_is_passed_over(run):
    run.path.mkdir(parents=True)
    network = run()
    assert run.said[0].startswith("the kept training state is not used")
    assert run.said[1:] == ["the training state cannot be kept (Is a directory): a kill now would lose the steps done"]
    assert all(torch.isfinite(weight).all() for weight in network.trainable().values())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_one_flipped_bit_anywhere_is_found(tmp_path, data):
    path = tmp_path / "state"
    state = TrainingState(
        3, Spent(1.5, 2.5), 2, {"lr": 1e-3}, {"weight/a": torch.arange(3.0), "chance/cpu": torch.zeros(5).byte()}
    )
    StateKeeper(Checkpoints(path), "one").write(state)
    whole = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(whole)
    said = []
    assert StateKeeper(Checkpoints(path, say=said.append), "one").read() is None
    assert len(said) == 1


def test_a_state_of_a_format_to_come_is_passed_over(tmp_path, monkeypatch):
    path, said = tmp_path / "state", []
    with monkeypatch.context() as patch:
        patch.setattr("continual.learning.training_state.FORMAT", 4)
        StateKeeper(Checkpoints(path), "one").write(
            TrainingState(1, Spent(1.0, 1.0), 1, {}, {"weight/a": torch.zeros(1)})
        )
    assert StateKeeper(Checkpoints(path, say=said.append), "one").read() is None
    assert "its format is 4, this release reads 3" in said[0]


def test_a_disk_that_refuses_the_state_is_said_once_and_does_not_end_the_training(run, tmp_path):
    (tmp_path / "training").write_text("a file where the folder would be")
    network = run()
    assert run.told == [1] * STEPS
    assert run.said == ["the training state cannot be kept (File exists): a kill now would lose the steps done"]
    assert network.head.weight.abs().sum() > 0


def test_forgetting_a_state_takes_what_killed_writers_left_and_no_other_updates_state(run):
    run.cut_off()
    draft, other = (run.path.with_name(name) for name in ("state.abc.part", "other.safetensors"))
    draft.touch()
    other.touch()
    assert forget_training_state(run.path) == 2
    assert forget_training_state(run.path) == 0
    assert [path.name for path in run.path.parent.iterdir()] == ["other.safetensors"]

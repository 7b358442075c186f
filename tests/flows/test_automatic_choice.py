"""`auto` on real small streams: which candidate is kept, what the record holds, and what may follow a closed form."""

import json

import pytest
from rich.console import Console

from continual.domain.errors import StreamError

SHIFTED = tuple(f"t{number}" for number in range(40))
THIRD = tuple(f"u{number}" for number in range(40))


def versions(desk):
    with desk.registry() as registry:
        return registry.adapters.list("cells")


def champion(desk):
    with desk.registry() as registry:
        return registry.adapters.current("cells")


def second_site(desk):
    desk.take_in(desk.cells("second", SHIFTED, seed=2), "second", "cells")


@pytest.fixture(scope="module")
def allowing(stream, libraries, tmp_path_factory):
    """Makes a desk whose change plan allows the strategies named, with a second, shifted site taken in."""

    def make(*strategies):
        desk = stream.Desk(tmp_path_factory.mktemp("desk"))
        desk.take_in(desk.cells("first"), "first")
        assert desk.release(strategies=strategies) == "accepted"
        second_site(desk)
        return desk

    return make


@pytest.fixture(scope="module")
def closed_wins(allowing):
    """Random projection tells the cells apart as well as a LoRA update of many steps, for less."""
    desk = allowing("replay_ewc", "random_projection")
    return desk, desk.learn("second", strategy="auto")


def test_the_cheaper_closed_form_is_registered_when_it_is_not_worse(closed_wins):
    desk, outcome = closed_wins
    assert outcome == "version 2 accepted"
    version = champion(desk)
    assert (version.number, version.strategy) == (2, "random_projection")
    assert version.record["network"]["kind"] == "closed_form"
    assert "adapter_model.safetensors" not in version.files
    assert set(version.metrics) == {"first", "second"}

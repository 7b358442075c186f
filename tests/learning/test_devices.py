"""Devices, threads and the record of what a run ran on."""

import socket
from contextlib import nullcontext

import pytest
import torch

from continual.domain.errors import LearningError
from continual.learning import bound_threads, choose_device, training_environment
from continual.learning.devices import mixed_precision


def test_auto_takes_a_gpu_where_there_is_one_and_the_cpu_elsewhere():
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert choose_device("cpu") == torch.device("cpu")


def test_a_gpu_that_is_not_there_is_an_error_that_counts_those_that_are():
    absent = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(LearningError, match=f"device {absent} is not there: .* {torch.cuda.device_count()} GPUs"):
        choose_device(absent)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_cuda_without_a_gpu_is_an_error():
    with pytest.raises(LearningError, match="device cuda is not there"):
        choose_device("cuda")


@pytest.mark.parametrize("wanted", ["", "gpu", "cuda:x", "cpu0", "meta", "mps"])
def test_a_word_that_names_no_device_we_run_on_is_an_error(wanted):
    with pytest.raises(LearningError, match="use auto, cpu, cuda or cuda:N"):
        choose_device(wanted)


def test_threads_are_bounded_only_when_asked():
    before = torch.get_num_threads()
    try:
        bound_threads(2)
        assert torch.get_num_threads() == 2
        bound_threads(0)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_cpu_trains_in_full_precision():
    assert isinstance(mixed_precision(torch.device("cpu")), nullcontext)


def test_the_environments_record_names_versions_and_hardware_and_no_host():
    record = training_environment(torch.device("cpu"))
    assert torch.__version__.startswith(record["torch"])
    assert record["device"] == "cpu"
    assert record["threads"] == str(torch.get_num_threads())
    assert {"timm", "peft", "avalanche-lib", "numpy", "python", "hardware"} <= set(record)
    assert socket.gethostname() not in record.values()

"""What a cell of `continual benchmark` costs: its own weights, memory, time and stored bytes, whatever ran before."""

import json

import pytest

MEBIBYTE = 2**20


@pytest.fixture
def bench(make_bench):
    """A benchmark of few images and steps."""
    return make_bench(20, 2, ("naive",))


def _costs(found, key):
    return {cell["strategy"]: cell["costs"][key] for cell in found["cells"]}


def test_only_weights_that_a_tuning_mode_ever_opens_count_as_trainable(bench):
    counts = _costs(bench(strategies=("replay", "linear_probe", "gradual_unfreezing")), "trainable_parameters")
    # The head sees the class token and the mean patch, 48 features each, and tells two classes apart.
    assert 0 < counts["linear_probe"] < 1000 < counts["replay"] == counts["gradual_unfreezing"]


def test_what_has_to_be_kept_of_the_past_is_counted_for_every_strategy_that_keeps_it(bench):
    found = bench(strategies=("naive", "lwf", "replay", "ewc", "joint"))
    kept = _costs(found, "replay_bytes")
    assert kept["naive"] == kept["lwf"] == 0
    assert 0 < kept["ewc"] == kept["replay"] < kept["joint"]
    from continual.domain.samples import Split
    from flows.workplace import open_workplace

    with open_workplace(bench.workspace) as workplace:
        samples = workplace.registry.samples
        past = [sample for site in ("first", "second") for sample in samples.list(site, Split.TRAIN)]
        assert kept["joint"] == sum(samples.sizes(past).values())


def test_the_clock_runs_while_importance_is_measured_and_while_the_candidate_is_drawn_back(bench, monkeypatch):
    from flows.benchmarks import stream_runs

    told = []

    class ToldPace(stream_runs.Pace):
        def __enter__(self):
            told.append("from")
            return super().__enter__()

        def __exit__(self, *error):
            told.append("to")
            super().__exit__(*error)

    def telling(name):
        real = getattr(stream_runs, name)

        def tell(*arguments):
            told.append(name)
            return real(*arguments)

        monkeypatch.setattr(stream_runs, name, tell)

    monkeypatch.setattr(stream_runs, "Pace", ToldPace)
    for name in ("importance_of", "learn", "stay_near"):
        telling(name)
    bench(strategies=("ewc",))
    release = ["from", "learn", "to"]
    assert told == [*release, "from", "importance_of", "learn", "stay_near", "to"]


def test_the_release_and_the_activations_are_no_cells_memory(bench, monkeypatch):
    from flows.benchmarks import benchmark, memory_use

    if not memory_use.RESET.exists():
        pytest.skip("this system does not tell a peak")
    told = []

    class ToldPeak(memory_use.PeakMemory):
        def __enter__(self):
            told.append("cell")
            return super().__enter__()

    real_release, real_fill = benchmark.release_network, benchmark.fill_stream

    def release(*arguments):
        told.append("release")
        return real_release(*arguments)

    def fill(*arguments):
        told.append("activations")
        real_fill(*arguments)

    monkeypatch.setattr(benchmark, "PeakMemory", ToldPeak)
    monkeypatch.setattr(benchmark, "release_network", release)
    monkeypatch.setattr(benchmark, "fill_stream", fill)
    found = bench(strategies=("nearest_mean", "naive"))
    assert told == ["activations", "release", "cell", "cell"]
    # torch alone holds more than that.
    assert max(_costs(found, "peak_memory_bytes").values()) < 100 * MEBIBYTE
    assert min(_costs(found, "resident_memory_bytes").values()) > 100 * MEBIBYTE


def test_every_activation_that_a_cell_reads_is_computed_before_its_clock_and_its_memory(bench, monkeypatch):
    from continual.learning import ActivationCache
    from flows.benchmarks import benchmark

    computed, inside = [], []
    real = ActivationCache._compute

    class ToldPeak(benchmark.PeakMemory):
        def __enter__(self):
            inside.append(True)
            return super().__enter__()

        def __exit__(self, *error):
            inside.pop()
            super().__exit__(*error)

    def compute(*arguments):
        computed.append(bool(inside))
        return real(*arguments)

    monkeypatch.setattr(benchmark, "PeakMemory", ToldPeak)
    monkeypatch.setattr(ActivationCache, "_compute", compute)
    bench(strategies=("nearest_mean", "replay_ewc", "joint"))
    assert computed
    assert not any(computed)


def test_a_peak_is_the_works_own_whatever_was_held_or_freed_before(libraries):
    import numpy as np
    import torch

    from flows.benchmarks.memory_use import PeakMemory

    def used(mebibytes):
        with PeakMemory(torch.device("cpu")) as peak:
            np.ones(mebibytes * MEBIBYTE // 8)
        return peak

    held = np.ones(200 * MEBIBYTE // 8)
    first = used(60)
    if first.memory_bytes is None:
        pytest.skip("this system does not tell a peak")
    assert first.resident_bytes > held.nbytes
    del held
    # Small pieces, which a C library keeps for the next taker when they are freed.
    pieces = [bytes(64 * 1024) for _ in range(1600)]
    pieces.clear()
    for peak, taken in ((first, 60), (used(60), 60), (used(0), 0)):
        assert taken * MEBIBYTE <= peak.memory_bytes + MEBIBYTE < (taken + 20) * MEBIBYTE


def test_a_system_that_cannot_forget_its_peak_tells_none(libraries, tmp_path, monkeypatch):
    import torch

    from flows.benchmarks import memory_use

    monkeypatch.setattr(memory_use, "RESET", tmp_path / "nowhere" / "clear_refs")
    with memory_use.PeakMemory(torch.device("cpu")) as peak:
        pass
    assert (peak.memory_bytes, peak.resident_bytes, peak.gpu_memory_bytes) == (None, None, None)


def test_the_peaks_of_a_file_from_before_are_not_mixed_with_new_ones(bench):
    begun = bench(strategies=("naive",))
    costs = begun["cells"][0]["costs"]
    del costs["resident_memory_bytes"]
    costs["peak_memory_bytes"] = 2**40
    bench.out.write_text(json.dumps(begun))
    grown = bench(strategies=("naive", "nearest_mean"))
    peaks = {row["strategy"]: row["peak_memory_bytes"] for row in grown["summary"]}
    assert peaks["naive"] is None
    assert _costs(grown, "seconds")["naive"] == costs["seconds"]

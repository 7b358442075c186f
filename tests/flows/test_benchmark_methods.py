"""`continual benchmark` over PEFT methods and with the whole backbone: keys, costs, old files and refusals."""

import json

import pytest

from continual.domain.errors import LearningError, SettingsError


@pytest.fixture
def bench(make_bench):
    """A benchmark of few steps."""
    return make_bench(12, 6, ("naive",))


def _kinds(found):
    return [(cell["strategy"], cell["method"], cell["rank"]) for cell in found["cells"]]


def test_methods_and_ranks_are_swept_together_and_a_method_without_a_rank_is_run_once(bench):
    found = bench(strategies=("naive", "nearest_mean"), methods=("lora", "ia3"), ranks=(4, 2))
    assert _kinds(found) == [
        ("naive", "lora", 4),
        ("nearest_mean", "", 0),
        ("naive", "lora", 2),
        ("naive", "ia3", 0),
    ]
    trainable = [cell["costs"]["trainable_parameters"] for cell in found["cells"]]
    assert trainable[0] > trainable[2] > trainable[3] > trainable[1] == 0
    assert {(row["strategy"], row["method"], row["rank"]) for row in found["summary"]} == set(_kinds(found))


def test_a_file_from_before_there_were_methods_goes_on_and_its_cells_count_as_lora(bench):
    first = bench(strategies=("naive", "nearest_mean"))
    old = json.loads(bench.out.read_text())
    for entry in (*old["cells"], *old["summary"]):
        del entry["method"]
    bench.out.write_text(json.dumps(old))
    grown = bench(strategies=("naive", "nearest_mean"), methods=("lora", "rslora"))
    assert grown["cells"][:2] == first["cells"]
    assert _kinds(grown) == [("naive", "lora", 4), ("nearest_mean", "", 0), ("naive", "rslora", 4)]


def test_full_tunes_the_whole_backbone_once_whatever_is_swept_and_registers_nothing(bench):
    from continual.learning import build_network, resolve_backbone
    from registry import open_registry

    found = bench(strategies=("full", "naive"), ranks=(4, 2))
    assert _kinds(found) == [("naive", "lora", 4), ("naive", "lora", 2), ("full", "full", 0)]
    full = found["cells"][-1]
    backbone = build_network(resolve_backbone(str(bench.out.parent / "backbone.safetensors")))
    whole = sum(weight.numel() for weight in backbone.parameters())
    assert full["costs"]["trainable_parameters"] == whole + 2 * (2 * backbone.embed_dim) + 2
    assert full["costs"]["replay_bytes"] == 0
    assert [len(row) for row in full["result_matrix"]] == [2, 2]
    registry = open_registry(f"sqlite:///{bench.workspace}/registry.db", f"{bench.workspace}/artifacts")
    try:
        assert list(registry.adapters.names()) == []
    finally:
        registry.close()
    assert bench(strategies=("full", "naive"), ranks=(4, 2))["cells"] == found["cells"]


def test_what_a_method_cannot_be_is_refused_before_the_intake(bench, tmp_path):
    with pytest.raises(LearningError, match="no PEFT method 'pissa'; choose one of lora, dora"):
        bench(methods=("lora", "pissa"))
    with pytest.raises(LearningError, match="OFT turns blocks of 5 inputs; choose a rank above 1 that divides 48"):
        bench(methods=("lora", "oft"), ranks=(4, 5))
    with pytest.raises(SettingsError, match="0 PEFT methods: give at least"):
        bench(methods=())
    assert not (tmp_path / "workspace").exists()


def _row(strategy, method, rank):
    return {"strategy": strategy, "method": method, "rank": rank}


def test_titles_name_the_method_unless_all_were_tuned_by_lora():
    from flows.benchmarks.benchmark_page import title_of

    one = [_row("naive", "lora", 4), _row("nearest_mean", "", 0), _row("full", "full", 0)]
    assert [title_of(row, one) for row in one] == ["naive, rank 4", "nearest_mean", "full"]
    other = [_row("naive", "dora", 8), _row("nearest_mean", "", 0), _row("full", "full", 0)]
    assert [title_of(row, other) for row in other] == ["naive, dora, rank 8", "nearest_mean", "full"]
    more = [*one, _row("naive", "ia3", 0), _row("ewc", "dora", 8)]
    assert [title_of(row, more, " r") for row in more] == [
        "naive, lora r4",
        "nearest_mean",
        "full",
        "naive, ia3",
        "ewc, dora r8",
    ]


def test_page_and_table_show_every_method(bench, tmp_path):
    from rich.console import Console

    from flows.benchmarks.benchmark_page import write_page
    from flows.commands.benchmark_table import show_benchmark

    found = bench(methods=("lora", "ia3"))
    write_page(tmp_path / "page.html", found)
    text = (tmp_path / "page.html").read_text()
    assert text.count("<svg") == 2
    for title in ("naive, lora, rank 4", "naive, ia3"):
        assert f"<h2>{title}</h2>" in text
        assert f"<td>{title}</td>" in text
    console = Console(record=True, width=160)
    show_benchmark(console, found)
    shown = console.export_text()
    assert "naive, lora r4" in shown
    assert "naive, ia3" in shown


def test_tables_fit_a_terminal_of_80_with_every_figure_whole():
    from rich.console import Console

    from flows.benchmarks.benchmark_page import SHOWN, spelt
    from flows.commands.benchmark_table import show_benchmark

    # Long names, negative scores, a large backbone, hours and a GPU's worth of memory.
    low, high = {"mean": -0.123, "spread": 0.045}, {"mean": 123456.7, "spread": 2345.6}
    figures = {key: high if factor != 1 or key.endswith("seconds") else low for key, _, factor in SHOWN}
    figures |= {key: {"mean": 43210.9 / factor, "spread": 123.4 / factor} for key, _, factor in SHOWN if factor != 1}
    kinds = (("gradual_unfreezing", "orthogonal", 32), ("random_projection", "", 0), ("naive", "lora", 8))
    rows = [_row(*kind) | {"runs": 120, **figures} for kind in kinds]
    console = Console(record=True, width=80)
    show_benchmark(console, {"summary": rows})
    shown = console.export_text()
    assert max(len(line) for line in shown.splitlines()) <= 80
    assert "…" not in shown
    for key, heading, factor in SHOWN:
        assert shown.count(spelt(figures[key], factor).replace(" ", "")) >= len(rows)
        assert all(word in shown for word in heading.split(", "))
    assert "runs" in shown
    assert "120" in shown
    for word in ("gradual_unfreezing", "orthogonal", "r32", "random_projection", "naive"):
        assert word in shown

"""A label that no site had: held back by default; allowed, it grows the head of the next version."""

import pytest

from continual.domain.adapters import AdapterState

GREEN = (60.0, 150.0, 70.0)
SUBJECTS = tuple(f"g{number}" for number in range(40))


@pytest.fixture
def three_colours(stream, monkeypatch):
    """Cells come in a third colour from here on."""
    monkeypatch.setitem(stream.COLOURS, "green", GREEN)


def test_a_new_label_is_not_learnt_and_the_remedy_said_until_new_classes_are_allowed(released, three_colours):
    rows = released.cells("second", SUBJECTS, seed=2)
    assert {row.label for row in rows} == {"blue", "green", "red"}
    green = sum(row.label == "green" for row in rows)
    assert released.take_in(rows, "second", "cells").quarantined == green
    assert released.take_in(rows, "second", "cells", new_classes=True).new == green
    said = released.learn("second")
    assert said.startswith("not learnt: labels ['green'] are not among the adapter's classes ['blue', 'red']; correct")
    assert said.endswith("--new-classes")
    with released.registry() as registry:
        assert [update.outcome for update in registry.updates.list("cells")] == ["accepted"]


def test_an_allowed_new_label_grows_the_head_and_the_next_version_knows_it(released, three_colours):
    released.take_in(released.cells("second", SUBJECTS, seed=2), "second", "cells", new_classes=True)
    assert released.learn("second", new_classes=True).startswith("version 2 ")
    with released.registry() as registry:
        first, second = registry.adapters.list("cells")
    assert first.classes == ("blue", "red")
    assert second.classes == ("blue", "red", "green")
    assert second.state is AdapterState.ACCEPTED
    assert second.record["options"]["plan"]["new_classes"] is True
    assert second.record["network"]["temperature"] != 1.0
    assert set(second.record["scores"]) == {"first", "second"}
    # The champion could answer none of the green cells.
    finding = next(finding for finding in second.gate.findings if finding.site == "second")
    assert finding.champion <= 0.67 < finding.candidate

    from flows.benchmarks.results import reference_result, stream_result
    from flows.updates.adapter_context import context_of
    from flows.workplace import open_workplace

    with open_workplace(released.workspace) as workplace:
        context = context_of(workplace, "cells")
        result = stream_result(context, ["first", "second"])
        twin = reference_result(context, "replay_ewc", ["first", "second"])
    assert len(result["result_matrix"]) == len(twin["result_matrix"]) == 2
    assert twin["result_matrix"][1][1] > twin["result_matrix"][0][1]


def test_a_new_class_at_a_known_site_is_learnt_without_any_drift(released, three_colours):
    rows = released.cells("first", tuple(f"h{number}" for number in range(60)), seed=5)
    released.take_in(rows, "first", "cells", new_classes=True)
    assert released.learn("first", new_classes=True).startswith("version 2 ")
    with released.registry() as registry:
        assert registry.adapters.get("cells", 2).classes == ("blue", "red", "green")


def test_in_a_benchmark_the_release_knows_the_first_sites_classes_and_the_head_grows(
    make_bench, desk, stream, monkeypatch
):
    from flows.benchmarks import benchmark

    run = make_bench(20, 4, ("replay_lwf",))
    monkeypatch.setitem(stream.COLOURS, "green", GREEN)
    names = tuple(f"t{number}" for number in range(20))
    rows = [row for row in desk.cells("first", names, seed=1) if row.label != "green"]
    stream.write_manifest(desk.folder / "manifest.csv", [*rows, *desk.cells("second", names, seed=2)])
    heads, learn_first = [], benchmark.release_network
    monkeypatch.setattr(
        benchmark,
        "release_network",
        lambda context, site, classes, strategy: (
            heads.append(tuple(classes)) or learn_first(context, site, classes, strategy)
        ),
    )
    found = run()
    assert heads == [("blue", "red")]
    assert len(found["cells"][0]["result_matrix"]) == 2

"""`continual benchmark`: cells that can be trusted, kept one by one, and gone on with."""

import json

import pytest

from continual.domain.errors import SettingsError, StreamError


@pytest.fixture
def bench(make_bench):
    """A benchmark whose updates learn."""
    return make_bench(20, 15, ("naive", "replay"))


def test_every_cell_is_run_once_and_a_longer_list_runs_only_what_is_missing(bench):
    first = bench()
    assert [(c["strategy"], c["order"], c["seed"], c["rank"]) for c in first["cells"]] == [
        ("naive", 0, 0, 4),
        ("replay", 0, 0, 4),
    ]
    assert json.loads(bench.out.read_text()) == first
    grown = bench(strategies=("naive", "replay", "nearest_mean", "random_projection"), orders=2)
    assert grown["cells"][:2] == first["cells"]
    done = {(c["strategy"], tuple(c["sites"])) for c in grown["cells"]}
    assert len(done) == len(grown["cells"]) == 8
    assert {row["strategy"]: row["runs"] for row in grown["summary"]} == dict.fromkeys(
        ("naive", "replay", "nearest_mean", "random_projection"), 2
    )
    assert grown["summary"][0]["acc"]["mean"] == max(row["acc"]["mean"] for row in grown["summary"])


def test_a_cell_tells_scores_and_costs_that_hang_together(bench):
    naive, replay = bench()["cells"]
    assert naive["result_matrix"][0] == replay["result_matrix"][0]
    assert naive["result_matrix"][1] != replay["result_matrix"][1] or naive["costs"] != replay["costs"]
    for cell in (naive, replay):
        assert cell["scores"]["acc"] == pytest.approx(sum(cell["result_matrix"][-1]) / 2)
        assert cell["costs"]["cpu_seconds"] > 0
        assert 0 <= cell["costs"]["peak_memory_bytes"] < 2**27 < cell["costs"]["resident_memory_bytes"]
        assert cell["costs"]["gpu_memory_bytes"] is None
    assert naive["costs"]["replay_bytes"] == 0 < replay["costs"]["replay_bytes"]
    assert 0 < naive["costs"]["trainable_parameters"] == replay["costs"]["trainable_parameters"]


def test_the_same_seed_gives_the_same_matrix_and_ranks_are_cells_of_their_own(bench):
    once = bench(strategies=("naive",))
    bench.out.unlink()
    again = bench(strategies=("naive",), ranks=(4, 2))
    assert again["cells"][0]["result_matrix"] == once["cells"][0]["result_matrix"]
    assert [row["rank"] for row in sorted(again["summary"], key=lambda row: row["rank"])] == [2, 4]


def test_a_benchmark_begun_before_an_option_existed_goes_on_with_its_default(bench):
    begun = bench(strategies=("naive",))
    del begun["settings"]["options"]["training"]["accumulate"], begun["settings"]["options"]["plan"]["new_classes"]
    bench.out.write_text(json.dumps(begun))
    assert [cell["strategy"] for cell in bench(strategies=("naive",))["cells"]] == ["naive"]
    begun["settings"]["options"]["training"]["views"] = 99
    bench.out.write_text(json.dumps(begun))
    with pytest.raises(SettingsError, match="other settings or images"):
        bench(strategies=("naive",))


def test_a_file_of_another_benchmark_is_never_written_over(bench):
    bench.out.write_text('{"settings": {"sites": ["elsewhere"]}, "cells": []}')
    with pytest.raises(SettingsError, match="other settings or images; write to another file"):
        bench()
    bench.out.write_text("not JSON")
    with pytest.raises(SettingsError, match="no benchmark's JSON"):
        bench()
    assert bench.out.read_text() == "not JSON"


def test_faulty_plans_are_refused_before_anything_is_learnt(bench):
    with pytest.raises(StreamError, match="no strategy magic; choose among naive, replay"):
        bench(strategies=("naive", "magic"))
    with pytest.raises(SettingsError, match="1 sites"):
        bench(sites=("first",))
    with pytest.raises(SettingsError, match="0 seeds"):
        bench(seeds=0)


def test_a_strategy_named_twice_is_run_once_and_a_site_named_twice_is_refused(bench):
    found = bench(strategies=("nearest_mean", "nearest_mean"))
    assert [cell["strategy"] for cell in found["cells"]] == ["nearest_mean"]
    assert found["summary"][0]["runs"] == 1
    with pytest.raises(SettingsError, match="first is named twice; name each site once"):
        bench(sites=("first", "second", "first"))


def test_a_folder_in_the_place_of_the_json_is_refused_before_the_intake(bench, tmp_path):
    bench.out.mkdir()
    with pytest.raises(SettingsError, match=r"out\.json is a folder; give a file with --json"):
        bench()
    assert not (tmp_path / "workspace").exists()


@pytest.mark.parametrize("option", ["--json", "--html"])
def test_the_command_refuses_a_folder_to_write_to_before_anything_else(option, tmp_path):
    from flows.commands.benchmark_command import benchmark

    files = {"json_path": tmp_path / "out.json", "html": None}
    files |= {"--json": {"json_path": tmp_path}, "--html": {"html": tmp_path}}[option]
    with pytest.raises(SettingsError, match=f"is a folder; give a file with {option}"):
        benchmark(tmp_path / "manifest.csv", "first,second", "backbone", workspace=tmp_path / "workspace", **files)
    assert not (tmp_path / "workspace").exists()


@pytest.mark.parametrize("count", [1, 2, 3, 6, 9])
def test_orders_differ_begin_with_the_given_one_and_its_reverse_and_are_no_more_than_there_are(count, libraries):
    from flows.benchmarks.benchmark import site_orders

    orders = site_orders(("a", "b", "c"), count)
    assert len(set(orders)) == len(orders) == min(count, 6)
    assert orders[0] == ("a", "b", "c")
    assert count == 1 or orders[1] == ("c", "b", "a")
    assert all(sorted(order) == ["a", "b", "c"] for order in orders)


def test_a_longer_list_of_orders_begins_with_the_shorter_one_however_many_sites_there_are(libraries):
    from flows.benchmarks.benchmark import site_orders

    sites = tuple("abcdefghijkl")
    for some, more in ((1, 4), (3, 5), (4, 9)):
        assert site_orders(sites, more)[:some] == site_orders(sites, some)
    assert site_orders(("a", "a"), 4) == (("a", "a"),)


def test_a_cell_is_known_by_its_sites_where_an_older_list_numbered_orders_otherwise(bench):
    begun = bench(strategies=("naive",))
    begun["cells"][0]["order"] = 7
    bench.out.write_text(json.dumps(begun))
    assert [cell["order"] for cell in bench(strategies=("naive",))["cells"]] == [7]


def test_other_images_are_refused_before_the_intake_and_cost_the_benchmark_nothing(bench, desk, stream):
    begun = bench(strategies=("nearest_mean",))
    good = bench.manifest.read_text()
    names = tuple(f"t{number}" for number in range(20))
    grown = [*desk.cells("first", (*names, "late"), seed=1), *desk.cells("second", names, seed=2)]
    stream.write_manifest(bench.manifest, grown)
    with pytest.raises(SettingsError, match="other settings or images"):
        bench(strategies=("nearest_mean", "random_projection"))
    bench.manifest.write_text(good)
    assert bench(strategies=("nearest_mean", "random_projection"))["cells"][:1] == begun["cells"]


def test_cells_that_another_run_wrote_to_the_same_file_meanwhile_are_kept(bench, monkeypatch):
    from flows.benchmarks import benchmark

    real = benchmark.run_closed_form

    def beside(context, name, sites, classes):
        if name == "nearest_mean":
            bench(strategies=("random_projection",))
        return real(context, name, sites, classes)

    monkeypatch.setattr(benchmark, "run_closed_form", beside)
    found = bench(strategies=("nearest_mean",))
    assert [cell["strategy"] for cell in found["cells"]] == ["nearest_mean", "random_projection"]
    assert {row["strategy"] for row in found["summary"]} == {"nearest_mean", "random_projection"}
    assert json.loads(bench.out.read_text()) == found


def test_a_label_that_only_validation_images_carry_ends_no_closed_form(bench, desk, stream):
    names = tuple(f"t{number}" for number in range(20))
    rows = [*desk.cells("first", names, seed=1), *desk.cells("second", names, seed=2)]
    table = [
        {"path": row.path, "site": row.site, "label": row.label, "subject": row.subject, "split": ""} for row in rows
    ]
    (rare, *_) = desk.cells("first", ("rare",), seed=9)
    table.append({"path": rare.path, "site": "first", "label": "rare", "subject": "rare", "split": "validation"})
    stream.write_table(bench.manifest, table)
    (cell,) = bench(strategies=("nearest_mean",))["cells"]
    assert len(cell["result_matrix"]) == 2


def test_the_page_is_self_contained_and_shows_every_strategy(bench, tmp_path):
    from flows.benchmarks.benchmark_page import write_page

    found = bench(strategies=("naive", "nearest_mean"))
    write_page(tmp_path / "page.html", found)
    text = (tmp_path / "page.html").read_text()
    assert text.count("<svg") == 2
    assert "nearest_mean" in text
    assert f"{found['summary'][0]['acc']['mean']:.3f}" in text
    assert "<th>runs</th>" in text
    assert "<td>naive, rank 4</td><td>1</td>" in text
    assert f"Backbone {found['settings']['backbone'][:12]}, at most 15 steps per update, images of 64 pixels." in text
    # Names of XML vocabularies are no addresses that anybody asks.
    asked = [part for part in ('src="http', "src='http", "url(http", '<link href="http', "@import") if part in text]
    assert asked == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {
                "backbone": "0123456789abcdef",
                "options": {
                    "image_size": 0,
                    "training": {"steps": 9},
                    "volume": {"size": [64, 64, 16], "spacing_mm": [0.5, 0.5, 2.5]},
                },
            },
            "Backbone 0123456789ab, at most 9 steps per update, volumes of 64 x 64 x 16 voxels of 0.5 x 0.5 x 2.5 mm.",
        ),
        ({"backbone": "0123", "options": {"image_size": 126, "volume": None}}, "Backbone 0123, images of 126 pixels."),
        ({"options": {}}, "on frozen test splits. Own peak:"),
    ],
)
def test_the_page_says_what_was_run_as_far_as_the_file_tells(settings, said, libraries):
    from flows.benchmarks.benchmark_page import page

    assert said in page({"settings": {"sites": ["first", "second"], **settings}, "cells": [], "summary": []})

"""A run over an adapter in service, and flows over many sites: no site loses its turn."""

import pytest

from continual.domain.errors import ContinualError, NotFoundError, StreamError

OTHERS = tuple(f"t{number}" for number in range(40))


def test_one_site_that_fails_keeps_no_other_from_its_turn():
    from flows.every_site import visit_each

    seen = []

    def work(site):
        seen.append(site)
        if site.startswith("bad"):
            raise StreamError(f"nothing to learn at {site}")
        return site.upper()

    assert visit_each(["a", "b"], work) == {"a": "A", "b": "B"}
    with pytest.raises(StreamError, match="^nothing to learn at bad$"):
        visit_each(["a", "bad", "b"], work)
    with pytest.raises(ContinualError, match="2 of 3 sites failed. bad1: nothing to learn at bad1 | bad2: nothing"):
        visit_each(["bad1", "bad2", "c"], work)
    assert seen == ["a", "b", "a", "bad", "b", "bad1", "bad2", "c"]


def test_sites_of_the_other_kind_are_left_out_and_a_misspelt_one_is_answered_with_the_known(released, monkeypatch):
    from flows.every_site import sites_to_visit
    from flows.updates.adapter_context import AdapterContext
    from flows.workplace import open_workplace

    released.take_in(released.cells("second", OTHERS, seed=2), "second", "cells")
    with open_workplace(released.workspace) as workplace:
        assert sites_to_visit(workplace, "cells", None) == ["first", "second"]
        assert sites_to_visit(workplace, "cells", "second") == ["second"]
        with pytest.raises(NotFoundError, match="no site 'secnd'; known sites: first, second"):
            sites_to_visit(workplace, "cells", "secnd")
        with pytest.raises(NotFoundError, match="no adapter 'nobody'; known: cells"):
            sites_to_visit(workplace, "nobody", None)
        monkeypatch.setattr(AdapterContext, "looks_at", lambda _context, site: site != "first")
        assert sites_to_visit(workplace, "cells", None) == ["second"]


def test_every_flow_goes_on_after_a_site_that_fails(released, monkeypatch):
    from flows import monitor as monitoring
    from flows import update as updating

    released.take_in(released.cells("second", OTHERS, seed=2), "second", "cells")
    visited, sent = [], []

    def fails_at_first(_workspace, _adapter, site, *_more, **_named):
        visited.append(site)
        if site == "first":
            raise StreamError("no")
        return "nothing new" if _more else None

    monkeypatch.setattr(updating, "update_site", fails_at_first)
    monkeypatch.setattr(monitoring, "monitor_site", fails_at_first)
    monkeypatch.setattr(monitoring, "send_alerts", sent.append)
    for flow in (updating.update, monitoring.monitor):
        with pytest.raises(StreamError, match="^no$"):
            flow.fn(released.workspace, "cells")
    assert visited == ["first", "second"] * 2
    assert sent == [released.workspace]


def test_a_run_over_an_adapter_in_service_looks_at_every_site_it_names(released, monkeypatch, stream):
    from flows import run as running
    from flows.requests import Incoming, Release

    monkeypatch.setattr(running, "release_adapter", lambda *_arguments: pytest.fail("released again"))
    learnt = []
    monkeypatch.setattr(running, "update_site", lambda _w, _a, site, *_m, **_n: learnt.append(site) or "looked at")
    monkeypatch.setattr(running, "ingest_site", running.ingest_site.fn)
    rows = [*released.cells("second", OTHERS, seed=2), *released.cells("first", OTHERS, seed=9)]
    manifest = stream.write_manifest(released.folder / "more.csv", rows)
    backbone = stream.write_backbone(released.folder / "backbone.safetensors")
    wanted = Release("cells", str(backbone), None, stream.small_options().as_record())
    found = running.run.fn(released.workspace, Incoming(str(manifest)), ["second", "first"], wanted)
    assert learnt == ["second", "first"]
    assert found["learnt"] == dict.fromkeys(["second", "first"], "looked at")


def test_derived_scores_follow_the_order_of_learning_whatever_order_sites_are_named_in(released):
    from flows.benchmarks.results import reference_results, stream_result
    from flows.updates.adapter_context import context_of
    from flows.workplace import open_workplace

    released.take_in(released.cells("second", OTHERS, seed=2), "second", "cells")
    assert released.learn("second").startswith("version 2 ")
    with open_workplace(released.workspace) as workplace:
        context = context_of(workplace, "cells")
        told, reversed_ = (stream_result(context, names) for names in (["first", "second"], ["second", "first"]))
        assert told == reversed_
        assert told["sites"] == ["first", "second"]
        # A reference starts from the release: without its site there is none.
        assert reference_results(context, ["naive"], ["second"]) == {}

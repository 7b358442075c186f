"""Two adapters in one registry: what is said of one is never said of the other."""

import re

import pytest

from continual.domain.action_words import ACTION_WORDS
from continual.domain.digests import sha256_bytes
from continual.domain.drift import Action, Verdict
from continual.domain.samples import CleanImage


@pytest.fixture
def two(bench):
    """Champions of `cells` and `other`; `other`, looked at last, drifts in the south, which `cells` does not."""
    for site in ("north", "south"):
        images = [CleanImage(sha256_bytes(site.encode()), site, "0" * 16, "dark", bench.png(), 64, 64)]
        bench.registry.samples.record(site, images, [], "test")
    bench.champion("cells")
    bench.champion("other")
    calm = bench.look("south", Verdict.NO_DRIFT, Action.NONE, "cells sees no change", "cells")
    drifted = bench.look("south", Verdict.COVARIATE_SHIFT, Action.UPDATE, "other sees a new scanner", "other")
    only_other = bench.look("north", Verdict.DATA_FAULT, Action.QUARANTINE, "other sees broken images", "other")
    return {"calm": calm, "drifted": drifted, "only_other": only_other}


def asked(door, bench, adapter, site):
    answer = door.http.post(f"/v1/adapters/{adapter}/predict", params={"site": site}, content=bench.png())
    assert answer.status_code == 200
    return answer.json()["drift"]


def test_a_prediction_tells_the_drift_that_its_own_adapter_saw(door, bench, two):
    assert (asked(door, bench, "cells", "south") or {}).get("report") == two["calm"]
    assert (asked(door, bench, "other", "south") or {}).get("report") == two["drifted"]
    assert asked(door, bench, "cells", "north") is None


def test_a_report_that_names_no_adapter_is_told_as_no_adapters(door, bench, two):
    unnamed = bench.look("south", Verdict.DATA_FAULT, Action.QUARANTINE, "nobody knows whose", "")
    assert (asked(door, bench, "cells", "south") or {}).get("report") == two["calm"]
    assert door.http.get("/v1/sites/south/drift").json()["latest"]["id"] == unnamed


def test_the_dashboard_of_an_adapter_shows_its_own_looks(door, two):
    cells = door.http.get("/dashboard", params={"adapter": "cells"}).text
    assert "cells sees no change" in cells
    assert "No drift check has run for this site." in cells
    assert "other sees" not in cells
    other = door.http.get("/dashboard", params={"adapter": "other"}).text
    assert "other sees a new scanner" in other
    assert "other sees broken images" in other
    assert "cells sees" not in other


def test_an_update_that_was_rolled_back_no_longer_answers_the_look(door, bench, two):
    bench.look("south", Verdict.CONCEPT_SHIFT, Action.URGENT_UPDATE, "cells is wrong more often", "cells")
    update = bench.registry.updates.begin("cells", "south", 1, {}, "test")
    second = bench.champion("cells", parent=1)
    bench.registry.updates.finish(update.id, second.number, "accepted", {})
    assert "Update learnt: version 2" in door.http.get("/dashboard", params={"adapter": "cells"}).text
    bench.registry.adapters.rollback("cells", "it", "worse than it was")
    card = door.http.get("/dashboard", params={"adapter": "cells"}).text
    assert "Update learnt" not in card
    assert ACTION_WORDS[Action.URGENT_UPDATE].headline in card
    assert "No site needs you" not in card


def test_an_update_of_an_adapter_answers_no_look_of_the_other(door, bench, two):
    update = bench.registry.updates.begin("cells", "south", 1, {}, "test")
    bench.registry.updates.finish(update.id, 1, "accepted", {})
    bench.look("south", Verdict.COVARIATE_SHIFT, Action.UPDATE, "other sees it again", "other")
    assert "Update learnt: version 1" in door.http.get("/dashboard", params={"adapter": "cells"}).text
    assert "Update learnt" not in door.http.get("/dashboard", params={"adapter": "other"}).text


def test_a_sites_reports_are_all_adapters_unless_one_is_named(door, two):
    address = "/v1/sites/south/drift"
    assert [each["report"] for each in door.http.get(address).json()["history"]] == [two["drifted"], two["calm"]]
    cells = door.http.get(address, params={"adapter": "cells"}).json()
    assert (cells["latest"]["adapter"], [each["report"] for each in cells["history"]]) == ("cells", [two["calm"]])
    assert door.http.get("/v1/sites/north/drift", params={"adapter": "cells"}).json()["latest"] is None


def told(door, metric, **labels):
    """Adapter to value of a metric's samples with these labels."""
    found = {}
    for line in door.http.get("/metrics").text.splitlines():
        if line.startswith(f"{metric}{{"):
            has = dict(re.findall(r'(\w+)="([^"]*)"', line))
            if labels.items() <= has.items():
                found[has["adapter"]] = float(line.split()[-1])
    return found


def test_a_calm_look_of_one_adapter_hides_no_alarm_of_the_other_in_the_metrics(door, bench, two):
    bench.look("south", Verdict.NO_DRIFT, Action.NONE, "cells sees no change", "cells")
    assert told(door, "continual_drift_alarm", site="south") == {"cells": 0, "other": 1}
    assert told(door, "continual_drift_verdict", site="south", verdict="no_drift") == {"cells": 1, "other": 0}
    assert told(door, "continual_drift_verdict", site="south", verdict="covariate_shift") == {"cells": 0, "other": 1}
    assert told(door, "continual_drift_reports_total", site="south", verdict="no_drift") == {"cells": 2, "other": 0}
    for metric, value in (("continual_drift_evidence", 2.5), ("continual_drift_evidence_limit", 40)):
        assert told(door, metric, site="south") == {"cells": value, "other": value}
    looked = told(door, "continual_drift_last_look_timestamp_seconds", site="south")
    assert looked["cells"] > looked["other"]


def test_an_adapter_that_did_not_look_at_a_site_says_nothing_of_it_in_the_metrics(door, two):
    for metric in ("continual_drift_alarm", "continual_drift_evidence", "continual_drift_last_look_timestamp_seconds"):
        assert set(told(door, metric, site="north")) == {"other"}


def test_an_alarm_that_names_no_adapter_stands_in_the_metrics_until_an_adapter_looks(door, bench, two):
    image = CleanImage(sha256_bytes(b"east"), "east", "0" * 16, "dark", bench.png(), 64, 64)
    bench.registry.samples.record("east", [image], [], "test")
    assert told(door, "continual_drift_alarm", site="east") == {"": 0}
    bench.look("east", Verdict.DATA_FAULT, Action.QUARANTINE, "of an earlier release", "")
    assert told(door, "continual_drift_alarm", site="east") == {"": 1}
    bench.look("east", Verdict.NO_DRIFT, Action.NONE, "cells sees no change", "cells")
    for metric in ("continual_drift_alarm", "continual_drift_evidence", "continual_drift_last_look_timestamp_seconds"):
        assert set(told(door, metric, site="east")) == {"cells"}
    assert told(door, "continual_drift_reports_total", site="east", verdict="data_fault") == {"": 1, "cells": 0}


def test_a_sites_state_names_the_adapter_that_looked(door, two):
    assert [each["adapter"] for each in door.http.get("/v1/sites/south/drift").json()["history"]] == ["other", "cells"]

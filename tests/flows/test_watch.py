"""A site's images one by one: quiet where nothing changes, and soon aware of another lamp."""

import pytest

from continual.domain.errors import NotFoundError


def watch(desk, site="first", mean_run=150.0):
    from flows.drift.watch import watch_site
    from flows.workplace import open_workplace

    with open_workplace(desk.workspace) as workplace:
        return watch_site(workplace, "cells", site, mean_run)


def test_a_changed_lamp_is_seen_within_a_few_images_and_files_nothing(released, stream, monkeypatch):
    rows = released.cells("first", tuple(f"x{number}" for number in range(20)), seed=44)
    released.take_in(rows, "first", "cells")
    monkeypatch.setitem(stream.LIGHTS, "first", (60.0, -70.0, -40.0))
    changed = released.cells("first", tuple(f"y{number}" for number in range(10)), seed=45)
    batch = released.take_in(changed, "first", "cells").batch
    report = watch(released)
    assert report.images == 60
    first = next(alarm for alarm in report.alarms if alarm.batch == batch)
    assert 40 < first.image <= 56, report
    assert len([alarm for alarm in report.alarms if alarm.batch < batch]) <= 2, report
    with released.registry() as registry:
        assert registry.drift.list("first") == []


def test_without_new_images_there_is_nothing_to_alarm(released):
    assert watch(released).alarms == ()


def test_a_site_that_was_never_learnt_has_nothing_to_be_held_against(released):
    released.take_in(released.cells("second"), "second", "cells")
    with pytest.raises(NotFoundError, match="has not learnt site 'second', only first"):
        watch(released, "second")

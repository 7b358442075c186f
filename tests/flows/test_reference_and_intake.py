"""What a look holds a window against: the site's own reference, and what was offered for the first time."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import numpy as np
import pytest

from continual.domain.adapters import Task
from continual.domain.change_plan import ChangePlan
from continual.domain.samples import Sample, Split
from registry import Batch

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def known_site(site, met, images=100):
    """A site's held-out images, of which the champion meets a share."""
    from flows.drift.outcomes import KnownSite
    from monitoring import Window

    labels = np.arange(images) % 2
    outputs = np.eye(2)[labels] * 0.8 + 0.1
    wrong = round(images * (1 - met))
    outputs[:wrong] = outputs[:wrong, ::-1]
    nothing = ({},) * images
    subjects = tuple(map(str, range(images)))
    window = Window(site, subjects, np.zeros((images, 1)), outputs, nothing, nothing, labels, ("a", "b"))
    return KnownSite([], window)


@pytest.mark.parametrize(("site", "reference"), [("north", 0.95), ("west", 0.8)])
def test_without_labels_a_known_site_is_held_against_itself_and_a_new_one_against_the_mean(libraries, site, reference):
    from flows.drift.outcomes import measured_performance

    context = SimpleNamespace(options=SimpleNamespace(task=Task.CLASSIFICATION, plan=ChangePlan()))
    champion = SimpleNamespace(record={"validation": {"north": 0.95, "south": 0.65}})
    current = [Sample(str(number), site, str(number), None, Split.TRAIN, "", 9) for number in range(40)]
    known = {"north": known_site("north", 0.95), "south": known_site("south", 0.65)}
    found = measured_performance(context, SimpleNamespace(classes=("a", "b")), champion, current, known)
    assert (found.reference, found.current, found.labelled) == (pytest.approx(reference), None, 0)


def test_what_is_offered_again_every_night_hides_no_broken_scanner(libraries):
    from flows.drift.arrivals import Arrivals, Stretch

    # A thousand known files are named again each night; then come twenty new ones, all of them refused.
    batches = [
        Batch(night, "north", BEGAN + timedelta(days=night), new, 1000, quarantined, "ingest")
        for night, new, quarantined in ((1, 0, 20), (2, 2, 0))
    ]
    arrivals = Arrivals("north", batches, [])
    asked = [arrivals.intake(Stretch((night,), [])) for night in (1, 2)]
    assert [(intake.offered, intake.quarantined) for intake in asked] == [(20, 20), (2, 0)]

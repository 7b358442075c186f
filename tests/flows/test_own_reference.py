"""What a look without labels holds a window against: the site's own reference."""

from types import SimpleNamespace

import numpy as np
import pytest

from continual.domain.adapters import Task
from continual.domain.change_plan import ChangePlan
from continual.domain.samples import Sample, Split


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

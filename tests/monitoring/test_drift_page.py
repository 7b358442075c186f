"""The page: well-formed, self-contained, escaped, and every figure that it draws also stands in a table."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import numpy as np
import pytest

from continual.domain.adapters import AliasMove
from continual.domain.change_plan import ChangePlan
from continual.domain.drift import CaseMix, PerformanceEvidence
from continual.domain.drift_views import ExampleImage, ReportView
from monitoring import Intake, Past, look, project
from monitoring.drift_page import Surroundings, drift_page

VOID = {"meta", "img", "br", "line", "circle", "rect", "polygon", "polyline"}
BEGAN = datetime(2026, 3, 2, tzinfo=UTC)
SITE = '<b>north & "east"</b>'


class Nesting(HTMLParser):
    """Raises where a tag closes that is not the open one; keeps addresses and text."""

    def __init__(self):
        super().__init__()
        self.open, self.addresses, self.text, self.tags = [], [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href", "action", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, _attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            raise ValueError(f"</{tag}> closes nothing at {self.getpos()}")

    def handle_data(self, data):
        self.text.append(data)


def read(page):
    parser = Nesting()
    parser.feed(page)
    parser.close()
    if parser.open:
        raise ValueError(f"left open: {parser.open}")
    return parser


@pytest.fixture
def view(make_window):
    """Four looks at a site, of which the third called drift; the champion changed before the second."""
    generator = np.random.default_rng(4)

    def window(shift=0.0):
        made = make_window(
            generator.normal(shift, size=(30, 5)),
            SITE,
            tags=[{"maker": "<i>bolt</i>" if shift else "acme"}] * 30,
            pixels=[{"mean": float(v) - 40 * shift} for v in generator.normal(120, 9, size=30)],
        )
        return replace(made, samples=tuple(f"{int(shift)}{row:063x}" for row in range(30)))

    reference, reports, past = window(), [], Past()
    for number, shift in enumerate((0.0, 0.0, 1.0, 1.0)):
        current = window(shift)
        measured = PerformanceEvidence("balanced_accuracy", 0.9, 0.88 - number / 50, 40, 0, 0.87, 0.8, 0.93)
        report = look([reference], current, ChangePlan(permutations=199), Intake(30, 0), measured, past)
        over_time = report.over_time
        past = Past((*past.windows, current), (*past.e_values, over_time.e_values), over_time.called_at)
        version, at = 1 + (number > 0), BEGAN + timedelta(weeks=number)
        reports.append(replace(report, id=number + 1, created_at=at, adapter="chest", version=version))
    cause = reports[-1].root_cause
    move = AliasMove("chest", "champion", 1, 2, "ann", "the gate passed", BEGAN + timedelta(days=3))
    images = {cause.farthest[0]: ExampleImage(b"png"), cause.nearest[0]: ExampleImage(None, "erased")}
    projection = project([reference], [], current, 0)
    return ReportView(reports[-1], tuple(reports), (move,), projection, images)


def test_the_page_is_well_formed_and_names_no_address_outside(view):
    around = Surroundings("<html><script>1</script></html>", "", (("Home", "/dashboard"),))
    parsed = read(drift_page(view, around))
    assert all(address.startswith(("data:image/png;base64,", "/dashboard")) for address in parsed.addresses)
    assert "script" not in parsed.tags
    assert parsed.tags.count("svg") > 4


def test_what_comes_from_the_registry_is_escaped(view):
    page = drift_page(view)
    assert "<b>north" not in page
    assert "<i>bolt" not in page
    assert "&lt;b&gt;north &amp; &quot;east&quot;&lt;/b&gt;" in page
    assert "&lt;i&gt;bolt&lt;/i&gt; (100 %)" in page


def test_the_page_tells_action_cause_marks_and_missing_images(view):
    text = " ".join(read(drift_page(view)).text)
    for said in ("Covariate shift", "maker", "acme (100 %)", "drift called", "version 2", "limit 40", "erased"):
        assert said in text, said
    assert "not kept" in text
    assert "#3 pixel statistics: " in text


def test_every_look_stands_in_the_tables(view):
    page = drift_page(view)
    for report in view.looks:
        assert f"{report.over_time.value:.3g}" in page
        assert f"{report.performance.current:.3f}" in page


def test_the_line_of_evidence_breaks_where_the_champion_changed(view):
    page = drift_page(view)
    joined = re.findall(r'<polyline class="line s0" points="([^"]+)"', page)
    assert len(joined[0].split()) == 3


def test_a_report_that_tested_nothing_still_gives_a_page(view):
    bare = replace(
        view.report,
        signals=(),
        smallest_detectable={},
        over_time=None,
        performance=None,
        root_cause=None,
        case_mix=None,
        created_at=None,
        id=None,
    )
    parsed = read(drift_page(ReportView(bare, (bare,), (), None, {})))
    assert "Nothing was tested in this look." in parsed.text
    assert "There is no card" in " ".join(parsed.text)


def test_a_case_mix_is_shown_by_class(view):
    mixed = replace(view.report, case_mix=CaseMix(("flu", "well"), (0.2, 0.8), (0.6, 0.4), explains=True))
    text = " ".join(read(drift_page(replace(view, report=mixed))).text)
    assert "explains the difference" in text
    assert "60 %" in text


def test_a_map_has_no_names_and_its_means_are_of_all_images(make_window):
    rows = np.random.default_rng(0).normal(size=(900, 3)) * [5.0, 1.0, 0.1]
    found = project([make_window(rows[:500])], [], make_window(rows[500:] + [20, 0, 0]), 0)
    assert [(group.images, len(group.points)) for group in found.groups] == [(500, 250), (400, 250)]
    gap = found.groups[1].centre[0] - found.groups[0].centre[0]
    assert abs(gap) == pytest.approx(20, abs=1)
    assert found.explained[0] > 0.9


def test_a_map_of_one_feature_or_one_image_can_be_drawn(make_window, view):
    found = project([make_window(np.ones((2, 1)))], [], make_window(np.zeros((1, 1))), 0)
    read(drift_page(replace(view, projection=found)))

"""The page of a drift report over HTTP: found or not, under the security policy, and without what was erased."""

import re
from dataclasses import replace
from datetime import datetime

import pytest

from continual.domain.digests import sha256_bytes
from continual.domain.drift import Action, PropertyShift, RootCause, SignalFamily, Verdict
from continual.domain.samples import CleanImage
from registry import ErasureOrder

SUBJECTS = tuple(f"{index:016x}" for index in range(3))


@pytest.fixture
def number(bench):
    """A report on a site whose name is markup, with a card that shows three stored images."""
    site = "<i>north</i>"
    images = [
        CleanImage(sha256_bytes(subject.encode()), site, subject, None, bench.png(90 + 40 * place), 64, 64)
        for place, subject in enumerate(SUBJECTS)
    ]
    bench.registry.samples.record(site, images, [], "test")
    bench.champion("chest")
    report = bench.registry.drift.get(bench.look(site, Verdict.COVARIATE_SHIFT, Action.LOG, "it <u>drifted</u>"))
    shift = PropertyShift(
        SignalFamily.ACQUISITION_TAGS,
        "maker",
        "acme (100 %)",
        "<s>bolt</s> (95 %)",
        0.95,
        1e-4,
        2,
        datetime(2026, 3, 1),
    )
    digests = [image.digest for image in images]
    cause = RootCause("tag maker moved most", (shift,), tuple(digests[:1]), tuple(digests[1:2]), tuple(digests[2:]))
    return bench.registry.drift.add(replace(report, root_cause=cause, adapter="chest", version=1), "test").id


def page_of(door, number):
    answer = door.http.get(f"/v1/drift-reports/{number}.html")
    assert answer.status_code == 200, answer.text
    return answer


def test_the_page_is_html_with_the_card_and_small_images(door, number):
    answer = page_of(door, number)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "acme (100 %)" in answer.text
    assert answer.text.count("data:image/png;base64,") == 3
    assert "2026-03-01" in answer.text
    assert f'href="/v1/drift-reports/{number}"' in answer.text


def test_what_comes_from_the_registry_is_escaped(door, number):
    page = page_of(door, number).text
    for markup in ("<i>north", "<u>drifted", "<s>bolt"):
        assert markup not in page, markup
    assert "&lt;s&gt;bolt&lt;/s&gt; (95 %)" in page


def test_the_page_needs_no_script_and_is_not_kept_by_browsers(door, number):
    answer = page_of(door, number)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "script-src" not in policy
    assert "<script" not in answer.text
    assert not re.search(r"\son\w+=", answer.text)
    assert answer.headers["cache-control"] == "no-store"


def test_an_erased_subjects_picture_is_gone_and_no_pseudonym_is_shown(door, number):
    door.registry.erasures.erase(ErasureOrder("<i>north</i>", SUBJECTS[2], "test", "withdrawn"))
    page = page_of(door, number).text
    assert page.count("data:image/png;base64,") == 2
    assert '<div class="missing">erased</div>' in page
    assert not any(subject in page for subject in SUBJECTS)


def test_unknown_reports_and_numbers_are_refused(door, number):
    assert door.http.get("/v1/drift-reports/999.html").status_code == 404
    assert door.http.get("/v1/drift-reports/x.html").status_code == 422
    assert door.http.get(f"/v1/drift-reports/{number}").json()["root_cause"]["shifts"][0]["since_window"] == 2


def test_the_dashboards_card_leads_to_the_page(door, number):
    assert f'href="/v1/drift-reports/{number}.html"' in door.http.get("/dashboard").text
    assert "/v1/drift-reports/{number}.html" in door.http.get("/openapi.json").json()["paths"]

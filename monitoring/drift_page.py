"""A drift report as one self-contained HTML page for people: values in, a string out.

It holds no script and names no address outside, and whatever comes from the registry is escaped. Knows nothing of where
reports are kept or who asks.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from continual.domain.action_words import ACTION_WORDS, VERDICT_WORDS
from continual.domain.drift import CaseMix, DriftReport, PropertyShift, RootCause, Signal, SignalFamily
from continual.domain.drift_views import ExampleImage, ReportView
from monitoring.drift_charts import (
    evidence_chart,
    folded,
    map_chart,
    performance_chart,
    table,
    tests_chart,
)

PROPERTY_WORDS: Mapping[str, str] = {
    "mean": "mean grey level, 0 to 255",
    "std": "spread of grey levels",
    "p01": "darkest 1 % of grey levels",
    "p50": "median grey level",
    "p99": "brightest 1 % of grey levels",
    "contrast": "(p99 - p01) / (p99 + p01)",
    "entropy": "bits of the grey histogram",
    "sharpness": "variance of the Laplacian; blur lowers it",
    "noise": "standard deviation after Immerkaer, grey levels",
    "saturated_low_share": "share of black pixels",
    "saturated_high_share": "share of white pixels",
    "value_p01": "darkest 1 %, in the file's own unit",
    "value_p50": "median, in the file's own unit",
    "value_p99": "brightest 1 %, in the file's own unit",
}
"""What a pixel statistic is, for whoever mends scanners; tags go by the names of their DICOM attributes."""


FAMILY_WORDS: Mapping[SignalFamily, str] = {
    SignalFamily.ACQUISITION_TAGS: "acquisition tag",
    SignalFamily.PIXEL_STATISTICS: "pixel statistic",
}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the page stands among: Evidently's page or a note where to get it, and links with their texts."""

    tables: str | None = None
    tables_note: str = ""
    links: tuple[tuple[str, str], ...] = ()


NOTHING_AROUND = Surroundings()


def drift_page(view: ReportView, around: Surroundings = NOTHING_AROUND) -> str:
    """The whole page. `view.images` hold small pictures as PNG."""
    report = view.report
    title = f"Drift report {'' if report.id is None else report.id}: {report.site}"
    parts = [
        _verdict(report),
        _section("Root cause", _cause(report, report.root_cause)),
        _section("Example images", _examples(report.root_cause, view.images)),
        _section("Evidence over time", _evidence(view)),
        _section("Tests of each look", _tests(view)),
        _section("Performance", performance_chart(view.looks, view.moves)),
        _section("Case mix", _case_mix(report.case_mix)),
        _section("Map of embeddings", _map(view), "map"),
        _section("Distributions", _tables(around)),
    ]
    links = " · ".join(f'<a href="{escape(href)}">{escape(text)}</a>' for text, href in around.links)
    style = Path(__file__).with_suffix(".css").read_text(encoding="utf-8")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><title>{escape(title)}</title><style>{style}</style></head>'
        f"<body><header><h1>{escape(title)}</h1>{_facts(report)}</header><main>{''.join(parts)}</main>"
        f"<footer><p>{links}</p></footer></body></html>\n"
    )


def _section(title: str, inside: str, kind: str = "") -> str:
    return f'<section class="{kind}"><h2>{escape(title)}</h2>{inside}</section>' if inside else ""


def _facts(report: DriftReport) -> str:
    said = []
    if report.created_at is not None:
        said.append(f"Looked at {report.created_at:%Y-%m-%d %H:%M} UTC")
    if report.version is not None:
        said.append(f"adapter {report.adapter}, version {report.version}")
    said.append(f"{report.current_samples} images of {report.current_subjects} subjects")
    if report.reference_site:
        nearest = "" if report.reference_site == report.site else ", the nearest known site"
        known = f"{report.reference_samples} of {report.reference_subjects} at {report.reference_site}{nearest}"
        said.append(f"held against {known}")
    said.append(f"{report.quarantined} held back by the quality gate")
    return f'<p class="note">{escape(" · ".join(said))}</p>'


def _verdict(report: DriftReport) -> str:
    words = ACTION_WORDS[report.action]
    return (
        f'<section class="verdict {words.tone.value}"><h2>{escape(words.headline)}</h2>'
        f"<p><strong>{escape(VERDICT_WORDS[report.verdict])}</strong> "
        f"(<code>{report.verdict.value}</code>, action <code>{report.action.value}</code>)</p>"
        f"<p>{escape(_sentence(report.reason))}</p></section>"
    )


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _cause(report: DriftReport, cause: RootCause | None) -> str:
    if cause is None:
        return (
            '<p class="note">There is no card: nothing drifted or broke in this look, there was nothing to hold it '
            "against, or an earlier release looked.</p>"
        )
    said = f"<p>{escape(_sentence(cause.said))}</p>"
    if not cause.shifts:
        return said
    heads = ("property", f"usual at {report.reference_site}", "now", "subjects moved", "since")
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    rows = "".join(_shift(shift) for shift in cause.shifts)
    return (
        f'{said}<div class="wide cause"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        '<p class="note">Numbers: median over subjects, in brackets the middle 80 %. Properties are those that Holm\'s '
        "correction over all tags and pixel statistics leaves standing. Since: the border between windows at which "
        "before and after differ most; windows are counted from the promotion.</p>"
    )


def _shift(shift: PropertyShift) -> str:
    kind = FAMILY_WORDS[shift.family]
    meaning = PROPERTY_WORDS.get(shift.name)
    small = f"<small>{escape(kind)}{'' if meaning is None else f': {escape(meaning)}'}</small>"
    since = "cannot be told" if shift.since_window is None else f"window {shift.since_window}"
    date = "" if shift.since_date is None else f"<small>{shift.since_date:%Y-%m-%d}</small>"
    return (
        f'<tr><th scope="row">{escape(shift.name)}{small}</th>'
        f"<td>{escape(shift.usual)}</td><td>{escape(shift.now)}</td>"
        f'<td><meter min="0" max="1" value="{shift.score:.3f}"></meter> {100 * shift.score:.0f} %</td>'
        f"<td>{since}{date}</td></tr>"
    )


def _examples(cause: RootCause | None, images: Mapping[str, ExampleImage]) -> str:
    if cause is None or not (cause.usual or cause.nearest or cause.farthest):
        return ""
    kinds = (
        ("Reference, drawn by lot", "reference image", cause.usual),
        ("Current window, most like the reference", "nearest", cause.nearest),
        ("Current window, least like the reference", "farthest", cause.farthest),
    )
    rows = "".join(
        f'<h3>{title}</h3><ul class="examples">'
        + "".join(_example(f"{name} {place}", digest, images) for place, digest in enumerate(digests, start=1))
        + "</ul>"
        for title, name, digests in kinds
        if digests
    )
    return (
        f'{rows}<p class="note">One image per subject; near and far by the mean distance of embeddings to the five '
        "nearest reference images. Captions begin the image's digest.</p>"
    )


def _example(name: str, digest: str, images: Mapping[str, ExampleImage]) -> str:
    image = images.get(digest, ExampleImage(None, "not kept"))
    if image.data is None:
        shown = f'<div class="missing">{escape(image.missing)}</div>'
    else:
        shown = f'<img alt="{escape(name)}" src="data:image/png;base64,{b64encode(image.data).decode()}">'
    caption = f"{escape(name)}<br><code>{escape(digest[:12])}</code>"
    return f"<li><figure>{shown}<figcaption>{caption}</figcaption></figure></li>"


def _evidence(view: ReportView) -> str:
    over_time = view.report.over_time
    rare = "" if over_time is None else f", which happens to at most 1 in {over_time.threshold:g} sites"
    return (
        evidence_chart(view.looks, view.moves)
        + '<p class="note">Bets against "nothing changed", multiplied over the windows since the promotion; 1 says '
        f"nothing. Drift is called at the limit{rare} where nothing changes, or when the first look after a promotion "
        "alarms by itself; it stands until the next promotion, where evidence begins anew.</p>"
    )


def _tests(view: ReportView) -> str:
    report = view.report
    if not report.signals:
        return '<p class="note">Nothing was tested in this look.</p>'
    note = (
        '<p class="note">Upwards: 1 over each family\'s smallest p-value against the reference, corrected by Holm. '
        "Filled marks alarm in their own look, which calls drift in the first look of a version only"
        ".</p>"
    )
    heads = ("signal", "family", "score", "adjusted p", "e-value", "alarm")
    ranked = sorted(report.signals, key=lambda signal: (signal.adjusted_p_value, -signal.score))
    every = folded(f"All {len(ranked)} signals of this look", table(heads, [_signal(signal) for signal in ranked]))
    able = [[name.replace("_", " "), f"{score:.3g}"] for name, score in report.smallest_detectable.items()]
    power = folded("What this look could have seen", table(("family", "smallest score that alarms"), able))
    return f"{tests_chart(view.looks)}{note}{every}{power}"


def _signal(signal: Signal) -> Sequence[str]:
    return (
        signal.name,
        signal.family.value.replace("_", " "),
        f"{signal.score:.4g}",
        f"{signal.adjusted_p_value:.3g}",
        f"{signal.e_value:.3g}",
        "yes" if signal.alarm else "",
    )


def _case_mix(mix: CaseMix | None) -> str:
    if mix is None:
        return ""
    names = mix.classes or tuple(f"class {place}" for place in range(len(mix.reference)))
    rows = [
        [name, f"{100 * known:.0f} %", f"{100 * new:.0f} %"]
        for name, known, new in zip(names, mix.reference, mix.current, strict=True)
    ]
    said = "explains the difference" if mix.explains else "does not explain the difference alone"
    return f"<p>A changed mix of classes {said}.</p>{table(('class', 'reference', 'now, estimated'), rows)}"


def _map(view: ReportView) -> str:
    if view.projection is None:
        return ""
    return (
        map_chart(view.projection)
        + '<p class="note">Two principal components of all images shown together, of the embeddings of the frozen '
        "backbone. Large marks are means. A shift may lie in directions that a map of two does not show.</p>"
    )


def _tables(around: Surroundings) -> str:
    if around.tables is None:
        return f'<p class="note">{escape(around.tables_note)}</p>' if around.tables_note else ""
    frame = (
        f'<iframe title="Distributions of tags and pixel statistics" sandbox="allow-scripts" loading="lazy" '
        f'srcdoc="{escape(around.tables)}"></iframe>'
    )
    return folded("Tags and pixel statistics, reference and current window, drawn by Evidently", frame)

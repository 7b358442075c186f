"""The charts of a drift report's page: evidence, tests and performance per look, and the map of embeddings.

Each is a figure with its legend and the same numbers as a table. Knows nothing of how the numbers came about.
"""

from collections.abc import Sequence
from html import escape

from continual.domain.adapters import AliasMove
from continual.domain.drift import DriftReport, SignalFamily
from continual.domain.drift_views import Projection
from monitoring.svg_plots import Plot, legend, number

ALL_SERIES = 0
FAMILY_SERIES = {family.value: place for place, family in enumerate(SignalFamily, start=1)}
SMALLEST_P = 1e-6
"""p-values below are drawn here."""


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An HTML table of plain texts, the first column as headings of rows."""
    heads = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in headings)
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in rest)}</tr>'
        for first, *rest in rows
    )
    return f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'


def folded(summary: str, inside: str) -> str:
    """Something that opens when its summary is clicked."""
    return f"<details><summary>{escape(summary)}</summary>{inside}</details>"


def evidence_chart(looks: Sequence[DriftReport], moves: Sequence[AliasMove]) -> str:
    """Evidence since the promotion after each look, all families and each, the limit, and what happened between."""
    said = [look.over_time for look in looks]
    values = [v for each in said if each for v in (each.value, *each.families.values())]
    if not values:
        return '<p class="note">No look has tested anything yet.</p>'
    limit = next(each.threshold for each in reversed(said) if each)
    plot = Plot(max(min(*values, 1.0) / 2, 1e-6), max(*values, limit) * 2, columns=len(looks), logarithmic=True)
    drawn = [plot.labels(_names(looks)), *_marks(plot, looks, moves), plot.level(limit, f"limit {limit:g}")]
    for name, series in FAMILY_SERIES.items():
        wealth = [each.families.get(name) if each else None for each in said]
        points = [None if value is None else (place, value) for place, value in enumerate(wealth)]
        drawn += _joined(plot, looks, points, series, name)
    drawn += _joined(plot, looks, [(p, e.value) if e else None for p, e in enumerate(said)], ALL_SERIES, "all families")
    rows = [
        [
            _name(look),
            _date(look),
            str(look.version or ""),
            "-" if each is None else f"{each.value:.3g}",
            *("-" if each is None else f"{each.families.get(name, 1.0):.3g}" for name in FAMILY_SERIES),
            look.verdict.value,
        ]
        for look, each in zip(looks, said, strict=True)
    ]
    heads = ["look", "date", "version", "all", *map(_plain, FAMILY_SERIES), "verdict"]
    names = [(ALL_SERIES, "all families (mean)"), *((place, _plain(name)) for name, place in FAMILY_SERIES.items())]
    return _figure(plot.frame("Evidence of drift after each look, with its limit", drawn), names, heads, rows)


def tests_chart(looks: Sequence[DriftReport]) -> str:
    """Each family's smallest adjusted p-value per look, small ones on top; a filled mark alarms."""
    if not any(look.signals for look in looks):
        return ""
    plot = Plot(1.0, 1 / SMALLEST_P, columns=len(looks), logarithmic=True)
    drawn, cells = [plot.labels(_names(looks))], {}
    for name, series in FAMILY_SERIES.items():
        points = []
        for place, look in enumerate(looks):
            found = [signal for signal in look.signals if signal.family.value == name]
            if not found:
                continue
            best = min(found, key=lambda signal: signal.adjusted_p_value)
            at = (place, 1 / max(best.adjusted_p_value, SMALLEST_P))
            alarm = any(signal.alarm for signal in found)
            title = f"{_name(look)} {_plain(name)}: p {best.adjusted_p_value:.2g}, score {best.score:.3g} ({best.name})"
            points.append(at)
            drawn.append(plot.point(at, series, title, "solid" if alarm else "hollow"))
            cells[place, name] = f"{best.adjusted_p_value:.2g}{' alarm' if alarm else ''}"
        drawn.append(plot.line(points, series))
    rows = [
        [_name(look), _date(look), *(cells.get((place, name), "-") for name in FAMILY_SERIES)]
        for place, look in enumerate(looks)
    ]
    names = [(place, _plain(name)) for name, place in FAMILY_SERIES.items()]
    svg = plot.frame("Smallest adjusted p-value of each family per look; axis: 1 over p", drawn)
    return _figure(svg, names, ["look", "date", *map(_plain, FAMILY_SERIES)], rows)


MEASURED, ESTIMATED, REFERENCE = 0, 3, 2
BESIDE_PX = 9


def performance_chart(looks: Sequence[DriftReport], moves: Sequence[AliasMove]) -> str:
    """Measured and estimated performance per look beside the reference's."""
    found = [(place, look, look.performance) for place, look in enumerate(looks) if look.performance is not None]
    numbers = [
        value
        for _, _, each in found
        for value in (each.reference, each.current, each.estimated_low, each.estimated_high)
        if value is not None
    ]
    if not numbers:
        return '<p class="note">No look could measure or estimate performance.</p>'
    plot = Plot(max(0.0, min(numbers) - 0.05), min(1.0, max(numbers) + 0.05), columns=len(looks))
    drawn, rows = [plot.labels(_names(looks)), *_marks(plot, looks, moves)], []
    known = [(place, each.reference) for place, _, each in found if each.reference is not None]
    drawn += [plot.line(known, REFERENCE), *(plot.point(at, REFERENCE, f"reference {at[1]:.3f}") for at in known)]
    for place, look, each in found:
        if each.estimated is not None and each.estimated_low is not None and each.estimated_high is not None:
            text = (
                f"{_name(look)} estimated {each.estimated:.3f} ({each.estimated_low:.3f} to {each.estimated_high:.3f})"
            )
            beside = plot.beside(place, BESIDE_PX)
            drawn.append(plot.interval(beside, each.estimated_low, each.estimated_high, ESTIMATED))
            drawn.append(plot.point((beside, each.estimated), ESTIMATED, text))
        if each.current is not None:
            text = f"{_name(look)} measured {each.current:.3f} on {each.labelled} labelled images"
            drawn.append(plot.point((plot.beside(place, -BESIDE_PX), each.current), MEASURED, text))
        rows.append(
            [
                _name(look),
                _date(look),
                _three(each.reference),
                _three(each.current),
                str(each.labelled),
                _three(each.estimated),
                "-" if each.estimated_low is None else f"{each.estimated_low:.3f} to {each.estimated_high:.3f}",
            ]
        )
    names = [(MEASURED, "measured with labels"), (ESTIMATED, "estimated without, 95 %"), (REFERENCE, "reference")]
    heads = ["look", "date", "reference", "measured", "labelled images", "estimated", "95 % interval"]
    return _figure(plot.frame("Performance per look", drawn), names, heads, rows)


def map_chart(projection: Projection) -> str:
    """The two-dimensional map, each group in its own mark, its mean as a large one."""
    places = [point for group in projection.groups for point in (*group.points, group.centre)]
    (left, right), (low, high) = ((min(each), max(each)) for each in zip(*places, strict=True))
    wide, tall = (right - left) * 0.05 or 1.0, (high - low) * 0.05 or 1.0
    plot = Plot(low - tall, high + tall, across=(left - wide, right + wide), width=620, height=460)
    # The current window, which comes last and lies on top, has the first series' mark.
    last = len(projection.groups) - 1
    series = [0 if place == last else 1 + place % 5 for place in range(last + 1)]
    drawn = [
        plot.point(point, series[place], look="faint")
        for place, group in enumerate(projection.groups)
        for point in group.points
    ]
    names, rows = [], []
    for place, group in enumerate(projection.groups):
        name = f"{group.site}, {group.side.value}"
        drawn.append(plot.point(group.centre, series[place], f"mean of {name}: {group.images} images", "large"))
        names.append((series[place], f"{name} ({group.images} images)"))
        rows.append([name, str(group.images), f"{group.centre[0]:.4g}", f"{group.centre[1]:.4g}"])
    across, up = (f"{100 * share:.0f} % of the variance" for share in projection.explained)
    drawn.append(f'<text class="tick" x="{plot.width / 2}" y="{plot.height - 14}" text-anchor="middle">{across}</text>')
    drawn.append(f'<text class="tick" x="{plot.left}" y="14">{up}</text>')
    svg = plot.frame("Map of embeddings; the table below has each group's mean", drawn)
    return _figure(svg, names, ["group", "images", "mean across", "mean upwards"], rows)


def _figure(svg: str, names: Sequence[tuple[int, str]], heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return f"<figure>{legend(names)}{svg}</figure>{folded('The same as a table', table(heads, rows))}"


def _joined(
    plot: Plot, looks: Sequence[DriftReport], points: Sequence[tuple[float, float] | None], series: int, name: str
) -> list[str]:
    """Points with tooltips; the line breaks where the champion changed, for evidence starts again there."""
    drawn, run = [], list[tuple[float, float]]()
    for place, (look, point) in enumerate(zip(looks, points, strict=True)):
        if place and look.version != looks[place - 1].version:
            drawn.append(plot.line(run, series))
            run = []
        if point is not None:
            run.append(point)
            drawn.append(plot.point(point, series, f"{_name(look)} {_plain(name)}: {number(point[1])}"))
    return [*drawn, plot.line(run, series)]


def _marks(plot: Plot, looks: Sequence[DriftReport], moves: Sequence[AliasMove]) -> list[str]:
    """Where the champion changed between looks, and at which look drift was called."""
    drawn = []
    for place in range(1, len(looks)):
        before, after = looks[place - 1].created_at, looks[place].created_at
        if before is None or after is None:
            continue
        between = [move for move in moves if before < move.moved_at <= after]
        if between:
            drawn.append(plot.upright(place - 0.5, f"version {between[-1].to_version}", "move"))
    called = set[int | None]()
    for place, look in enumerate(looks):
        if look.over_time is not None and look.over_time.called_at is not None and look.version not in called:
            called.add(look.version)
            drawn.append(plot.upright(place, "drift called", "called"))
    return drawn


def _names(looks: Sequence[DriftReport]) -> list[tuple[str, str]]:
    return [(_name(look), _date(look)) for look in looks]


def _name(look: DriftReport) -> str:
    return f"#{look.id}" if look.id is not None else "now"


def _date(look: DriftReport) -> str:
    return "" if look.created_at is None else f"{look.created_at:%Y-%m-%d}"


def _plain(name: str) -> str:
    return name.replace("_", " ")


def _three(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"

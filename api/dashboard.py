"""What the dashboard shows, worked out from the registry: plain values for one template; knows nothing of HTML."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from api.predict import drift_state
from api.schemas import DriftState
from api.service import Service
from continual.domain.action_words import ACTION_WORDS, VERDICT_WORDS, Tone
from continual.domain.adapters import CHAMPION, AdapterState, AdapterVersion, AliasMove
from registry import SampleCounts, Update

SIGNS: Mapping[Tone, str] = {Tone.ACT: "!", Tone.WATCH: "↻", Tone.WAIT: "…", Tone.CALM: "✓"}
UPDATES_READ = 500


@dataclass(frozen=True, slots=True)
class SiteCard:
    """One site at a glance: what to do first, then why."""

    site: str
    tone: Tone
    sign: str
    headline: str
    verdict: str
    reason: str
    looked_at: datetime | None
    report: int | None
    samples: int
    unlabelled: int
    quarantined: int
    held: int


@dataclass(frozen=True, slots=True)
class MatrixCell:
    """The metric of one version on one site; `learnt` when the version was trained on that site, `earlier` when the
    metric is of another test split than the newest version's there: patients and labels have come since.
    """

    value: float | None
    learnt: bool
    earlier: bool = False


@dataclass(frozen=True, slots=True)
class MatrixRow:
    """One version's row of the result matrix."""

    number: int
    state: AdapterState
    aliases: tuple[str, ...]
    cells: tuple[MatrixCell, ...]


@dataclass(frozen=True, slots=True)
class AdapterBoard:
    """One adapter: its versions, newest first, with matrix and alias history."""

    name: str
    metric: str
    champion: AdapterVersion | None
    versions: tuple[AdapterVersion, ...]
    aliases: Mapping[int, tuple[str, ...]]
    sites: tuple[str, ...]
    rows: tuple[MatrixRow, ...]
    moves: tuple[AliasMove, ...]

    @property
    def has_earlier_splits(self) -> bool:
        """Whether a column of the matrix holds figures of more than one test split."""
        return any(cell.earlier for row in self.rows for cell in row.cells)

    def plot(self) -> dict[str, object]:
        """The matrix as plotly wants it: rows bottom-up are versions in order of number."""
        return {
            "metric": self.metric,
            "sites": list(self.sites),
            "versions": [" ".join([f"v{row.number}", *_marks(row)]) for row in self.rows],
            "values": [[cell.value for cell in row.cells] for row in self.rows],
            "text": [[_cell_text(cell) for cell in row.cells] for row in self.rows],
        }


@dataclass(frozen=True, slots=True)
class Dashboard:
    """Everything on the page. `board` is None while there is no adapter."""

    sites: tuple[SiteCard, ...]
    adapters: tuple[str, ...]
    board: AdapterBoard | None

    @property
    def needing(self) -> int:
        """Sites where a person has to do something."""
        return sum(card.tone is Tone.ACT for card in self.sites)


def _marks(row: MatrixRow) -> list[str]:
    return [*row.aliases, *([] if row.state is AdapterState.ACCEPTED else [row.state.value])]


def _cell_text(cell: MatrixCell) -> str:
    if cell.value is None:
        return ""
    text = f"<b>{cell.value:.2f}</b>" if cell.learnt else f"{cell.value:.2f}"
    return f"{text}*" if cell.earlier else text


@dataclass(frozen=True, slots=True)
class _Shown:
    """The adapter that the page shows (None: there is none), its updates, the champion and what it was learnt from."""

    adapter: str | None
    updates: Sequence[Update] = ()
    serving: frozenset[int] = frozenset()


def dashboard_of(service: Service, adapter: str | None) -> Dashboard:
    """The page's values for one adapter (None or an unknown name: the first one)."""
    held = service.registry
    names = tuple(held.adapters.names())
    name = adapter if adapter in names else next(iter(names), None)
    shown = _Shown(None)
    if name:
        shown = _Shown(name, held.updates.list(adapter=name, limit=UPDATES_READ), held.adapters.in_service(name))
    cards = [_card(service, site, counts, shown) for site, counts in held.samples.counts().items()]
    urgency = list(Tone)
    cards.sort(key=lambda card: urgency.index(card.tone))
    return Dashboard(tuple(cards), names, _board(service, name) if name else None)


def _card(service: Service, site: str, counts: SampleCounts, shown: _Shown) -> SiteCard:
    """What the adapter's own looks and updates say of a site."""
    state = drift_state(service, site, shown.adapter)
    headline, tone = _headline(state, _latest(site, shown.updates), shown.serving)
    return SiteCard(
        site=site,
        tone=tone,
        sign=SIGNS[tone],
        headline=headline,
        verdict=VERDICT_WORDS[state.verdict] if state else "Not looked at yet",
        reason=state.reason if state else "No drift check has run for this site.",
        looked_at=state.created_at if state else None,
        report=state.report if state else None,
        samples=counts.samples,
        unlabelled=counts.unlabelled,
        quarantined=counts.quarantined,
        held=service.registry.holds.samples_held(site),
    )


def _latest(site: str, updates: Sequence[Update]) -> Update | None:
    return max((each for each in updates if each.site == site), key=lambda each: each.id, default=None)


def _headline(state: DriftState | None, update: Update | None, serving: frozenset[int]) -> tuple[str, Tone]:
    """An update that began after the look has the last word; before that, and once it is rolled back, the verdict's
    action.
    """
    if update is not None and update.outcome == "running":
        return "Update running", Tone.WATCH
    looked_at = state.created_at if state else None
    if update is not None and update.answers(looked_at):
        if update.outcome == "accepted" and update.version in serving:
            return f"Update learnt: version {update.version}", Tone.CALM
        if update.outcome == "accepted" and state is None:
            return f"Version {update.version} was rolled back", Tone.WATCH
        if update.outcome == "rejected":
            return "Update rejected by the gate: tell the engineer; the champion stays", Tone.ACT
    if state is None:
        return "Wait for the first check", Tone.WAIT
    words = ACTION_WORDS[state.action]
    return words.headline, words.tone


def _board(service: Service, adapter: str) -> AdapterBoard:
    held = service.registry.adapters
    versions = sorted(held.list(adapter), key=lambda version: version.number)
    aliases: dict[int, tuple[str, ...]] = {}
    for alias, number in sorted(held.aliases(adapter).items()):
        aliases[number] = (*aliases.get(number, ()), alias)
    learnt = [site for version in versions for site in version.trained_on]
    sites = tuple(dict.fromkeys([*learnt, *(site for version in versions for site in version.metrics)]))
    champion = next((version for version in versions if CHAMPION in aliases.get(version.number, ())), None)
    return AdapterBoard(
        name=adapter,
        metric=versions[-1].metric.replace("_", " ") if versions else "",
        champion=champion,
        versions=tuple(reversed(versions)),
        aliases=aliases,
        sites=sites,
        rows=_rows(versions, sites, aliases),
        moves=tuple(sorted(held.history(adapter, CHAMPION), key=lambda move: move.moved_at, reverse=True)),
    )


def _rows(
    versions: Sequence[AdapterVersion], sites: Sequence[str], aliases: Mapping[int, tuple[str, ...]]
) -> tuple[MatrixRow, ...]:
    """The matrix of versions in order of number; a column's figures are held against its newest one."""
    newest = {site: version for version in versions for site in version.metrics}

    def cell(version: AdapterVersion, site: str) -> MatrixCell:
        if site not in version.metrics:
            return MatrixCell(None, site in version.trained_on)
        alike = version.was_judged_on(site, *newest[site].judged_on(site))
        return MatrixCell(version.metrics[site], site in version.trained_on, not alike)

    def row(version: AdapterVersion) -> MatrixRow:
        cells = tuple(cell(version, site) for site in sites)
        return MatrixRow(version.number, version.state, aliases.get(version.number, ()), cells)

    return tuple(row(version) for version in versions)

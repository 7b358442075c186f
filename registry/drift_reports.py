"""The drift report store: every look at a site, as it was said; knows nothing of how drift is found."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from functools import cache
from typing import Any, TypeAlias, final

from pydantic import TypeAdapter
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from continual.domain.digests import sha256_json
from continual.domain.drift import DriftReport, Verdict
from continual.domain.errors import NotFoundError
from registry import ledger
from registry.database import Database, next_number
from registry.deliveries import queue
from registry.plain_json import check_text, plain
from registry.tables import DriftReportRow

Reports: TypeAlias = list[DriftReport]


@final
class DriftReportStore:
    """Drift reports by number and by site."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(
        self, report: DriftReport, actor: str, targets: Sequence[str] = (), *, after: int | None = None
    ) -> DriftReport:
        """Store a report; the same with its number and the time it was stored, unless it brings its own time.

        In the same transaction a delivery to each of the targets is queued. `after` is the number of the newest report
        that the look knew of its site (0: of none): where its adapter's version has filed a newer one since, another
        look at the same images was faster, nothing is stored and that one is returned. Raises RegistryError when a
        number in it is not finite.
        """
        check_text(actor, "actor")
        check_text(report.site, "site")
        body = plain(asdict(replace(report, id=None, created_at=None)), "report")
        with self._database.write() as session:
            faster = None if after is None else _newer(session, report, after)
            if faster is not None:
                return _report(faster.id, faster.created_at, faster.body)
            now = ledger.moment(session)
            row = DriftReportRow(
                id=next_number(session, DriftReportRow.id),
                site=report.site,
                verdict=report.verdict.value,
                action=report.action.value,
                created_at=report.created_at or now,
                body=body,
                adapter=report.adapter,
            )
            session.add(row)
            payload = {
                "report": row.id,
                "site": row.site,
                "verdict": row.verdict,
                "action": row.action,
                "report_digest": sha256_json(body),
            }
            ledger.append(session, now, actor, "drift_report", payload)
            number = row.id
            session.flush()
            queue(session, number, targets)
        return self.get(number)

    def get(self, number: int) -> DriftReport:
        """One report; NotFoundError when there is none."""
        with self._database.read() as session:
            row = session.get(DriftReportRow, number)
            if row is None:
                raise NotFoundError(f"there is no drift report {number}; list the reports to see which there are")
            return _report(row.id, row.created_at, row.body)

    def latest(self, site: str, adapter: str | None = None) -> DriftReport | None:
        """The newest report on a site, of one adapter or of all; None when nobody has looked."""
        found = self.list(site, limit=1, adapter=adapter)
        return found[0] if found else None

    def until(self, report: DriftReport, limit: int) -> Reports:
        """Up to `limit` reports of a report's adapter and site, the newest up to itself, oldest first."""
        query = select(DriftReportRow).where(DriftReportRow.site == report.site, DriftReportRow.id <= report.id)
        query = query.where(DriftReportRow.adapter == report.adapter)
        with self._database.read() as session:
            rows = session.scalars(query.order_by(DriftReportRow.id.desc()).limit(limit))
            return [_report(row.id, row.created_at, row.body) for row in rows][::-1]

    def list(self, site: str | None = None, limit: int = 100, adapter: str | None = None) -> Reports:
        """Up to `limit` reports, of one adapter or of all, newest first."""
        query = select(DriftReportRow).order_by(DriftReportRow.id.desc()).limit(limit)
        if site is not None:
            query = query.where(DriftReportRow.site == site)
        if adapter is not None:
            query = query.where(DriftReportRow.adapter == adapter)
        with self._database.read() as session:
            return [_report(row.id, row.created_at, row.body) for row in session.scalars(query)]

    def latest_of_each(self) -> Mapping[tuple[str, str], DriftReport]:
        """The newest report by site and adapter, by one query."""
        newest = select(func.max(DriftReportRow.id)).group_by(DriftReportRow.site, DriftReportRow.adapter)
        query = select(DriftReportRow).where(DriftReportRow.id.in_(newest))
        query = query.order_by(DriftReportRow.site, DriftReportRow.adapter)
        with self._database.read() as session:
            reports = [_report(row.id, row.created_at, row.body) for row in session.scalars(query)]
        return {(report.site, report.adapter): report for report in reports}

    def counts(self) -> Mapping[tuple[str, str, Verdict], int]:
        """How often each verdict was filed, by site, adapter and verdict."""
        kind = (DriftReportRow.site, DriftReportRow.adapter, DriftReportRow.verdict)
        query = select(*kind, func.count()).group_by(*kind)
        with self._database.read() as session:
            rows = session.execute(query).tuples()
            return {(site, name, Verdict(verdict)): count for site, name, verdict, count in rows}


def _newer(session: Session, report: DriftReport, number: int) -> DriftReportRow | None:
    """The newest report above a number of the same site, adapter and version."""
    version = DriftReportRow.body["version"].as_integer()
    query = select(DriftReportRow).where(DriftReportRow.site == report.site, DriftReportRow.adapter == report.adapter)
    query = query.where(DriftReportRow.id > number, version == report.version)
    return session.scalars(query.order_by(DriftReportRow.id.desc()).limit(1)).first()


def _report(number: int, created_at: datetime, body: Mapping[str, Any]) -> DriftReport:
    return replace(_reader().validate_python(body), id=number, created_at=created_at)


@cache
def _reader() -> TypeAdapter[DriftReport]:
    """What an older release did not write yet has its default."""
    return TypeAdapter(DriftReport)

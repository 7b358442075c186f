"""The relational schema as SQLAlchemy typed mappings; knows nothing of how rows come to be.

`registry/migrations` builds the same tables step by step; a test holds the two together.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

ALIAS_REVISION = "alias_revision"
LEDGER_LENGTH = "ledger_length"


class UtcDateTime(TypeDecorator[datetime]):
    """An aware time, kept in UTC to the microsecond; SQLite stores it without its zone, so the zone is put back."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To UTC, a time without a zone taken as UTC; naive only for SQLite, which has no zones."""
        if value is None:
            return None
        in_utc = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        return in_utc.replace(tzinfo=None) if dialect.name == "sqlite" else in_utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Aware, in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if dialect.name == "sqlite" else value.astimezone(UTC)


class Base(DeclarativeBase):
    """Common naming, so that every constraint can be named by a later migration."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012  SQLAlchemy reads it from the class
        str: Text(),
        datetime: UtcDateTime(),
        dict[str, Any]: JSON(),
        list[str]: JSON(),
    }


class SiteRow(Base):
    """A site that ever had a stored sample; `position` is the order of first intake, from 1."""

    __tablename__ = "sites"

    name: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(unique=True)


class BatchRow(Base):
    """One intake that stored something; numbered from 1 without gaps."""

    __tablename__ = "batches"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    site: Mapped[str] = mapped_column(index=True)
    created_at: Mapped[datetime]
    actor: Mapped[str]
    new: Mapped[int]
    duplicates: Mapped[int]
    quarantined: Mapped[int]
    relabelled: Mapped[int]


class SubjectRow(Base):
    """A pseudonymous patient and the split it keeps for ever, even when its samples are erased."""

    __tablename__ = "subjects"

    site: Mapped[str] = mapped_column(ForeignKey("sites.name"), primary_key=True)
    pseudonym: Mapped[str] = mapped_column(primary_key=True)
    split: Mapped[str] = mapped_column(String(16))


class SampleRow(Base):
    """One stored image; unique per site and pixel digest."""

    __tablename__ = "samples"
    __table_args__ = (
        ForeignKeyConstraint(["site", "subject"], ["subjects.site", "subjects.pseudonym"]),
        Index(None, "site", "subject"),
    )

    site: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(primary_key=True, index=True)
    subject: Mapped[str]
    label: Mapped[str | None]
    artifact: Mapped[str] = mapped_column(String(64))
    mask: Mapped[str | None] = mapped_column(String(64))
    batch: Mapped[int] = mapped_column(ForeignKey("batches.number"), index=True)
    width: Mapped[int]
    height: Mapped[int]
    depth: Mapped[int | None]
    spacing_mm: Mapped[list[float] | None] = mapped_column(JSON(none_as_null=True))
    tags: Mapped[dict[str, Any]]
    pixel_statistics: Mapped[dict[str, Any]]
    acquired_at: Mapped[datetime | None]


class ReplacedMaskRow(Base):
    """A mask that a sample had until `batch` brought another one."""

    __tablename__ = "replaced_masks"
    __table_args__ = (ForeignKeyConstraint(["site", "digest"], ["samples.site", "samples.digest"]),)

    site: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(primary_key=True)
    mask: Mapped[str] = mapped_column(String(64), primary_key=True)
    batch: Mapped[int] = mapped_column(ForeignKey("batches.number"))


class QuarantineRow(Base):
    """One input that was held back, once per site, file and reason.

    `stored_in` is the batch that brought its picture after all, or found it stored already.
    """

    __tablename__ = "quarantine"
    __table_args__ = (UniqueConstraint("site", "file_digest", "reason"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    site: Mapped[str]
    position: Mapped[int]
    file_digest: Mapped[str]
    reason: Mapped[str]
    batch: Mapped[int] = mapped_column(ForeignKey("batches.number"))
    stored_in: Mapped[int | None]


class VersionRow(Base):
    """One adapter version; only `state`, `gate` and `decided_at` ever change, together and once."""

    __tablename__ = "versions"

    adapter: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    parent: Mapped[int | None]
    digest: Mapped[str] = mapped_column(String(64))
    strategy: Mapped[str]
    state: Mapped[str] = mapped_column(String(16))
    backbone_digest: Mapped[str]
    trained_on: Mapped[list[str]]
    classes: Mapped[list[str]]
    metric: Mapped[str]
    metrics: Mapped[dict[str, Any]]
    files: Mapped[dict[str, Any]]
    record: Mapped[dict[str, Any]]
    gate: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    created_at: Mapped[datetime]
    decided_at: Mapped[datetime | None]


class AliasMoveRow(Base):
    """One append to an alias's history; `rolled_back` marks a move that undoes an earlier one."""

    __tablename__ = "alias_moves"
    __table_args__ = (
        ForeignKeyConstraint(["adapter", "to_version"], ["versions.adapter", "versions.number"]),
        Index(None, "adapter", "alias", "id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    adapter: Mapped[str]
    alias: Mapped[str]
    from_version: Mapped[int | None]
    to_version: Mapped[int]
    rolled_back: Mapped[bool]
    actor: Mapped[str]
    reason: Mapped[str]
    moved_at: Mapped[datetime]


class DriftReportRow(Base):
    """One drift report; `body` is the whole report as plain JSON, the columns beside it are for finding it.

    A report of an earlier release names no adapter: it is of "", and of no other.
    """

    __tablename__ = "drift_reports"
    __table_args__ = (
        Index(None, "site", "id"),
        Index(None, "site", "adapter", "id"),
        Index(None, "site", "adapter", "verdict"),
    )

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    site: Mapped[str]
    verdict: Mapped[str] = mapped_column(String(32))
    action: Mapped[str] = mapped_column(String(32))
    created_at: Mapped[datetime]
    body: Mapped[dict[str, Any]]
    adapter: Mapped[str]


class BatchHoldRow(Base):
    """An intake batch that no reference, update or evaluation may use, since a look found its images faulty."""

    __tablename__ = "batch_holds"

    batch: Mapped[int] = mapped_column(ForeignKey("batches.number"), primary_key=True, autoincrement=False)
    reason: Mapped[str]
    actor: Mapped[str]
    held_at: Mapped[datetime]
    released_at: Mapped[datetime | None]


class PredictionRow(Base):
    """What a version first said of a picture; `site` is empty where nobody said whose picture it is."""

    __tablename__ = "predictions"

    adapter: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    site: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(primary_key=True, index=True)
    scores: Mapped[dict[str, Any]]
    predicted_at: Mapped[datetime]


class LateLabelRow(Base):
    """A label that came after its picture: when it was made, as was said, and when it came here."""

    __tablename__ = "late_labels"

    site: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(primary_key=True, index=True)
    label: Mapped[str]
    actor: Mapped[str]
    labelled_at: Mapped[datetime]
    arrived_at: Mapped[datetime]


class DeliveryRow(Base):
    """One drift report on its way to one address outside; `id` goes with every attempt, so that repeats are told.

    `next_attempt_at` is empty once it was delivered or given up.
    """

    __tablename__ = "deliveries"
    __table_args__ = (UniqueConstraint("report", "target"),)

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    report: Mapped[int] = mapped_column(ForeignKey("drift_reports.id"))
    target: Mapped[str]
    queued_at: Mapped[datetime]
    attempts: Mapped[int]
    next_attempt_at: Mapped[datetime | None] = mapped_column(index=True)
    delivered_at: Mapped[datetime | None]
    last_error: Mapped[str | None]


class UpdateRow(Base):
    """One attempt to update an adapter."""

    __tablename__ = "updates"
    __table_args__ = (Index(None, "adapter", "site", "outcome"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    adapter: Mapped[str]
    site: Mapped[str]
    parent: Mapped[int | None]
    version: Mapped[int | None]
    outcome: Mapped[str] = mapped_column(String(16))
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    seconds: Mapped[dict[str, Any]]
    plan: Mapped[dict[str, Any]]
    actor: Mapped[str]


class LedgerRow(Base):
    """One line of the hash-chained ledger, at positions 1, 2, 3 ... without gaps."""

    __tablename__ = "ledger"

    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    recorded_at: Mapped[datetime]
    actor: Mapped[str]
    event: Mapped[str] = mapped_column(String(64))
    payload: Mapped[dict[str, Any]]
    previous_digest: Mapped[str] = mapped_column(String(64))
    digest: Mapped[str] = mapped_column(String(64))


class CounterRow(Base):
    """Two single numbers: how often versions and aliases changed, and how long the ledger is."""

    __tablename__ = "counters"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    value: Mapped[int] = mapped_column(BigInteger)

"""The JSON of the public address where it differs from a domain type; knows nothing of routes.

Drift reports, alias moves, gate decisions and ledger entries leave as the domain's own dataclasses.
"""

from collections.abc import Mapping
from datetime import datetime
from urllib.parse import quote

from pydantic import BaseModel, Field

from continual.domain.adapters import AdapterState, AdapterVersion, GateDecision
from continual.domain.drift import Action, DriftReport, Verdict

RECORD_FILE = "record.json"
STORABLE = r"^[^\x00]{1,500}$"
"""Databases refuse the zero character."""


def adapter_path(adapter: str) -> str:
    """Path of an adapter below the server's root."""
    return f"/v1/adapters/{quote(adapter, safe='')}"


def version_path(version: AdapterVersion) -> str:
    """Path of one version below the server's root."""
    return f"{adapter_path(version.adapter)}/versions/{version.number}"


class FileLink(BaseModel):
    """Where one file of a version lies, and the digest its bytes must have."""

    href: str
    sha256: str
    size_bytes: int


class VersionLinks(BaseModel):
    """Paths below the server's root."""

    self: str
    files: dict[str, FileLink]
    predict: str
    record: str | None


class Version(BaseModel):
    """One immutable version of an adapter."""

    adapter: str
    number: int
    digest: str
    state: AdapterState
    strategy: str
    metric: str
    metrics: Mapping[str, float] = Field(description="Metric per site on its frozen test split")
    backbone_digest: str
    classes: tuple[str, ...]
    trained_on: tuple[str, ...] = Field(description="Sites in the order learnt, the newest last")
    parent: int | None
    created_at: datetime
    links: VersionLinks

    @classmethod
    def fields_of(cls, version: AdapterVersion) -> dict[str, object]:
        """The members shared by every view of a version."""
        files = {
            name: FileLink(href=f"{version_path(version)}/files/{quote(name, safe='')}", sha256=digest, size_bytes=size)
            for name, (digest, size) in sorted(version.files.items())
        }
        record = files.get(RECORD_FILE)
        links = VersionLinks(
            self=version_path(version),
            files=files,
            predict=f"{adapter_path(version.adapter)}/predict",
            record=record.href if record else None,
        )
        same = (
            "adapter number digest state strategy metric metrics backbone_digest classes trained_on parent created_at"
        )
        return {**{name: getattr(version, name) for name in same.split()}, "links": links}

    @classmethod
    def of(cls, version: AdapterVersion) -> "Version":
        """The view of a stored version."""
        return cls.model_validate(cls.fields_of(version))


class VersionWithGate(Version):
    """A version with the gate's reading of it; None while it is a candidate."""

    gate: GateDecision | None

    @classmethod
    def of(cls, version: AdapterVersion) -> "VersionWithGate":
        """The view of a stored version, its gate included."""
        return cls.model_validate({**cls.fields_of(version), "gate": version.gate})


class Adapter(BaseModel):
    """A named family of versions; `aliases` maps each alias to a version number."""

    name: str
    versions: int
    aliases: dict[str, int]
    links: dict[str, str]


class AliasTarget(BaseModel):
    """The version an alias points, or pointed, to."""

    adapter: str
    alias: str
    at: datetime | None = Field(description="The time asked about; null for now")
    version: Version


class AliasRequest(BaseModel):
    """Where to move an alias, and why; the reason is kept for ever."""

    version: int = Field(ge=1, le=2**31 - 1)
    reason: str = Field(pattern=STORABLE)


class RollbackRequest(BaseModel):
    """Why the champion goes back to the one before; kept for ever."""

    reason: str = Field(pattern=STORABLE)


class DriftState(BaseModel):
    """A site's latest verdict in short; the report has the evidence."""

    site: str
    adapter: str = Field(description="The adapter that looked; empty in a report of an earlier release")
    report: int | None
    verdict: Verdict
    action: Action
    reason: str
    created_at: datetime | None

    @classmethod
    def of(cls, report: DriftReport) -> "DriftState":
        """The short form of a report."""
        same = ("site", "adapter", "verdict", "action", "reason", "created_at")
        return cls.model_validate({**{name: getattr(report, name) for name in same}, "report": report.id})


class PredictionAnswer(BaseModel):
    """Probability per class in [0, 1], the likeliest class, and which version on which backbone said so."""

    adapter: str
    version: int
    backbone_digest: str
    label: str
    scores: Mapping[str, float]
    drift: DriftState | None = Field(description="Latest drift verdict of the site named in ?site=")


class Site(BaseModel):
    """One institution's stream as the registry holds it."""

    site: str
    samples: int
    labelled: int = Field(description="Samples with a label")
    masked: int = Field(description="Samples with a mask")
    quarantined: int
    held: int = Field(description="Samples of batches that are held for a data fault; nothing learns or judges them")
    drift: DriftState | None
    links: dict[str, str]


class SiteDrift(BaseModel):
    """A site's latest report in full, and the earlier verdicts, newest first."""

    site: str
    latest: DriftReport | None
    history: list[DriftState]


class LedgerCheck(BaseModel):
    """The outcome of walking the ledger's hash chain."""

    verified: bool
    entries: int

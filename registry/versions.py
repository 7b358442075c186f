"""An adapter version between its table row and its frozen type; knows nothing of aliases."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from continual.domain.adapters import AdapterState, AdapterVersion, GateDecision, GateFinding, VersionDraft
from continual.domain.digests import sha256_bytes, sha256_json
from continual.domain.errors import ArtifactError, ConflictError, NotFoundError
from registry import ledger
from registry.plain_json import check_name, check_text, plain
from registry.tables import ALIAS_REVISION, CounterRow, VersionRow

SAFE_ENDINGS = (".safetensors", ".json", ".md")
"""No other kind of file is kept with a version: a pickle runs code when it is loaded."""


def describe_files(files: Mapping[str, bytes]) -> dict[str, tuple[str, int]]:
    """File name to (SHA-256, size in bytes); ArtifactError on an empty folder or a file that must not be kept."""
    if not files:
        raise ArtifactError("a version of 0 files cannot be registered; pass its adapter files")
    for name in files:
        check_name(name, "file")
        if not name.endswith(SAFE_ENDINGS):
            raise ArtifactError(
                f"file {name!r} is not kept with a version; save it as one of {', '.join(SAFE_ENDINGS)}"
            )
    return {name: (sha256_bytes(data), len(data)) for name, data in sorted(files.items())}


def folder_digest(files: Mapping[str, tuple[str, int]]) -> str:
    """SHA-256 of the sorted list of (file name, file digest)."""
    return sha256_json(sorted((name, digest) for name, (digest, _) in files.items()))


def check_draft(draft: VersionDraft) -> None:
    """RegistryError on a draft whose names cannot stand in a URL or whose texts a database refuses."""
    check_name(draft.adapter, "adapter")
    for kind, value in (("strategy", draft.strategy), ("backbone", draft.backbone_digest), ("metric", draft.metric)):
        check_text(value, kind)


def new_row(draft: VersionDraft, number: int, files: Mapping[str, tuple[str, int]], created_at: datetime) -> VersionRow:
    """The row of a candidate."""
    return VersionRow(
        adapter=draft.adapter,
        number=number,
        parent=draft.parent,
        digest=folder_digest(files),
        strategy=draft.strategy,
        state=AdapterState.CANDIDATE.value,
        backbone_digest=draft.backbone_digest,
        trained_on=plain(draft.trained_on, "trained_on"),
        classes=plain(draft.classes, "classes"),
        metric=draft.metric,
        metrics=plain(draft.metrics, "metrics"),
        files=plain(files, "files"),
        record=plain(draft.record, "record"),
        gate=None,
        created_at=created_at,
        decided_at=None,
    )


def find_row(session: Session, adapter: str, number: int) -> VersionRow:
    """The row of one version; NotFoundError when there is none."""
    row = session.get(VersionRow, (adapter, number))
    if row is None:
        raise NotFoundError(f"adapter {adapter!r} has no version {number}; list its versions to see which there are")
    return row


def decide_row(session: Session, row: VersionRow, gate: GateDecision, actor: str) -> bool:
    """Write the gate's verdict on a candidate, once; whether it was news. ConflictError on a second, other verdict."""
    if gate.accepted and not all(finding.passed for finding in gate.findings):
        raise ConflictError("the gate accepts with a finding that did not pass; run the gate again")
    state = AdapterState.ACCEPTED if gate.accepted else AdapterState.REJECTED
    if row.state == state.value:
        return False
    if row.state != AdapterState.CANDIDATE.value:
        raise ConflictError(
            f"version {row.number} of {row.adapter!r} is {row.state} already and cannot become {state.value}; "
            "register a new candidate"
        )
    at = ledger.moment(session)
    row.state, row.gate, row.decided_at = state.value, plain(asdict(gate), "gate"), at
    payload = {
        "adapter": row.adapter,
        "version": row.number,
        "state": state.value,
        "gate_digest": sha256_json(row.gate),
    }
    ledger.append(session, at, actor, "gate_decision", payload)
    bump_alias_revision(session)
    return True


def bump_alias_revision(session: Session) -> None:
    """Tell every process that a version or an alias changed."""
    session.execute(update(CounterRow).where(CounterRow.name == ALIAS_REVISION).values(value=CounterRow.value + 1))


def same_folder(session: Session, draft: VersionDraft, digest: str) -> VersionRow | None:
    """The version that already holds the same files under the same parent, if any."""
    query = select(VersionRow).where(VersionRow.adapter == draft.adapter, VersionRow.digest == digest)
    return session.scalar(query.where(VersionRow.parent.is_not_distinct_from(draft.parent)).limit(1))


def version_of(row: VersionRow) -> AdapterVersion:
    """The frozen value of a row."""
    return AdapterVersion(
        adapter=row.adapter,
        number=row.number,
        parent=row.parent,
        digest=row.digest,
        strategy=row.strategy,
        state=AdapterState(row.state),
        backbone_digest=row.backbone_digest,
        trained_on=tuple(row.trained_on),
        classes=tuple(row.classes),
        metric=row.metric,
        metrics=row.metrics,
        files={name: (str(digest), int(size)) for name, (digest, size) in row.files.items()},
        created_at=row.created_at,
        gate=None if row.gate is None else gate_of(row.gate),
        record=row.record,
    )


def gate_of(stored: Mapping[str, Any]) -> GateDecision:
    """The frozen value of a stored gate decision."""
    findings = tuple(GateFinding(**finding) for finding in stored["findings"])
    return GateDecision(bool(stored["accepted"]), findings, float(stored["margin"]), float(stored["confidence"]))

"""Erasing a subject from wherever it is held: samples, images, masks, quarantine, activations, training states.

A replay memory is a list of digests in a version's immutable record; what is not stored is not remembered.
"""

import re
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from continual.domain.errors import SettingsError
from continual.domain.samples import PSEUDONYM_CHARACTERS, pseudonym
from continual.learning import cached_digests, forget_activations, forget_training_states
from flows.updates.occasions import MOST_UPDATES
from flows.updates.trained_versions import HOW, TrainedVersion, trained_versions
from flows.workplace import Workplace
from registry import Erasure, ErasureOrder

RUNNING = "running"


@dataclass(frozen=True, slots=True)
class Person:
    """Whom to erase: a pseudonym, or a patient's own identifier and the site that uses it."""

    subject: str | None = None
    patient_id: str | None = None
    site: str | None = None


@dataclass(frozen=True, slots=True)
class ErasureReport:
    """What an erasure did. `erased` is None when nothing was held; `before` is the erasure that came before, if any.

    `activation_files` counts cached and kept files of images without a sample, `training_states` those of unfinished
    updates, which start anew; `running_updates` are attempts that had not ended and may still have the subject's images
    in their hands.
    """

    site: str
    subject: str
    erased: Erasure | None
    before: Erasure | None
    activation_files: int
    versions: tuple[TrainedVersion, ...]
    running_updates: tuple[int, ...]
    training_states: int = 0

    def as_record(self) -> dict[str, Any]:
        """Plain JSON."""
        done = self.erased
        return {
            "site": self.site,
            "subject": self.subject,
            "samples": done.samples if done else 0,
            "artifacts": done.artifacts if done else 0,
            "masks": done.masks if done else 0,
            "quarantined": done.quarantined if done else 0,
            "activation_files": self.activation_files,
            "training_states": self.training_states,
            "ledger_position": done.position if done else None,
            "erased_before": self.before.erased_at.isoformat() if self.before else None,
            "versions": [asdict(version) for version in self.versions],
            "running_updates": list(self.running_updates),
        }


def erase_person(workplace: Workplace, person: Person, reason: str) -> ErasureReport:
    """Remove a subject from every place that holds it, and name the adapter versions that were trained on it.

    Again it finds nothing more to remove; after a kill it finishes. Raises NotFoundError for a subject that was never
    taken in, SettingsError when it is not said who, or when the reason names the patient.
    """
    site, subject = _identify(workplace, person)
    _check_reason(reason, person)
    registry = workplace.registry
    earlier = registry.erasures.list(site, subject)
    samples = [sample for sample in registry.samples.list(site, with_held=True) if sample.subject == subject]
    running = tuple(update.id for update in registry.updates.list(limit=MOST_UPDATES) if update.outcome == RUNNING)
    versions = trained_versions(registry, samples, earlier)
    findings = {"versions": [asdict(version) for version in versions], "running_updates": running}
    done = registry.erasures.erase(ErasureOrder(site, subject, workplace.actor, reason, findings))
    return ErasureReport(
        site=site,
        subject=subject,
        erased=done,
        before=earlier[-1] if earlier else None,
        activation_files=_sweep_activations(workplace),
        versions=versions,
        running_updates=running,
        # Whose images an unfinished update has learnt is not written on its state: all of them go.
        training_states=forget_training_states(workplace.settings.training_folder()),
    )


def show_erasure(console: Console, report: ErasureReport) -> None:
    """What went, which versions learnt the subject, and what is left for a person to do."""
    who = f"subject {report.subject} of {report.site}"
    done = report.erased
    if done is None:
        when = f"; erased on {report.before.erased_at:%Y-%m-%d}" if report.before else ""
        console.print(f"nothing is held of {who}{when}", highlight=False)
    else:
        masks = f"{done.masks} masks, " if done.masks else ""
        console.print(
            f"erased {who}: {done.samples} samples, {done.artifacts} images, {masks}{done.quarantined} quarantine "
            f"entries (ledger entry {done.position})",
            highlight=False,
        )
    if report.activation_files:
        console.print(f"deleted {report.activation_files} activation files", highlight=False)
    if report.training_states:
        console.print(f"deleted {report.training_states} training states of unfinished updates", highlight=False)
    _show_versions(console, report)
    if report.running_updates:
        listed = ", ".join(map(str, report.running_updates))
        console.print(
            f"update {listed} had not ended and may have the subject in its hands: erase again when it has",
            highlight=False,
        )
    if done is not None:
        console.print("Next:  take the patient out of the files that are ingested, or the next intake brings it back")


def _show_versions(console: Console, report: ErasureReport) -> None:
    if not report.versions:
        console.print("no adapter version was trained on it", highlight=False)
        return
    table = Table(title="Adapter versions trained on it (their weights are unchanged)", title_justify="left")
    for heading in ("adapter", "version", "how"):
        table.add_column(heading, overflow="fold")
    for found in report.versions:
        table.add_row(found.adapter, str(found.version), HOW[found.how])
    console.print(table)


def _identify(workplace: Workplace, person: Person) -> tuple[str, str]:
    """Site and pseudonym. No message repeats what was given: it may be a name."""
    patient_id = (person.patient_id or "").strip()
    if bool(patient_id) == bool(person.subject):
        raise SettingsError("name the subject by --subject, or by --patient-id and --site; one of the two is needed")
    if patient_id:
        if person.site is None:
            raise SettingsError("--patient-id needs --site: every site has pseudonyms of its own; add the site's name")
        subject = pseudonym(workplace.key, person.site, patient_id)
    else:
        subject = str(person.subject)
        if not re.fullmatch(rf"[0-9a-f]{{{PSEUDONYM_CHARACTERS}}}", subject):
            raise SettingsError(
                f"--subject is not a pseudonym, {PSEUDONYM_CHARACTERS} digits 0-9 and a-f; a patient's own identifier "
                "goes into --patient-id, with --site"
            )
    return workplace.registry.erasures.site_of(subject, person.site), subject


def _check_reason(reason: str, person: Person) -> None:
    name = (person.patient_id or "").strip()
    if name and re.search(rf"(?<!\w){re.escape(name)}(?!\w)", reason, re.IGNORECASE):
        raise SettingsError("--reason names the patient, and the ledger never forgets; leave identifiers out of it")


def _sweep_activations(workplace: Workplace) -> int:
    """Delete the activations, cached and kept, of every image without a sample: this subject's, a kill's leavings.

    Each folder is listed first: whatever is cached was stored before, so nothing new is taken for a remnant.
    """
    deleted = 0
    for folder in (workplace.settings.activations_folder(), workplace.settings.kept_activations_folder()):
        cached = cached_digests(folder)
        deleted += forget_activations(folder, cached - workplace.registry.samples.stored(cached))
    return deleted

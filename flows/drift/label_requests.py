"""Which of a site's images to label, and their files for whoever labels; asks no network.

They are drawn by lot, each subject's first image before anybody's second. Images that the champion doubts would teach
more, but labels of those alone make any model look worse than it is: of streams without a change in which a tenth had
been chosen so, the test on labels called four in five.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from continual.domain.adapters import CHAMPION, Task
from continual.domain.errors import NotFoundError, SettingsError
from continual.domain.metrics import task_of
from continual.domain.samples import Sample
from flows.whole_files import write_whole
from flows.workplace import Workplace

TABLE = "labels.csv"


@dataclass(frozen=True, slots=True)
class Case:
    """An image to label: its content's digest, and its file beside the table."""

    digest: str
    file: str


def write_cases(workplace: Workplace, adapter: str, site: str, folder: Path, count: int) -> list[Case]:
    """Write up to `count` unlabelled images of a site, one per subject while they last, and a table to fill in.

    The table is what `continual label` reads, and is written last. Raises NotFoundError where no unlabelled image of
    the site was predicted yet, SettingsError for an adapter of masks, and where the folder
    already has a table: somebody may have filled it in.
    """
    table = folder / TABLE
    if table.exists():
        raise SettingsError(
            f"{table} is there already and may hold labels; take them with `continual label`, or move it"
        )
    champion = workplace.registry.adapters.current(adapter, CHAMPION)
    if task_of(champion.metric) is Task.SEGMENTATION:
        raise SettingsError(f"adapter {adapter!r} answers with masks, not labels; send masks in a manifest")
    samples = [sample for sample in workplace.registry.samples.list(site) if sample.label is None]
    there = workplace.registry.artifacts.sizes(sample.artifact for sample in samples)
    samples = [sample for sample in samples if sample.artifact in there]  # an image that was let go cannot be shown
    said = workplace.registry.predictions.said(adapter, champion.number, site, [sample.digest for sample in samples])
    cases = choose_cases([sample for sample in samples if sample.digest in said], count)
    if not cases:
        raise NotFoundError(
            f"of {len(samples)} unlabelled images of site {site!r} version {champion.number} has predicted 0; look at "
            "the site with `continual monitor`, or send images"
        )
    stored = {sample.digest: sample for sample in samples}
    for case in cases:
        write_whole(folder / case.file, workplace.registry.samples.read(stored[case.digest]))
    write_whole(table, _table(cases, site))
    return cases


def choose_cases(samples: Sequence[Sample], count: int) -> list[Case]:
    """Up to `count` cases; each subject's first before anybody's second.

    The lot falls by digest, which no image's content foresees, so asking again gives the same cases.
    """
    turns: dict[str, int] = {}
    ranked = []
    for sample in sorted(samples, key=lambda one: one.digest):
        turns[sample.subject] = turns.get(sample.subject, 0) + 1
        ranked.append((turns[sample.subject], sample.digest, sample))
    drawn = [sample for *_, sample in sorted(ranked, key=lambda entry: entry[:2])[:count]]
    return [Case(sample.digest, _file(number, sample)) for number, sample in enumerate(drawn, start=1)]


def _file(number: int, sample: Sample) -> str:
    return f"{number:03d}-{sample.digest[:12]}{'.nii.gz' if sample.is_volume else '.png'}"


def _table(cases: Sequence[Case], site: str) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(("path", "digest", "site", "label"))
    writer.writerows((case.file, case.digest, site, "") for case in cases)
    return text.getvalue().encode()

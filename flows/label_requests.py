"""Which of a site's images are worth a label, and their files for whoever labels; asks what was predicted, no network.

Half of the cases are those the champion was least sure of, which teach most (margin sampling, Scheffer et al. 2001);
half are drawn by lot, since on doubtful cases alone any model looks worse than it is.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from continual.domain.adapters import CHAMPION
from continual.domain.errors import NotFoundError, SettingsError
from continual.domain.predictions import Prediction
from continual.domain.samples import Sample
from flows.whole_files import write_whole
from flows.workplace import Workplace

DOUBTFUL, BY_LOT = "doubtful", "by lot"
TABLE = "labels.csv"


@dataclass(frozen=True, slots=True)
class Case:
    """An image worth a label: its content's digest, its file beside the table, why it was chosen.

    `margin` is the distance in [0, 1] between the champion's two likeliest classes.
    """

    digest: str
    file: str
    chosen: str
    margin: float


def write_cases(workplace: Workplace, adapter: str, site: str, folder: Path, count: int) -> list[Case]:
    """Write up to `count` unlabelled images of a site, one per subject while they last, and a table to fill in.

    The table is what `continual label` reads, and is written last. Raises NotFoundError where no unlabelled image of
    the site was predicted yet, SettingsError where the folder already has a table: somebody may have filled it in.
    """
    table = folder / TABLE
    if table.exists():
        raise SettingsError(
            f"{table} is there already and may hold labels; take them with `continual label`, or move it"
        )
    samples = [sample for sample in workplace.registry.samples.list(site) if sample.label is None]
    there = workplace.registry.artifacts.sizes(sample.artifact for sample in samples)
    samples = [sample for sample in samples if sample.artifact in there]  # an image that was let go cannot be shown
    champion = workplace.registry.adapters.current(adapter, CHAMPION)
    digests = [sample.digest for sample in samples]
    said = workplace.registry.predictions.said(adapter, champion.number, site, digests)
    cases = choose_cases([sample for sample in samples if sample.digest in said], said, count)
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


def choose_cases(samples: Sequence[Sample], said: Mapping[str, Prediction], count: int) -> list[Case]:
    """Up to `count` cases, half of them doubtful; each subject's first before anybody's second.

    The lot falls by digest, which no image's content foresees, so asking again gives the same cases.
    """
    margins = {digest: _margin(prediction) for digest, prediction in said.items()}
    doubtful = _one_each(sorted(samples, key=lambda one: (margins[one.digest], one.digest)))[: (count + 1) // 2]
    taken = {sample.digest for sample in doubtful}
    left = [sample for sample in sorted(samples, key=lambda one: one.digest) if sample.digest not in taken]
    drawn = _one_each(left)[: count - len(doubtful)]
    chosen = [*((one, DOUBTFUL) for one in doubtful), *((one, BY_LOT) for one in drawn)]
    # In order of digest: whoever labels shall not know which are the hard ones.
    chosen.sort(key=lambda pair: pair[0].digest)
    return [
        Case(sample.digest, _file(number, sample), why, margins[sample.digest])
        for number, (sample, why) in enumerate(chosen, start=1)
    ]


def _margin(prediction: Prediction) -> float:
    likeliest = sorted(prediction.scores.values(), reverse=True)
    return likeliest[0] - (likeliest[1] if len(likeliest) > 1 else 0.0)


def _one_each(samples: Sequence[Sample]) -> list[Sample]:
    """The samples again, each subject's first one before anybody's second."""
    turns: dict[str, int] = {}
    ranked = []
    for place, sample in enumerate(samples):
        turns[sample.subject] = turns.get(sample.subject, 0) + 1
        ranked.append((turns[sample.subject], place, sample))
    return [sample for *_, sample in sorted(ranked, key=lambda entry: entry[:2])]


def _file(number: int, sample: Sample) -> str:
    return f"{number:03d}-{sample.digest[:12]}{'.nii.gz' if sample.is_volume else '.png'}"


def _table(cases: Sequence[Case], site: str) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(("path", "digest", "site", "label"))
    writer.writerows((case.file, case.digest, site, "") for case in cases)
    return text.getvalue().encode()

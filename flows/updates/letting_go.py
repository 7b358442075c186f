"""Letting images go: what stays of learnt samples under a change plan without images, and what then cannot be done.

Activations are on the disk before an image is deleted for them, and what is no longer wanted of them goes last, so a
killed sweep is finished by the next. docs/decisions/0017 says what is kept of whom, and why.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from continual.domain.adapters import CHAMPION, AdapterVersion
from continual.domain.change_plan import ChangePlan
from continual.domain.errors import NotFoundError
from continual.domain.metrics import BALANCED_ACCURACY
from continual.domain.samples import Sample, Split
from continual.learning import (
    ActivationCache,
    ActivationKey,
    forget_activations,
    forget_beyond,
    holds_kinds,
)
from flows.updates.adapter_context import AdapterContext
from flows.updates.gone_images import only_features
from flows.updates.learnt import has_learnt, has_learnt_batch
from registry import JUDGED, Registry

FEATURES_ALONE = 0
"""Views of a sample of which frozen features are kept and nothing else."""


@dataclass(frozen=True, slots=True, eq=False)
class Needs:
    """What one adapter needs of samples whose images may go.

    `batches` are the intake batches that an update of it was judged on, or its champion has learnt.
    """

    champion: AdapterVersion
    batches: frozenset[int]
    remembered: frozenset[tuple[str, str]]

    def views(self, sample: Sample) -> int | None:
        """How many cached views must stay beside the frozen features; None when the image itself must."""
        if sample.batch not in self.batches:
            return None
        options = self.champion.record["options"]
        asked = int(options.get("test_time_views", 1))
        if sample.split is not Split.TRAIN:
            return asked
        unlearnt = not has_learnt(self.champion, sample)
        # Without a label it may still be learnt, once it has one.
        if unlearnt or sample.label is None or (sample.site, sample.digest) in self.remembered:
            # Looks show the champion what it has not learnt.
            return max(asked, int(options["training"]["views"]))
        return FEATURES_ALONE


def needs_of(registry: Registry, champion: AdapterVersion) -> Needs:
    """An adapter's needs, from its champion's record and the updates that were judged."""
    stored = registry.samples.batches()
    batches = {batch.number for batch in stored if has_learnt_batch(champion, batch.site, batch.number)}
    for update in registry.updates.list(champion.adapter, limit=1_000_000):
        if update.outcome in JUDGED:
            batches.update(update.plan.get("batches", ()))
    remembered = frozenset((site, digest) for site, digest in champion.record["memory"])
    return Needs(champion, frozenset(batches), remembered)


def let_go(context: AdapterContext) -> int:
    """Delete the images that no adapter of the workspace needs any more; how many went.

    Nothing happens under a plan that keeps images, before the first release, or while another adapter keeps images.
    Again it finds nothing more to do; after a kill it finishes.
    """
    champion = context.champion()
    if context.options.plan.keep_images or champion is None:
        return 0
    registry = context.registry
    adapters = [needs_of(registry, one) for one in _champions(registry)]
    if any(_keeps_images(needs.champion) for needs in adapters):
        return 0
    samples = registry.samples.list()
    _keep(context, needs_of(registry, champion), samples)
    places = [(needs, _folders(context, needs.champion)) for needs in adapters]
    free = [sample for sample in samples if all(_provided(sample, *place) for place in places)]
    gone = registry.images.let_go(context.name, free, context.workplace.actor)
    _forget(context, samples, places)
    return sum(entry.images for entry in gone)


def learnable(context: AdapterContext, samples: Sequence[Sample]) -> list[Sample]:
    """The samples without those of which only frozen features are kept: after a rollback they cannot be learnt."""
    if context.options.plan.keep_images:
        return list(samples)
    return [sample for sample in samples if not only_features(context.cache, sample)]


def _keep(context: AdapterContext, needs: Needs, samples: Sequence[Sample]) -> None:
    """Move what this adapter needs of samples whose images are still stored to its kept activations."""
    settled = [(sample, views) for sample in samples if (views := needs.views(sample)) is not None]
    stored = context.registry.artifacts.sizes(sample.artifact for sample, _ in settled)
    wanted: dict[str, int] = {}
    for sample, views in settled:
        if sample.artifact in stored:
            wanted[sample.digest] = max(views, wanted.get(sample.digest, FEATURES_ALONE))
    for count in sorted(set(wanted.values())):
        context.fill([s for s, _ in settled if wanted.get(s.digest) == count], count, "activations to keep")
    if isinstance(context.cache, ActivationCache):
        context.cache.keep(wanted)


def _provided(sample: Sample, needs: Needs, folders: Sequence[Path]) -> bool:
    """Whether an adapter has all that it needs of a sample beside its image."""
    views = needs.views(sample)
    return views is not None and any(holds_kinds(folder, sample.digest, views) for folder in folders)


def _forget(context: AdapterContext, samples: Sequence[Sample], places: Sequence[tuple[Needs, Sequence[Path]]]) -> None:
    """Delete the activations of images that are gone: all that is cached, and what is kept beyond what is needed."""
    stored = context.registry.artifacts.sizes(sample.artifact for sample in samples)
    gone = {sample.digest for sample in samples} - {s.digest for s in samples if s.artifact in stored}
    forget_activations(context.workplace.settings.activations_folder(), gone)
    beyond: dict[Path, dict[str, int]] = {}
    for needs, folders in places:
        for sample in samples:
            views = needs.views(sample)
            if sample.digest in gone and views is not None:
                for folder in folders:
                    held = beyond.setdefault(folder, {})
                    held[sample.digest] = max(views, held.get(sample.digest, FEATURES_ALONE))
    for folder, views_of in beyond.items():
        forget_beyond(folder, views_of)


def _folders(context: AdapterContext, champion: AdapterVersion) -> list[Path]:
    """Where an adapter's kept activations lie; on another backbone than ours, wherever its backbone has any."""
    kept, record = _kept(context), champion.record["options"]
    side, upright = record["image_size"], record["training"].get("upright", False)
    if champion.backbone_digest == context.weights.digest:
        depth = context.cache.key.blocks + context.options.lora.blocks
        key = ActivationKey(champion.backbone_digest, depth - record["lora"]["blocks"], side, upright=upright)
        return [kept / key.folder()]
    return sorted(kept.glob(f"{champion.backbone_digest[:16]}-b*-s{side}{'-upright' if upright else ''}"))


def _kept(context: AdapterContext) -> Path:
    return context.workplace.settings.kept_activations_folder()


def _champions(registry: Registry) -> Iterator[AdapterVersion]:
    for name in registry.adapters.names():
        try:
            yield registry.adapters.current(name, CHAMPION)
        except NotFoundError:
            continue


def _keeps_images(champion: AdapterVersion) -> bool:
    # Whoever answers pixel by pixel replays masks, and no mask is kept without its image.
    by_pixel = champion.metric != BALANCED_ACCURACY
    return by_pixel or ChangePlan.from_record(champion.record["options"]["plan"]).keep_images

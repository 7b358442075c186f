"""An adapter at work: its backbone, activation cache, options and change plan, built from the registry's records."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from continual.domain.adapters import CHAMPION, AdapterVersion, Task
from continual.domain.change_plan import ChangePlan
from continual.domain.errors import (
    ArtifactError,
    ConflictError,
    ImageErasedError,
    NotFoundError,
    SettingsError,
    StreamError,
)
from continual.domain.samples import Sample, Split
from continual.imaging import decode_image, decode_mask, decode_volume, decode_volume_mask
from continual.learning import (
    ActivationCache,
    ActivationKey,
    AdaptedNetwork,
    BackboneWeights,
    Cache,
    CachePlace,
    ClosedFormNetwork,
    LoraShape,
    PatchCache,
    Readout,
    TileCache,
    TileGrid,
    TrainingOptions,
    TunedNetwork,
    VersionNetwork,
    Volume,
    VolumeGrid,
    bound_threads,
    build_backbone,
    build_network,
    check_image_size,
    check_kind,
    check_tile,
    choose_device,
    choose_tile,
    first_tuned_block,
    forget_activations,
    mask_network,
    peft_configuration,
    policy_named,
    read_adapter,
    read_version,
    resolve_backbone,
    volume_network,
    weights_from_bytes,
)
from flows.progress import track
from flows.requests import Release
from flows.updates.gone_images import check_images
from flows.workplace import Workplace

MOST_VIEWS = 8
"""The symmetries of the square: a ninth view would be one of them again."""


@dataclass(frozen=True, slots=True)
class AdapterOptions:
    """How an adapter is built and trained. `image_size` is the side in pixels, a multiple of the backbone's patch.

    A segmenting adapter names the `classes` of its masks' numbers 1 to K, and cuts images into tiles of `tile` pixels;
    0 takes the largest side up to 168 pixels that fits. An adapter of volumes has the grid that they are learnt at,
    `volume`, and 0 for an image size; None belongs to images. Of an image that is classified the answer is a mean over
    `test_time_views` views.
    """

    image_size: int
    lora: LoraShape = field(default_factory=LoraShape)
    training: TrainingOptions = field(default_factory=TrainingOptions)
    plan: ChangePlan = field(default_factory=ChangePlan)
    task: Task = Task.CLASSIFICATION
    classes: tuple[str, ...] = ()
    tile: int = 0
    volume: VolumeGrid | None = None
    test_time_views: int = 1

    def __post_init__(self) -> None:
        self._check_test_time_views()
        if self.task is Task.SEGMENTATION and (not self.classes or len(set(self.classes)) < len(self.classes)):
            raise SettingsError(
                f"a segmenting adapter was given the classes {list(self.classes)}; name each of the masks' numbers "
                "from 1 once with --classes"
            )
        if self.task is Task.SEGMENTATION and self.plan.new_classes:
            raise SettingsError(
                "new classes are allowed to an adapter of masks, whose numbers only --classes can name; leave out "
                "--new-classes, and release an adapter with all classes"
            )
        if self.task is Task.SEGMENTATION and not self.plan.keep_images:
            raise SettingsError(
                "images are to go once learnt, and an adapter of masks learns from images and masks; leave out "
                "--no-images"
            )
        if self.volume is not None and (self.tile or not self.plan.keep_images):
            raise SettingsError(
                "--tile and --no-images belong to images, and this adapter learns volumes; leave them out"
            )
        if self.task is Task.CLASSIFICATION and (self.classes or self.tile):
            raise SettingsError(
                "--classes and --tile belong to masks, and the task is classification; leave them out, or pass "
                "--task segmentation"
            )

    def _check_test_time_views(self) -> None:
        if not 1 <= self.test_time_views <= MOST_VIEWS:
            raise SettingsError(f"{self.test_time_views} test-time views; give 1 to {MOST_VIEWS} (--test-views)")
        if self.test_time_views > 1 and (self.task is Task.SEGMENTATION or self.volume is not None):
            raise SettingsError(
                f"answers from {self.test_time_views} test-time views, which images have and masks and volumes have "
                "not; leave out --test-views"
            )

    def as_record(self) -> dict[str, Any]:
        """Plain JSON, kept in every version so that the next update trains the same way."""
        record: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return record


def options_from_record(record: Mapping[str, Any]) -> AdapterOptions:
    """The options a version was made with; what an older release did not write yet has its default."""
    grid = record.get("volume")
    return AdapterOptions(
        record["image_size"],
        LoraShape(**record["lora"]),
        TrainingOptions(**record["training"]),
        ChangePlan.from_record(record["plan"]),
        Task(record.get("task", Task.CLASSIFICATION)),
        tuple(record.get("classes", ())),
        record.get("tile", 0),
        VolumeGrid.from_record(grid) if grid else None,
        record.get("test_time_views", 1),
    )


def champion_of(workplace: Workplace, adapter: str) -> AdapterVersion | None:
    """The version of an adapter in service, or None before its first release."""
    try:
        return workplace.registry.adapters.current(adapter, CHAMPION)
    except NotFoundError:
        return None


def check_release(wanted: Release, device: str) -> None:
    """Raise the error that making this adapter would end in: memory policy, backbone, device, method, image size."""
    choose_device(device)
    options = options_from_record(wanted.options)
    policy_named(options.plan.replay_policy)
    weights = resolve_backbone(wanted.backbone, wanted.backbone_name)
    check_kind(weights, options.task, options.volume)
    network = build_backbone(weights)
    peft_configuration(network, options.lora)
    if weights.of_volumes:
        return
    if not options.plan.keep_images and first_tuned_block(network, options.lora) == 0:
        raise SettingsError(
            f"images are to go once learnt, and LoRA in all {options.lora.blocks} blocks learns from what lies before "
            "the first one, from which an image can be computed back; give fewer --lora-blocks or leave out --no-images"
        )
    check_image_size(network, options.image_size)
    if options.task is Task.SEGMENTATION:
        check_tile(network, TileGrid(options.image_size, options.tile or choose_tile(network, options.image_size)))


def options_kept(champion: AdapterVersion, wanted: Release) -> list[str]:
    """What was asked for and is not done, because an adapter keeps the options it was released with.

    Raises ConflictError when another backbone is asked for: its adapter versions could not be compared.
    """
    asked = resolve_backbone(wanted.backbone, wanted.backbone_name).digest
    if asked != champion.backbone_digest:
        raise ConflictError(
            f"adapter {champion.adapter!r} stands on backbone {champion.backbone_digest[:12]}, --backbone is "
            f"{asked[:12]}; pass the same weights or give the new adapter a name of its own"
        )
    kept = _leaves(options_from_record(champion.record["options"]).as_record())
    asked_for = _leaves(wanted.options)
    # The one wish that an adapter in service grants: its plan is widened from the next update on.
    asked_for.pop("new_classes", None)
    return [f"{name} {kept[name]} (not {value})" for name, value in asked_for.items() if kept.get(name, value) != value]


def _leaves(record: Mapping[str, Any]) -> dict[str, Any]:
    """The innermost entries of an options record by name."""
    found: dict[str, Any] = {}
    for name, value in record.items():
        found |= _leaves(value) if isinstance(value, Mapping) else {name: value}
    return found


class AdapterContext:
    """One adapter's frozen parts, ready to look and to learn. Holds the backbone and its activation cache."""

    def __init__(self, workplace: Workplace, name: str, weights: BackboneWeights, options: AdapterOptions) -> None:
        bound_threads(workplace.settings.threads)
        self.workplace = workplace
        self.registry = workplace.registry
        self.name = name
        self.weights = weights
        self.options = options
        self.device = choose_device(workplace.settings.device)
        check_kind(weights, options.task, options.volume)
        self.cache = self._make_cache()

    def _make_cache(self) -> Cache:
        """Where the adapter's activations lie; its kind is that of task and samples."""
        weights, options, settings = self.weights, self.options, self.workplace.settings
        place = CachePlace(
            settings.activations_folder(), settings.kept_activations_folder(), settings.activations_limit_bytes()
        )
        backbone = build_backbone(weights)
        split = first_tuned_block(backbone, options.lora)
        key = ActivationKey(weights.digest, split, options.image_size, options.volume, options.training.upright)
        if weights.of_volumes:
            if options.task is Task.SEGMENTATION:
                return PatchCache(place, key, backbone, self.device, self._mask)
            return ActivationCache(place, key, backbone, self.device)
        check_image_size(backbone, options.image_size)
        if options.task is Task.SEGMENTATION:
            tile = options.tile or choose_tile(backbone, options.image_size)
            return TileCache(place, key, tile, backbone, self.device, self._mask)
        return ActivationCache(place, key, backbone, self.device)

    def champion(self) -> AdapterVersion | None:
        """The version in service, or None before the first release."""
        return champion_of(self.workplace, self.name)

    def labelled(self, site: str, split: Split) -> list[Sample]:
        """A site's samples on one side of its split that the adapter's task can learn from."""
        return self.registry.samples.list(site, split, labelled=self.options.task)

    def network_of(self, version: AdapterVersion) -> VersionNetwork:
        """A stored version's network, proved alive."""
        return read_version(self.weights, self.registry.adapters.files(version), self.device)

    def lora_network_of(self, version: AdapterVersion) -> TunedNetwork:
        """A stored version's network, where it has LoRA weights; AdapterMismatchError where it has none."""
        return read_adapter(self.weights, self.registry.adapters.files(version), self.device)

    def closed_form_network(self, method: str, classes: Sequence[str], readout: Readout) -> ClosedFormNetwork:
        """A closed form's readout on this backbone."""
        return ClosedFormNetwork(build_network(self.weights).to(self.device), method, classes, readout)

    def fresh_network(self, classes: Sequence[str]) -> TunedNetwork:
        """An untrained adapter on this backbone, for the classes given."""
        lora, seed, grid = self.options.lora, self.options.training.seed, self.options.volume
        if grid is not None:
            return volume_network(self.weights, lora, classes, grid, seed).to(self.device)
        if isinstance(self.cache, TileCache):
            network = mask_network(build_backbone(self.weights), lora, classes, self.cache.grid, seed)
            return network.to(self.device)
        classifier = AdaptedNetwork(build_network(self.weights), lora, classes, seed)
        classifier.test_time_views, classifier.upright = self.options.test_time_views, self.options.training.upright
        return classifier.to(self.device)

    def fill(self, samples: Sequence[Sample], views: int, description: str) -> None:
        """Make sure the cache holds frozen features and `views` views of every sample (0: the features alone).

        Of what is erased meanwhile nothing is left behind. Raises ImageLetGoError when what is missing would need
        images that were let go, StreamError when samples are volumes and the adapter looks at images, or the other way
        round, ImageErasedError when one was erased before it was read.
        """
        self._check_kinds(samples)
        missing = self.cache.missing(samples, views)
        if missing:
            self._check_stored(missing)
            check_images(self.workplace, self.cache, missing, views)
        try:
            self.cache.fill(samples, views, self._pixels, track(description, len(missing)))
        finally:
            if missing:
                self._forget_erased(missing)

    def _erased(self, samples: Sequence[Sample]) -> set[str]:
        """Digests of those that are stored no more."""
        digests = {sample.digest for sample in samples}
        return digests - self.registry.samples.stored(digests)

    def _check_stored(self, samples: Sequence[Sample]) -> None:
        gone = self._erased(samples)
        if gone:
            sites = ", ".join(dict.fromkeys(sample.site for sample in samples if sample.digest in gone))
            raise ImageErasedError(
                f"{len(gone)} images of {sites} were erased while they were in use; run again: they are left out then"
            )

    def _forget_erased(self, samples: Sequence[Sample]) -> None:
        """An erasure sweeps what lies there when it is done; what is written after it is swept here."""
        gone = self._erased(samples)
        for folder in (
            self.workplace.settings.activations_folder(),
            self.workplace.settings.kept_activations_folder(),
        ):
            forget_activations(folder, gone)

    def looks_at(self, site: str) -> bool:
        """Whether the site has samples of the backbone's kind, images or volumes, or none at all."""
        samples = self.registry.samples.list(site)
        return not samples or any(sample.is_volume is self.weights.of_volumes for sample in samples)

    def _check_kinds(self, samples: Sequence[Sample]) -> None:
        wrong = [sample for sample in samples if sample.is_volume is not self.weights.of_volumes]
        if wrong:
            found, looks = ("images", "volumes") if self.weights.of_volumes else ("volumes", "images")
            raise StreamError(
                f"{len(wrong)} of {len(samples)} samples are {found}, first at site {wrong[0].site}, and the adapter's "
                f"backbone {self.weights.name!r} looks at {looks}; keep images and volumes in adapters, and sites, of "
                "their own"
            )

    def _pixels(self, sample: Sample) -> np.ndarray | Volume:
        try:
            data = self.registry.samples.read(sample)
        except ArtifactError:
            self._check_stored([sample])
            # Another update may have let the image go, and its tokens, since this one began.
            check_images(self.workplace, self.cache, [sample], 1)
            raise
        if sample.spacing_mm is not None:
            return Volume(decode_volume(data).values, sample.spacing_mm)
        pixels: np.ndarray = decode_image(data).pixels
        return pixels

    def _mask(self, sample: Sample) -> np.ndarray:
        try:
            data = self.registry.samples.read_mask(sample)
        except ArtifactError:
            self._check_stored([sample])
            raise
        mask: np.ndarray = decode_volume_mask(data) if sample.is_volume else decode_mask(data)
        return mask


def context_of(workplace: Workplace, adapter: str, *, new_classes: bool = False) -> AdapterContext:
    """The context of an adapter that already has a champion, from its record; `new_classes` widens its change plan.

    Raises NotFoundError when it has none.
    """
    known = workplace.registry.adapters.names()
    if adapter not in known:
        raise NotFoundError(
            f"no adapter {adapter!r}; known: {', '.join(known) or 'none yet'}; make one with `continual run`"
        )
    champion = workplace.registry.adapters.current(adapter, CHAMPION)
    weights = weights_from_bytes(
        workplace.registry.artifacts.get(champion.backbone_digest), champion.record["network"]["backbone"]
    )
    options = options_from_record(champion.record["options"])
    if new_classes:
        options = replace(options, plan=replace(options.plan, new_classes=True))
    return AdapterContext(workplace, adapter, weights, options)

"""What cannot be done any more with samples whose images were let go, and why; knows nothing of letting them go."""

from collections.abc import Sequence

from continual.domain.errors import ImageLetGoError
from continual.domain.samples import Sample
from continual.learning import ActivationCache, Cache
from flows.workplace import Workplace

NEW_WORKSPACE = "start a new workspace from the source files"


def only_features(cache: Cache, sample: Sample) -> bool:
    """Whether nothing but frozen features is left of a sample."""
    # Adapters of masks keep images, so their tiles are all there or can be cut again.
    return isinstance(cache, ActivationCache) and cache.only_features(sample.digest)


def check_images(workplace: Workplace, cache: Cache, samples: Sequence[Sample], views: int) -> None:
    """Raise ImageLetGoError when samples whose activations are to be computed have no stored image any more.

    A missing image where none was ever let go is not this function's to tell.
    """
    if not workplace.registry.images.list():
        return
    stored = workplace.registry.artifacts.sizes(sample.artifact for sample in samples)
    gone = [sample for sample in samples if sample.artifact not in stored]
    if gone:
        sites = ", ".join(dict.fromkeys(sample.site for sample in gone))
        raise ImageLetGoError(
            f"{len(gone)} images of {sites} were let go (change plan: keep_images false), and {views} views of them "
            f"are needed; {_why(workplace, cache, gone)}"
        )


def _why(workplace: Workplace, cache: Cache, gone: Sequence[Sample]) -> str:
    key = cache.key.folder()
    kept = workplace.settings.kept_activations_folder()
    keys = sorted(path.name for path in kept.iterdir()) if kept.is_dir() else []
    if any(only_features(cache, sample) for sample in gone):
        return (
            "of training images outside the replay memory only frozen features are kept: "
            f"for what learns them all again, {NEW_WORKSPACE}"
        )
    if keys and key not in keys:
        return (
            f"activations are kept for {', '.join(keys)} (backbone, split, side in pixels), not for {key}: ask for the "
            f"same backbone, LoRA depth, image size and kind of views, or {NEW_WORKSPACE}"
        )
    return "their kept activations are missing: restore the workspace's folder kept_activations from a backup"

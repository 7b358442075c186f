"""Fills a replay memory in its policy's order until samples or bytes run out; knows nothing of images or training."""

from continual.domain.errors import StreamError
from continual.learning.memory.balanced import CLASS_AND_SITE_BALANCED as DEFAULT
from continual.learning.memory.policies import POLICIES
from continual.learning.memory.policy import Candidates, Capacity, MemoryPolicy


def policy_named(name: str) -> MemoryPolicy:
    """The policy of this name; StreamError when there is none."""
    if name not in POLICIES:
        raise StreamError(f"no replay policy {name!r}; choose one of {', '.join(POLICIES)}")
    return POLICIES[name]


def select_memory(candidates: Candidates, capacity: Capacity, policy: str = DEFAULT.name) -> tuple[str, ...]:
    """Digests of labelled images, each once, the worthiest first, never over the capacity.

    Where bytes are bounded, an image larger than the whole bound is passed over, and the memory ends before the first
    that no longer fits: what it holds then depends on worth alone, not on which image is small enough for the rest.
    Raises StreamError on an unknown policy, or one that lacks its features.
    """
    sizes = _sizes(candidates) if capacity.size_bytes else {}
    passed_over = {digest for digest, size in sizes.items() if size > capacity.size_bytes}
    kept: dict[str, None] = {}
    used = 0
    # No queue of a policy gives more than the capacity away, besides what is passed over.
    for digest in policy_named(policy).order(candidates, capacity.samples + len(passed_over)):
        if digest in kept or digest in passed_over:
            continue
        size = sizes.get(digest, 0)
        if len(kept) == capacity.samples or (capacity.size_bytes and used + size > capacity.size_bytes):
            break
        kept[digest] = None
        used += size
    return tuple(kept)


def _sizes(candidates: Candidates) -> dict[str, int]:
    """Bytes of every candidate's stored image; StreamError when one is not told."""
    digests = {sample.digest for sample in candidates.samples}
    unknown = digests - set(candidates.sizes)
    if unknown:
        raise StreamError(f"the sizes of {len(unknown)} of {len(digests)} images are unknown; pass bytes for each")
    return {digest: candidates.sizes[digest] for digest in digests}

"""A uniform sample of the stream (reservoir sampling, Vitter 1985), drawn by a keyed hash instead of a random number.

The images of smallest hash are kept (bottom-k sampling, Cohen & Kaplan 2007): every image of the stream is as likely as
any other, large sites and common classes take the larger part, and no state travels with the memory.
"""

from collections.abc import Sequence

from continual.learning.memory.policy import Candidates, MemoryPolicy, rank


def _order(candidates: Candidates, most: int) -> Sequence[str]:  # noqa: ARG001 (one signature for all policies)
    labelled = {sample.digest for sample in candidates.samples if sample.label is not None}
    return sorted(labelled, key=lambda digest: rank(candidates.seed, digest))


RESERVOIR = MemoryPolicy("reservoir", "uniform over the stream", _order, nested=True, incremental=True)
"""Uniform over the stream: the memory has the stream's own mix of sites and classes."""

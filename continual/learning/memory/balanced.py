"""An equal share for every (site, class) cell; what a small cell leaves over goes to the others."""

from collections.abc import Sequence

from continual.learning.memory.policy import Candidates, MemoryPolicy, cells_of, in_turns


def _order(candidates: Candidates, most: int) -> Sequence[str]:  # noqa: ARG001 (one signature for all policies)
    return list(in_turns(cells_of(candidates)))


CLASS_AND_SITE_BALANCED = MemoryPolicy(
    "class_and_site_balanced", "the same share for every class of every site", _order, nested=True
)
"""The default: a rare class of a small site is remembered as well as a common one."""

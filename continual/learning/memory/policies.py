"""Memory policies: one file each, one entry in `POLICIES`; a conformance suite runs over the dict."""

from collections.abc import Mapping

from continual.learning.memory.balanced import CLASS_AND_SITE_BALANCED
from continual.learning.memory.herding import HERDING
from continual.learning.memory.policy import MemoryPolicy
from continual.learning.memory.reservoir import RESERVOIR

POLICIES: Mapping[str, MemoryPolicy] = {entry.name: entry for entry in (CLASS_AND_SITE_BALANCED, RESERVOIR, HERDING)}

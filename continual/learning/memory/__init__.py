"""Replay memory: which past samples are kept, as digests only, by a policy and within a capacity.

Knows numpy; knows nothing of images, networks or databases: sizes and features are given.
"""

from continual.learning.memory.policies import POLICIES
from continual.learning.memory.policy import Candidates, Capacity, Features, MemoryPolicy
from continual.learning.memory.selection import policy_named, select_memory

__all__ = ["POLICIES", "Candidates", "Capacity", "Features", "MemoryPolicy", "policy_named", "select_memory"]

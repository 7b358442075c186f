"""Seconds that a stretch of work takes, on the wall and on the processors."""

import time


class Pace:
    """A stretch of work as a `with` block. `cpu` counts all threads of this process, not what a GPU does meanwhile."""

    def __init__(self, wall: float = 0.0, cpu: float = 0.0) -> None:
        self.wall = wall
        self.cpu = cpu

    def __enter__(self) -> "Pace":
        self.wall, self.cpu = -time.perf_counter(), -time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall += time.perf_counter()
        self.cpu += time.process_time()

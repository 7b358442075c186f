"""What one look costs: CPU seconds and peak memory of its test on embeddings, and of a whole look, beside alibi-detect.

384 normal features a sample, each sample a subject of its own, a fresh process for every figure. Peak memory is the
process's largest resident set, interpreter and windows included; what the two windows left of it is told beside it. A
look thins windows to `MOST_SUBJECTS` subjects, the test alone does not.
"""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from peer_environments import ONE_THREAD, peer_environment, python_of
from report import Row, arguments, publish

FEATURES = 384
PERMUTATIONS = 200
PEER_PERMUTATIONS = PERMUTATIONS // 2
STATISTICS = ("mean", "std", "p01", "p50", "p99", "contrast", "entropy", "sharpness", "noise")


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--peers", type=Path, default=Path("drift-peers"), help="the peers' environments")
    parser.add_argument("--measure", nargs=2, help="what a fresh process of this script measures")
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(_measured(options.measure[0], int(options.measure[1]))))
        return
    medium, large = (500, 2000) if options.quick else (2000, 20_000)
    ours = {f"{what} {count}": _fresh(what, count) for what in ("test", "look") for count in (medium, large)}
    peer = _peer(options.peers, medium)
    test, whole = ours[f"test {medium}"], ours[f"test {large}"]
    ratio = test["cpu_s"] / peer["cpu_s"]
    rows = [
        Row(
            f"test of {medium} against {medium}, beside alibi-detect's at {PEER_PERMUTATIONS} permutations",
            "at most 1/100",
            f"1/{1 / ratio:.0f} ({test['cpu_s']:.3f} s, {peer['cpu_s']:.1f} s)",
            ratio <= 0.01,
        ),
        Row(f"test of {large}, CPU", "under 2 s", f"{whole['cpu_s']:.2f} s", whole["cpu_s"] < 2),
        Row(f"test of {large}, memory", "under 500 MB", _memory(whole), whole["peak_mb"] < 500),
        *(
            Row(f"look at {count}, plan's permutations", "", f"{found['cpu_s']:.2f} s, {_memory(found)}", None)
            for count in (medium, large)
            if (found := ours[f"look {count}"])
        ),
    ]
    publish(rows, {"ours": ours, "alibi-detect": peer}, options.json)


def _memory(found: dict[str, float]) -> str:
    return f"{found['peak_mb']:.0f} MB ({found['more_mb']:.0f} beyond the windows)"


def _fresh(what: str, count: int) -> dict[str, float]:
    """The best of three processes in CPU time, since the cores are shared; the largest memory of them."""
    words = [sys.executable, __file__, "--measure", what, str(count)]
    runs = [
        json.loads(
            subprocess.run(words, check=True, capture_output=True, text=True, env=dict(os.environ) | ONE_THREAD).stdout
        )
        for _ in range(3)
    ]
    return {
        "cpu_s": min(run["cpu_s"] for run in runs),
        "more_mb": max(run["more_mb"] for run in runs),
        "peak_mb": max(run["peak_mb"] for run in runs),
    }


def _measured(what: str, count: int) -> dict[str, float]:
    from continual.domain.change_plan import ChangePlan
    from continual.domain.drift import SignalFamily
    from monitoring import Intake, Window, look
    from monitoring.detectors import Effort
    from monitoring.detectors.mmd import measure

    generator = np.random.default_rng(1)
    windows = [
        Window(
            site="north",
            subjects=tuple(f"{side}{row:06d}" for row in range(count)),
            embeddings=generator.normal(size=(count, FEATURES)),
            outputs=None,
            tags=({},) * count,
            pixel_statistics=tuple(
                dict(zip(STATISTICS, map(float, row), strict=True))
                for row in generator.normal(100, 10, size=(count, len(STATISTICS)))
            ),
        )
        for side in "ab"
    ]
    before, began = _peak_mb(), time.process_time()
    if what == "test":
        measure(*windows, SignalFamily.EMBEDDINGS, Effort(PERMUTATIONS, seed=1))
    else:
        look([windows[0]], windows[1], ChangePlan(), Intake(offered=1, quarantined=0))
    spent = time.process_time() - began
    return {"cpu_s": spent, "more_mb": _peak_mb() - before, "peak_mb": _peak_mb()}


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _peer(folder: Path, count: int) -> Any:
    runner = Path(__file__).parent / "peers" / "cost_alibi.py"
    words = [python_of("alibi", folder), runner, str(count), str(FEATURES), str(PEER_PERMUTATIONS)]
    said = subprocess.run(words, check=True, capture_output=True, text=True, env=peer_environment())
    return json.loads(said.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()

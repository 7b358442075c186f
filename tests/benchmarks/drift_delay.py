"""How many images a change takes to be seen where images are watched one by one, beside alibi-detect's online test.

Both are calibrated for a mean run of 150 images to a false alarm, on the same 600 images of a site, and follow the same
streams of its other images: unchanged ones, whose runs are a check of that, and streams changed from their first image
on. Ours watches embeddings and pixel statistics; alibi-detect's gets either.
"""

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from drift_power import ELSEWHERE, NOTHING, OTHER_SITE, REFERENCE, SITE, SITUATIONS, SOME_INVERTED, Pictures
from peer_environments import peer_environment, python_of
from report import Row, arguments, publish

from monitoring.online import watch

MEAN_RUN = 150
LENGTH = 900
WINDOW = 10
OURS = "watch"


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--cache", type=Path, default=Path("drift-activations"), help="embeddings are kept here")
    parser.add_argument("--peers", type=Path, default=Path("drift-peers"), help="the peers' environments")
    parser.add_argument("--references", type=int, default=10)
    parser.add_argument("--no-peers", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    references = 2 if options.quick else options.references
    situations = SITUATIONS[:2] if options.quick else SITUATIONS
    pictures = Pictures(SITE, OTHER_SITE, situations, options.cache)
    drawn, cases = _cases(pictures, situations, references)
    found = {OURS: _watched(pictures, cases)}
    if not options.no_peers:
        found |= {f"alibi-detect, {key}": _peer(key, cases, options.peers) for key in ("embeddings", "columns")}
    rows = []
    for situation in situations:
        mean = {name: _mean_run(runs["runs"], drawn, situation) for name, runs in found.items()}
        beside = ", ".join(f"{value:.0f} ({name})" for name, value in mean.items())
        holds = {NOTHING: mean[OURS] >= 0.8 * MEAN_RUN, "gain x0.9": mean[OURS] <= 30}.get(situation)
        target = {NOTHING: f"about {MEAN_RUN}", "gain x0.9": "at most 30"}.get(situation, "")
        rows.append(Row(f"mean run to an alarm in images, {situation}", target, beside, holds))
    publish(rows, {"found": found, "drawn": drawn}, options.json)


def _cases(
    pictures: Pictures, situations: Sequence[str], references: int
) -> tuple[list[str], Mapping[str, np.ndarray]]:
    """For each reference six unchanged streams and two of each change; what each shows, in the order of runs."""
    shown = [NOTHING] * 6 + [name for name in situations if name != NOTHING for _ in range(2)]
    known, streams = [], []
    for seed in range(references):
        generator = np.random.default_rng(seed)
        order = generator.permutation(pictures.count)
        known.append(order[:REFERENCE])
        streams.append([_stream(pictures, name, order[REFERENCE:], generator) for name in shown])
    arrays = {"embeddings": pictures.embeddings, "columns": pictures.columns()}
    return shown * references, arrays | {"reference": np.array(known), "streams": np.array(streams)}


def _stream(pictures: Pictures, situation: str, others: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    if situation == ELSEWHERE:
        count = len(pictures.sites[situation].subjects)
        return pictures.first[situation] + generator.permutation(np.resize(generator.permutation(count), LENGTH))
    rows = generator.permutation(others)[:LENGTH]
    changed = generator.random(LENGTH) < 0.1 if situation == SOME_INVERTED else np.ones(LENGTH, dtype=bool)
    return np.where(changed, rows + pictures.first[situation], rows)


def _watched(pictures: Pictures, cases: Mapping[str, np.ndarray]) -> dict[str, Any]:
    runs, began = [], time.process_time()
    for seed, (known, streams) in enumerate(zip(cases["reference"], cases["streams"], strict=True)):
        watching = watch(pictures.window(known), MEAN_RUN, seed)
        for stream in streams:
            evidence, _ = watching.follow(watching.start(), pictures.window(stream))
            beyond = np.flatnonzero(evidence > watching.threshold)
            runs.append(int(beyond[0]) + 1 if beyond.size else 0)
    return {"runs": runs, "cpu_s": time.process_time() - began}


def _peer(key: str, cases: Mapping[str, np.ndarray], folder: Path) -> Any:
    folder.mkdir(parents=True, exist_ok=True)
    stored, out = folder / "online.npz", folder / f"online-{key}.json"
    np.savez(stored, **cases)
    words = [python_of("alibi", folder), Path(__file__).parent / "peers" / "run_alibi_online.py", stored, out, key]
    print(f"alibi-detect, {key}: asked", file=sys.stderr)
    subprocess.run([*words, str(MEAN_RUN), str(WINDOW)], env=peer_environment(), check=True, stdout=subprocess.DEVNULL)
    return json.loads(out.read_text())


def _mean_run(runs: Sequence[int], drawn: Sequence[str], situation: str) -> float:
    """Images over alarms; a run of 0 never ended within the stream."""
    own = [run for run, name in zip(runs, drawn, strict=True) if name == situation]
    ended = sum(run > 0 for run in own)
    return sum(run or LENGTH for run in own) / ended if ended else float("inf")


if __name__ == "__main__":
    main()

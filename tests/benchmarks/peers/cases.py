"""Read the cases, ask one detector about each, write what it said; lives in a peer's environment, so numpy only.

    python run_PEER.py CASES.npz OUT.json DETECTOR SECONDS

A case is a reference and a current window, given as rows of `embeddings` and `columns`. A detector is asked case after
case until its CPU seconds are spent. An answer is a score (higher: more drift; its second part breaks ties between
equal p-values), whether the detector alarms by its own rule at .05, and its CPU seconds.
"""

import json
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

Answer = tuple[list[float], bool]
Detector = Callable[[Mapping[str, np.ndarray], Mapping[str, np.ndarray], list[str]], Answer]


def ask(detectors: Mapping[str, Detector]) -> None:
    cases, out, name, seconds = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], float(sys.argv[4])
    warnings.simplefilter("ignore")
    with np.load(cases) as stored:
        arrays = {key: stored[key] for key in stored.files}
    names = [str(column) for column in arrays["names"]]
    answers: dict[str, list[object]] = {"scores": [], "alarms": [], "cpu_s": [], "cases": []}
    for case, windows in enumerate(zip(arrays["reference"], arrays["current"], strict=True)):
        if time.process_time() > seconds:
            break
        rows = (some[some >= 0] for some in windows)
        reference, window = ({key: arrays[key][some] for key in ("embeddings", "columns")} for some in rows)
        began = time.process_time()
        score, alarm = detectors[name](reference, window, names)
        answers["cpu_s"].append(time.process_time() - began)
        answers["scores"].append([float(value) for value in score])
        answers["alarms"].append(bool(alarm))
        answers["cases"].append(case)
    out.write_text(json.dumps(answers))

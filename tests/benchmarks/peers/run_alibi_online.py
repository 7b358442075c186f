"""Runs of alibi-detect's MMDDriftOnline to its first alarm: run_alibi_online.py CASES.npz OUT.json KEY ERT WINDOW."""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from alibi_detect.cd import MMDDriftOnline

torch.set_num_threads(1)
with np.load(sys.argv[1]) as stored:
    arrays = {key: stored[key] for key in stored.files}
key, ert, window = sys.argv[3], float(sys.argv[4]), int(sys.argv[5])
runs, began = [], time.process_time()
for known, streams in zip(arrays["reference"], arrays["streams"], strict=True):
    rows = arrays[key]
    if key == "columns":
        spread = rows[known].std(axis=0)
        rows = (rows - rows[known].mean(axis=0)) / np.where(spread > 0, spread, 1)
    rows = rows.astype(np.float32)
    torch.manual_seed(0)
    np.random.seed(0)
    detector = MMDDriftOnline(
        rows[known], ert=ert, window_size=window, backend="pytorch", n_bootstraps=1000, verbose=False
    )
    for stream in streams:
        detector.reset_state()
        length = next(
            (place + 1 for place, row in enumerate(stream) if detector.predict(rows[row])["data"]["is_drift"]), 0
        )
        runs.append(length)
Path(sys.argv[2]).write_text(json.dumps({"runs": runs, "cpu_s": time.process_time() - began}))

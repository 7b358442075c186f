"""CPU seconds of one alibi-detect MMDDrift: python cost_alibi.py SAMPLES FEATURES PERMUTATIONS."""

import json
import resource
import sys
import time

import numpy as np
import torch
from alibi_detect.cd import MMDDrift

torch.set_num_threads(1)
samples, features, permutations = map(int, sys.argv[1:])
generator = np.random.default_rng(1)
known, new = (generator.normal(size=(samples, features)).astype(np.float32) for _ in range(2))
MMDDrift(known[:20], backend="pytorch", n_permutations=2).predict(new[:20])  # what is made once a process
before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, time.process_time()
MMDDrift(known, backend="pytorch", n_permutations=permutations).predict(new)
spent = time.process_time() - began
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"cpu_s": spent, "more_mb": peak - before, "peak_mb": peak}))

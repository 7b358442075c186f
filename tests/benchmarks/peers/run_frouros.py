"""frouros' MMD and Kolmogorov-Smirnov; see cases.py."""

from functools import partial

import numpy as np
from cases import ask
from frouros.detectors.data_drift import MMD, KSTest
from frouros.utils.kernels import rbf_kernel
from scipy.spatial.distance import pdist


def _mmd(reference, window, names):
    # Its default width, 1, makes every kernel value 0 here: the median distance of the reference instead. The distance
    # alone, which the harness calibrates: its own permutation test takes the kernel anew for each permutation.
    width = float(np.median(pdist(reference["embeddings"])))
    detector = MMD(kernel=partial(rbf_kernel, sigma=width))
    detector.fit(X=reference["embeddings"])
    return [detector.compare(X=window["embeddings"])[0].distance], False


def _ks(key):
    def measure(reference, window, names):
        p_values = []
        for known, new in zip(reference[key].T, window[key].T, strict=True):
            detector = KSTest()
            detector.fit(X=known)
            p_values.append(detector.compare(X=new)[0].p_value)
        return [-min(p_values)], min(p_values) <= 0.05 / len(p_values)

    return measure


ask({"mmd": _mmd, "ks": _ks("embeddings"), "ks columns": _ks("columns")})

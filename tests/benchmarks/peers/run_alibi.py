"""alibi-detect's detectors; see cases.py."""

import numpy as np
import torch
from alibi_detect.cd import ClassifierDrift, KSDrift, MMDDrift
from cases import ask
from sklearn.linear_model import LogisticRegression

torch.set_num_threads(1)
PERMUTATIONS = 100


def _mmd(reference, window, names, key="embeddings"):
    torch.manual_seed(0)
    known, new = (_scaled(rows, reference[key]) if key == "columns" else rows[key] for rows in (reference, window))
    detector = MMDDrift(known.astype(np.float32), backend="pytorch", n_permutations=PERMUTATIONS, p_val=0.05)
    data = detector.predict(new.astype(np.float32))["data"]
    return [-data["p_val"], data["distance"]], data["is_drift"]


def _scaled(rows, by):
    spread = by.std(axis=0)
    return (rows["columns"] - by.mean(axis=0)) / np.where(spread > 0, spread, 1)


def _ks(*keys):
    def measure(reference, window, names):
        known, new = (np.hstack([rows[key] for key in keys]) for rows in (reference, window))
        data = KSDrift(known, p_val=0.05, correction="bonferroni").predict(new)["data"]
        return [-data["p_val"].min(), data["distance"].max()], data["is_drift"]

    return measure


def _classifier(reference, window, names):
    np.random.seed(0)
    detector = ClassifierDrift(
        reference["embeddings"], LogisticRegression(max_iter=1000), backend="sklearn", p_val=0.05, n_folds=5
    )
    data = detector.predict(window["embeddings"])["data"]
    return [-data["p_val"], data["distance"]], data["is_drift"]


ask(
    {
        "mmd": _mmd,
        "mmd columns": lambda *windows: _mmd(*windows, key="columns"),
        "ks": _ks("embeddings"),
        "ks columns": _ks("columns"),
        "ks both": _ks("embeddings", "columns"),
        "classifier": _classifier,
    }
)

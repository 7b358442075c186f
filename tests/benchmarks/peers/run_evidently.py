"""Evidently's embedding drift, and its data drift on columns with every default; see cases.py."""

import pandas as pd
from cases import ask
from evidently import Report
from evidently.legacy.metrics.data_drift.embedding_drift_methods import mmd, model
from evidently.presets import DataDriftPreset


def _embeddings(method):
    def measure(reference, window, names):
        known, new = (pd.DataFrame(rows["embeddings"]) for rows in (reference, window))
        score, alarm, _ = method(current_emb=new, reference_emb=known)
        return [score], alarm

    return measure


def _columns(reference, window, names):
    known, new = (pd.DataFrame(rows["columns"], columns=names) for rows in (reference, window))
    metrics = Report([DataDriftPreset()]).run(new, known).dict()["metrics"]
    share = next(metric["value"]["share"] for metric in metrics if "DriftedColumnsCount" in metric["metric_name"])
    smallest = min(float(m["value"]) for m in metrics if m["metric_name"].startswith("ValueDrift"))
    # Fewer than 1,001 rows: Kolmogorov-Smirnov's p-values; dataset drift from half of the columns on.
    return [share, -smallest], share >= 0.5


ask(
    {
        "mmd": _embeddings(mmd(bootstrap=True, quantile_probability=0.95)),
        "model": _embeddings(model(bootstrap=True, quantile_probability=0.95)),
        "columns": _columns,
    }
)

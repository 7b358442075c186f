"""NannyML's domain classifier and its reconstruction error; see cases.py."""

import numpy as np
import pandas as pd
from cases import ask
from nannyml import DataReconstructionDriftCalculator
from nannyml.drift.multivariate.domain_classifier import DomainClassifierCalculator


def _frames(reference, window, key):
    names = [f"f{place}" for place in range(reference[key].shape[1])]
    return (pd.DataFrame(rows[key], columns=names) for rows in (reference, window))


def _classifier(key):
    def measure(reference, window, names):
        known, new = _frames(reference, window, key)
        calculator = DomainClassifierCalculator(
            feature_column_names=list(known), chunk_size=len(new), hyperparameters={"n_jobs": 1, "verbosity": -1}
        )
        # Its default band of the area under the curve, .45 to .65, is its own rule.
        result = calculator.fit(known).calculate(new).to_df()["domain_classifier_auroc"]
        return [float(result["value"].iloc[-1])], bool(result["alert"].iloc[-1])

    return measure


def _reconstruction(key):
    def measure(reference, window, names):
        known, new = _frames(reference, window, key)
        calculator = DataReconstructionDriftCalculator(column_names=list(known), chunk_size=len(new))
        result = calculator.fit(known).calculate(new).filter(period="all").to_df()
        error = result["reconstruction_error"]
        usual = error["value"][result[("chunk", "period")] == "reference"]
        return [abs(float(error["value"].iloc[-1]) - float(np.mean(usual)))], bool(error["alert"].iloc[-1])

    return measure


ask(
    {
        "classifier": _classifier("embeddings"),
        "classifier columns": _classifier("columns"),
        "reconstruction": _reconstruction("embeddings"),
        "reconstruction columns": _reconstruction("columns"),
    }
)

"""NannyML's performance estimate (CBPE) of the macro recall, which is the balanced accuracy, of each window.

    python estimate_nannyml.py CASES.npz OUT.json

Lives in NannyML's environment. `known_D` and `labels_D` are the reference's probabilities and labels in draw D,
`windows_D` the windows' probabilities one above the other, `size` the images of each.
"""

import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from nannyml import CBPE

SHARES = "p{}"


def _frame(outputs):
    frame = pd.DataFrame(outputs, columns=[SHARES.format(klass) for klass in range(outputs.shape[1])])
    return frame.assign(said=[str(klass) for klass in outputs.argmax(axis=1)])


def _estimates(known, labels, windows, size):
    classes = {str(klass): SHARES.format(klass) for klass in range(known.shape[1])}
    estimator = CBPE(
        problem_type="classification_multiclass",
        y_pred_proba=classes,
        y_pred="said",
        y_true="true",
        metrics=["recall"],
        chunk_size=size,
    )
    estimator.fit(_frame(known).assign(true=[str(klass) for klass in labels]))
    table = estimator.estimate(_frame(windows)).filter(period="analysis").to_df()["recall"]
    return [float(value) for value in table["value"]]


warnings.simplefilter("ignore")
with np.load(Path(sys.argv[1])) as cases:
    began = time.process_time()
    said = [
        _estimates(cases[f"known_{draw}"], cases[f"labels_{draw}"], cases[f"windows_{draw}"], int(cases["size"]))
        for draw in range(int(cases["draws"]))
    ]
answer = {"estimates": said, "cpu_s": time.process_time() - began}
Path(sys.argv[2]).write_text(json.dumps(answer))

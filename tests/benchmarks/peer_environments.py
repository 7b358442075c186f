"""Peers of drift detection, each in a virtual environment of its own, made once and asked through files."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

PACKAGES: Mapping[str, tuple[str, ...]] = {
    "alibi": ("alibi-detect==0.13.0", "torch==2.13.0"),
    # It imports a name that pandas 3 no longer has.
    "evidently": ("evidently==0.7.23", "pandas<3"),
    "frouros": ("frouros==0.9.0",),
    # It imports statsmodels without asking for it.
    "nannyml": ("nannyml==0.13.1", "statsmodels"),
}
RUNNERS = Path(__file__).parent / "peers"
QUIET = {"DO_NOT_TRACK": "1", "NML_DISABLE_USAGE_LOGGING": "1"}
"""Two of them send usage home."""
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LOKY_MAX_CPU_COUNT", "NUMBA_NUM_THREADS"), "1"
)


@dataclass(frozen=True, slots=True)
class Question:
    """One detector of one peer."""

    peer: str
    detector: str

    @property
    def name(self) -> str:
        return f"{self.peer} {self.detector}"


def python_of(peer: str, folder: Path) -> Path:
    """The interpreter of a peer's environment, which is made where it is not there yet."""
    python, done = folder / peer / "bin" / "python", folder / f"{peer}.made"
    if not done.exists():
        print(f"{peer}: making its environment", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", folder / peer], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES[peer]], check=True)
        done.touch()
    return python


def peer_environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | ONE_THREAD | QUIET


def ask(questions: list[Question], cases: Mapping[str, np.ndarray], folder: Path, seconds: float) -> dict[str, Any]:
    """Answers by question; kept in `folder` under the digest of the cases, so that nobody is asked twice.

    Each detector answers case after case until its CPU seconds are spent.
    """
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(b"".join(np.ascontiguousarray(cases[key]).tobytes() for key in sorted(cases)))
    stored = folder / f"cases-{digest.hexdigest()[:12]}.npz"
    np.savez(stored, **cases)
    for peer in {question.peer for question in questions}:
        python_of(peer, folder)
    answers = [_answer(question, stored, folder, seconds) for question in questions]
    return {question.name: answer for question, answer in zip(questions, answers, strict=True)}


def _answer(question: Question, cases: Path, folder: Path, seconds: float) -> Any:
    runner = RUNNERS / f"run_{question.peer}.py"
    code = hashlib.sha256(runner.read_bytes()).hexdigest()[:8]
    out = folder / f"{cases.stem}-{code}-{question.name.replace(' ', '-')}-{seconds:.0f}.json"
    if not out.exists():
        print(f"{question.name}: asked", file=sys.stderr)
        words = [python_of(question.peer, folder), runner, cases, out, question.detector, str(seconds)]
        said = subprocess.run(words, env=peer_environment(), capture_output=True, text=True, check=False)
        if said.returncode:
            raise RuntimeError(f"{question.name}: {said.stderr[-2000:]}")
    return json.loads(out.read_text())

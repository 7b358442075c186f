"""A benchmark as one self-contained HTML page: table, heat maps and curves as inline SVG; knows nothing of training."""

import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from continual.domain.adapters import Task
from continual.domain.metrics import METRICS
from flows.whole_files import write_whole

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#1d2330}"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums}td,th{padding:.25rem .7rem;text-align:right;"
    "border-bottom:1px solid #d8dce4}td:first-child,th:first-child{text-align:left}svg{max-width:100%;height:auto}"
    "figure{margin:1rem 0}"
)
SHOWN = (
    ("acc", "ACC", 1.0), ("bwt", "BWT", 1.0), ("fwt", "FWT", 1.0), ("forgetting", "forgetting", 1.0),
    ("worst_site", "worst site", 1.0), ("worst_site_drop", "worst drop", 1.0), ("calibration_error", "ECE", 1.0),
    ("auroc", "AUROC", 1.0), ("trainable_parameters", "trainable, thousand", 1e-3),
    ("cpu_seconds", "CPU s", 1.0), ("seconds", "s", 1.0), ("peak_memory_bytes", "own peak MiB", 2.0**-20),
    ("gpu_memory_bytes", "GPU MiB", 2.0**-20), ("replay_bytes", "replay MiB", 2.0**-20),
)  # fmt: skip
"""Key of a summary row, its heading and the factor that brings it to the heading's unit."""
OWN_PEAK = "own peak: resident memory at its highest above what the process held when the run began"
KIND = ("strategy", "method", "rank")
"""What tells a summary row, and its cells, from the others."""


def kind_of(row: Mapping[str, Any]) -> tuple[str, str, int]:
    """Strategy, method and rank of a summary row or a cell."""
    return row["strategy"], row["method"], row["rank"]


def title_of(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], rank: str = ", rank ") -> str:
    """A row's name: its strategy, its rank if it has one, and its method unless all rows were tuned by LoRA."""
    swept = {each["method"] for each in rows if each["method"] not in {"", each["strategy"]}}
    method = f", {row['method']}" if swept != {"lora"} and row["method"] in swept else ""
    return f"{row['strategy']}{method}" + (f"{rank}{row['rank']}" if row["rank"] else "")


def spelt(value: Mapping[str, float] | None, factor: float) -> str:
    """Mean and spread with the digits that a reader can use; a dash where nothing was measured."""
    if value is None:
        return "-"
    mean, spread = value["mean"] * factor, value["spread"] * factor
    return f"{mean:.3f} ± {spread:.3f}" if abs(mean) < 2 else f"{mean:,.1f} ± {spread:,.1f}"


def page(found: Mapping[str, Any]) -> str:
    """The whole page."""
    rows = found["summary"]
    figures = "".join(f"<h2>{escape(title_of(row, rows))}</h2>{_figure(_cells(found, row))}" for row in rows)
    sites = ", ".join(found["settings"]["sites"])
    task = Task(found["settings"]["options"].get("task", Task.CLASSIFICATION))
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Benchmark of update strategies</title>'
        f"<style>{STYLE}</style><h1>Benchmark of update strategies</h1><p>Sites: {escape(sites)}. Mean and standard "
        f"deviation over seeds and orders; {METRICS[task].replace('_', ' ')} on frozen test splits. "
        f"{escape(_made_with(found['settings']))}{OWN_PEAK.capitalize()}.</p>"
        f"{_table(rows)}{figures}</html>"
    )


def _made_with(settings: Mapping[str, Any]) -> str:
    """Backbone, steps and what is looked at, in a sentence; what an old file does not tell is left out."""
    options = settings["options"]
    told = [f"backbone {settings['backbone'][:12]}"] if settings.get("backbone") else []
    if options.get("training", {}).get("steps"):
        told.append(f"at most {options['training']['steps']} steps per update")
    if options.get("volume"):
        size, spacing = (" x ".join(f"{side:g}" for side in options["volume"][key]) for key in ("size", "spacing_mm"))
        told.append(f"volumes of {size} voxels of {spacing} mm")
    elif options.get("image_size"):
        told.append(f"images of {options['image_size']} pixels")
    return f"{', '.join(told).capitalize()}. " if told else ""


def write_page(path: Path, found: Mapping[str, Any]) -> None:
    """Write the page whole or not at all."""
    write_whole(path, page(found).encode())


def _cells(found: Mapping[str, Any], row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [cell for cell in found["cells"] if kind_of(cell) == kind_of(row)]


def _table(summary: Sequence[Mapping[str, Any]]) -> str:
    heads = "".join(f"<th>{escape(head)}</th>" for _, head, _ in SHOWN)
    rows = "".join(
        f"<tr><td>{escape(title_of(row, summary))}</td><td>{row['runs']}</td>"
        + "".join(f"<td>{spelt(row[key], factor)}</td>" for key, _, factor in SHOWN)
        + "</tr>"
        for row in summary
    )
    return f"<table><tr><th>strategy</th><th>runs</th>{heads}</tr>{rows}</table>"


def _figure(cells: Sequence[Mapping[str, Any]]) -> str:
    """Heat map of every cell's result matrix, and beside them each site's accuracy over time, as SVG."""
    from matplotlib.figure import Figure

    across = len(cells) + 1
    figure = Figure(figsize=(2.6 * across, 2.8), layout="constrained")
    for place, cell in enumerate(cells, start=1):
        axes = figure.add_subplot(1, across, place)
        matrix = np.array(cell["result_matrix"])
        axes.imshow(matrix, vmin=0, vmax=1, cmap="viridis")
        for (row, column), value in np.ndenumerate(matrix):
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color="white")
        axes.set_xticks(range(len(cell["sites"])), cell["sites"], rotation=40, ha="right", fontsize=7)
        axes.set_yticks([])
        axes.set_title(f"order {cell['order'] + 1}, seed {cell['seed'] + 1}", fontsize=8)
    axes = figure.add_subplot(1, across, across)
    for site in sorted(cells[0]["sites"]):
        over_time = [np.array(cell["result_matrix"])[:, cell["sites"].index(site)] for cell in cells]
        axes.plot(range(1, len(over_time[0]) + 1), np.mean(over_time, axis=0), marker="o", label=site)
    axes.set_ylim(0, 1)
    axes.set_xlabel("sites learnt", fontsize=8)
    axes.legend(fontsize=6)
    text = io.StringIO()
    figure.savefig(text, format="svg")
    return f"<figure>{text.getvalue()[text.getvalue().index('<svg') :]}</figure>"

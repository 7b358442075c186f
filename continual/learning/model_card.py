"""A version's model card (Mitchell et al. 2019) in markdown with front matter, written from its record."""

from collections.abc import Mapping
from typing import Any


def model_card(record: Mapping[str, Any]) -> str:
    """The card as text; every figure in it comes from `record`."""
    network = record["network"]
    dense = network.get("task") == "segmentation"
    metric = "dice" if dense else "balanced_accuracy"
    asked = f"- Scores and gate: asked with {network['judged_with']}\n" if network.get("prompt") else ""
    seen = network.get("test_time_views", 1)
    views = f"- Answers: means over {seen} views of an image (test-time augmentation)\n" if seen > 1 else ""
    gate = record.get("gate", {})
    tuned_by = network.get("tuned_by") or f"LoRA rank {network['lora_rank']}"
    return f"""---
library_name: peft
base_model: {network["backbone"]}
tags: [medical-imaging, continual-learning, {network.get("peft_method", "lora")}]
---
# {record.get("adapter", "adapter")}

{tuned_by} in the last {network["lora_blocks"]} blocks of `{network["backbone"]}`
(SHA-256 `{network["backbone_digest"]}`), {_reads(network)}.

- Classes: {", ".join(network["classes"])}
- Learnt, in this order: {", ".join(record.get("trained_on", []))}
- Strategy: {record.get("strategy", "")}; parent version: {record.get("parent") or "none"}
- Trainable: {network["trainable_parameters"]} parameters, {100 * network["trainable_share"]:.2f} % of the backbone
- Temperature of its probabilities: {network.get("temperature", 1.0):.3f}
{asked}{views}- Gate: {"accepted" if gate.get("accepted") else "not accepted"}

{score_table(record, metric)}

For research and local evaluation. Not a medical device; clinical use needs the site's own acceptance.
"""


def _reads(network: Mapping[str, Any]) -> str:
    """What the head reads, and of which pictures."""
    dense = network.get("task") == "segmentation"
    if network.get("prompt"):
        head = "asked with a box per class, the mask decoder's last step as head"
        return f"{head}, images of\n{network['image_size']} x {network['image_size']} pixels, the shorter side padded"
    if "volume" in network:
        size, spacing = (" x ".join(f"{each:g}" for each in network["volume"][key]) for key in ("size", "spacing_mm"))
        head = "one convolution on each voxel's features" if dense else "head on mean feature maps"
        return (
            f"{head}, {'patches' if dense else 'volumes'} of\n{size} voxels of {spacing} mm (right, anterior, superior)"
        )
    head = "a decoder on patch tokens and pixels" if dense else "head on class token and mean patch token"
    tiles = f", in tiles of {network['tile']} pixels" if dense else ""
    return f"{head}, images of\n{network['image_size']} x {network['image_size']} pixels{tiles}"


def score_table(record: Mapping[str, Any], metric: str) -> str:
    """A card's table: per site of the test split, metric, calibration error, what of it so few samples show by chance,
    and their number.
    """
    rows = (
        f"| {site} | {values[metric]:.3f} | {values['calibration_error']:.3f} | "
        f"{values.get('calibration_floor', 0.0):.3f} | {values['samples']} |"
        for site, values in record.get("scores", {}).items()
    )
    head = f"| site (frozen test split) | {metric.replace('_', ' ')} | calibration error | by chance alone | samples |"
    return "\n".join((head, "|---|---|---|---|---|", *rows))

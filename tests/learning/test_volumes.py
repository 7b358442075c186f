"""Volumes on an adapter's grid, MONAI's networks stage by stage, base models from checkpoints."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from continual.domain.adapters import Task
from continual.domain.errors import BackboneError, LearningError, SettingsError
from continual.domain.samples import IGNORED
from continual.learning import (
    BaseModel,
    Volume,
    VolumeGrid,
    build_backbone,
    build_network,
    check_kind,
    chosen_grid,
    convert_checkpoint,
    training_options,
    usual_blocks,
    weights_from_bytes,
)
from continual.learning.views import GAINS, at_shape
from continual.learning.volumes.architectures import (
    embed_volumes,
    empty_volume_network,
    pooled,
    run_stages,
    unetr_maps,
)
from continual.learning.volumes.grid import as_input, mirrored, normalise, varied

GRID = VolumeGrid((1.0, 1.0, 1.0), (16, 16, 16))
UNETR = {
    "img_size": [16, 16, 16],
    "out_channels": 2,
    "feature_size": 4,
    "hidden_size": 16,
    "mlp_dim": 32,
    "num_heads": 2,
}


def _ball(spacing, radius_mm=12.0, field_mm=48.0):
    """A ball in the middle of a field of view of so many millimetres, and its mask."""
    counts = [round(field_mm / step) for step in spacing]
    places = [(np.arange(count) + 0.5) * step - field_mm / 2 for count, step in zip(counts, spacing, strict=True)]
    x, y, z = np.meshgrid(*places, indexing="ij")
    inside = (x**2 + y**2 + z**2 < radius_mm**2).astype(np.uint8)
    return Volume(inside.astype(np.float32), spacing), inside


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 0.5, 3.0), (2.0, 1.0, 0.75), (1.5, 1.5, 6.0)])
def test_a_ball_has_one_size_in_millimetres_whatever_its_voxels(spacing):
    grid = VolumeGrid((1.0, 1.0, 2.0), (16, 16, 16))
    volume, inside = _ball(spacing)
    resampled = grid.resampled(volume)
    assert resampled.shape == (48, 48, 24)
    expected = 4 / 3 * np.pi * 12.0**3
    found = 2.0 * np.count_nonzero(resampled > (resampled.max() + resampled.min()) / 2)
    assert found == pytest.approx(expected, rel=0.12)
    mask = grid.resampled_mask(inside, resampled.shape)
    assert 2.0 * mask.sum() == pytest.approx(expected, rel=0.12)
    # The way back: scores told at the adapter's spacing lie on the volume's own voxels.
    back = at_shape(as_input(mask.astype(np.float32)), inside.shape)[0].numpy() > 0.5
    overlap = 2 * np.count_nonzero(back & (inside == 1)) / (back.sum() + inside.sum())
    assert overlap > 0.9


def test_a_mask_keeps_its_numbers_and_what_is_ignored():
    mask = np.zeros((8, 8, 8), dtype=np.uint8)
    mask[2:6, 2:6, 2:6], mask[:, :, 7] = 3, IGNORED
    assert set(np.unique(GRID.resampled_mask(mask, (13, 5, 20)))) == {0, 3, IGNORED}


@given(st.tuples(*[st.integers(1, 40)] * 3))
def test_patches_cover_every_voxel_and_centring_gives_the_size_asked_for(shape):
    grid = VolumeGrid((1.0, 1.0, 1.0), (16, 8, 5))
    numbers = np.arange(1, np.prod(shape) + 1, dtype=np.float32).reshape(shape)
    seen = set()
    for corner in grid.corners(shape):
        patch = grid.cut(numbers, corner, 0.0)
        assert patch.shape == grid.size
        assert grid.inside(corner, shape) == bool((patch > 0).all())
        seen |= set(patch[patch > 0].tolist())
    assert len(seen) == numbers.size
    assert grid.centred(numbers).shape == grid.size


def test_a_few_bright_voxels_and_missing_numbers_decide_nothing():
    random = np.random.default_rng(1)
    values = random.normal(size=(20, 20, 20)).astype(np.float32)
    plain = normalise(values)
    values[0, 0, :5] = 1e6
    values[1, 1, 1] = np.nan
    assert np.abs(normalise(values)[2:] - plain[2:]).max() < 0.05
    assert np.isfinite(normalise(values)).all()
    assert not normalise(np.full((4, 4, 4), 7.0)).any()
    assert np.abs(normalise(1000 + 300 * plain) - normalise(plain)).max() < 1e-3


def test_views_mirror_volume_and_mask_alike_and_view_0_is_the_volume():
    values = np.arange(27, dtype=np.float32).reshape(3, 3, 3)
    assert np.array_equal(varied(values, 0), values)
    assert np.array_equal(mirrored(values, 5), values[::-1, :, ::-1])
    assert all(np.argmax(varied(values, view)) == np.argmax(mirrored(values, view)) for view in range(8))


@pytest.mark.parametrize(
    ("spacing", "size", "told"),
    [
        ((0.0, 1.0, 1.0), (16, 16, 16), "0.0, 1.0, 1.0.*--spacing"),
        ((1.0, 1.0), (16, 16, 16), "give 3 numbers"),
        ((1.0, 1.0, 1.0), (16, 16), "give 3 whole numbers of 1 to 512 with --volume-size"),
        ((1.0, 1.0, 1.0), (16, 16, 1024), "1024"),
    ],
)
def test_an_impossible_grid_is_refused_with_the_remedy(spacing, size, told):
    with pytest.raises(LearningError, match=told):
        VolumeGrid(spacing, size)


def test_volumes_are_upright_unless_told_and_images_are_turned():
    assert training_options(Task.SEGMENTATION, 5, 1, volumes=True).upright
    assert training_options(Task.CLASSIFICATION, 5, 1, volumes=True).upright
    assert not training_options(Task.CLASSIFICATION, 5, 1, volumes=True, upright=False).upright
    assert not training_options(Task.CLASSIFICATION, 5, 1).upright
    assert training_options(Task.SEGMENTATION, 5, 1, upright=True).upright


def test_an_upright_view_of_a_volume_keeps_the_patients_right():
    values = np.random.default_rng(1).normal(size=(4, 5, 6)).astype(np.float32)
    for view in range(8):
        assert np.allclose(varied(values, view, upright=True), values * np.float32(GAINS[view]))


def test_a_body_in_a_millimetre_and_more_patches_than_a_byte_pair_counts_are_no_obstacle():
    grid = VolumeGrid((1.0, 1.0, 1.0), (64, 64, 16))
    assert grid.shape_of((512, 512, 1024), (0.5, 0.5, 1.1)) == (256, 256, 1126)
    assert len(grid.corners((400, 400, 300))) == 5328
    assert VolumeGrid((0.5, 0.5, 0.5), (64, 64, 64)).shape_of((512, 512, 300), (0.8, 0.8, 1.5)) == (819, 819, 900)


def test_a_volume_too_large_for_the_grid_is_refused():
    fine = VolumeGrid((0.01, 0.01, 0.01), (16, 16, 16))
    with pytest.raises(LearningError, match="release with a wider --spacing"):
        fine.resampled(Volume(np.zeros((64, 64, 64), dtype=np.float32), (1.0, 1.0, 1.0)))
    with pytest.raises(LearningError, match="must lie above 0"):
        Volume(np.zeros((4, 4, 4), dtype=np.float32), (1.0, 0.0, 1.0))


def _checkpoint(network, prefix="", **more):
    buffer = io.BytesIO()
    torch.save({"state_dict": {prefix + name: value for name, value in network.state_dict().items()}, **more}, buffer)
    return buffer.getvalue()


def test_stages_one_after_the_other_are_monais_own_network():
    from monai.networks.nets import UNETR as MONAI_UNETR
    from monai.networks.nets import resnet10

    torch.manual_seed(1)
    volumes = torch.randn(2, 1, 16, 16, 16)
    resnet = resnet10(spatial_dims=3, n_input_channels=1, feed_forward=False, bias_downsample=False).eval()
    unetr = MONAI_UNETR(in_channels=1, **UNETR).eval()
    with torch.no_grad():
        assert torch.allclose(pooled(run_stages(resnet, embed_volumes(resnet, volumes), 0)), resnet(volumes), atol=1e-5)
        assert torch.allclose(unetr.out(unetr_maps(unetr, volumes)), unetr(volumes), atol=1e-5)


def test_a_published_checkpoint_becomes_a_backbone_of_the_same_weights():
    from monai.networks.nets import resnet10

    published = resnet10(spatial_dims=3, n_input_channels=1, num_classes=3, bias_downsample=False, widen_factor=0.125)
    arguments = {"bias_downsample": False, "widen_factor": 0.125}
    data = convert_checkpoint(BaseModel("resnet10", GRID, arguments), _checkpoint(published, "module.", epoch=7))
    weights = weights_from_bytes(data)
    assert (weights.name, weights.grid, weights.of_volumes, usual_blocks(weights)) == ("resnet10", GRID, True, 2)
    found, wanted = build_backbone(weights).state_dict(), published.state_dict()
    assert set(wanted) - set(found) == {"fc.weight", "fc.bias"}
    assert all(torch.equal(found[name], wanted[name]) for name in found)
    with pytest.raises(BackboneError, match="looks at volumes, and images were given"):
        build_network(weights)


def test_a_checkpoint_of_another_network_or_of_more_than_tensors_is_refused():
    small = empty_volume_network("unetr", UNETR)
    with pytest.raises(BackboneError, match="are missing or of another shape in the checkpoint, first 'conv1.weight'"):
        convert_checkpoint(BaseModel("resnet10", GRID), _checkpoint(small))
    with pytest.raises(BackboneError, match="only weights are read"):
        convert_checkpoint(BaseModel("resnet10", GRID), _checkpoint(small, where=Path("here")))
    with pytest.raises(BackboneError, match="only weights are read"):
        convert_checkpoint(BaseModel("resnet10", GRID), b"no checkpoint")


def test_what_monai_does_not_build_is_refused_with_what_it_does():
    with pytest.raises(BackboneError, match="choose one of resnet10, resnet18, resnet34, resnet50, unetr"):
        BaseModel("vnet", GRID)
    with pytest.raises(BackboneError, match=r"as 'resnet10' with \['depth'\]"):
        empty_volume_network("resnet10", {"depth": 3})
    with pytest.raises(BackboneError, match="choose --volume-size 16,32,16"):
        BaseModel("unetr", VolumeGrid((1.0, 1.0, 1.0), (16, 30, 8)))


def test_a_grid_belongs_to_volumes_and_a_unetrs_size_to_its_backbone():
    network = empty_volume_network("unetr", UNETR)
    arguments = {name: value for name, value in UNETR.items() if name not in {"img_size", "out_channels"}}
    weights = weights_from_bytes(convert_checkpoint(BaseModel("unetr", GRID, arguments), _checkpoint(network)))
    assert chosen_grid(weights) == GRID
    assert usual_blocks(weights) == 8
    check_kind(weights, Task.SEGMENTATION, GRID)
    with pytest.raises(SettingsError, match="was made for patches of 16,16,16 voxels; leave --volume-size out"):
        check_kind(weights, Task.SEGMENTATION, chosen_grid(weights, size=(32, 32, 16)))
    with pytest.raises(SettingsError, match="looks at volumes, and the adapter's options are those of images"):
        check_kind(weights, Task.SEGMENTATION, None)

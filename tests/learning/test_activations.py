"""Cached activations: whole or absent, computed once, apart by key; and the views they are made of."""

import itertools
import resource
from dataclasses import replace

import numpy as np
import pytest
import torch

from continual.domain.errors import LearningError
from continual.domain.samples import Split
from continual.learning import ActivationCache, ActivationKey, CachePlace, build_network
from continual.learning.backbones import frozen_features
from continual.learning.network import embed_prefix
from continual.learning.views import CASTS, GAINS, standardise, turned_as, view_of

CPU = torch.device("cpu")


def _some(toy, count=5):
    return toy.samples["north", Split.TEST][:count]


def _files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _quiet(_number):
    """Progress that nobody looks at."""


def test_what_is_read_back_is_what_the_frozen_network_gives(toy):
    network, samples = build_network(toy.weights), _some(toy)
    for view in (0, 1):
        images = torch.stack([standardise(view_of(toy.pixels(s), view), 64) for s in samples])
        expected = embed_prefix(network, images, toy.cache.key.blocks).half().numpy()
        stored = np.stack([toy.cache.tokens(s.digest, view) for s in samples])
        assert stored.dtype == np.float16
        assert np.allclose(stored, expected, atol=2e-3)
    with torch.no_grad():
        images = torch.stack([standardise(toy.pixels(s), 64) for s in samples])
        features = frozen_features(network, network.forward_features(images)).numpy()
    assert np.allclose(toy.cache.features([s.digest for s in samples]), features, atol=1e-4)


def test_features_come_in_the_order_asked_for(toy):
    digests = [sample.digest for sample in _some(toy)]
    assert np.array_equal(toy.cache.features(digests[::-1]), toy.cache.features(digests)[::-1])


def test_filling_again_asks_for_no_pixels_and_touches_no_file(toy, tmp_path):
    cache = toy.empty_cache(tmp_path)
    cache.fill(_some(toy), 2, toy.pixels, _quiet)
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in _files(tmp_path)}
    assert len(before) == 5 * 3
    cache.fill(_some(toy), 2, pytest.fail, _quiet)
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in _files(tmp_path)} == before


def test_filling_computes_only_the_images_that_lack_a_view(toy, tmp_path):
    cache, asked = toy.empty_cache(tmp_path), []
    cache.fill(_some(toy, 3), 1, toy.pixels, _quiet)
    cache.fill(_some(toy, 5), 1, lambda s: asked.append(s) or toy.pixels(s), _quiet)
    assert asked == list(_some(toy, 5)[3:])
    cache.fill(_some(toy, 2), 2, toy.pixels, _quiet)
    assert cache.tokens(_some(toy)[0].digest, 1).shape == (17, 48)


def test_an_image_that_was_never_filled_is_not_found(toy, tmp_path):
    with pytest.raises(FileNotFoundError):
        toy.empty_cache(tmp_path).tokens(_some(toy)[0].digest, 0)


def test_a_device_that_fills_up_in_the_middle_of_a_file_leaves_no_part_of_it(toy, tmp_path):
    cache = toy.empty_cache(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Features (512 bytes) fit, tokens (1760 bytes) break off in the middle, as on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            cache.fill(_some(toy), 1, toy.pixels, _quiet)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert {path.name.split(".", 1)[1] for path in _files(tmp_path)} == {"features.npy"}
    cache.fill(_some(toy), 1, toy.pixels, _quiet)
    assert np.array_equal(cache.tokens(_some(toy)[0].digest, 0), toy.cache.tokens(_some(toy)[0].digest, 0))


def test_an_image_that_cannot_be_read_leaves_nothing_half_done(toy, tmp_path):
    cache = toy.empty_cache(tmp_path)
    with pytest.raises(KeyError):
        cache.fill(_some(toy), 1, lambda s: {}[s.digest], _quiet)
    assert _files(tmp_path) == []


@pytest.mark.parametrize("left", [0, 20, 100])
def test_a_file_that_a_power_cut_left_half_written_is_computed_again(toy, tmp_path, left):
    place, (first, *_) = CachePlace(tmp_path / "cache", tmp_path / "kept"), _some(toy)
    cache, later = (ActivationCache(place, toy.cache.key, build_network(toy.weights), CPU) for _ in range(2))
    cache.fill([first], 2, toy.pixels, _quiet)
    whole = {kind: next(tmp_path.rglob(f"{first.digest}.{kind}.npy")) for kind in ("features", "v0", "v1")}
    before = {kind: path.read_bytes() for kind, path in whole.items()}
    for path in whole.values():
        path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(LearningError, match=rf"activation file of {left} bytes cannot be read: .*v1.npy; restore it"):
        later.tokens(first.digest, 1)
    assert np.array_equal(cache.tokens(first.digest, 1), toy.cache.tokens(first.digest, 1))
    cache.keep({first.digest: 2})
    kept = {kind: next((tmp_path / "kept").rglob(f"{first.digest}.{kind}.npy")) for kind in whole}
    assert {kind: path.read_bytes() for kind, path in kept.items()} == before


def test_another_backbone_split_or_side_has_a_folder_of_its_own(toy, tmp_path):
    key = toy.cache.key
    others = [
        ActivationKey("0" * 64, key.blocks, key.image_size),
        ActivationKey(key.backbone_digest, key.blocks + 1, key.image_size),
        ActivationKey(key.backbone_digest, key.blocks, 96),
        ActivationKey(key.backbone_digest, key.blocks, key.image_size, upright=True),
    ]
    assert len({key.folder(), *(other.folder() for other in others)}) == 5
    for entry in (key, *others):
        cache = ActivationCache(tmp_path, entry, build_network(toy.weights), torch.device("cpu"))
        cache.fill(_some(toy, 1), 1, toy.pixels, _quiet)
        assert len(cache.tokens(_some(toy)[0].digest, 0)) == (37 if entry.image_size == 96 else 17)
    assert len(list(tmp_path.iterdir())) == 5


def test_view_zero_is_the_image_itself(toy):
    pixels = toy.pixels(_some(toy)[0])
    assert np.array_equal(view_of(pixels, 0), pixels)


def test_the_eight_views_are_the_eight_symmetries_of_the_square():
    plane = np.arange(16).reshape(4, 4)
    assert len({turned_as(plane, view).tobytes() for view in range(8)}) == 8
    assert np.array_equal(turned_as(plane, 0), plane)


def test_views_are_deterministic_and_all_differ(toy):
    pixels = toy.pixels(_some(toy)[0])
    views = [view_of(pixels, number) for number in range(8)]
    assert all(np.array_equal(view, view_of(pixels.copy(), number)) for number, view in enumerate(views))
    assert not any(np.array_equal(one, other) for one, other in itertools.combinations(views, 2))
    assert all(view.dtype == np.uint8 and view.shape == pixels.shape for view in views)


@pytest.mark.parametrize("number", range(1, 8))
def test_a_view_is_a_symmetry_of_the_square_with_a_mild_gain_and_cast(number):
    pixels = np.random.default_rng(1).integers(0, 180, size=(12, 12, 3), dtype=np.uint8)
    factor = GAINS[number] * np.array(CASTS[number % 4])
    turned = [np.rot90(side, k=k) * factor for k in range(4) for side in (pixels, pixels[:, ::-1])]
    view = view_of(pixels, number).astype(float)
    assert sum(np.abs(view - candidate).max() <= 1 for candidate in turned) == 1
    assert np.all(np.abs(factor - 1) < 0.25)


@pytest.mark.parametrize("number", range(1, 8))
def test_upright_views_change_light_alone_and_so_do_their_activations(toy, tmp_path, number):
    sample, key = _some(toy)[0], replace(toy.cache.key, upright=True)
    pixels = toy.pixels(sample)
    factor = GAINS[number % len(GAINS)] * np.asarray(CASTS[number % len(CASTS)], dtype=np.float32)
    upright = view_of(pixels, number, upright=True)
    assert np.array_equal(upright, np.clip(pixels * factor, 0, 255).astype(np.uint8))
    cache = ActivationCache(tmp_path, key, build_network(toy.weights), CPU)
    cache.fill([sample], number + 1, toy.pixels, _quiet)
    seen = standardise(upright, key.image_size)[None]
    expected = embed_prefix(build_network(toy.weights), seen, key.blocks).half().numpy()[0]
    assert np.allclose(cache.tokens(sample.digest, number), expected, atol=2e-3)


def test_standardised_pixels_are_resized_and_centred_on_the_training_statistics():
    grey = np.full((100, 50, 3), [124, 116, 104], dtype=np.uint8)
    image = standardise(grey, 56)
    assert image.shape == (3, 56, 56)
    assert image.abs().max() < 0.02

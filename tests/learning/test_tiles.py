"""Tiles: cutting and stitching, masks that turn with their pixels, what is cached and what is drawn."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from continual.domain.errors import LearningError, StreamError
from continual.domain.samples import IGNORED, Sample, Split
from continual.learning import TileGrid, build_network, cached_digests, check_tile, choose_tile, forget_activations
from continual.learning.network import embed_prefix
from continual.learning.segmentation.draws import TileDataset, tile_draws, tile_examples
from continual.learning.segmentation.tiles import resize_mask, resize_pixels

CLASSES = ("lesion",)


def test_tiles_stitched_together_are_the_image_again():
    grid = TileGrid(12, 4)
    image = torch.arange(2 * 12 * 12.0).reshape(2, 12, 12)
    tiles = [torch.from_numpy(grid.cut(image.permute(1, 2, 0).numpy(), tile)).permute(2, 0, 1) for tile in range(9)]
    assert grid.tiles == 9
    assert torch.equal(grid.stitch(torch.stack(tiles)), image)
    assert [(grid.tile_of(view), grid.variant_of(view)) for view in (0, 8, 9, 20)] == [(0, 0), (8, 0), (0, 1), (2, 2)]


@pytest.mark.parametrize(("size", "tile"), [(504, 160), (100, 168), (504, 0)])
def test_tiles_that_do_not_cover_the_image_are_refused_with_a_size_that_does(size, tile):
    with pytest.raises(LearningError, match="do not divide into tiles"):
        TileGrid(size, tile)


def test_the_tile_chosen_is_the_largest_of_168_at_most_that_patches_and_image_agree_on(toy):
    network = build_network(toy.weights)
    assert [choose_tile(network, size) for size in (64, 480, 336, 16)] == [64, 160, 112, 16]
    with pytest.raises(LearningError, match="choose --tile 32"):
        check_tile(network, TileGrid(120, 30))


def test_a_resized_mask_holds_the_same_numbers_and_no_others():
    mask = np.zeros((37, 53), dtype=np.uint8)
    mask[10:20, 10:40], mask[:5] = 3, IGNORED
    resized = resize_mask(mask, 64)
    assert resized.shape == (64, 64)
    assert set(np.unique(resized)) == {0, 3, IGNORED}
    assert np.mean(resized == 3) == pytest.approx(np.mean(mask == 3), abs=0.02)
    assert np.array_equal(resize_mask(mask[:37, :37], 37), mask[:37, :37])
    assert resize_pixels(np.zeros((37, 53, 3), dtype=np.uint8), 64).shape == (64, 64, 3)


def test_every_view_of_a_mask_lies_on_the_same_view_of_its_pixels(dense):
    sample = dense.samples["north", Split.TRAIN][0]
    for view in range(2 * dense.cache.grid.tiles):
        mask, red = dense.cache.mask(sample, view), dense.cache.pixels(sample.digest, view)[:, :, 0].astype(float)
        # Red stands at 150 where the mask is 1 and at 90 where it is 0, with noise of 8.
        assert np.array_equal(red[mask != IGNORED] > 118, mask[mask != IGNORED] == 1) or (
            np.mean((red[mask != IGNORED] > 118) != (mask[mask != IGNORED] == 1)) < 0.01
        )


def test_cached_tokens_are_those_of_the_tile_alone(dense):
    sample, grid = dense.samples["south", Split.TRAIN][1], dense.cache.grid
    for view in (0, grid.tiles - 1, grid.tiles + 1):
        tokens, pixels = dense.cache.inputs(sample.digest, view)
        computed = embed_prefix(build_network(dense.weights), pixels[None], dense.cache.key.blocks)[0]
        assert torch.allclose(tokens, computed, atol=2e-2)


def test_filling_again_computes_nothing_and_a_corrected_mask_only_the_mask(dense, tmp_path):
    cache, samples = dense.empty_cache(tmp_path), dense.samples["north", Split.TEST][:2]
    assert list(samples) == cache.missing(samples, 2)
    cache.fill(samples, 2, dense.pixels, lambda _n: None)
    assert cache.missing(samples, 2) == []
    corrected = replace(samples[0], mask=samples[1].mask)
    assert cache.missing([corrected], 2) == [corrected]

    def no_pixels(_sample: Sample) -> np.ndarray:
        raise AssertionError("the image itself has not changed")

    cache.fill([corrected], 2, no_pixels, lambda _n: None)
    assert np.array_equal(cache.mask(corrected, 0), cache.mask(samples[1], 0))
    assert not np.array_equal(cache.mask(corrected, 0), cache.mask(samples[0], 0))
    assert cached_digests(tmp_path) == {sample.digest for sample in samples}
    assert forget_activations(tmp_path, [samples[0].digest]) == 6
    assert cached_digests(tmp_path) == {samples[1].digest}


def test_frozen_features_are_one_row_per_image(dense):
    digests = [sample.digest for sample in dense.samples["north", Split.TEST]]
    assert dense.cache.features(digests).shape == (6, 2 * 48)


def test_sites_share_the_draws_evenly_however_many_images_they_sent(dense):
    samples = [*dense.samples["north", Split.TRAIN], *dense.samples["south", Split.TRAIN][:2]]
    draws = tile_draws(dense.cache, samples, CLASSES, 2000, views=2, seed=3)
    sites = Counter(draw.sample.site for draw in draws)
    assert sites["south"] == pytest.approx(1000, abs=90)  # four standard deviations
    assert {draw.view for draw in draws} == set(range(2 * dense.cache.grid.tiles))
    assert draws == tile_draws(dense.cache, samples, CLASSES, 2000, views=2, seed=3)
    assert draws != tile_draws(dense.cache, samples, CLASSES, 2000, views=2, seed=4)


def test_tiles_with_a_class_are_half_of_the_draws_and_tiles_without_field_of_view_none(dense, monkeypatch):
    contents = np.zeros((4, 256), dtype=np.int64)
    contents[0, 1], contents[:3, 0], contents[3, IGNORED] = 10, 1000, 1024
    monkeypatch.setattr(type(dense.cache), "contents", lambda _cache, _sample: contents)
    samples = dense.samples["north", Split.TRAIN][:3]
    drawn = Counter(draw.view for draw in tile_draws(dense.cache, samples, CLASSES, 2000, views=1, seed=1))
    assert drawn[0] == pytest.approx(1000, abs=90)
    assert set(drawn) == {0, 1, 2}
    assert len(list(tile_examples(dense.cache, samples))) == 9


def test_samples_without_masks_or_with_unknown_numbers_are_refused(dense, monkeypatch):
    samples = dense.samples["north", Split.TRAIN][:2]
    with pytest.raises(StreamError, match="none of 2 training samples has a mask"):
        tile_draws(dense.cache, [replace(sample, mask=None) for sample in samples], CLASSES, 4, views=1, seed=1)
    with pytest.raises(StreamError, match="class number 1, the adapter has 0 besides the background"):
        tile_draws(dense.cache, samples, (), 4, views=1, seed=1)
    outside = np.zeros((4, 256), dtype=np.int64)
    outside[:, IGNORED] = 1
    monkeypatch.setattr(type(dense.cache), "contents", lambda _cache, _sample: outside)
    with pytest.raises(StreamError, match="none of 2 masks has a pixel inside the field of view"):
        tile_draws(dense.cache, samples, CLASSES, 4, views=1, seed=1)


def test_a_draw_is_tokens_mask_number_and_pixels(dense):
    draws = tile_draws(dense.cache, dense.samples["north", Split.TRAIN], CLASSES, 3, views=2, seed=1)
    tokens, mask, numbers, pixels = default_collate(list(TileDataset(draws, dense.cache, first=7)))
    assert tokens.shape == (3, 5, 48)
    assert mask.shape == (3, 32, 32)
    assert mask.dtype == torch.int64
    assert numbers.tolist() == [7, 8, 9]
    assert pixels.shape == (3, 3, 32, 32)

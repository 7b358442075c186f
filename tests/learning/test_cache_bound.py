"""The bound on cached activations: never passed, the least lately used goes first, and what went is computed again."""

import os
import time
from pathlib import Path

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as some

from continual.domain.samples import Split
from continual.learning import ActivationCache, CachePlace, TileCache, build_network
from continual.learning.cache_bound import CacheBound
from continual.learning.cached_files import file_of, kinds_of


def _held(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.npy"))


def _bounded(toy, folder: Path, limit_bytes: int) -> ActivationCache:
    place = CachePlace(folder / "cache", folder / "kept", limit_bytes)
    return ActivationCache(place, toy.cache.key, build_network(toy.weights), torch.device("cpu"))


def _quiet(_number: int) -> None:
    """Progress that nobody looks at."""


@settings(max_examples=60, deadline=None)
@given(
    limit=some.integers(100, 3000),
    steps=some.lists(some.tuples(some.integers(0, 30), some.integers(1, 900)), max_size=60),
)
def test_the_limit_is_never_passed_and_what_was_used_lately_stays(tmp_path_factory, limit, steps):
    folder = tmp_path_factory.mktemp("bound")
    bound, order, clock = CacheBound(folder, limit), [], 0
    for name, size in steps:
        path = folder / "key" / file_of(f"{name:02d}" * 8, "v0")
        if path.exists():
            bound.used([path])
            order.remove(path)
        elif bound.admits(size):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x" * size)
        else:
            assert size > limit
            continue
        clock += 1
        # The clock of a file system is coarse: these uses come one by one.
        os.utime(path, ns=(clock, clock))
        order.append(path)
        assert _held(folder) <= limit
        gone = [one for one in order if not one.exists()]
        assert gone == order[: len(gone)]
        order = order[len(gone) :]


def test_use_is_noted_without_changing_the_file(tmp_path):
    bound = CacheBound(tmp_path, 100)
    path = tmp_path / "key" / "ab" / "ab.v0.npy"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x")
    os.utime(path, ns=(5, 7))
    before = time.time_ns()
    bound.used([path, tmp_path / "key" / "ab" / "gone.npy"])
    assert path.stat().st_mtime_ns == 7
    assert path.stat().st_atime_ns >= before


def test_without_a_limit_nothing_goes(tmp_path):
    path = tmp_path / "key" / "ab" / "ab.v0.npy"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x" * 1000)
    assert CacheBound(tmp_path, 0).admits(10**12)
    assert path.exists()


def test_a_cache_too_small_for_the_images_still_answers_with_the_same_activations(toy, tmp_path):
    samples = toy.samples["north", Split.TRAIN][:12]
    digests = [sample.digest for sample in samples]
    limit = 5 * 1760
    cache = _bounded(toy, tmp_path, limit)
    cache.fill(samples, 2, toy.pixels, _quiet)
    assert 0 < _held(tmp_path / "cache") <= limit
    for view in (0, 1):
        for digest in digests:
            found = cache.tokens(digest, view)
            assert found.dtype == np.float16
            assert np.allclose(found, toy.cache.tokens(digest, view), atol=2e-3)
    assert np.allclose(cache.features(digests), toy.cache.features(digests), atol=1e-5)
    assert _held(tmp_path / "cache") <= limit


def test_what_had_to_go_for_want_of_room_counts_as_many_bytes_as_what_is_there(toy, tmp_path):
    samples = toy.samples["north", Split.TRAIN][:12]
    digests = [sample.digest for sample in samples]
    cache = _bounded(toy, tmp_path, 5 * 1760)
    cache.fill(samples, 2, toy.pixels, _quiet)
    assert sum(cache.holds(digest, 2) for digest in digests) < 12
    toy.cache.fill(samples, 2, toy.pixels, _quiet)
    assert cache.sizes(digests, 2) == toy.cache.sizes(digests, 2)
    assert _bounded(toy, tmp_path / "empty", 5 * 1760).sizes(digests, 2) == dict.fromkeys(digests, 0)


def test_kept_activations_are_read_and_never_go_for_want_of_room(toy, tmp_path):
    kept, others = toy.samples["north", Split.TRAIN][:3], toy.samples["north", Split.TRAIN][3:15]
    cache = _bounded(toy, tmp_path, 6 * 1760)
    cache.fill(kept, 2, toy.pixels, _quiet)
    cache.keep({sample.digest: 2 for sample in kept[:2]} | {kept[2].digest: 0})
    cache.keep({sample.digest: 2 for sample in kept[:2]})
    cache.fill(others, 2, toy.pixels, _quiet)
    fresh = _bounded(toy, tmp_path, 6 * 1760)
    assert not fresh.missing(kept[:2], 2)
    assert not fresh.missing(kept[2:], 0)
    assert fresh.only_features(kept[2].digest) == (not list((tmp_path / "cache").rglob(f"{kept[2].digest}.v0.npy")))
    assert not fresh.only_features(kept[0].digest)
    for sample in kept[:2]:
        assert np.array_equal(fresh.tokens(sample.digest, 1), toy.cache.tokens(sample.digest, 1))
        sizes = [path.stat().st_size for path in (tmp_path / "kept").rglob(f"{sample.digest}.*")]
        assert len(sizes) == len(kinds_of(2))
        assert fresh.sizes([sample.digest], 2) == {sample.digest: sum(sizes)}


def test_what_had_to_go_before_it_was_kept_is_computed_again(toy, tmp_path):
    samples = toy.samples["north", Split.TRAIN][:6]
    cache = _bounded(toy, tmp_path, 4 * 1760)
    cache.fill(samples, 2, toy.pixels, _quiet)
    cache.keep({sample.digest: 2 for sample in samples})
    assert len(list((tmp_path / "kept").rglob("*.npy"))) == 6 * 3
    assert not _bounded(toy, tmp_path, 1).missing(samples, 2)


def test_a_cache_too_small_for_the_tiles_still_answers_with_the_same(dense, tmp_path):
    limit, whole = 60_000, dense.cache
    cache = TileCache(
        CachePlace(tmp_path, limit_bytes=limit),
        whole.key,
        whole.grid.tile,
        build_network(dense.weights),
        torch.device("cpu"),
        whole.whole_mask,
    )
    samples = dense.samples["north", Split.TEST]
    cache.fill(samples, 2, dense.pixels, _quiet)
    assert cache.missing(samples, 2) != []
    assert _held(tmp_path) <= limit
    digests = [sample.digest for sample in samples]
    assert np.allclose(cache.features(digests), whole.features(digests), atol=1e-4)
    for sample in samples:
        assert np.array_equal(cache.contents(sample), whole.contents(sample))
        for view in (0, whole.grid.tiles + 1):
            assert np.array_equal(cache.pixels(sample.digest, view), whole.pixels(sample.digest, view))
            assert np.array_equal(cache.mask(sample, view), whole.mask(sample, view))
            assert np.allclose(cache.tokens(sample.digest, view), whole.tokens(sample.digest, view), atol=1e-2)
    assert _held(tmp_path) <= limit

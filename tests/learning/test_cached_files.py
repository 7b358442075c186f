"""Which images have cached activations, and their removal under every key."""

import os
import time

from continual.domain.samples import Split
from continual.learning import cached_digests, forget_activations


def _fill(toy, folder, count=3):
    samples = toy.samples["north", Split.TEST][:count]
    toy.empty_cache(folder).fill(samples, 2, toy.pixels, lambda _n: None)
    return [sample.digest for sample in samples]


def _names(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_every_keys_files_of_an_image_go_and_those_of_others_stay(toy, tmp_path):
    first, *others = _fill(toy, tmp_path)
    (key,) = tmp_path.iterdir()
    other_key = tmp_path / "another-b2-s96" / first[:2]
    other_key.mkdir(parents=True)
    (other_key / f"{first}.v0.npy").write_bytes(b"tokens under another key")
    assert cached_digests(tmp_path) == {first, *others}
    assert forget_activations(tmp_path, [first]) == 4
    assert cached_digests(tmp_path) == set(others)
    assert len(_names(key)) == 2 * 3
    assert forget_activations(tmp_path, [first]) == 0


def test_what_a_killed_writer_left_goes_and_what_one_is_writing_stays(tmp_path):
    folder = tmp_path / "key" / "ab"
    folder.mkdir(parents=True)
    for name, age_s in (("old.part", 2 * 3600), ("new.part", 0)):
        (folder / name).write_bytes(b"half")
        os.utime(folder / name, (time.time() - age_s,) * 2)
    assert forget_activations(tmp_path, []) == 0
    assert _names(tmp_path) == ["new.part"]


def test_half_a_file_of_a_forgotten_image_goes_however_new_and_counts_as_cached_until_then(tmp_path):
    digest = "ab" * 32
    folder = tmp_path / "key" / "ab"
    folder.mkdir(parents=True)
    (folder / f"{digest}.v0.k1ll3d.part").write_bytes(b"half")
    (folder / f"{'ab' * 31}cd.v0.k1ll3d.part").write_bytes(b"another's")
    assert cached_digests(tmp_path) == {digest, "ab" * 31 + "cd"}
    assert forget_activations(tmp_path, [digest]) == 0
    assert _names(tmp_path) == [f"{'ab' * 31}cd.v0.k1ll3d.part"]


def test_a_folder_that_does_not_exist_holds_nothing(tmp_path):
    assert cached_digests(tmp_path / "nowhere") == frozenset()
    assert forget_activations(tmp_path / "nowhere", ["ab" * 32]) == 0

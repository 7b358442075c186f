"""The content-addressed store, in a folder and in an object store's stand-in."""

import os
import time
import uuid

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from continual.domain.digests import sha256_bytes
from continual.domain.errors import ArtifactError, RegistryError
from registry.artifacts import INCOMING, STALE_AFTER_S, ArtifactStore


@pytest.fixture(params=["folder", "memory"])
def store(request, tmp_path):
    if request.param == "folder":
        return ArtifactStore(str(tmp_path / "artifacts"))
    return ArtifactStore(f"memory://{uuid.uuid4().hex}/artifacts")


@given(data=st.binary(max_size=2000))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_come_back_from_their_digest(store, data):
    digest = store.put(data)
    assert digest == sha256_bytes(data)
    assert store.get(digest) == data
    assert store.has(digest)


def test_many_are_stored_in_the_order_given(store):
    items = [bytes([number]) * number for number in range(1, 30)]
    assert store.put_all(items) == [sha256_bytes(item) for item in items]


def test_missing_artifact_is_an_artifact_error(store):
    with pytest.raises(ArtifactError, match=r"missing.*restore"):
        store.get("0" * 64)
    assert not store.has("0" * 64)


def test_deleted_artifact_is_gone_and_deleting_again_is_no_error(store):
    digest = store.put(b"old")
    store.delete(digest)
    store.delete(digest)
    assert not store.has(digest)


@pytest.mark.parametrize("address", ["../../etc/passwd", "", "A" * 64, "0" * 63])
def test_address_that_is_no_digest_is_refused(store, address):
    for ask in (store.get, store.has, store.path, store.delete):
        with pytest.raises(ArtifactError, match="SHA-256"):
            ask(address)


def test_only_a_folder_has_local_paths(tmp_path):
    folder = ArtifactStore(str(tmp_path))
    digest = folder.put(b"bytes")
    assert folder.path(digest) == tmp_path / digest[:2] / digest[2:4] / digest
    assert folder.path(digest).read_bytes() == b"bytes"
    assert ArtifactStore("memory://elsewhere").path(digest) is None


def test_one_flipped_bit_is_refused_on_reading(tmp_path):
    store = ArtifactStore(str(tmp_path))
    digest = store.put(b"precious weights")
    store.path(digest).write_bytes(b"precious weighty")
    with pytest.raises(ArtifactError, match="do not match"):
        store.get(digest)


def test_present_artifact_is_not_written_again_and_a_cut_one_is(tmp_path):
    store = ArtifactStore(str(tmp_path))
    path = store.path(store.put(b"precious weights"))
    written = path.stat().st_ino
    store.put(b"precious weights")
    assert path.stat().st_ino == written
    path.write_bytes(b"prec")
    store.put(b"precious weights")
    assert path.read_bytes() == b"precious weights"


def test_only_what_a_killed_writer_left_long_ago_is_swept(tmp_path):
    ArtifactStore(str(tmp_path))
    old, fresh = tmp_path / INCOMING / "old", tmp_path / INCOMING / "fresh"
    for partial in (old, fresh):
        partial.write_bytes(b"part")
    long_ago = time.time() - STALE_AFTER_S - 60
    os.utime(old, (long_ago, long_ago))
    ArtifactStore(str(tmp_path))
    assert not old.exists()
    assert fresh.exists()


def test_store_that_cannot_be_written_is_a_registry_error(tmp_path):
    store = ArtifactStore(str(tmp_path / "artifacts"))
    digest = sha256_bytes(b"data")
    (tmp_path / "artifacts" / digest[:2]).write_bytes(b"a file where a folder must be")
    with pytest.raises(RegistryError, match="check its rights"):
        store._write(digest, b"data")
    assert list((tmp_path / "artifacts" / INCOMING).iterdir()) == []

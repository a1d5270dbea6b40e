"""Files that are mapped where they lie: what they cost, who may open them, and what becomes of those who map one that
changes.
"""

from __future__ import annotations

import json
import os
import signal
import struct
from pathlib import Path

import numpy as np
import pytest
from harness import DEADLINE_SECONDS, Child, Server, wait_for

import tensord
from tensord._mapping.mapping import Access
from tensord._region.mapper import open_reference


def _write(path: Path, values: np.ndarray) -> Path:
    """A safetensors file of one F32 tensor ``w``."""
    data = values.astype("<f4").tobytes()
    header = json.dumps({"w": {"dtype": "F32", "shape": [values.size], "data_offsets": [0, len(data)]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return path


@pytest.fixture
def path(server: Server, request: pytest.FixtureRequest) -> Path:
    return _write(server.models / f"{request.node.name}.safetensors", np.arange(4096))


def _file_of(region: tensord.Region) -> tuple[str, int, int]:
    storage = region.descriptor.storage
    return storage.kind, int(storage.dev or 0), int(storage.ino or 0)


def test_a_mapped_file_is_the_region_and_costs_nothing(client: tensord.Client, path: Path) -> None:
    used = client.stats().pools[0].used_bytes
    operation = client.load(path, mode="map")
    assert operation.wait(180).state == "sealed"
    assert (operation.descriptor.mode, operation.descriptor.reason) == ("map", "it was asked for")
    with client.load_model(path, mode="map") as weights:
        status = path.stat()
        assert _file_of(weights) == ("file", status.st_dev, status.st_ino)
        storage = weights.descriptor.storage
        assert (storage.path, storage.immutable, storage.changed) == (str(path), False, None)
        assert storage.mtime_ns == status.st_mtime_ns
        array = weights["w"].numpy()
        assert (array.sum(), array.flags.writeable) == (np.arange(4096).sum(), False)
        # Its own pages, if somebody writes to them: never the file's.
        weights["w"].numpy(private=True)[0] = 7
        assert client.stats().pools[0].used_bytes == used
    assert path.read_bytes()[-4:] == struct.pack("<f", 4095)


def test_who_maps_a_file_leases_it_by_request(client: tensord.Client, path: Path) -> None:
    weights = client.load_model(path, mode="map")
    detail = client.get_by_id(weights.id)
    assert (detail.in_use, detail.leases, detail.unknown_holders) == (True, 1, False)
    array = weights["w"].numpy()
    weights.close()
    assert client.get_by_id(weights.id).in_use
    assert client.delete(weights.id).state == "draining"
    del array
    wait_for(lambda: all(region.id != weights.id for region in client.list(state="draining")), "it is let go of")
    assert path.exists()


def test_a_mapped_file_that_is_handed_off_is_forgotten_when_its_consumer_lets_go(
    client: tensord.Client, path: Path
) -> None:
    with client.load_model(path, mode="map", name="handed", linger=0) as weights:
        assert weights["w"].numpy()[3] == 3
        assert client.get("handed").id == weights.id
    wait_for(lambda: all(region.id != weights.id for region in client.list()), "it is forgotten")
    assert path.exists()


def test_a_reference_to_a_mapped_file_names_no_path_and_is_opened_by_the_servers_word(
    client: tensord.Client, path: Path
) -> None:
    with client.load_model(path, mode="map") as weights:
        ref = weights["w"].ref()
        assert (ref.storage, ref.path) == ("file", None)
        again = tensord.TensorReference.from_json(ref.to_json())
        with client.open(again) as tensor:
            assert tensor.numpy()[5] == 5
        with pytest.raises(tensord.FeatureUnavailable, match="no server can be asked for its path"):
            open_reference(again, Access.PRIVATE)
    client.delete(weights.id)
    with pytest.raises(tensord.StaleRef):
        client.open(again)


def test_stock_readers_find_a_mapped_file_by_its_path_under_a_hold(client: tensord.Client, path: Path) -> None:
    client.load(path, mode="map", name="held").wait(180)
    with client.hold("held") as held:
        assert held == str(path)
        assert client.get("held").leases == 1


def test_a_file_that_changed_is_refused_with_what_to_do_and_its_new_state_is_another_version(
    client: tensord.Client, path: Path
) -> None:
    with client.load_model(path, mode="map", name="w") as old:
        other = _write(path.with_suffix(".new"), np.zeros(8))
        other.replace(path)
        with pytest.raises(tensord.StaleRef, match="is replaced since it was loaded") as refused:
            client.attach("w", version=old.version)
        assert "load it again" in str(refused.value.hint)
        # Who maps the old file keeps it: a rename takes it from nobody.
        assert old["w"].numpy()[9] == 9
        with client.load_model(path, mode="map", name="w") as new, client.attach("w") as newest:
            assert new.id == newest.id != old.id
            assert new["w"].numpy().tolist() == [0] * 8
        os.utime(path, (1, 1))
        with pytest.raises(tensord.StaleRef, match="is modified"):
            client.attach("w", version=new.version)
        path.unlink()
        with pytest.raises(tensord.StaleRef, match="is gone"):
            client.attach("w", version=new.version)


def test_who_reads_pages_that_were_cut_off_ends_by_sigbus_and_others_go_on(client: tensord.Client, path: Path) -> None:
    script = f"""
import resource, tensord
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
with tensord.connect() as client:
    weights = client.load_model({str(path)!r}, mode="map")
    array = weights["w"].numpy()
    say(float(array[0]))
    hear()
    float(array[-1])
"""
    with Child(script) as child:
        assert child.hear() == 0
        os.truncate(path, 200)
        child.say("read")
        assert child._process.wait(DEADLINE_SECONDS) == -signal.SIGBUS
    (region,) = [region for region in client.list() if region.labels.get("tensord.file") == str(path)]
    assert client.get_by_id(region.id).storage.changed == "modified"
    # Its session ended with it, and so did what it had leased.
    wait_for(lambda: client.get_by_id(region.id).leases == 0, "its lease ends")
    assert client.delete(region.id).state == "deleted"
    assert path.stat().st_size == 200


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start processes under other uids")
def test_a_process_that_may_not_read_the_file_is_told_and_finds_the_copy(client: tensord.Client, path: Path) -> None:
    path.chmod(0o600)
    path.parent.chmod(0o755)
    mapped = client.load(path, mode="map", name="mine").wait(180)
    copied = client.load(path, name="mine").wait(180)
    script = f"""
import os, tensord
os.setgroups([os.getegid()])
os.setuid(65534)
with tensord.connect() as client:
    try:
        client.attach("mine", version={mapped.version!r})
    except tensord.AccessDenied as error:
        say([str(error), error.hint])
    say([int(client.attach("mine").numpy()[7]), int(client.attach("mine", version={copied.version!r}).numpy()[8])])
"""
    with Child(script) as child:
        told, hint = child.hear()
        assert f"Cannot open {path}" in told
        assert "this process is uid 65534" in told
        assert "mode='copy'" in hint
        assert child.hear() == [7, 8]
        child.finish()


def test_auto_says_why(client: tensord.Client, path: Path) -> None:
    path.chmod(0o644)
    operation = client.load(path, mode="auto")
    assert operation.wait(180).storage.kind == "file"
    path.chmod(0o666)
    operation = client.load(path, mode="auto")
    assert operation.wait(180).storage.kind == "shm"
    assert operation.descriptor.reason == "everybody may write to it"
    with pytest.raises(tensord.ValidationFailed, match="make a region of other memory"):
        client.load(path, mode="map", storage="shm")
    with pytest.raises(tensord.ValidationFailed, match="mode"):
        client.load(path, mode="mapped")  # type: ignore[arg-type]


def test_pages_are_let_go_of_here_and_then_in_the_kernel(client: tensord.Client, path: Path) -> None:
    _write(path, np.ones(1 << 20))
    size = path.stat().st_size
    with client.load_model(path, mode="map") as weights:
        assert weights.flush()
        for order in ("sequential", "random", "normal"):
            assert weights.advise(order) is None  # type: ignore[arg-type]
        assert weights["w"].numpy().sum() == 1 << 20
        there = weights.resident_bytes()
        assert there is not None
        assert 0 < there <= weights.descriptor.storage.byte_size == size
        dropped = weights.advise("dontneed")
        assert dropped is not None
        assert dropped.byte_size == size
        # Nobody else maps it, and all of it was flushed: as good as nothing is left.
        assert dropped.resident_bytes_after is not None
        assert dropped.resident_bytes_after < size // 2
        left = weights.resident_bytes()
        assert left is not None
        assert left < size // 2
        assert weights["w"].numpy().sum() == 1 << 20
        weights.advise("willneed")
        weights["w"].numpy(private=True)[5] = 3
        with pytest.raises(tensord.ValidationFailed, match="4096 bytes were written to privately here"):
            weights.advise("dontneed")


def test_a_region_in_memory_is_its_only_copy(client: tensord.Client) -> None:
    with client.create("mine", np.ones(1 << 16), ttl=600) as region:
        told = region.advise("dontneed")
        assert told is not None
        assert told.resident_bytes_before == told.resident_bytes_after == region.descriptor.storage.byte_size
        assert region.resident_bytes() == told.byte_size
        assert not region.flush()
        assert region.numpy().sum() == 1 << 16
        with pytest.raises(tensord.ValidationFailed, match="advice"):
            region.advise("soon")  # type: ignore[arg-type]
    with pytest.raises(tensord.Closed):
        region.resident_bytes()

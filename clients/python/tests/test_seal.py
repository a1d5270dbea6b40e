"""A seal keeps every address, drops the writer's lock, and takes everything back when it fails."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest
from harness import Child, Server

import tensord
from tensord import _api
from tensord._mapping import lease


def test_a_seal_keeps_arrays_and_addresses_and_drops_the_writer_lock(client: tensord.Client) -> None:
    region = client.create("w", {"a": np.arange(10.0), "b": np.arange(5, dtype=np.int8)}, ttl=600)
    path = region.descriptor.storage.path
    a, b = region["a"].numpy(), region["b"].bytes()
    address = a.ctypes.data
    a[3] = 33
    assert lease.has_writer(path)

    descriptor = region.seal(checksum=True)
    assert descriptor.state == region.state == "sealed"
    assert descriptor.checksum is not None
    assert a.ctypes.data == address
    assert a[3] == 33
    assert (a.flags.writeable, b.flags.writeable, region["a"].numpy().flags.writeable) == (False, False, False)
    assert not region.writable
    assert lease.is_leased(path)
    assert not lease.has_writer(path)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o1540
    region.close()


def test_a_stray_write_after_the_seal_stays_private(client: tensord.Client) -> None:
    with client.create("w", np.zeros(2000), ttl=600) as region:
        own_view = region.numpy()[100:200]
        region.seal()
        own_view[:] = 1
        with client.attach("w") as attached:
            assert not attached.numpy().any()


def test_a_seal_with_a_second_writer_fails_and_writing_goes_on(client: tensord.Client) -> None:
    with client.create("w", np.zeros(100), ttl=600) as region:
        array = region.numpy()
        with Child('w = tensord.attach("w", writable=True); w.numpy()[5] = 5; say(os.getpid()); hear()') as child:
            child.hear()
            with pytest.raises(tensord.RegionHasWriters):
                region.seal()
            assert region.writable
            assert array.flags.writeable is True
            assert region.state == "open"
            array[6] = 6
            with client.attach("w") as reader:
                assert reader.numpy()[5:7].tolist() == [5, 6]
            assert client.get("w").has_writers is True
            child.say("go")
            child.finish()
        region.seal()
        assert array[5:7].tolist() == [5, 6]


def test_a_second_region_object_of_this_process_is_a_writer_too(client: tensord.Client) -> None:
    with client.create("w", [1, 2], ttl=600) as first, client.attach("w", writable=True) as second:
        with pytest.raises(tensord.RegionHasWriters):
            first.seal()
        assert first.numpy().flags.writeable
        second.close()
        first.seal()


def test_a_reader_may_seal_when_nobody_writes(client: tensord.Client) -> None:
    client.create("w", [1, 2], ttl=600).close()
    with client.attach("w") as region:
        region.seal()
        assert region.state == "sealed"
        assert region.numpy().tolist() == [1, 2]


def test_a_sealed_region_is_not_sealed_again(client: tensord.Client) -> None:
    with client.create("w", [1], ttl=600) as region:
        region.seal()
        with pytest.raises(tensord.RegionSealed):
            region.seal()


def test_a_seal_without_a_server_leaves_the_region_writable(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with server.connect() as client:
        region = client.create("w", [1, 2], ttl=600)
        array = region.numpy()

        def fail(*_: object) -> None:
            assert array.flags.writeable is False
            raise tensord.ServerUnavailable("away")

        monkeypatch.setattr(_api.Api, "seal", fail)
        with pytest.raises(tensord.ServerUnavailable):
            region.seal()
        monkeypatch.undo()
        array[0] = 9
        region.seal()
        assert array.tolist() == [9, 2]
        region.close()


def test_a_seal_that_loses_its_answer_and_its_file_says_that_arrays_stay_read_only(
    server: Server, client: tensord.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    seal = _api.Api.seal

    def seal_and_lose(api: _api.Api, *args: object) -> None:
        seal(api, *args)  # type: ignore[arg-type]
        raise tensord.ServerUnavailable("the answer is lost", hint="look")

    region = client.create("w", [1, 2], ttl=600)
    array = region.numpy()
    monkeypatch.setattr(_api.Api, "seal", seal_and_lose)
    with pytest.raises(tensord.ServerUnavailable, match="look; the arrays stay read-only") as caught:
        region.seal()
    assert caught.value.fields["writable"] is False
    assert array.flags.writeable is False
    assert array.tolist() == [1, 2]
    assert region.refresh().state == "sealed"
    region.close()


def test_a_seal_interrupted_from_outside_leaves_the_region_writable(
    client: tensord.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with client.create("w", [1], ttl=600) as region:
        monkeypatch.setattr(_api.Api, "seal", interrupt)
        with pytest.raises(KeyboardInterrupt):
            region.seal()
        assert region.writable
        monkeypatch.undo()


def test_arrays_may_die_around_a_seal(client: tensord.Client) -> None:
    with client.create("w", np.arange(10), ttl=600) as region:
        keep = region.numpy()
        region.numpy()[0] = 5
        region.seal()
        assert keep[0] == 5


def test_a_truncated_region_is_not_sealed(client: tensord.Client) -> None:
    with client.create("w", np.zeros(100_000), ttl=600) as region:
        os.truncate(region.descriptor.storage.path, 4096)
        with pytest.raises(tensord.MappingFailed, match="somebody truncated it"):
            region.seal()
        assert client.get("w").state == "open"


def test_a_region_whose_name_was_unlinked_is_sealed_all_the_same(client: tensord.Client) -> None:
    for number in range(20):
        with client.create(f"w{number}", [1, 2], ttl=600) as region:
            os.unlink(region.descriptor.storage.path)
            array = region.numpy()
            assert region.seal().state == "sealed"
            assert array.tolist() == [1, 2]


def test_a_deleted_region_is_not_sealed_and_its_arrays_stay(client: tensord.Client) -> None:
    with client.create("w", [1, 2], ttl=600) as region:
        array = region.numpy()
        client.delete(region)
        with pytest.raises(tensord.RegionDraining, match="it was deleted"):
            region.seal()
        array[0] = 5
        assert array.tolist() == [5, 2]


def test_the_checksum_is_the_one_that_the_protocol_specifies(client: tensord.Client) -> None:
    xxhash = pytest.importorskip("xxhash", reason="xxhash is a test extra")
    data = np.random.default_rng(0).integers(0, 256, (64 << 20) + 1000, np.uint8)
    for name, array in {"two-chunks": data, "one-chunk": data[:1000], "no-bytes": data[:0]}.items():
        with client.create(name, array, ttl=600) as region:
            checksum = region.seal(checksum=True).checksum
            assert checksum is not None
            file = Path(region.descriptor.storage.path).read_bytes()[4096:]
            chunks = [file[start : start + checksum.chunk_bytes] for start in range(0, len(file), checksum.chunk_bytes)]
            hashes = [xxhash.xxh3_64_intdigest(chunk) for chunk in chunks]
            tree = b"".join(value.to_bytes(8, "little") for value in hashes)
            whole = hashes[0] if len(hashes) == 1 else xxhash.xxh3_64_intdigest(tree)
            assert checksum.value == f"{whole:016x}"
            assert client.verify(region) == tensord.Verification(
                True, checksum.algorithm, checksum.value, checksum.value
            )

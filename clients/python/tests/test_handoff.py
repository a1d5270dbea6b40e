"""Hand-offs: a region that goes from its maker to one consumer, and says how long it waits for it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import numpy as np
import pytest
from harness import Child, Server, wait_for

import tensord
from tensord._mapping import lease


def _owner(handoff_ms: int, linger_ms: int = 0) -> tensord.Owner:
    return tensord.Owner("linger", linger_ms=linger_ms, handoff_ms=handoff_ms)


def test_the_server_is_told_how_long_it_waits(client: tensord.Client) -> None:
    with client.create("result", [1], linger=0, handoff=2.5) as region:
        assert region.descriptor.owner == _owner(2500)
        assert client.change(region, linger=0, handoff=7).owner == _owner(7000)
        assert client.change(region, linger=0).owner == _owner(60_000)
        assert client.change(region, linger=1, handoff=0).owner == _owner(0, linger_ms=1000)
    with client.create(None, [1], linger=0, handoff=0.0001) as region:
        assert region.descriptor.owner == _owner(1)


def test_every_call_that_makes_a_region_says_it(server: Server, client: tensord.Client) -> None:
    with (
        client.get_or_create("built", lambda: [1], linger=0, handoff=5) as built,
        tensord.get_or_create("too", lambda: [1], linger=0, handoff=5) as too,
        tensord.create_shared_tensor("one", [1], linger=0, handoff=5) as one,
        client.ring(slots=1, slot_bytes=8, linger=0, handoff=5) as ring,
    ):
        assert {region.descriptor.owner for region in (built, too, one, ring.region)} == {_owner(5000)}


def _calls(client: tensord.Client) -> list[Callable[..., Any]]:
    def never() -> Any:
        raise AssertionError("nothing is built")

    return [
        lambda **options: client.create("result", [1], **options),
        lambda **options: client.get_or_create("result", never, **options),
        lambda **options: client.ring(slots=1, slot_bytes=8, **options),
        lambda **options: client.change("reg_a", **options),
    ]


@pytest.mark.parametrize("owner", [{}, {"ttl": 60}, {"persist": True}], ids=str)
def test_a_wait_of_what_does_not_linger_is_refused(client: tensord.Client, owner: dict[str, Any]) -> None:
    for call in _calls(client):
        with pytest.raises(tensord.ValidationFailed, match="handoff= is there without linger=, want both"):
            call(handoff=5, **owner)
    assert not any(client.list())


@pytest.mark.parametrize("handoff", [-1, float("nan"), float("inf")])
def test_a_wait_that_is_none_is_refused(client: tensord.Client, handoff: float) -> None:
    for call in _calls(client)[::2]:
        with pytest.raises(tensord.ValidationFailed):
            call(linger=0, handoff=handoff)


# In a process of its own, since it is its end that counts.
_MADE = """
import numpy, sys, tensord
region = tensord.connect().create(sys.argv[1], numpy.full(1000, 7.0), linger=0, handoff=3600)
"""


def _make(server: Server, name: str, end: str) -> None:
    subprocess.run([sys.executable, "-c", _MADE + end, name], env={**os.environ, **server.environ}, check=True)


def _state(client: tensord.Client, name: str) -> str | None:
    """By a list: it hands nothing out."""
    return next((region.state for region in client.list(model="default", name=name)), None)


@pytest.mark.parametrize(
    "end",
    ["region.seal(); region.close()", "region.seal()", "region.seal(); import os; os._exit(0)"],
    ids=["closes", "ends", "is gone"],
)
def test_it_waits_for_its_consumer_however_its_maker_ends(server: Server, client: tensord.Client, end: str) -> None:
    _make(server, "frame", end)
    wait_for(lambda: client.get("frame").in_use is False, "its maker is seen to be gone")
    wait_for(lambda: client.stats().sessions <= 1, "its maker's session has ended")
    with client.attach("frame") as region:
        assert region.numpy()[0] == 7.0
    wait_for(lambda: _state(client, "frame") is None, "it is gone when its consumer lets go")


def test_one_that_is_not_sealed_ends_with_its_maker(server: Server, client: tensord.Client) -> None:
    _make(server, "frame", "")
    wait_for(lambda: _state(client, "frame") is None, "it is gone")


def test_one_that_is_not_sealed_cannot_be_referred_to(client: tensord.Client) -> None:
    region = client.create("frame", [1], linger=0, handoff=3600)
    assert region.descriptor.session == client.session.id if client.session is not None else None
    found = client.attach("frame")
    for open_one in (region, found):
        with pytest.raises(tensord.RegionNotSealed, match=r"still open.*want it sealed") as caught:
            open_one.ref()
        assert "seal()" in (caught.value.hint or "")
    assert region.seal().session is None
    # By its mode a file says that it is sealed, to who was told of it before.
    for sealed_one in (region, found):
        with client.open(sealed_one.ref()) as tensor:
            assert tensor.numpy().tolist() == [1]
    with client.create("other", [1], linger=1) as lingering, client.ring(linger=0, slots=1, slot_bytes=8) as ring:
        assert lingering.ref().byte_size == 8
        assert ring.put(np.ones(1)).byte_size == 8


def test_who_made_it_holds_a_byte_of_its_own_until_and_after_the_seal(client: tensord.Client) -> None:
    region = client.create("frame", [1], linger=0)
    path = region.descriptor.storage.path or ""
    assert (lease.is_leased(path), lease.is_consumed(path), lease.has_writer(path)) == (True, False, True)
    region.seal()
    assert (lease.is_leased(path), lease.is_consumed(path), lease.has_writer(path)) == (True, False, False)
    with client.attach("frame"):
        assert lease.is_consumed(path)
        region.close()
        assert lease.is_leased(path)
    assert not lease.is_leased(path)


def test_who_builds_it_uses_it_like_the_others(client: tensord.Client) -> None:
    with client.get_or_create("built", lambda: [1], linger=0, handoff=3600) as built:
        assert lease.is_consumed(built.descriptor.storage.path or "")
        client.get_or_create("built", lambda: pytest.fail("it is there"), linger=0).close()
        assert built.refresh().state == "sealed"
    wait_for(lambda: _state(client, "built") is None, "the last of them lets go")


def test_a_stream_of_them_passes_through_a_pool_that_holds_a_few(server: Server) -> None:
    with server.connect() as producer, server.connect() as consumer:
        # A request of the maker's for each, and no other, and no pause: only what its consumer says ends it in time.
        for frame in range(60):
            name = f"frame-{frame}"
            made = producer.create(name, shape=(1 << 20,), dtype="U8", linger=0, handoff=3600)
            made.seal()
            with consumer.attach(name) as region:
                assert region.numpy()[0] == 0
            made.close()
        wait_for(lambda: not any(consumer.list()), "all of them are gone")


def test_a_consumer_by_reference_ends_it_as_well(client: tensord.Client) -> None:
    # It is told what this process maps.
    assert client.session is not None
    assert client.session.id
    region = client.create("frame", [1], linger=0, handoff=3600)
    region.seal()
    ref = region.ref()
    region.close()
    client.open(ref).close()
    wait_for(lambda: _state(client, "frame") is None, "it is gone")


def test_looking_takes_it_from_nobody(client: tensord.Client) -> None:
    with client.create("frame", [1], linger=0, handoff=3600) as region:
        region.seal()
        region.refresh()
    wait_for(lambda: client.get("frame").in_use is False, "nobody maps it")
    ends = wait_for(lambda: next(client.list(name="frame")).expires_at, "the server has asked about it")
    assert datetime.fromisoformat(ends).timestamp() > time.time() + 1800
    with client.attach("frame") as found:
        assert found.numpy().tolist() == [1]


def test_a_consumer_that_ends_at_once_has_said_so(server: Server, client: tensord.Client) -> None:
    _make(server, "frame", "region.seal()")
    with Child("c = tensord.connect(); c.session.id; c.attach('frame').close()") as child:
        child.finish()
    wait_for(lambda: _state(client, "frame") is None, "it is gone")


def test_a_server_without_a_makers_byte_gets_the_lease_byte(client: tensord.Client, monkeypatch: Any) -> None:
    parse = tensord._api.parse_descriptor

    def parse_of_yesterday(value: Any) -> Any:
        value["storage"].pop("maker_byte")
        return parse(value)

    monkeypatch.setattr(tensord._api, "parse_descriptor", parse_of_yesterday)
    with client.create("frame", [1], ttl=3600) as region:
        assert lease.is_consumed(region.descriptor.storage.path or "")


def test_a_sealed_region_is_mapped_though_somebody_bars_it(
    client: tensord.Client, caplog: pytest.LogCaptureFixture
) -> None:
    region = client.create("barred", [1, 2], ttl=3600)
    path = region.descriptor.storage.path or ""
    fd = os.open(path, os.O_RDWR)
    region.seal()
    ref = region.ref()
    region.close()
    lease._ofd_lock(fd, lease._F_OFD_SETLK, lease._to_flock(lease._F_WRLCK, lease.LEASE_BYTE, 1))
    with client.attach("barred") as found, client.open(ref) as tensor:
        assert (found.numpy().tolist(), tensor.numpy().tolist()) == ([1, 2], [1, 2])
        with found.lock_memory():
            assert not found.pin(lambda *_: None, read_only=True).released
        described = client.get("barred")
        assert (described.lease_barred, described.leases, described.in_use) == (True, 2, True)
        assert client.delete(found).state == "draining"
    wait_for(lambda: client.get_by_id(found.id).leases == 0, "the leases are given back")
    assert not caplog.records
    os.close(fd)
    wait_for(lambda: not any(client.list()), "it is gone")


def test_who_has_no_session_maps_a_barred_region_and_says_so(
    server: Server, client: tensord.Client, caplog: pytest.LogCaptureFixture
) -> None:
    region = client.create("barred", [1], ttl=3600)
    fd = os.open(region.descriptor.storage.path or "", os.O_RDWR)
    region.seal()
    ref = region.ref()
    region.close()
    lease._ofd_lock(fd, lease._F_OFD_SETLK, lease._to_flock(lease._F_WRLCK, lease.LEASE_BYTE, 1))
    with server.connect(session=False) as alone, alone.attach("barred") as found, alone.open(ref) as tensor:
        assert (found.numpy().tolist(), tensor.numpy().tolist()) == ([1], [1])
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "write-locks its lease byte" in caplog.text
    os.close(fd)


def test_an_open_region_that_somebody_bars_is_refused(client: tensord.Client) -> None:
    region = client.create("barred", [1], ttl=3600)
    fd = os.open(region.descriptor.storage.path or "", os.O_RDWR)
    lease._ofd_lock(fd, lease._F_OFD_SETLK, lease._to_flock(lease._F_WRLCK, lease.LEASE_BYTE, 1))
    with pytest.raises(tensord.MappingFailed, match="locking"):
        client.attach("barred")
    os.close(fd)

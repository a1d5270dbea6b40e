"""The thin calls: lists, labels, owners, models and the books."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fake_server import FakeServer
from harness import Server

import tensord
from tensord import _api


def test_lists_filter_and_page(client: tensord.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_api, "LIST_PAGE", 2)
    client.register_model("other")
    for number in range(5):
        client.create(f"r{number}", [number], ttl=600, labels={"parity": str(number % 2)}).close()
    client.create("r0", [0], model="other", ttl=600).close()
    with client.attach("r1") as region:
        region.seal()
    assert [region.name for region in client.list()] == ["r0", "r1", "r2", "r3", "r4", "r0"]
    assert [region.name for region in client.list(model="default", label=("parity", "1"))] == ["r1", "r3"]
    assert [region.model for region in client.list(name="r0")] == ["default", "other"]
    assert [region.name for region in client.list(state="sealed")] == ["r1"]
    with pytest.raises(tensord.ModelNotFound):
        list(client.list(model="absent"))
    with pytest.raises(tensord.ValidationFailed):
        list(client.list(state="molten"))


def test_leases_by_request_are_listed_page_by_page(client: tensord.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_api, "LIST_PAGE", 2)
    with client.create("leased", [1], ttl=600) as region:
        path = f"/v1/regions/{region.id}/leases"
        session = client.session.id
        for body in [{"ttl_ms": 60_000}] * 4 + [{"ttl_ms": 70_000, "session": session}]:
            _api.expect(client._transport.request("POST", path, body, repeatable=False))
        leases = list(client.leases(region))
        assert [lease.ttl_ms for lease in leases] == [60_000] * 4 + [70_000]
        assert [lease.session for lease in leases] == [None] * 4 + [session]
        assert {lease.region for lease in leases} == {region.id}
        assert len({lease.id for lease in leases}) == 5
        assert list(client.leases("leased")) == leases
        for lease in leases:
            _api.expect(client._transport.request("DELETE", f"/v1/leases/{lease.id}", repeatable=True))
    with pytest.raises(tensord.RegionNotFound):
        list(client.leases("absent"))


def test_a_list_by_session_asks_for_its_id(tmp_path: Path) -> None:
    nothing = {"items": [], "next_cursor": None}
    with (
        FakeServer(tmp_path / "s", lambda _: (200, nothing)) as fake,
        tensord.connect(f"unix://{tmp_path}/s") as client,
    ):
        assert list(client.list(session=client.session)) == []
        assert fake.requests == [], "a session that was never opened has no regions"
        assert list(client.list(session="ses_x", state="open")) == []
        assert [request.path for request in fake.requests] == ["/v1/regions?limit=1000&state=open&session=ses_x"]


def test_a_list_by_session_has_what_ends_with_it(server: Server, client: tensord.Client) -> None:
    with server.connect() as other:
        assert client.session is not None
        mine, theirs = client.create("mine", [1]), other.create("theirs", [1])
        client.create("nobodys", [1], ttl=600).close()
        with client.create("given-away", [1]) as given:
            given.seal()
            client.change(given, persist=True)
        assert [region.id for region in client.list(session=client.session)] == [mine.id]
        assert [region.id for region in client.list(session=client.session.id, state="open")] == [mine.id]
        assert not any(client.list(session=client.session, state="sealed"))
        assert [region.id for region in client.list(session=other.session)] == [theirs.id]
        assert sorted(region.name or "" for region in client.list()) == ["given-away", "mine", "nobodys", "theirs"]
        with pytest.raises(tensord.SessionNotFound):
            list(client.list(session="ses_" + "a" * 26))
        mine.close()
        theirs.close()


def test_owners_and_labels_change(client: tensord.Client) -> None:
    with client.create("r", [1], ttl=600, labels={"a": "1", "b": "2"}) as region:
        changed = client.change(region, labels={"a": None, "c": "3"})
        assert dict(changed.labels) == {"b": "2", "c": "3"}
        assert changed.expires_at is not None
        assert client.change(region.id, persist=True).expires_at is None
        assert client.change(changed, ttl=1.5).owner == tensord.Owner("ttl", ttl_ms=1500)
        assert region.refresh().revision > changed.revision
        with pytest.raises(tensord.RegionNotFound):
            client.change("reg_" + "a" * 26, ttl=5)


def test_a_region_is_deleted_by_any_of_its_names(server: Server, client: tensord.Client) -> None:
    regions = [client.create(f"r{number}", [number], ttl=600) for number in range(3)]
    for region in regions:
        region.close()
    assert client.delete(regions[0]).state == "deleted"
    assert client.delete(regions[1].descriptor).freed_bytes >= 4096
    assert client.delete(regions[2].id).state == "deleted"
    assert server.region_names() == []
    with pytest.raises(tensord.RegionNotFound):
        client.delete(regions[0])
    with pytest.raises(tensord.RegionNotFound):
        client.get("r0")


def test_who_knows_an_older_revision_changes_seals_and_deletes_nothing(client: tensord.Client) -> None:
    region = client.create("r", [1], ttl=600)
    stale = region.descriptor.revision
    current = client.change(region, labels={"a": "1"}, if_match=stale).revision
    for refused in (
        lambda: client.change(region, labels={"a": "2"}, if_match=stale),
        lambda: region.seal(if_match=stale),
        lambda: client.delete(region, if_match=stale),
    ):
        with pytest.raises(tensord.RevisionMismatch):
            refused()
    assert region.writable
    assert (region.refresh().state, dict(region.descriptor.labels)) == ("open", {"a": "1"})
    sealed = region.seal(if_match=current)
    region.close()
    assert client.delete(region, if_match=sealed.revision).state == "deleted"

    model = client.register_model("m")
    changed = client.change_model("m", memory_limit_bytes=1 << 20, if_match=model.revision)
    with pytest.raises(tensord.RevisionMismatch):
        client.change_model("m", memory_limit_bytes=None, if_match=model.revision)
    with pytest.raises(tensord.RevisionMismatch):
        client.unregister_model("m", drain=True, if_match=model.revision)
    client.unregister_model("m", if_match=changed.revision)


def test_a_region_is_deleted_changed_and_verified_by_its_name(server: Server, client: tensord.Client) -> None:
    client.register_model("m")
    for model, version in (("default", "1"), ("default", "2"), ("m", "")):
        client.create("weights", [1], model=model, version=version, ttl=600).seal()
    assert client.change("weights", version="1", labels={"a": "b"}).version == "1"
    assert client.verify("weights", model="m").ok is None
    # Without a version the newest that is sealed, as wherever a name is looked up.
    assert client.delete("weights").state == "deleted"
    assert [region.version for region in client.list(model="default", name="weights")] == ["1"]
    client.delete("weights", model="m")
    client.delete("weights", version="1")
    with pytest.raises(tensord.RegionNotFound, match="weights"):
        client.delete("weights")
    with pytest.raises(tensord.ValidationFailed, match=r"region is 'org/name', .*\nhint: write org/name as org--name"):
        client.delete("org/name")


def test_verify_compares_with_what_was_sealed(client: tensord.Client) -> None:
    with client.create("r", np.arange(1000), ttl=600) as region:
        with pytest.raises(tensord.RegionNotSealed):
            client.verify(region)
        region.seal(stock_writable=True)
        assert (client.verify(region).ok, client.verify(region).expected) == (None, None)
    with client.create("s", np.arange(1000), ttl=600) as region:
        region.seal(checksum=True, stock_writable=True)
        with open(region.descriptor.storage.path, "r+b") as file:
            file.seek(5000)
            file.write(b"\xff")
        result = client.verify(region)
        assert result.ok is False
        assert result.expected != result.actual


def test_models_have_limits_of_their_own(client: tensord.Client) -> None:
    model = client.register_model("small", memory_limit_bytes=1 << 20)
    assert (model.name, model.pools) == ("small", (tensord.Pool("host", 1 << 20, 0, 0),))
    with pytest.raises(tensord.ModelExists):
        client.register_model("small")
    with pytest.raises(tensord.ModelLimitExceeded) as caught:
        client.create("r", shape=2 << 20, dtype="U8", model="small", ttl=600)
    assert isinstance(caught.value, MemoryError)
    assert caught.value.fields["requested_bytes"] > 2 << 20
    assert caught.value.fields["available_bytes"] == 1 << 20

    assert client.change_model("small", memory_limit_bytes=None).pools[0].limit_bytes is None
    client.create("r", shape=2 << 20, dtype="U8", model="small", ttl=600).close()
    assert client.model("small").regions == 1
    assert sorted(model.name for model in client.models()) == ["default", "small"]
    with pytest.raises(tensord.ModelInUse):
        client.unregister_model("small")
    assert client.unregister_model("small", drain=True).freed_bytes >= 2 << 20
    with pytest.raises(tensord.ModelNotFound):
        client.model("small")
    with pytest.raises(tensord.ModelNotFound):
        client.create("r", [1], model="small", ttl=600)


def test_limits_are_by_pool(client: tensord.Client) -> None:
    client.register_model("m", limits={"host": 1 << 20})
    assert client.model("m").pools == (tensord.Pool("host", 1 << 20, 0, 0),)
    # Nothing that is said leaves everything as it is.
    with pytest.raises(tensord.ValidationFailed):
        client.change_model("m")
    assert client.change_model("m", limits={"host": 2 << 20}).pools[0].limit_bytes == 2 << 20
    assert client.change_model("m", limits={"host": None}).pools[0].limit_bytes is None
    with pytest.raises(tensord.ValidationFailed, match="GPU-1"):
        client.change_model("m", limits={"GPU-1": 1})
    with pytest.raises(tensord.ValidationFailed, match="limits is"):
        client.change_model("m", limits={"host": -1})


def test_more_than_there_is_says_how_much_there_is(client: tensord.Client) -> None:
    limit = client.stats().pools[0].limit_bytes
    assert limit is not None
    with pytest.raises(tensord.PoolFull) as caught:
        client.create("r", shape=limit + 1, dtype="U8", ttl=600)
    assert caught.value.fields["requested_bytes"] > limit >= caught.value.fields["available_bytes"]
    assert caught.value.status == 507
    assert caught.value.hint


def test_the_books_balance(server: Server, client: tensord.Client) -> None:
    assert client.stats().instance == server.instance
    with client.create("r", shape=10_000, dtype="U8", ttl=600):
        stats = client.stats()
        assert stats.regions.open == 1
        assert stats.pools[0].used_bytes >= 10_000


def test_a_host_without_devices_says_why(client: tensord.Client) -> None:
    found = client.devices()
    if found.items:
        pytest.skip("there is a device")
    assert found.reason
    assert found.detail
    with pytest.raises(tensord.DeviceNotFound, match="GPU-0"):
        client.device("GPU-0")


def test_an_eviction_says_what_stays_and_why(client: tensord.Client) -> None:
    with client.create("mapped", [1], ttl=600, evictable=True) as region:
        region.seal()
        result = client.evict(1 << 40, dry_run=True)
        assert (result.dry_run, result.enough, result.freed_bytes, result.evicted) == (True, False, 0, ())
        (kept,) = result.kept
        assert (kept.region, kept.model, kept.name, kept.reason) == (region.id, "default", "mapped", "leased")
        assert kept.bytes >= 4096
        assert client.evict(1 << 40, model="default").evicted == ()
        assert client.evict(1 << 40, pool="host").evicted == ()
        with pytest.raises(tensord.ValidationFailed, match="GPU-1"):
            client.evict(1, pool="GPU-1")
        assert client.get("mapped").state == "sealed"
    with pytest.raises(tensord.ModelNotFound):
        client.evict(1, model="absent")

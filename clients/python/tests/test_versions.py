"""Versions of a name stand side by side: each is made, found, waited for and built by itself."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from harness import DEADLINE_SECONDS, Server, wait_for

import tensord


def _make(client: tensord.Client, version: str | None, value: int, *, sealed: bool = True) -> tensord.RegionDescriptor:
    with client.create("weights", [value], version=version, ttl=600) as region:
        if sealed:
            region.seal()
        return region.descriptor


def test_each_is_found_by_its_version(client: tensord.Client) -> None:
    made = {version: _make(client, version, value) for value, version in enumerate([None, "1", "2.0_b-c"])}
    assert [region.version for region in made.values()] == ["", "1", "2.0_b-c"]
    for value, (version, region) in enumerate(made.items()):
        assert client.get("weights", version=version or "").id == region.id
        with client.attach("weights", version=version or "") as attached:
            assert (attached.id, attached.version, attached.numpy().tolist()) == (region.id, version or "", [value])
    for find in (client.get, client.attach):
        with pytest.raises(tensord.RegionNotFound, match='version "3" of the name'):
            find("weights", version="3")
    with pytest.raises(tensord.RegionNotFound):
        client.attach("weights", version="3", timeout=0.05)


def test_the_name_alone_means_the_newest_sealed_or_where_none_is_the_newest(client: tensord.Client) -> None:
    first = _make(client, "1", 1, sealed=False)
    assert client.get("weights").id == first.id
    second = _make(client, "2", 2, sealed=False)
    assert client.get("weights").id == second.id
    third = _make(client, "3", 3)
    _make(client, "4", 4, sealed=False)
    assert client.get("weights").id == third.id
    with client.attach("weights", timeout=180) as attached:
        assert attached.id == third.id


def test_a_version_is_a_name_of_its_own(client: tensord.Client) -> None:
    first = _make(client, "1", 1)
    _make(client, "2", 2)
    with pytest.raises(tensord.NameTaken, match=r"\(default/weights, version 1\)"):
        client.create("weights", [1], version="1", ttl=600)
    with client.create("weights", [1], version="1", ttl=600, if_exists="attach") as attached:
        assert (attached.created, attached.id) == (False, first.id)
    with client.create("weights", [3], version="1", ttl=600, if_exists="replace") as replacing:
        replacing.seal()
        assert client.get("weights", version="1").id == replacing.id
    client.delete(client.get("weights", version="1"))
    assert [region.version for region in client.list(model="default", name="weights")] == ["2"]


def test_they_are_listed_by_name_all_of_them_or_one(client: tensord.Client) -> None:
    second, first = _make(client, "2", 2), _make(client, "1", 1)
    with client.create("other", [0], ttl=600):
        assert [region.id for region in client.list(name="weights")] == [second.id, first.id]
        assert [region.id for region in client.list(name="weights", version="1")] == [first.id]


def test_an_item_of_a_list_is_attached_whichever_the_name_alone_means(client: tensord.Client) -> None:
    for value, version in enumerate(["1", "2"]):
        _make(client, version, value)
    for value, item in enumerate(client.list(name="weights")):
        with client.attach(item) as attached:
            assert (attached.id, attached.version, attached.numpy().tolist()) == (item.id, item.version, [value])


def test_a_wait_for_one_does_not_end_with_another(client: tensord.Client) -> None:
    got: dict[str | None, str] = {}

    def wait(version: str | None) -> None:
        with client.attach("weights", version=version, timeout=DEADLINE_SECONDS) as attached:
            got[version] = attached.version

    threads = {version: threading.Thread(target=wait, args=(version,)) for version in ("2", None)}
    for thread in threads.values():
        thread.start()
    _make(client, "1", 1)
    threads[None].join(DEADLINE_SECONDS)
    assert got == {None: "1"}
    _make(client, "2", 2)
    threads["2"].join(DEADLINE_SECONDS)
    assert got == {None: "1", "2": "2"}


def test_messages_say_which(client: tensord.Client) -> None:
    region = _make(client, "2", 2)
    assert region.shown == f"{region.id} (default/weights, version 2)"
    with pytest.raises(tensord.RegionSealed, match=r"\(default/weights, version 2\)"):
        client.attach("weights", version="2", writable=True)
    with client.attach("weights", version="2") as attached:
        assert "(default/weights, version 2)" in repr(attached)
        with pytest.raises(tensord.TensorNotFound, match=r"\(default/weights, version 2\)"):
            attached["x"]
    _make(client, "3", 3, sealed=False)
    with pytest.raises(tensord.RegionNotSealed, match=r"\(default/weights, version 3\)"):
        client.attach("weights", version="3", timeout=0.05)
    unnamed = client.create(None, [0], ttl=600)
    assert (unnamed.version, unnamed.descriptor.shown) == ("", unnamed.id)
    unnamed.close()


def test_each_is_built_once(server: Server, client: tensord.Client) -> None:
    def never() -> Any:
        raise AssertionError("it is built already")

    with client.get_or_create("weights", lambda: [1], version="1") as first:
        assert (first.created, first.version) == (True, "1")
        with client.get_or_create("weights", lambda: [2], version="2") as second:
            assert (second.created, second.version) == (True, "2")
        for again in (client.get_or_create, tensord.get_or_create):
            with again("weights", never, version="1") as found:
                assert (found.created, found.id) == (False, first.id)
        with client.get_or_create("weights", never) as newest:
            assert newest.version == "2"
        with client.get_or_create("weights", lambda: [0], version="") as plain:
            assert (plain.created, plain.version) == (True, "")
    assert client.stats().claims == 0


def test_a_wait_for_a_build_says_what_for(client: tensord.Client) -> None:
    with client.create("weights", [1], version="1", ttl=600):
        with pytest.raises(tensord.DeadlineExceeded, match="Cannot get default/weights, version 1: somebody"):
            client.get_or_create("weights", lambda: [1], version="1", timeout=0.05)


@pytest.mark.parametrize("version", [None, "", "2"])
def test_a_builder_that_fails_gives_its_turn_up_though_another_version_is_sealed(
    client: tensord.Client, version: str | None
) -> None:
    def build() -> Any:
        # By the name alone, from here on, the server tells everybody of this one.
        _make(client, "1", 1)
        raise RuntimeError("no weights")

    with pytest.raises(RuntimeError, match="no weights"):
        client.get_or_create("weights", build, version=version)
    wait_for(lambda: client.stats().claims == 0, "the claim is released")
    with client.get_or_create("weights", lambda: [7], version=version or "") as built:
        assert (built.created, built.version) == (True, version or "")


def test_the_one_call_forms_and_rings_have_them(server: Server, client: tensord.Client) -> None:
    with tensord.create_shared_tensor("weights", [1.5], version="1", ttl=600) as made:
        made.seal()
    with client.create("weights", [2.5], version="2", ttl=600) as other:
        other.seal()
    attached: Callable[..., tensord.Region]
    for attached in (tensord.attach, tensord.attach_shared_tensor):
        with attached("weights", version="1") as region:
            assert region.numpy().tolist() == [1.5]
    with client.ring(slots=1, slot_bytes=8, name="ring", version="7", ttl=600) as ring:
        assert ring.region.version == "7"


def test_one_without_a_name_or_that_is_none_is_refused(client: tensord.Client) -> None:
    with pytest.raises(tensord.ValidationFailed, match="the region has no name"):
        client.create(None, [1], version="1", ttl=600)
    for version in ("a/b", "a b", "é&x=1", "x" * 129):
        with pytest.raises(tensord.ValidationFailed):
            client.create("weights", [1], version=version, ttl=600)
        with pytest.raises(tensord.ValidationFailed):
            client.get("weights", version=version)

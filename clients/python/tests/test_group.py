"""Groups: regions that are sealed in one turn and attached in one turn, whatever is replaced meanwhile."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import numpy as np
import pytest
from harness import DEADLINE_SECONDS, Server, wait_for

import tensord
from tensord._api import Api, NamedGroup

NAMES = ["shard-0", "shard-1"]


def _make(client: tensord.Client, value: float, **options: Any) -> list[tensord.Region]:
    return [client.create(name, np.full(1000, value), ttl=600, **options) for name in NAMES]


def _publish(client: tensord.Client, value: float, **options: Any) -> None:
    regions = _make(client, value, **options)
    client.seal(regions)
    for region in regions:
        region.close()


def test_a_group_is_sealed_at_once_and_its_regions_are_as_after_a_seal_of_each(client: tensord.Client) -> None:
    first, second = _make(client, 1)
    array = first.numpy()
    descriptors = client.seal([second, first], checksum=True)
    assert [descriptor.id for descriptor in descriptors] == [second.id, first.id]
    for region, descriptor in zip((second, first), descriptors, strict=True):
        assert (region.state, region.writable, region.descriptor) == ("sealed", False, descriptor)
        assert descriptor.tensors is not None
        assert client.verify(region).ok is True
    assert not array.flags.writeable
    assert array[0] == 1
    first.close()
    second.close()


def test_whoever_attaches_all_of_it_meets_one_version(server: Server, client: tensord.Client) -> None:
    _publish(client, 0)
    over = threading.Event()
    met: list[tuple[float, float]] = []

    def read() -> None:
        with tensord.connect(server.url, session=False) as reader:
            while not over.is_set() or not met:
                with reader.attach(NAMES) as (a, b):
                    met.append((a.numpy()[0], b.numpy()[0]))

    thread = threading.Thread(target=read)
    thread.start()
    try:
        wait_for(lambda: bool(met), "the reader has begun")
        for version in range(1, 40):
            _publish(client, version, if_exists="replace")
    finally:
        over.set()
        thread.join(DEADLINE_SECONDS)
    assert [pair for pair in met if pair[0] != pair[1]] == []


def test_where_one_member_is_gone_all_are_let_go_and_asked_for_again(
    client: tensord.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    _publish(client, 1)
    old = [client.get(name) for name in NAMES]
    elsewhere = dataclasses.replace(old[1], storage=dataclasses.replace(old[1].storage, ino=1))
    ask = Api.open_group
    answers: list[list[tensord.RegionDescriptor]] = [[old[0], elsewhere]]

    def tell(api: Api, named: NamedGroup, wait_until: float | None = None) -> list[tensord.RegionDescriptor]:
        if answers:
            return answers.pop()
        # Between the two answers another version has come.
        if client.get(NAMES[0]).id == old[0].id:
            assert client.get(NAMES[0]).in_use is False
            _publish(client, 2, if_exists="replace")
        return ask(api, named, wait_until)

    monkeypatch.setattr(Api, "open_group", tell)
    with client.attach(NAMES) as group:
        assert [region.numpy()[0] for region in group] == [2, 2]


def test_a_group_is_a_sequence_that_closes_each(client: tensord.Client) -> None:
    _publish(client, 3)
    with client.attach(tuple(reversed(NAMES)), strict=True) as group:
        assert [region.name for region in group] == [NAMES[1], NAMES[0]]
        assert (len(group), group[0], group[1:], group.regions[1]) == (2, group.regions[0], group.regions[1:], group[1])
        assert client.get(NAMES[0]).in_use is True
        arrays = [region.numpy() for region in group]
    assert all(region.closed for region in group)
    assert [array[0] for array in arrays] == [3, 3]
    group.close()


def test_a_wait_is_for_all_of_it_to_be_sealed(server: Server, client: tensord.Client) -> None:
    got: list[list[float]] = []

    def read() -> None:
        with tensord.attach(NAMES, timeout=DEADLINE_SECONDS) as group:
            got.append([region.numpy()[0] for region in group])

    thread = threading.Thread(target=read)
    thread.start()
    first, second = _make(client, 5)
    first.seal()
    with pytest.raises(tensord.RegionNotSealed, match=second.id):
        client.attach(NAMES, timeout=0.05)
    second.seal()
    thread.join(DEADLINE_SECONDS)
    assert got == [[5, 5]]
    first.close()
    second.close()


def test_a_refusal_leaves_all_of_it_open_and_writable(server: Server, client: tensord.Client) -> None:
    first, second = _make(client, 1)
    with tensord.connect(server.url) as other, other.attach(NAMES[1], writable=True):
        with pytest.raises(tensord.RegionHasWriters, match=second.id):
            client.seal([first, second])
        for region in (first, second):
            assert (region.writable, region.refresh().state) == (True, "open")
    first.numpy()[0] = 7
    client.seal([first, second], if_match=[first.descriptor.revision, second.descriptor.revision])
    with client.attach(NAMES) as (a, _):
        assert a.numpy()[0] == 7
    first.close()
    second.close()


def test_others_regions_are_sealed_by_what_names_them(server: Server, client: tensord.Client) -> None:
    first, second = _make(client, 1)
    third = client.create(None, [1], ttl=600)
    for region in (first, second, third):
        region.close()
    sealed = client.seal([first.id, NAMES[1], third.descriptor])
    assert [(region.id, region.state, region.tensors) for region in sealed] == [
        (region.id, "sealed", None) for region in (first, second, third)
    ]


def test_what_is_no_group_is_refused(client: tensord.Client) -> None:
    first, second = _make(client, 1)
    with pytest.raises(tensord.ValidationFailed, match=f"{first.id} is there twice"):
        client.seal([first, second, first.id])
    with pytest.raises(tensord.ValidationFailed, match="has 1 revisions, want one for each of 2"):
        client.seal([first, second], if_match=[1])
    with pytest.raises(tensord.RevisionMismatch, match=second.id):
        client.seal([first, second], if_match=[1, 9])
    with pytest.raises(tensord.ValidationFailed, match=r"write \[one\] for one"):
        client.seal(first)  # type: ignore[arg-type]
    with pytest.raises(tensord.ValidationFailed):
        client.attach([])
    with pytest.raises(tensord.RegionNotFound, match="shard-9"):
        client.attach([*NAMES, "shard-9"])
    assert first.writable
    first.close()
    with pytest.raises(tensord.Closed):
        client.seal([second, first])
    assert second.writable
    second.close()

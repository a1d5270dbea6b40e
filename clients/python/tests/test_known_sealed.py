"""What is sealed and was attached before is found by the kernel alone, as long as it stands and its name means it."""

from __future__ import annotations

import os
import signal
from typing import Any

import numpy as np
import pytest
from harness import Server, wait_for

import tensord
from tensord._region import known_sealed
from tensord._transport.transport import Transport


def _make(client: tensord.Client, value: int, *, version: str = "1", **options: Any) -> None:
    with client.create("kept", np.full(1000, value), version=version, ttl=600, **options) as region:
        region.seal()


def _first(region: tensord.Region) -> int:
    with region:
        return int(region.numpy()[0])


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of regions that were asked for by name."""
    paths: list[str] = []
    request = Transport.request

    def note(transport: Transport, method: str, path: str, *rest: Any, **options: Any) -> Any:
        if method == "GET" and "/v1/models/" in path:
            paths.append(path)
        return request(transport, method, path, *rest, **options)

    monkeypatch.setattr(Transport, "request", note)
    return paths


def test_a_version_is_asked_for_once(client: tensord.Client, asked: list[str]) -> None:
    _make(client, 7)
    assert [_first(client.attach("kept", version="1")) for _ in range(3)] == [7, 7, 7]
    assert len(asked) == 1


def test_a_name_alone_is_asked_for_once_and_again_after_what_may_change_its_meaning(
    client: tensord.Client, asked: list[str]
) -> None:
    def attach_thrice(value: int, questions: int) -> None:
        asked.clear()
        assert [_first(client.attach("kept")) for _ in range(3)] == [value] * 3
        assert len(asked) == questions

    _make(client, 1)
    attach_thrice(1, 1)
    with client.create("kept", np.full(1000, 2), version="2", ttl=600) as newer:
        attach_thrice(1, 0)
        newer.seal()
    attach_thrice(2, 1)
    client.change("kept", version="2", labels={"step": "2"})
    assert client.attach("kept").descriptor.labels == {"step": "2"}
    # What has changed once is asked for each time.
    attach_thrice(2, 3)
    client.delete("kept", version="2")
    attach_thrice(1, 3)
    _make(client, 3, if_exists="replace")
    attach_thrice(3, 1)


def test_a_name_alone_of_a_group_means_the_new_ones_once_their_seal_was_answered(client: tensord.Client) -> None:
    for value in range(4):
        names = {f"part-{index}": np.full(10, value) for index in range(3)}
        regions = [client.create(name, data, version=str(value), ttl=600) for name, data in names.items()]
        client.seal(regions)
        assert [[_first(client.attach(name)) for name in names] for _ in range(2)] == [[value] * 3] * 2


def test_a_name_alone_is_asked_for_where_the_server_sets_no_mark(client: tensord.Client, asked: list[str]) -> None:
    _make(client, 1)
    path = client.attach("kept").descriptor.storage.path
    assert path is not None
    os.chmod(path, 0o1440)
    asked.clear()
    assert [_first(client.attach("kept")) for _ in range(2)] == [1, 1]
    assert len(asked) == 2


def test_a_version_that_was_replaced_is_the_new_one_once_its_seal_was_answered(client: tensord.Client) -> None:
    for value in range(5):
        _make(client, value, if_exists="replace")
        assert [_first(client.attach("kept", version="1")) for _ in range(2)] == [value, value]


@pytest.mark.parametrize("kept_open", [False, True])
def test_a_version_that_was_deleted_is_gone(client: tensord.Client, kept_open: bool) -> None:
    _make(client, 1)
    region = client.attach("kept", version="1")
    if not kept_open:
        region.close()
    client.delete("kept", version="1")
    with pytest.raises(tensord.RegionNotFound):
        client.attach("kept", version="1")
    region.close()


def test_another_model_and_another_version_are_others(client: tensord.Client) -> None:
    client.register_model("elsewhere")
    _make(client, 1)
    _make(client, 2, version="2")
    _make(client, 3, model="elsewhere")
    for _ in range(2):
        assert _first(client.attach("kept", version="1")) == 1
        assert _first(client.attach("kept", version="2")) == 2
        assert _first(client.attach("kept", version="1", model="elsewhere")) == 3


def test_a_name_that_a_stock_reader_unlinked_is_asked_for_and_linked_back(
    client: tensord.Client, asked: list[str]
) -> None:
    _make(client, 4)
    region = client.attach("kept", version="1")
    path = region.descriptor.storage.path
    assert path is not None
    region.close()

    def is_asked() -> bool:
        # The server may have noticed, and linked it back before this attach looks.
        wait_for(lambda: os.path.exists(path), "the name stands")
        os.unlink(path)
        assert _first(client.attach("kept", version="1")) == 4
        return len(asked) > 1

    wait_for(is_asked, "an attach finds no name, and asks")


def test_what_is_open_is_asked_for_each_time(client: tensord.Client, asked: list[str]) -> None:
    with client.create("kept", np.zeros(10), version="1", ttl=600):
        for _ in range(2):
            client.attach("kept", version="1").close()
    assert len(asked) == 2


def test_a_hand_off_and_what_is_no_shm_are_asked_for_each_time(client: tensord.Client, asked: list[str]) -> None:
    with client.create("kept", np.zeros(10), version="1", ttl=600, storage="memfd") as region:
        region.seal()
    for _ in range(2):
        client.attach("kept", version="1").close()
    assert len(asked) == 2
    with client.create("handed", np.zeros(10), version="1", linger=0) as region:
        region.seal()
        client.attach("handed", version="1").close()
    assert not [named for named in client._known_sealed._kept if named.name == "handed"]


def test_a_client_without_a_session_asks_each_time(server: Server, asked: list[str]) -> None:
    with server.connect(session=False) as client:
        _make(client, 5)
        for _ in range(2):
            assert _first(client.attach("kept", version="1")) == 5
    assert len(asked) == 2


def test_who_has_a_token_asks_each_time(client: tensord.Client, asked: list[str]) -> None:
    _make(client, 5)
    client.attach("kept", version="1").close()
    client._transport.issued_token = "a-token"
    try:
        client.attach("kept", version="1").close()
    finally:
        client._transport.issued_token = None
    assert len(asked) == 2


def test_a_closed_client_is_closed_for_what_it_knew(server: Server) -> None:
    client = server.connect()
    _make(client, 6)
    client.attach("kept", version="1").close()
    client.close()
    with pytest.raises(tensord.Closed):
        client.attach("kept", version="1")


def test_each_attach_is_told_to_the_server(client: tensord.Client) -> None:
    _make(client, 8)
    client.attach("kept", version="1").close()
    wait_for(lambda: not client.get("kept", version="1").holders, "the server knows that nobody maps it")
    with client.attach("kept", version="1") as region:
        wait_for(lambda: region.refresh().holders, "the server knows who maps it")


def test_no_more_are_kept_than_there_is_room_for(client: tensord.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_sealed, "MAX_KEPT", 2)
    for version in "123":
        _make(client, int(version), version=version)
        assert _first(client.attach("kept", version=version)) == int(version)
    assert [named.version for named in client._known_sealed._kept] == ["2", "3"]


def test_a_forked_child_and_a_server_that_went_away_find_it(server: Server, client: tensord.Client) -> None:
    _make(client, 9)
    client.attach("kept", version="1").close()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if _first(client.attach("kept", version="1")) == 9 else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    server.signal(signal.SIGKILL)
    try:
        assert _first(client.attach("kept", version="1")) == 9
    finally:
        server.start()
    assert _first(client.attach("kept", version="1")) == 9

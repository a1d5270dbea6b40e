"""Sessions: opened when they are needed, held in the background, ended with the client or the process."""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
import time
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from harness import DEADLINE_SECONDS, Child, Server, room, wait_for

import tensord
from tensord._session import hold


def _session_of(client: tensord.Client) -> tensord.Session:
    assert client.session is not None
    return client.session


def _find(client: tensord.Client, **facts: Any) -> list[tensord.SessionDescriptor]:
    """The sessions whose client says so."""
    return [
        session
        for session in client.sessions()
        if session.client is not None and facts.items() <= asdict(session.client).items()
    ]


def _is_mapped_by(client: tensord.Client, name: str) -> list[tuple[int, int, bool]]:
    """The pid of each holder with its mappings, and whether for writing."""
    holders = client.get(name).holders or ()
    return sorted((holder.client.pid, holder.mappings, holder.writable) for holder in holders)


def test_no_session_is_opened_before_it_is_needed(server: Server) -> None:
    with server.connect(session=False) as client:
        client.create("a", [1], ttl=600).close()
    with server.connect(name="quiet") as client:
        assert not any(client.list(name="b"))
        assert client.get("a").name == "a"
        assert repr(client.session) == "<tensord.Session not open>"
        assert _find(client, name="quiet") == []


def test_a_session_has_the_environments_name_unless_the_program_says_one(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TENSORD_SESSION_NAME", "trainer-7d9f/app\a")
    with server.connect() as client:
        assert _session_of(client).refresh().name == "trainer-7d9f/app\N{REPLACEMENT CHARACTER}"
    with server.connect(name="mine") as client:
        session = _session_of(client).refresh()
        assert session.name is None
        assert session.client is not None
        assert session.client.name == "mine"


def test_a_region_without_another_owner_ends_with_its_client(server: Server, client: tensord.Client) -> None:
    with server.connect(name="owner") as owner:
        region = owner.create("mine", np.arange(4))
        session = _session_of(owner)
        assert region.descriptor.owner == tensord.Owner("session", session=session.id)
        assert region.descriptor.session == session.id
        (facts,) = _find(client, name="owner")
        assert facts.client is not None
        assert facts.client.pid == os.getpid()
        assert facts.client.version == tensord.__version__
        assert facts.client.hostname
        region.close()
    assert _find(client, name="owner") == []
    assert not any(client.list())
    with pytest.raises(tensord.Closed):
        session.refresh()


def test_closing_a_client_keeps_its_arrays(server: Server, client: tensord.Client) -> None:
    owner = server.connect()
    array = owner.create("mine", np.arange(4)).numpy()
    owner.close()
    owner.close()
    with pytest.raises(tensord.RegionNotFound):
        client.get("mine")
    array[1] = 7
    assert array.tolist() == [0, 7, 2, 3]


def test_what_is_sealed_and_mapped_elsewhere_outlives_its_session(server: Server, client: tensord.Client) -> None:
    with server.connect() as owner:
        owner.create("weights", np.arange(4)).seal()
        reader = client.attach("weights")
    assert client.get("weights").state == "sealed"
    reader.close()
    del reader
    gc.collect()
    wait_for(lambda: not any(client.list()), "the region went with its last mapping")


def test_other_owners_do_not_end_with_the_client(server: Server, client: tensord.Client) -> None:
    with server.connect() as owner:
        owner.create("a", [1], ttl=600).close()
        owner.create("b", [1], persist=True).close()
        owner.create("c", [1], linger=60).close()
        _ = _session_of(owner).id
    assert sorted(region.name or "" for region in client.list()) == ["a", "b", "c"]


def test_the_end_of_a_session_says_what_ended(server: Server) -> None:
    with server.connect() as client:
        session = _session_of(client)
        for name in ("a", "b"):
            client.create(name, [1]).close()
        client.create("not-its-own", [1], ttl=600).close()
        ended = session.end()
        assert ended is not None
        assert (ended.state, ended.regions) == ("deleted", 2)
        assert ended.freed_bytes >= 2 * 4096
        assert session.end() == ended
        assert [region.name for region in client.list()] == ["not-its-own"]
    with server.connect() as client:
        assert _session_of(client).end() is None, "it was never opened"


def test_a_client_without_a_session_reports_nothing(server: Server, client: tensord.Client) -> None:
    with server.connect(session=False) as without:
        assert without.session is None
        region = without.create("a", [1], ttl=600)
        descriptor = client.get("a")
        assert (descriptor.in_use, descriptor.holders, descriptor.unknown_holders) == (True, (), True)
        with pytest.raises(tensord.ValidationFailed, match="without session=False"):
            without.get_or_create("b", lambda: [1])
        region.close()


def test_a_quota_bounds_what_the_session_owns(server: Server) -> None:
    with server.connect(quota_bytes=1 << 20) as client:
        client.create("small", shape=1000, dtype="U8")
        with pytest.raises(tensord.SessionQuotaExceeded) as raised:
            client.create("large", shape=2 << 20, dtype="U8")
        assert raised.value.fields["requested_bytes"] > 2 << 20
        assert raised.value.fields["available_bytes"] < 1 << 20
        with client.create("not-its-own", shape=2 << 20, dtype="U8", ttl=600) as region:
            assert region.descriptor.session is None
        assert _session_of(client).refresh().quota_bytes == 1 << 20


def test_a_session_is_held_and_renewed_by_nobody(server: Server) -> None:
    with server.connect(session_ttl=1) as client, server.connect(session=False) as clock:
        region = client.create("mine", [1])
        wait_for(lambda: _session_of(client).refresh().held, "it is held")
        clock.create("clock", [1], ttl=1.5).close()
        wait_for(lambda: not any(clock.list(name="clock")), "a second and a half are over")
        assert _session_of(client).refresh().expires_at is None
        assert client.get("mine").id == region.id


def test_mappings_are_reported_until_they_really_end(server: Server, client: tensord.Client) -> None:
    pid = os.getpid()
    with server.connect() as owner:
        region = owner.create("a", np.arange(4), ttl=600)
        wait_for(lambda: _is_mapped_by(client, "a") == [(pid, 1, True)], "its writer is reported")
        region.seal()
        wait_for(lambda: _is_mapped_by(client, "a") == [(pid, 1, False)], "it maps for reading")
        second = owner.attach("a")
        wait_for(lambda: _is_mapped_by(client, "a") == [(pid, 2, False)], "both are reported")
        array = region.numpy()
        region.close()
        second.close()
        del second
        wait_for(lambda: _is_mapped_by(client, "a") == [(pid, 1, False)], "the closed one is gone")
        with owner.open(client.attach("a").ref()):
            wait_for(lambda: (pid, 2, False) in _is_mapped_by(client, "a"), "an opened reference is reported")
        assert array.sum() == 6
        assert any(mapping[0] == pid for mapping in _is_mapped_by(client, "a"))
        del array, region
        gc.collect()
        wait_for(lambda: _is_mapped_by(client, "a") == [], "the array's end is reported")


def test_attaching_alone_opens_a_session_that_goes_with_a_dropped_client(
    server: Server, client: tensord.Client
) -> None:
    client.create("a", [1], ttl=600).close()
    reader = server.connect(name="reader")
    array = reader.attach("a").numpy()
    wait_for(lambda: _find(client, name="reader"), "a session is opened in the background")
    del reader
    gc.collect()
    wait_for(lambda: any(holder.client.name == "reader" for holder in client.get("a").holders or ()), "reported")
    del array
    gc.collect()
    wait_for(lambda: not _find(client, name="reader"), "nobody needs it any more")


def test_what_a_dropped_client_owns_lives_on(server: Server, client: tensord.Client) -> None:
    script = """
import gc
import logging
tensord.connect().create("kept", [1, 2]).seal()
gc.collect()
say("made")
hear()
"""
    with Child(script) as child:
        child.hear()
        wait_for(lambda: _find(client, pid=child.pid)[0].held, "it is held")
        assert client.get("kept").state == "sealed"
        child.finish()
    wait_for(lambda: not any(client.list()), "it ended with its process")


def test_after_a_session_was_ended_by_others_the_next_is_opened(client: tensord.Client) -> None:
    session = _session_of(client)
    first = session.id
    region = client.create("a", [1])
    client._api.end_session(first)
    with pytest.raises(tensord.RegionNotFound):
        client.get("a")
    with client.create("b", [2]) as second:
        assert second.descriptor.session == session.id != first
        wait_for(lambda: session.refresh().held, "the new one is held")
    region.close()


@pytest.mark.parametrize("ending", ["", "sys.exit(0)", "raise KeyboardInterrupt"])
def test_a_process_that_ends_before_its_session_is_held_ends_it(client: tensord.Client, ending: str) -> None:
    # The kernel has no socket to close then, and nobody shall have to wait for the TTL.
    script = f"""
def refuse(*_): raise ConnectionRefusedError
tensord._session.ways.HoldSocket = refuse
sys.excepthook = lambda *_: None
region = tensord.connect(session_ttl=3600).create("left", [1])
say(region.descriptor.session)
hear()
{ending}
"""
    with Child(script) as child:
        session = child.hear()
        assert [each.held for each in client.sessions() if each.id == session] == [False]
        child.say("end")
        wait_for(lambda: session not in {each.id for each in client.sessions()}, "its session has ended")
    wait_for(lambda: not any(client.list()), "its region is gone")


def test_exit_hooks_still_find_the_session(client: tensord.Client) -> None:
    script = """
import atexit
client = tensord.connect()
client.create("a", [1])
atexit.register(lambda: say(client.session.refresh().id == client.session.id))
"""
    with Child(script) as child:
        assert child.hear() is True
        child.finish()


def test_a_killed_process_is_out_of_the_books(client: tensord.Client) -> None:
    script = 'c = tensord.connect(); rs = [c.create(f"r{n}", np.zeros(1000)) for n in range(20)]; say("made"); hear()'
    with Child(script) as child:
        child.hear()
        wait_for(lambda: _find(client, pid=child.pid)[0].held, "it is held")
        assert client.stats().regions.open == 20
        started = time.monotonic()
        os.kill(child.pid, signal.SIGKILL)
        wait_for(lambda: client.stats().regions.open == 0, "its regions are out of the books")
        print(f"out of the books {(time.monotonic() - started) * 1000:.1f} ms after SIGKILL")  # noqa: T201  # a figure to look at
        # It ends after its regions.
        wait_for(lambda: _find(client, pid=child.pid) == [], "so is its session")
    wait_for(lambda: not any(client.list()), "its memory is free")


def test_a_stopped_process_keeps_its_regions(server: Server, client: tensord.Client) -> None:
    script = 'c = tensord.connect(session_ttl=1); r = c.create("mine", [1]); say("made"); hear(); say(r.seal().state)'
    with Child(script) as child:
        child.hear()
        wait_for(lambda: _find(client, pid=child.pid)[0].held, "it is held")
        os.kill(child.pid, signal.SIGSTOP)
        try:
            client.create("clock", [1], ttl=1.5).close()
            wait_for(lambda: not any(client.list(name="clock")), "more than its TTL is over")
            assert client.get("mine").state == "open"
        finally:
            os.kill(child.pid, signal.SIGCONT)
        child.say("go on")
        assert child.hear() == "sealed"
        child.finish()


def test_a_gibibyte_is_allocated_and_copied_beside_a_session_of_one_second(server: Server) -> None:
    with room(), server.connect(session_ttl=1) as client, server.connect() as other:
        mine = client.create("mine", [1])
        # Nobody holds this one: it lives by renewals alone. Whether they come in time is up to the machine as well.
        renewed = other._api.open_session({"ttl_ms": 600_000})
        path = f"/v1/sessions/{renewed}/renew"
        renewals = 0

        def is_made() -> bool:
            nonlocal renewals
            assert other._transport.request("POST", path, repeatable=False).status == 200
            renewals += 1
            return any(other.list(name="large", state="sealed"))

        script = 'x = np.ones(1 << 30, np.uint8); say("begins"); tensord.connect().create("large", x).seal(); hear()'
        with Child(script) as child:
            child.hear()
            wait_for(is_made, "a gibibyte is made, filled and sealed")
            child.finish()
        assert renewals > 10, "the server answers others in the middle of it"
        assert client.get("mine").id == mine.id
        other._api.end_session(renewed)


def test_a_chore_that_fails_is_told_once_and_the_thread_lives(
    server: Server, client: tensord.Client, caplog: pytest.LogCaptureFixture
) -> None:
    done = threading.Event()

    def fail(_: object) -> None:
        raise ZeroDivisionError("in a chore")

    def refuse(_: object) -> None:
        raise tensord.ValidationFailed("Cannot do that chore")

    with server.connect(name="chores") as owner:
        region = owner.create("mine", [1])
        session = _session_of(owner)
        for chore in (fail, refuse, fail, lambda _: done.set()):
            session.later(chore)
        assert done.wait(DEADLINE_SECONDS)
        told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        assert told == [
            "Cannot tidy up behind a session: in a chore",
            "Cannot tidy up behind a session: Cannot do that chore",
        ]
        assert session.refresh().held
        assert client.get("mine").session == session.id
        region.close()


@pytest.mark.parametrize(
    "missing",
    [tensord.OutOfDescriptors("Cannot open a file", status=507), tensord.ServerUnavailable("Cannot reach it")],
)
def test_a_chore_that_fails_for_the_moment_is_done_later(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, missing: Exception
) -> None:
    monkeypatch.setattr(hold, "CHORE_SECONDS", 0.01)
    tries: list[object] = []
    done = threading.Event()

    def chore(_: object) -> None:
        tries.append(None)
        if len(tries) < 3:
            raise missing
        done.set()

    with server.connect(name="chores") as owner:
        owner.create("mine", [1]).close()
        _session_of(owner).later(chore)
        assert done.wait(DEADLINE_SECONDS)
    assert len(tries) == 3
    assert caplog.text == ""


def test_a_session_that_the_server_refuses_is_told_once_and_raised_where_it_is_needed(
    server: Server, client: tensord.Client, caplog: pytest.LogCaptureFixture
) -> None:
    with client.create("r", [1], ttl=60), server.connect(session_ttl=0.001) as other:
        # In the background, where nobody could be told otherwise.
        other.attach("r").close()
        wait_for(lambda: caplog.records, "the refusal is told")
        with pytest.raises(tensord.ValidationFailed, match="ttl_ms"):
            other.create("x", [1])
        other.attach("r").close()
    assert len(caplog.records) == 1
    assert "Cannot hold a session" in caplog.text
    assert "ttl_ms" in caplog.text


def test_a_script_of_any_name_has_a_session(client: tensord.Client) -> None:
    script = """
for argv in ([], ["a\\nb\\udc80" + 300 * "\\U0001F600"], [b"bytes"]):
    sys.argv = argv
    with tensord.connect() as client:
        say(client.session.refresh().client.name)
"""
    with Child(script) as child:
        assert child.hear() == "python"
        assert child.hear().startswith("a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}\N{GRINNING FACE}")
        assert child.hear() == "b'bytes'"
        child.finish()


def test_a_session_that_no_thread_can_hold_says_so(client: tensord.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(tensord.FeatureUnavailable, match=r"no thread can start \(can't start new thread\)"):
            client.create("x", [1])
        client.create("y", [1], ttl=60).close()
    client.create("x", [1]).close()

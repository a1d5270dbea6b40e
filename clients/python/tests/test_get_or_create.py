"""One of N builds, the others share: turns, failures, deaths, and what a reader may see."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_server import Answer, FakeServer, Request
from harness import DEADLINE_SECONDS, Child, Server, wait_for

import tensord


def _fail() -> Any:
    raise AssertionError("it is built already")


def test_the_first_caller_builds_and_the_others_share(server: Server, client: tensord.Client) -> None:
    with client.get_or_create("weights", lambda: {"a": np.arange(4), "b": [1.5]}, checksum=True) as built:
        assert built.created
        assert not built.writable
        assert built.state == "sealed"
        assert built.descriptor.owner == tensord.Owner("linger", linger_ms=600_000, handoff_ms=60_000)
        assert client.verify(built).ok is True
        assert not built["a"].numpy().flags.writeable
        for shared in (client.get_or_create("weights", _fail), tensord.get_or_create("weights", _fail)):
            with shared:
                assert not shared.created
                assert shared.id == built.id
                assert shared["a"].numpy().tolist() == [0, 1, 2, 3]
    assert client.stats().claims == 0


@pytest.mark.parametrize(
    ("owner", "expected"),
    [
        ({"linger": 5}, tensord.Owner("linger", linger_ms=5000, handoff_ms=60_000)),
        ({"ttl": 60}, tensord.Owner("ttl", ttl_ms=60_000)),
        ({"persist": True}, tensord.Owner("persist")),
    ],
    ids=str,
)
def test_the_builders_call_says_who_owns_it(client: tensord.Client, owner: Any, expected: tensord.Owner) -> None:
    with client.get_or_create("weights", lambda: [1], **owner, evictable=True, labels={"step": "7"}) as region:
        assert region.descriptor.owner == expected
        assert region.descriptor.evictable
        assert dict(region.descriptor.labels) == {"step": "7"}


def test_a_state_dict_is_built_once(client: tensord.Client) -> None:
    torch = pytest.importorskip("torch", reason="a state_dict is torch's")
    module = torch.nn.Linear(4, 2)
    with client.get_or_create("linear", module.state_dict) as region:
        other = torch.nn.Linear(4, 2)
        other.load_state_dict(region.state_dict(), assign=True)
        assert torch.equal(other.weight, module.weight)
        del other


@pytest.mark.parametrize("build", [lambda: 1 / 0, lambda: {"a": object()}], ids=["it raises", "it makes no tensors"])
def test_a_build_that_fails_gives_the_turn_on(client: tensord.Client, build: Any) -> None:
    with pytest.raises((ZeroDivisionError, tensord.TensordError)):
        client.get_or_create("weights", build)
    with client.get_or_create("weights", lambda: [1, 2], timeout=DEADLINE_SECONDS) as region:
        assert region.created
    assert client.stats().claims == 0


def test_an_interrupted_build_gives_the_turn_on(client: tensord.Client) -> None:
    def interrupt() -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.get_or_create("weights", interrupt)
    wait_for(lambda: client.stats().claims == 0, "the claim is released")


def test_a_build_may_fail_with_what_the_turns_themselves_know(client: tensord.Client) -> None:
    with pytest.raises(tensord.RegionNotFound, match="inputs"):
        client.get_or_create("weights", lambda: client.attach("inputs").numpy())


def test_a_build_may_need_what_is_built_likewise(client: tensord.Client) -> None:
    def build() -> Any:
        with client.get_or_create("inputs", lambda: np.arange(3)) as inputs:
            return inputs.numpy() * 2

    with client.get_or_create("weights", build) as region:
        assert region.numpy().tolist() == [0, 2, 4]


@pytest.mark.parametrize("timeout", [0.0, 0.2, 1.2])
def test_a_wait_ends_when_its_time_is_over(server: Server, client: tensord.Client, timeout: float) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def build() -> Any:
        begun.set()
        assert go_on.wait(DEADLINE_SECONDS)
        return [1]

    made: list[bool] = []
    thread = threading.Thread(target=lambda: made.append(client.get_or_create("weights", build).created))
    thread.start()
    try:
        assert begun.wait(DEADLINE_SECONDS)
        started = time.monotonic()
        with server.connect() as other:
            with pytest.raises(tensord.DeadlineExceeded, match="somebody still builds it"):
                other.get_or_create("weights", _fail, timeout=timeout)
            assert time.monotonic() - started >= timeout
            with pytest.raises(tensord.NameClaimed, match="get_or_create"):
                other.create("weights", [1])
    finally:
        go_on.set()
        thread.join(DEADLINE_SECONDS)
    assert made == [True]
    with client.get_or_create("weights", _fail, timeout=timeout):
        pass


@pytest.mark.parametrize("timeout", [-1.0, float("nan")])
def test_what_is_no_time_is_refused(client: tensord.Client, timeout: float) -> None:
    with pytest.raises(tensord.ValidationFailed):
        client.get_or_create("weights", _fail, timeout=timeout)


_RACER = """
def build():
    say("built")
    return np.full(1 << 18, 7, np.int64)
say("ready")
hear()
with tensord.connect() as client, client.get_or_create("weights", build) as region:
    say([region.id, region.created, bool((region.numpy() == 7).all()), region.state])
    hear()
"""


def test_of_many_processes_exactly_one_builds(client: tensord.Client) -> None:
    children = [Child(_RACER) for _ in range(8)]
    try:
        for child in children:
            assert child.hear() == "ready"
        for child in children:
            child.say("go")
        said = [[child.hear()] for child in children]
        for answers, child in zip(said, children, strict=True):
            if answers[0] == "built":
                answers.append(child.hear())
        results = [answers[-1] for answers in said]
        assert [answers[0] for answers in said].count("built") == 1
        assert len({result[0] for result in results}) == 1
        assert sorted(result[1] for result in results) == [False] * 7 + [True]
        assert all(result[2:] == [True, "sealed"] for result in results)
        assert [region.name for region in client.list()] == ["weights"]
        for child in children:
            child.finish()
    finally:
        for child in children:
            child.__exit__()


def test_of_many_threads_exactly_one_builds(client: tensord.Client) -> None:
    built: list[int] = []
    results: list[tuple[str, bool]] = []
    together = threading.Barrier(8)

    def work() -> None:
        together.wait(DEADLINE_SECONDS)
        with client.get_or_create("weights", lambda: [built.append(1) or 1]) as region:
            results.append((region.id, region.created))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_SECONDS)
    assert built == [1]
    assert len({each[0] for each in results}) == 1
    assert sorted(each[1] for each in results) == [False] * 7 + [True]


def test_a_builder_whose_session_was_ended_builds_under_another_and_only_once(client: tensord.Client) -> None:
    built: list[int] = []

    def build() -> Any:
        built.append(1)
        assert client.session is not None
        client._api.end_session(client.session.id)
        return [5]

    with client.get_or_create("weights", build) as region:
        assert region.numpy().tolist() == [5]
    assert built == [1]


def test_who_finds_it_may_have_it_strict(client: tensord.Client) -> None:
    pytest.importorskip("torch", reason="strict is what torch() refuses")
    with (
        client.get_or_create("weights", lambda: [1.5], strict=True) as built,
        client.get_or_create("weights", _fail, strict=True) as found,
        tensord.get_or_create("weights", _fail, strict=True) as one_call,
    ):
        assert built.torch().tolist() == [1.5], "its builder had it writable"
        for region in (found, one_call):
            assert region.numpy().tolist() == [1.5]
            with pytest.raises(tensord.FeatureUnavailable, match="strict=True"):
                region.torch()


def test_a_hand_off_ends_with_its_consumer(server: Server, client: tensord.Client) -> None:
    script = 'r = tensord.attach("result", timeout=150); say(int(r.numpy().sum())); hear(); r.close(); hear()'
    with Child(script) as child:
        client.create("result", np.arange(10), linger=0).seal()
        assert child.hear() == 45
        child.say("let go")
        wait_for(lambda: not any(client.list()), "it is gone, though its consumer lives")
        child.finish()


def test_a_claim_whose_answer_is_lost_is_asked_for_by_the_same_key(tmp_path: Path) -> None:
    claims: list[Any] = []

    def answer(request: Request) -> Answer:
        if request.path == "/v1/sessions":
            return 201, {"id": "ses_x"}
        if request.path.endswith("/claim"):
            claims.append(request.body)
            return None if len(claims) == 1 else (200, {"role": "builder", "claim": "clm_x", "region": None})
        return 404, {"code": "route-not-found", "detail": "Cannot find"}

    with (
        FakeServer(tmp_path / "s", answer) as fake,
        tensord.connect(f"unix://{tmp_path}/s") as client,
    ):
        with pytest.raises(ZeroDivisionError):
            client.get_or_create("weights", lambda: 1 / 0)
        assert claims[0] == claims[1]
        assert claims[0]["session"] == "ses_x"
        released = "/v1/models/default/regions/weights/claim?claim=clm_x&version="
        wait_for(lambda: released in {request.path for request in fake.requests}, "the claim is released")

"""The token that a client sends: where it comes from, where it goes, and where it never shows."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fake_server import Answer, FakeServer, Request
from harness import Server, wait_for

import tensord
from tensord._transport.endpoint import Endpoint, find_endpoint
from tensord._transport.token import Token, find_token
from tensord._transport.transport import Transport

SECRET = "trainer-0123456789abcdef0123456789abcdef"
OTHER = "another-0123456789abcdef0123456789abcdef"
TOO_SOON = {"code": "too-many-requests", "detail": "Cannot answer: too soon", "status": 429}


def write(path: Path, text: str) -> None:
    """As an orchestrator does: another file in its place."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def test_an_argument_wins_over_the_environment_which_wins_over_its_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f" {OTHER}\n")
    environ = {"TENSORD_TOKEN": f" {SECRET}\n", "TENSORD_TOKEN_FILE": str(file)}

    def read(given: str | None, environ: dict[str, str]) -> str | None:
        token = find_token(given, environ)
        return None if token is None else token.read()

    assert read("given==", environ) == "given=="
    assert read(None, environ) == SECRET
    assert read(None, {**environ, "TENSORD_TOKEN": ""}) == OTHER
    assert read(None, {}) is None


@pytest.mark.parametrize("text", ["", "a b", "a\r\nX-Evil: 1", "ä", "x" * 513, "=", "Bearer x"])
def test_what_is_no_token_is_refused_and_not_shown(text: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(text)
    with pytest.raises(tensord.ValidationFailed, match="Cannot use the token of the argument token") as refused:
        tensord.connect("unix:///nowhere", token=text)
    with pytest.raises(tensord.ValidationFailed, match="TENSORD_TOKEN_FILE") as refused_file:
        find_token(None, {"TENSORD_TOKEN_FILE": str(file)})
    for error in (refused, refused_file):
        assert len(text) < 3 or text not in str(error.value)


def test_a_file_that_cannot_be_read_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(tensord.ValidationFailed, match=r"none \(TENSORD_TOKEN_FILE\): No such file"):
        find_endpoint("unix:///nowhere", {"TENSORD_TOKEN_FILE": str(tmp_path / "none")})


def test_no_repr_shows_it() -> None:
    endpoint = find_endpoint("unix:///nowhere", {"TENSORD_TOKEN": SECRET})
    assert SECRET not in repr(endpoint) + endpoint.url + repr(endpoint.token)


def test_it_goes_with_every_request_and_a_file_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tensord._transport.token.KEEP_SECONDS", 0.0)
    path, file = tmp_path / "http.sock", tmp_path / "token"
    file.write_text(SECRET)
    with FakeServer(path, lambda _: (200, {})) as fake:
        transport = Transport(Endpoint("here", path=str(path), token=Token(path=str(file))), 1.0)
        transport.request("GET", "/x", repeatable=True)
        write(file, OTHER)
        transport.request("GET", "/x", repeatable=True)
        answer = transport.open_long("/v1/events", {}, 5.0)
        answer.begin()
        answer.close()
        transport.close()
        sent = [{name.lower(): value for name, value in each.headers.items()} for each in fake.requests]
        assert [each["authorization"] for each in sent] == [f"Bearer {token}" for token in (SECRET, OTHER, OTHER)]
        assert all(SECRET not in each.path and OTHER not in each.path for each in fake.requests)
        assert all("cookie" not in each for each in sent)


def test_who_is_told_when_to_ask_again_asks_again(tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    answers: list[Answer] = [(429, {**TOO_SOON, "retry_after_seconds": 1}), (200, {"ok": True})]

    def answer(_: Request) -> Answer:
        return answers.pop(0)

    with FakeServer(path, answer) as fake:
        transport = Transport(Endpoint("here", path=str(path)), 10.0)
        assert transport.request("POST", "/x", {}, repeatable=False).body == {"ok": True}
        assert len(fake.requests) == 2
        # Longer than its patience, or not told when: that is the answer.
        for refusal in ({**TOO_SOON, "retry_after_seconds": 60}, TOO_SOON):
            answers.append((429, refusal))
            assert transport.request("GET", "/x", repeatable=True).status == 429
        transport.close()
        assert not answers


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that asks for tokens: of a worker, and of a reader that is held to a model."""
    path = tmp_path_factory.mktemp("tokens") / "tokens.json"
    lines = [
        {"name": "trainer", "role": "worker", "token": SECRET},
        {"name": "viewer", "role": "reader", "token": OTHER, "models": ["llama"]},
    ]
    with open(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600), "w") as file:
        json.dump({"tokens": lines}, file)
    server = Server(TENSORD_TOKENS_FILE=str(path))
    server.start()
    yield server
    server.stop()


def test_a_worker_holds_its_session_and_hears_events_and_others_are_refused(guarded: Server) -> None:
    with guarded.connect(token=SECRET) as client, client.events() as events:
        region = client.create("weights", np.arange(4, dtype=np.uint8), ttl=600)
        region.seal()
        wait_for(lambda: any(session.held for session in client.sessions()), "the session is held")
        assert next(events).type.startswith("tensord.")
        region.close()
        with guarded.connect() as nobody, pytest.raises(tensord.Unauthorized) as unauthorized:
            list(nobody.list())
        assert "TENSORD_TOKEN" in str(unauthorized.value)
        with guarded.connect(token=OTHER) as viewer:
            assert list(viewer.list()) == []
            with pytest.raises(tensord.Forbidden, match='token "viewer" may not use model "default"'):
                viewer.get("weights")
            with pytest.raises(tensord.Forbidden, match="may not create region"):
                viewer.create("mine", np.zeros(1), model="llama", ttl=600)
        client.delete("weights")


def test_it_is_in_no_reference_and_in_no_log(guarded: Server) -> None:
    with guarded.connect(token=SECRET) as client, client.create(None, np.zeros(4), ttl=600) as region:
        assert SECRET.encode() not in pickle.dumps(region.ref())
        assert SECRET not in repr((client, region, region.ref()))
        client.delete(region.id)
    assert SECRET not in guarded.log()

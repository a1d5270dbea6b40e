"""One table turns what the server says into exceptions."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest
from harness import REPOSITORY

import tensord
from tensord import _errors
from tensord._errors import from_problem


def test_a_problem_becomes_the_exception_of_its_code() -> None:
    error = from_problem(
        507,
        {
            "type": "urn:tensord:problem:pool-full",
            "title": "The server's memory limit is reached",
            "status": 507,
            "detail": "Cannot allocate 8 bytes",
            "code": "pool-full",
            "hint": "free something",
            "requested_bytes": 8,
            "available_bytes": 4,
        },
    )
    assert type(error) is tensord.PoolFull
    assert isinstance(error, MemoryError)
    assert (error.code, error.status, error.detail, error.hint) == (
        "pool-full",
        507,
        "Cannot allocate 8 bytes",
        "free something",
    )
    assert error.fields == {"requested_bytes": 8, "available_bytes": 4}
    assert str(error) == "Cannot allocate 8 bytes\nhint: free something"


def test_every_code_of_the_servers_table_has_its_own_class() -> None:
    table = (REPOSITORY / "src/memory/error.ts").read_text()
    table = table[: table.index("satisfies Record")]
    codes = re.findall(r'^  "?([a-z-]+)"?: \{ status', table, re.MULTILINE)
    assert len(codes) > 20
    shared = {code for code in codes if code not in _errors._by_code}
    assert shared == set()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, tensord.InvalidRequest),
        (404, tensord.NotFound),
        (409, tensord.Conflict),
        (429, tensord.TooManyRequests),
        (418, tensord.InvalidRequest),
        (500, tensord.ServerFault),
        (501, tensord.FeatureUnavailable),
        (503, tensord.ServerUnavailable),
        (507, tensord.OutOfMemory),
        (599, tensord.ServerFault),
    ],
)
def test_an_unknown_code_becomes_the_branch_of_its_status(status: int, kind: type[tensord.TensordError]) -> None:
    error = from_problem(status, {"code": "from-the-future", "detail": "no idea"})
    assert type(error) is kind
    assert error.code == "from-the-future"


@pytest.mark.parametrize("problem", [{}, {"code": 5}, {"detail": None}, {"hint": ["x"]}, {"title": "T"}])
def test_a_misshapen_problem_is_still_an_exception(problem: dict[str, object]) -> None:
    assert isinstance(from_problem(500, problem), tensord.ServerFault)


def test_owner_required_says_how_python_spells_the_cure() -> None:
    error = from_problem(422, {"code": "owner-required", "detail": "no owner", "hint": "send ttl_ms"})
    assert "send ttl_ms" in str(error)
    assert "ttl=<seconds>" in str(error)


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (tensord.ServerUnavailable, ConnectionError),
        (tensord.AccessDenied, PermissionError),
        (tensord.MappingFailed, OSError),
        (tensord.Closed, ValueError),
        (tensord.NotFound, LookupError),
        (tensord.TensorNotFound, KeyError),
        (tensord.InvalidRequest, ValueError),
        (tensord.OutOfMemory, MemoryError),
    ],
)
def test_plain_except_clauses_work(kind: type[tensord.TensordError], builtin: type[Exception]) -> None:
    error = kind("what happened", hint="do this")
    assert isinstance(error, builtin)
    assert str(error) == "what happened\nhint: do this"


def test_exceptions_survive_pickling() -> None:
    for kind in _errors._by_code.values():
        error = kind("detail", status=409, hint="hint", fields={"n": 1})
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is kind
        assert (copy.detail, copy.code, copy.status, copy.hint, copy.fields) == (
            "detail",
            error.code,
            409,
            "hint",
            {"n": 1},
        )


def test_the_docstring_draws_the_whole_tree() -> None:
    source = Path(_errors.__file__).read_text()
    drawn = set(re.findall(r"[├└]── (\w+)", source))
    # What another module has below one of them is caught there, and reaches nobody.
    kinds = {
        kind
        for kind in _errors._descendants(tensord.TensordError)
        if kind.__module__ == tensord.TensordError.__module__
    }
    assert drawn == {kind.__name__ for kind in kinds}

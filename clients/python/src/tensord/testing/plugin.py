"""Fixtures for pytest: ``pytest_plugins = ["tensord.testing.plugin"]`` in the top ``conftest.py``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tensord._client import Client

from .private_server import PrivateServer, private_server


@pytest.fixture(scope="session")
def tensord_server() -> Iterator[PrivateServer]:
    """A private server for the whole run, of each of its processes. ``tensord.connect()`` finds it meanwhile."""
    with private_server() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environ.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture
def tensord_client(tensord_server: PrivateServer) -> Iterator[Client]:
    """A client of ``tensord_server``, which has nothing when the test begins, and nothing after it."""
    with tensord_server.connect() as client:
        yield client
    tensord_server.clear()

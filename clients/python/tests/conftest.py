"""Fixtures: a server for the whole run, left empty by every test; and files that look like a region's."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import SHM_DIRECTORY, TEST_TOKEN, Server, wait_for

import tensord
from tensord._mapping.attach import Place

TOKEN = "abcdefghijklmnopqrstuvwxyz"


class Figures:
    """Prints what a test recorded, seeds and counts, whatever came of it: in the one process that prints."""

    def __init__(self, terminal: pytest.TerminalReporter) -> None:
        self._terminal = terminal

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "teardown" and report.user_properties:
            self._terminal.ensure_newline()
            self._terminal.write_line(f"{report.nodeid}: {json.dumps(dict(report.user_properties))}")


# After the plugin that reports has come.
@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    if terminal := config.pluginmanager.get_plugin("terminalreporter"):
        config.pluginmanager.register(Figures(terminal))


@pytest.fixture(scope="session")
def _server() -> Iterator[Server]:
    server = Server()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def server(_server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The run's server, named by the environment. A test that leaves a lease behind fails here."""
    monkeypatch.delenv("TENSORD_URL", raising=False)
    for key, value in _server.environ.items():
        monkeypatch.setenv(key, value)
    # What stands now is not looked at again: a collection walks through all of torch otherwise, hundreds of times.
    gc.freeze()
    yield _server
    gc.collect()
    with _server.connect() as client:
        for region in client.list():
            with contextlib.suppress(tensord.RegionNotFound):
                client.delete(region)
        for model in client.models():
            if model.name != "default":
                client.unregister_model(model.name, drain=True)
        wait_for(lambda: not any(client.list()), "every region is gone and nobody holds a lease")
    assert _server.region_names() == []


@pytest.fixture
def client(server: Server) -> Iterator[tensord.Client]:
    with server.connect() as client:
        yield client


@pytest.fixture
def shm_directory() -> Iterator[Path]:
    """An empty directory on the tmpfs."""
    path = Path(tempfile.mkdtemp(prefix=f"tensord-test-{TEST_TOKEN}-", dir=SHM_DIRECTORY))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def make_place(shm_directory: Path) -> Callable[..., Place]:
    """Makes a file that looks like an open region's and tells where it is."""

    def make(
        content: bytes = bytes(range(256)) * 32, *, name: str = f"tensord.test.{TOKEN}", mode: int = 0o660
    ) -> Place:
        path = shm_directory / name
        path.write_bytes(content)
        os.chmod(path, mode)
        status = path.stat()
        return Place(f"reg_{TOKEN}", str(path), status.st_dev, status.st_ino, len(content))

    return make

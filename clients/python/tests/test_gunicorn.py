"""Web workers that come and go under load share one copy of the weights, which one of them has built."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import DEADLINE_SECONDS, SHM_DIRECTORY, Server, wait_for

import tensord

WORKERS = 8
WEIGHTS = 1 << 20
REQUESTS_A_WORKER = 20


class _OverUnixSocket(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=DEADLINE_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(DEADLINE_SECONDS)
        self.sock.connect(str(self._path))


class Web:
    """gunicorn on a Unix socket, and a load on it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "web.sock"
        self.builds = folder / "builds"
        self.answers: list[dict[str, Any]] = []
        self.failures: list[BaseException] = []
        self._log = folder / "log"
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._load) for _ in range(4)]
        options = ["--preload", "--workers", str(WORKERS), "--max-requests", str(REQUESTS_A_WORKER)]
        options += ["--max-requests-jitter", "5", "--no-control-socket", "--bind", f"unix:{self.path}"]
        # gunicorn does not hear of a worker that it forks in the moment of its own end, and waits so long for it.
        options += ["--graceful-timeout", "2"]
        with self._log.open("w") as log:
            self.master = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", *options, "gunicorn_app:application"],
                cwd=Path(__file__).parent,
                env={**os.environ, "BUILD_LOG": str(self.builds), "WEIGHTS": str(WEIGHTS)},
                stdout=log,
                stderr=log,
            )

    def ask(self) -> dict[str, Any]:
        connection = _OverUnixSocket(self.path)
        try:
            connection.request("GET", "/")
            response = connection.getresponse()
            content = response.read()
            assert response.status == 200, content
            answer: dict[str, Any] = json.loads(content)
            return answer
        finally:
            connection.close()

    def is_there(self) -> bool:
        """Whether it answers. It may have bound its socket, and not listen yet."""
        assert self.master.poll() is None, self.log()
        try:
            return bool(self.ask())
        except OSError:
            return False

    def begin(self) -> None:
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(DEADLINE_SECONDS)
        self.master.terminate()
        try:
            self.master.wait(DEADLINE_SECONDS)
        finally:
            self.master.kill()

    def served(self) -> set[int]:
        """The workers that have answered so far."""
        return {answer["pid"] for answer in self.answers}

    def log(self) -> str:
        return self._log.read_text()

    def _load(self) -> None:
        while not self._stop.is_set():
            try:
                self.answers.append(self.ask())
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(error)
            except BaseException as error:
                self.failures.append(error)
                return


@pytest.fixture
def web(server: Server, tmp_path: Path) -> Iterator[Web]:
    pytest.importorskip("gunicorn", reason="the web server of this test")
    web = Web(tmp_path)
    yield web
    web.end()


def test_recycled_and_scaled_workers_share_one_copy_that_was_built_once(
    server: Server, client: tensord.Client, web: Web
) -> None:
    wait_for(web.is_there, "gunicorn answers")

    def check() -> None:
        """One copy by the books, and by the file system."""
        regions = [region for region in client.list() if region.name != "masters"]
        assert [region.name for region in regions] in ([], ["weights"])
        files = [SHM_DIRECTORY / name for name in server.region_names()]
        assert len(files) <= 2
        pages = sum(path.stat().st_blocks * 512 for path in files)
        assert pages <= WEIGHTS * 8 + (64 << 10)
        assert client.stats()["regions"]["draining"] == 0

    def until(condition: Any, what: str) -> None:
        def met() -> bool:
            check()
            return bool(condition())

        wait_for(met, what, 2 * DEADLINE_SECONDS)

    def held() -> dict[int, str]:
        return {each["client"]["pid"]: each["id"] for each in client.sessions() if each["client"]["name"] == "web"}

    web.begin()
    until(lambda: len(web.served()) >= 3 * WORKERS, f"the workers were recycled twice\n{web.log()}")
    for _ in range(WORKERS // 2):
        web.master.send_signal(signal.SIGTTOU)
    until(lambda: len(held()) <= 1 + WORKERS // 2, "half of the workers are gone")
    before = len(web.served())
    until(lambda: len(web.served()) >= before + WORKERS, "those that are left were recycled as well")
    # Not all at once, and whatever they were doing.
    for _ in range(3):
        busy = wait_for(lambda: set(held()) & {answer["pid"] for answer in web.answers[-20:]}, "a worker is at work")
        victim = busy.pop()
        # It may have been recycled since.
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
        until(lambda victim=victim: victim not in held(), "its session has ended")
    before = len(web.served())
    until(lambda: len(web.served()) >= before + 2, "others came in their place")

    assert held()[web.master.pid] == client.get("masters").session
    assert {answer["region"] for answer in web.answers} == {client.get("weights").id}
    assert {tuple(answer["seen"]) for answer in web.answers} == {(WEIGHTS - 1, 3)}
    sessions = {(answer["pid"], answer["session"]) for answer in web.answers}
    assert len({session for _, session in sessions}) == len(sessions) == len(web.served())
    assert web.builds.read_text().count("\n") == 1
    # Only a killed worker may leave a request without an answer.
    assert len(web.failures) <= 3, web.failures
    web.end()
    wait_for(lambda: held() == {}, "the last of them has ended")
    wait_for(lambda: client.get("weights").in_use is False, "nobody maps the weights, which linger")
    wait_for(lambda: [region.name for region in client.list()] == ["weights"], "the master's region is gone with it")

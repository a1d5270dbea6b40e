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
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import DEADLINE_SECONDS, LONG, SHM_DIRECTORY, Server, wait_for

import tensord

#: `npm test -- --long` has twice as many.
WORKERS = 8 if LONG else 4
WEIGHTS = 1 << 20
REQUESTS_A_WORKER = 20
#: How long the workers are recycled at least. `npm run soak -- --web` makes it minutes.
SECONDS = float(os.environ.get("WEB_SOAK_SECONDS", "0"))


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
        self.requests = 0
        #: What the answers said, each thing once.
        self.sessions: set[tuple[int, str]] = set()
        self.regions: set[str] = set()
        self.seen: set[tuple[int, ...]] = set()
        #: Who answered last.
        self.busy: deque[int] = deque(maxlen=20)
        self.failures: list[BaseException] = []
        self._log = folder / "log"
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._load) for _ in range(4)]
        options = ["--preload", "--workers", str(WORKERS), "--max-requests", str(REQUESTS_A_WORKER)]
        options += ["--max-requests-jitter", "5", "--no-control-socket", "--bind", f"unix:{self.path}"]
        # gunicorn does not hear of a worker that it forks in the moment of its own end, and waits so long for it.
        # Nobody is killed for being slow, as all are on a busy machine.
        options += ["--graceful-timeout", "20", "--timeout", "0"]
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

    def log(self) -> str:
        return self._log.read_text()

    def _load(self) -> None:
        while not self._stop.is_set():
            try:
                answer = self.ask()
                self.requests += 1
                self.sessions.add((answer["pid"], answer["session"]))
                self.regions.add(answer["region"])
                self.seen.add(tuple(answer["seen"]))
                self.busy.append(answer["pid"])
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
    checks = {"count": 0, "most_files": 0, "most_bytes": 0, "most_used_bytes": 0}

    def check() -> None:
        """One copy by the books, and by the file system."""
        regions = [region for region in client.list() if region.name != "masters"]
        assert [region.name for region in regions] in ([], ["weights"])
        files = [SHM_DIRECTORY / name for name in server.region_names()]
        assert len(files) <= 2
        pages = sum(path.stat().st_blocks * 512 for path in files)
        assert pages <= WEIGHTS * 8 + (64 << 10)
        stats = client.stats()
        assert stats.regions.draining == 0
        assert stats.pools[0].used_bytes <= WEIGHTS * 8 + (64 << 10)
        seen = {"most_files": len(files), "most_bytes": pages, "most_used_bytes": stats.pools[0].used_bytes}
        checks.update({what: max(checks[what], most) for what, most in seen.items()}, count=checks["count"] + 1)

    def until(condition: Any, what: str, seconds: float = 2 * DEADLINE_SECONDS) -> None:
        def met() -> bool:
            check()
            return bool(condition())

        wait_for(met, what, seconds)

    def held() -> dict[int, str]:
        return {each.client.pid: each.id for each in client.sessions() if each.client.name == "web"}

    web.begin()
    enough = time.monotonic() + SECONDS
    until(
        lambda: len(web.sessions) >= 3 * WORKERS and time.monotonic() >= enough,
        f"the workers were recycled twice, for {SECONDS:g} s at least\n{web.log()}",
        SECONDS + 2 * DEADLINE_SECONDS,
    )
    for _ in range(WORKERS // 2):
        web.master.send_signal(signal.SIGTTOU)
    until(lambda: len(held()) <= 1 + WORKERS // 2, "half of the workers are gone")
    before = len(web.sessions)
    until(lambda: len(web.sessions) >= before + WORKERS, "those that are left were recycled as well")
    # Not all at once, and whatever they were doing.
    for _ in range(3):
        busy = wait_for(lambda: set(held()) & set(web.busy), "a worker is at work")
        victim = busy.pop()
        # It may have been recycled since.
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
        until(lambda victim=victim: victim not in held(), "its session has ended")
    before = len(web.sessions)
    until(lambda: len(web.sessions) >= before + 2, "others came in their place")

    assert held()[web.master.pid] == client.get("masters").session
    assert web.regions == {client.get("weights").id}
    assert web.seen == {(WEIGHTS - 1, 3)}
    # Each session is one worker's, and each worker has one. In minutes the numbers of processes may come round.
    assert len({session for _, session in web.sessions}) == len(web.sessions)
    assert SECONDS > 0 or len({pid for pid, _ in web.sessions}) == len(web.sessions)
    builds = web.builds.read_text().count("\n")
    assert builds == 1
    # Only a killed worker may leave a request without an answer.
    assert len(web.failures) <= 3, web.failures
    seen = {"requests": web.requests, "workers": len(web.sessions), "builds": builds, "checks": checks}
    sys.stdout.write(f"{json.dumps(seen)}\n")
    web.end()
    wait_for(lambda: held() == {}, "the last of them has ended")
    wait_for(lambda: client.get("weights").in_use is False, "nobody maps the weights, which linger")
    wait_for(lambda: [region.name for region in client.list()] == ["weights"], "the master's region is gone with it")

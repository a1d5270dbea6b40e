"""What the tests share: a real server process, child processes that talk in JSON lines, and waits with a deadline."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from forked import Forked

import tensord

REPOSITORY = Path(__file__).resolve().parents[3]
SHM_DIRECTORY = Path("/dev/shm")
# No verdict on the machine: beside busy ones, processes that import torch take minutes.
DEADLINE_SECONDS = 180.0

# As tests/harness/server-program.ts has it: what ``npm test`` built, or the sources.
TENSORD = (
    [os.environ["TEST_EXECUTABLE"]]
    if "TEST_EXECUTABLE" in os.environ
    else [str(REPOSITORY / "node_modules/.bin/bun"), str(REPOSITORY / "src/main.ts")]
)

# What ``npm test`` searches that directory for afterwards: every name that a test makes there contains it.
TEST_TOKEN = os.environ.get("TEST_TOKEN", "")


#: For a ``Child`` that uses it: to import it takes seconds.
TORCH = ("torch_ready", "tensord.torch")
#: Whether the long form is asked for: ``npm test -- --long``.
LONG = "TEST_LONG" in os.environ


def rounds_of(test: str) -> int:
    """How often a test of many rounds goes round, from ``tests/rounds.json``: the long form under ``TEST_LONG``."""
    if asked := os.environ.get("TEST_ROUNDS"):
        return int(asked)
    rounds = json.loads((REPOSITORY / "tests/rounds.json").read_text())
    return int(rounds[test]["long" if LONG else "short"])


def wait_for(condition: Callable[[], Any], what: str, seconds: float = DEADLINE_SECONDS) -> Any:
    """Returns the condition's first true value; fails the test with ``what`` when the time is over."""
    begin = time.monotonic()
    while True:
        value = condition()
        if value:
            return value
        waited = time.monotonic() - begin
        if waited > seconds:
            raise AssertionError(f"waited {seconds:g} s in vain until {what}")
        # What takes long is asked for seldom: a question may be a request.
        time.sleep(min(max(0.005, waited / 10), 0.05))


@contextlib.contextmanager
def room() -> Iterator[None]:
    """For a test that takes a gibibyte: one at a time on this machine, see tests/harness/instance-room.ts."""

    def is_taken() -> bool:
        try:
            held.bind("\0tensord-test-room")
        except OSError:
            return False
        return True

    with socket.socket(socket.AF_UNIX) as held:
        wait_for(is_taken, "no other test has a gibibyte", 240.0)
        yield


class Server:
    """``tensord serve`` as a process of its own, on a fresh instance, with its Unix socket alone."""

    def __init__(self, **settings: str) -> None:
        self.instance = f"py-{TEST_TOKEN}-{secrets.token_hex(6)}"
        # What the server may load files from.
        self._models = tempfile.TemporaryDirectory(prefix="tensord-models-")  # cleaned up in stop
        self.models = Path(self._models.name)
        self.environ = {
            "TENSORD_INSTANCE": self.instance,
            "TENSORD_MODEL_ROOTS": str(self.models),
            "TENSORD_SHM_DIR": str(SHM_DIRECTORY),
            "TENSORD_PORT": "",
            "TENSORD_RESERVE_BYTES": "0",
            **settings,
        }
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # closed in stop
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def url(self) -> str:
        return f"unix://{SHM_DIRECTORY}/tensord.{self.instance}/http.sock"

    def connect(self, **options: Any) -> tensord.Client:
        return tensord.connect(self.url, **options)

    def start(self) -> None:
        assert Path(TENSORD[0]).exists(), f"{TENSORD[0]} is missing: run `npm ci` in {REPOSITORY}"
        self._process = subprocess.Popen(
            [*TENSORD, "serve"],
            cwd=REPOSITORY,
            env={**os.environ, **self.environ},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        try:
            self.connect(wait=DEADLINE_SECONDS).close()
        except tensord.ServerUnavailable as error:
            raise AssertionError(f"the server did not start:\n{self.log()}") from error

    @property
    def tcp_url(self) -> str:
        """Where it listens beside the socket, if it was started with a ``TENSORD_PORT``."""
        match: re.Match[str] = wait_for(lambda: re.search(r"http://[^\s\"/]+", self.log()), "the server says its port")
        return match[0]

    def log(self) -> str:
        # Without moving the offset, which the server shares.
        return os.pread(self._log.fileno(), 1 << 24, 0).decode(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(DEADLINE_SECONDS)
        self._process = None

    def stop(self) -> None:
        """Ends and purges the instance; fails if anything of it is left."""
        if self._process is not None:
            self.signal(signal.SIGTERM)
        purged = subprocess.run(
            [*TENSORD, "purge", "--instance", self.instance],
            cwd=REPOSITORY,
            env={**os.environ, **self.environ},
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
            check=False,
        )
        log = self.log()
        self._log.close()
        self._models.cleanup()
        assert purged.returncode == 0, f"{purged.stdout}{purged.stderr}\n{log}"
        assert self.names() == []

    def names(self) -> list[str]:
        """Everything in the shared-memory directory that carries the instance's name."""
        return sorted(path.name for path in SHM_DIRECTORY.glob(f"tensord.{self.instance}*"))

    def region_names(self) -> list[str]:
        return [name for name in self.names() if name != f"tensord.{self.instance}"]


_PRELUDE = """
import json, os, signal, sys
import numpy as np
import tensord
def say(value): print(json.dumps(value), flush=True)
def hear(): return json.loads(sys.stdin.readline() or "null")
"""


class Child:
    """A Python process that runs ``script``, which can ``say`` and ``hear`` JSON values. Killed at the block's end.

    It is forked where numpy, tensord and the modules of ``imported`` are there already; with a command before it, or
    ``fresh``, it is started, and imports them.
    """

    def __init__(
        self,
        script: str,
        *,
        environ: dict[str, str] | None = None,
        prefix: tuple[str, ...] = (),
        fresh: bool = False,
        imported: tuple[str, ...] = (),
    ) -> None:
        (stdin, to_child), (from_child, stdout), (errors, stderr) = os.pipe(), os.pipe(), os.pipe()
        streams = (stdin, stdout, stderr)
        whole = {**os.environ, **(environ or {})}
        self._process: Forked | subprocess.Popen[bytes]
        try:
            # A group of its own: what it has started must not outlive the test, and keep its output open.
            if prefix or fresh:
                command = [*prefix, sys.executable, "-W", "error", "-c", _PRELUDE + script]
                to = dict(zip(("stdin", "stdout", "stderr"), streams, strict=True))
                self._process = subprocess.Popen(command, env=whole, start_new_session=True, **to)
            else:
                self._process = Forked(_PRELUDE + script, environ=whole, streams=streams, imported=imported)
        finally:
            for fd in streams:
                os.close(fd)
        self._stdin = os.fdopen(to_child, "w")
        self._streams = [os.fdopen(from_child), os.fdopen(errors)]
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._errors: list[str] = []
        pumps: list[Callable[[Any], None]] = [self._lines.put, self._errors.append]
        self._threads = [
            threading.Thread(target=self._pump, args=(stream, put))
            for stream, put in zip(self._streams, pumps, strict=True)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def has_said(self) -> bool:
        """Whether it said something that was not heard yet, or has ended."""
        return not self._lines.empty()

    def hear(self) -> Any:
        """The next value that the child says."""
        line = self._lines.get(timeout=DEADLINE_SECONDS)
        if line is None:
            self._process.wait(DEADLINE_SECONDS)
            raise AssertionError(f"the child ended with {self._process.returncode}:\n{self.errors()}")
        return json.loads(line)

    def say(self, value: Any) -> None:
        self._stdin.write(json.dumps(value) + "\n")
        self._stdin.flush()

    def errors(self) -> str:
        self._threads[1].join(DEADLINE_SECONDS)
        return "".join(line for line in self._errors if line is not None)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(DEADLINE_SECONDS)

    def finish(self) -> None:
        """Waits for its end, which must be a good one."""
        self._stdin.close()
        code = self._process.wait(DEADLINE_SECONDS)
        assert code == 0, f"the child ended with {code}:\n{self.errors()}"

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(DEADLINE_SECONDS)
        for thread in self._threads:
            thread.join(DEADLINE_SECONDS)
        for stream in (self._stdin, *self._streams):
            with contextlib.suppress(BrokenPipeError):
                stream.close()

    @staticmethod
    def _pump(stream: IO[str], put: Callable[[Any], None]) -> None:
        for line in stream:
            put(line)
        put(None)

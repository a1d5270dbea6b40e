"""A server process on an instance of its own, which ends with this process however that ends."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tensord._client import Client
from tensord._connect import connect
from tensord._errors import FeatureUnavailable, RegionNotFound, ServerUnavailable

POLL_SECONDS = 0.25
STOP_SECONDS = 30.0


class PrivateServer:
    """A running server that nobody else knows. Made by ``private_server``; its methods may be called from any thread.

    ``instance`` is its name, ``url`` where it listens (``unix:///…``), ``environ`` what the environment of a process
    must have in which ``tensord.connect()`` is to find it, and ``pid`` its process.
    """

    def __init__(self, command: Sequence[str], shm_directory: Path, settings: Mapping[str, str]) -> None:
        self._command = [*command]
        self.instance: Final = f"test-{secrets.token_hex(8)}"
        self._directory = shm_directory / f"tensord.{self.instance}"
        self.url: Final = f"unix://{self._directory}/http.sock"
        self.environ: Final[Mapping[str, str]] = {
            "TENSORD_INSTANCE": self.instance,
            "TENSORD_SHM_DIR": str(shm_directory),
            "TENSORD_URL": self.url,
        }
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # closed in _end
        # Of the caller's settings none is meant for this one.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TENSORD_")}
        try:
            self._process = subprocess.Popen(
                [*self._command, "serve", "--ephemeral"],
                env={**inherited, "TENSORD_PORT": "", **self.environ, **settings},
                # Its end is what the server waits for. No child of this process has it by exec.
                stdin=subprocess.PIPE,
                stdout=self._log,
                stderr=self._log,
            )
        except OSError as error:
            self._log.close()
            raise FeatureUnavailable(f"Cannot start {self._command[0]!r}: {error.strerror}", hint=INSTALL) from error
        self.pid: Final = self._process.pid

    def connect(self, **options: Any) -> Client:
        """A client of it; ``options`` are those of ``tensord.connect``. The caller's to close."""
        return connect(self.url, **options)

    def log(self) -> str:
        """What the server has written so far: its log, a line of JSON for each entry."""
        # Not through the file's position, which is where the server writes.
        descriptor = self._log.fileno()
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode(errors="replace")

    def clear(self) -> None:
        """Deletes all regions and unregisters all models but the default one, so that the next test finds none.

        What is still mapped loses its name, and its bytes go with its last mapping.
        """
        with self.connect(session=False) as client:
            for region in client.list():
                with contextlib.suppress(RegionNotFound):
                    client.delete(region)
            for model in client.models():
                if model.name != "default":
                    client.unregister_model(model.name, drain=True)

    def _wait_until_ready(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self._process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(ServerUnavailable):
                self.connect(session=False, wait=POLL_SECONDS).close()
                return
        lines = "\n".join(self.log().splitlines()[-10:])
        status = self._process.poll()
        how = f"is not ready after {seconds:g} s" if status is None else f"ended with status {status}"
        raise ServerUnavailable(
            f"Cannot start a private server: it {how}, and wrote:\n{lines}",
            hint="`tensord doctor` says what is wrong with this host. A slow one may take a larger `timeout`.",
        )

    def _end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
        # It was killed, or could not purge what it had.
        if self._directory.exists():
            subprocess.run([*self._command, "purge"], env={**os.environ, **self.environ}, check=False)


INSTALL = "Install the server beside this package: pip install 'tensord[server]'. Or say `executable`."


def find_executable() -> str:
    """The path of the server's executable: beside this Python, else on the ``PATH``. Raises ``FeatureUnavailable``."""
    beside = shutil.which("tensord", path=sysconfig.get_path("scripts"))
    found = beside or shutil.which("tensord")
    if found is None:
        raise FeatureUnavailable(
            "Cannot find the server: no `tensord` is beside this Python or on the PATH", hint=INSTALL
        )
    return found


@contextlib.contextmanager
def private_server(
    *,
    executable: str | Sequence[str] | None = None,
    shm_directory: str | os.PathLike[str] = "/dev/shm",
    settings: Mapping[str, str] | None = None,
    timeout: float = 60.0,
) -> Iterator[PrivateServer]:
    """Runs a server that nobody else knows, for the length of a ``with`` block. Any number may run beside each other.

    It has a Unix socket alone, and an instance of its own in ``shm_directory``. It ends with the block, and also when
    this process is killed; either way nothing of it is left. ``executable`` is the server, or the beginning of its
    command line, else ``tensord`` beside this Python or on the ``PATH``; ``settings`` are further ``TENSORD_*``
    variables of it; ``timeout`` is how many seconds it may take until it is ready.

    Raises ``FeatureUnavailable`` where there is no server to run, ``ServerUnavailable`` with the end of its log when it
    does not start.
    """
    command = [find_executable()] if executable is None else [executable] if isinstance(executable, str) else executable
    server = PrivateServer(command, Path(shm_directory), settings or {})
    try:
        server._wait_until_ready(timeout)
        yield server
    finally:
        server._end()

"""Python processes that are forked from one that has imported numpy and the client, as web servers' workers are from
their master: to import these takes a quarter of a second of the processor, and torch two. Such a child has connected,
mapped and opened nothing; it has its own environment, streams and process group, and ends as any other does.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping

# What the loader and the interpreter read when a process starts, and never again.
_READ_AT_START = ("LD_", "PYTHON", "MALLOC_", "OPENBLAS_", "OMP_")

_MOTHER = """
import contextlib, gc, json, os, signal, socket, sys
def serve(door, modules):
    for module in modules:
        __import__(module)
    gc.collect()
    # What every child shares is not walked through, and so not copied, by its collections.
    gc.freeze()
    while True:
        text, fds, _, _ = socket.recv_fds(door, 1 << 16, 3)
        while text and not text.endswith(b"\\n"):
            text += door.recv(1 << 16)
        if not text:
            os._exit(0)
        asked = json.loads(text)
        if "ended" in asked:
            pid, status = os.waitpid(asked["ended"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            answer = os.fork()
            # By both, so that it leads its group before anybody hears of it.
            with contextlib.suppress(ProcessLookupError):
                os.setpgid(answer, answer)
            if answer == 0:
                door.close()
                for number, fd in enumerate(fds):
                    os.dup2(fd, number)
                    os.close(fd)
                os.chdir(asked["cwd"])
                os.environ.clear()
                os.environ.update(asked["environ"])
                return asked["script"]
            for fd in fds:
                os.close(fd)
        door.sendall(json.dumps(answer).encode() + b"\\n")
# Modules of the tests are among what it imports.
sys.path.append(sys.argv[2])
script = serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[3:])
sys.argv[1:] = []
del serve, contextlib, gc, socket
exec(script)
"""


class _Mother:
    """Asked by one thread at a time."""

    def __init__(self, environ: Mapping[str, str], imported: tuple[str, ...]) -> None:
        self._lock = threading.Lock()
        self._door, hers = socket.socketpair()
        with hers:
            arguments = [str(hers.fileno()), os.path.dirname(__file__), "numpy", "tensord", *imported]
            command = [sys.executable, "-W", "error", "-c", _MOTHER, *arguments]
            # It ends with the door, and only then: not with what a terminal tells all who run in it.
            self.process = subprocess.Popen(
                command, env=environ, stdin=subprocess.DEVNULL, pass_fds=(hers.fileno(),), start_new_session=True
            )

    def end(self) -> None:
        self._door.close()
        self.process.wait()

    def ask(self, asked: object, fds: tuple[int, ...] = ()) -> int | None:
        text = json.dumps(asked).encode() + b"\n"
        with self._lock:
            sent = socket.send_fds(self._door, [text], fds)
            self._door.sendall(text[sent:])
            answer = b""
            while not answer.endswith(b"\n"):
                got = self._door.recv(64)
                assert got, f"the process that the tests fork from ended with {self.process.wait()}"
                answer += got
        number: int | None = json.loads(answer)
        return number


#: A process that was forked from the tests' own would ask by the same door: it has none.
_mothers: dict[tuple[object, ...], _Mother] = {}
_mothers_lock = threading.Lock()


def _mother_of(environ: Mapping[str, str], imported: tuple[str, ...]) -> _Mother:
    read = {name: value for name, value in environ.items() if name.startswith(_READ_AT_START)}
    key = (os.getpid(), imported, *sorted(read.items()))
    with _mothers_lock:
        if key not in _mothers:
            # The rest is the child's: what a test sets for the client must not be there when it is imported.
            common = {name: value for name, value in environ.items() if not name.startswith("TENSORD_")}
            _mothers[key] = _Mother(common, imported)
            atexit.register(_mothers[key].end)
        return _mothers[key]


class Forked:
    """A process that runs ``script`` in ``__main__``: what of ``subprocess.Popen`` the tests ask for. It leads a group
    of its own. ``imported`` names modules that are there already, beside numpy and tensord.
    """

    def __init__(
        self,
        script: str,
        *,
        environ: Mapping[str, str],
        streams: tuple[int, int, int],
        imported: tuple[str, ...] = (),
    ) -> None:
        self._mother = _mother_of(environ, imported)
        self.returncode: int | None = None
        asked = {"script": script, "environ": dict(environ), "cwd": os.getcwd()}
        pid = self._mother.ask(asked, streams)
        assert pid is not None
        self.pid = pid

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._mother.ask({"ended": self.pid})
        return self.returncode

    def wait(self, timeout: float) -> int:
        begin = time.monotonic()
        while (code := self.poll()) is None:
            waited = time.monotonic() - begin
            if waited > timeout:
                raise subprocess.TimeoutExpired(f"the process {self.pid}", timeout)
            time.sleep(min(max(0.002, waited / 10), 0.1))
        return code

    def kill(self) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

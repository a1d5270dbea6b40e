"""What this program tells the server of itself: for people who ask who maps what, never for decisions."""

from __future__ import annotations

import codecs
import os
import socket
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from tensord._version import __version__

if TYPE_CHECKING:
    from tensord._wire import schemas

MAX_CHARACTERS = 256
# Loaded while it can be: a worker that has dropped its uid may not read Python's library any more.
codecs.lookup("utf-16-le")
_NO_SCRIPT = frozenset({"", "-c", "-m"})


def describe_program(name: str | None) -> schemas.ClientRequest:
    """A session's ``client``: ``name`` or the script's, and this process's pid, which is another one after a fork."""
    # Embedded, or set by somebody, there may be no script, and its name may be any bytes.
    script = os.path.basename(str(next(iter(getattr(sys, "argv", ())), "")))
    namespace = _pid_namespace()
    return {
        "name": _to_shown(name or ("python" if script in _NO_SCRIPT else script)),
        "pid": os.getpid(),
        **({} if namespace is None else {"pid_namespace": namespace}),
        "hostname": _to_shown(socket.gethostname()),
        "version": __version__,
    }


def session_name(environ: Mapping[str, str] | None = None) -> str | None:
    """What the environment calls this process's session, for where its host name and pid say nothing: each container of
    a pod is pid 1 on one host name.
    """
    environ = os.environ if environ is None else environ
    return _to_shown(environ.get("TENSORD_SESSION_NAME", "")) or None


def _pid_namespace() -> str | None:
    """Where this process is called by its pid: in a container another one is called so on the host."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return None


def _to_shown(text: str) -> str:
    """What people can read of it: control characters and half surrogates are no part of a name."""
    shown = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
    # Counted as the server does, in units of UTF-16.
    return shown.encode("utf-16-le")[: 2 * MAX_CHARACTERS].decode("utf-16-le", "ignore")

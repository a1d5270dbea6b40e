"""What this program tells the server of itself: for people who ask who maps what, never for decisions."""

from __future__ import annotations

import os
import socket
import sys
from typing import TYPE_CHECKING

from tensord._version import __version__

if TYPE_CHECKING:
    from tensord._wire import schemas

MAX_CHARACTERS = 256
_NO_SCRIPT = frozenset({"", "-c", "-m"})


def describe_program(name: str | None) -> schemas.ClientRequest:
    """A session's ``client``: ``name`` or the script's, and this process's pid, which is another one after a fork."""
    script = os.path.basename(getattr(sys, "argv", [""])[0])
    return {
        "name": (name or ("python" if script in _NO_SCRIPT else script))[:MAX_CHARACTERS],
        "pid": os.getpid(),
        "hostname": socket.gethostname()[:MAX_CHARACTERS],
        "version": __version__,
    }

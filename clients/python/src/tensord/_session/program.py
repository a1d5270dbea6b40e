"""What this program tells the server of itself: for people who ask who maps what, never for decisions."""

from __future__ import annotations

import os
import socket
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

MAX_CHARACTERS = 256
_NO_SCRIPT = frozenset({"", "-c", "-m"})


def describe_program(name: str | None) -> dict[str, Any]:
    """A session's ``client``: ``name`` or the script's, and this process's pid, which is another one after a fork."""
    script = os.path.basename(getattr(sys, "argv", [""])[0])
    facts = {
        "name": (name or ("python" if script in _NO_SCRIPT else script))[:MAX_CHARACTERS],
        "pid": os.getpid(),
        "hostname": socket.gethostname()[:MAX_CHARACTERS],
    }
    try:
        return {**facts, "version": version("tensord")}
    except PackageNotFoundError:
        # Used from its folder, without an installation.
        return facts

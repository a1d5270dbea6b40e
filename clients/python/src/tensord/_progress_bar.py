"""A bar for whoever waits at a terminal: what ``progress=`` takes, ready-made."""

from __future__ import annotations

import sys

from tensord._arguments.checked import checked
from tensord._arguments.kinds import ByteCount

_CELLS = 30
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


@checked
def progress_bar(done_bytes: ByteCount, total_bytes: ByteCount) -> None:
    """Draws how far a load or a copy is, on one line of standard error that it goes over again, as ``progress=``.
    Where standard error is no terminal, and of what has nothing to do, it draws nothing.
    """
    if total_bytes <= 0 or not sys.stderr.isatty():
        return
    share = min(1.0, done_bytes / total_bytes)
    filled = int(share * _CELLS)
    end = "\n" if done_bytes >= total_bytes else ""
    bar = "#" * filled + "-" * (_CELLS - filled)
    sys.stderr.write(f"\r[{bar}] {int(share * 100):3} % of {_to_size(total_bytes)}{end}")
    sys.stderr.flush()


def _to_size(byte_size: int) -> str:
    size = float(byte_size)
    for unit in _UNITS:
        if size < 1024 or unit == _UNITS[-1]:
            break
        size /= 1024
    return f"{byte_size} B" if unit == "B" else f"{size:.1f} {unit}"

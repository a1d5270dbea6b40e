"""What the demo's Python processes share: JSON lines with the story that started them, and their own memory."""

from __future__ import annotations

import json
import re
import select
import sys
from pathlib import Path
from typing import Any


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def hear(*, wait: bool = True) -> str | None:
    """The next word from the story; without ``wait``, ``None`` if there is none. Its end ends this process."""
    if not wait and not select.select([sys.stdin], [], [], 0)[0]:
        return None
    line = sys.stdin.readline()
    if line == "":
        raise SystemExit
    return line.strip()


def private_bytes() -> int:
    """The memory that this process alone holds: what its end would give back (proc(5), ``smaps_rollup``)."""
    text = Path("/proc/self/smaps_rollup").read_text()
    return sum(int(kib) * 1024 for kib in re.findall(r"^Private_(?:Clean|Dirty):\s+(\d+) kB$", text, re.MULTILINE))

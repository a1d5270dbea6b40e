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


def hear() -> str:
    """The next line from the story. Its end ends this process."""
    line = sys.stdin.readline()
    if line == "":
        raise SystemExit
    return line.strip()


def hear_now() -> str | None:
    """The next line from the story, or ``None`` if it says nothing."""
    return hear() if select.select([sys.stdin], [], [], 0)[0] else None


def private_bytes() -> int:
    """The memory that this process alone holds: what its end would give back (proc(5), ``smaps_rollup``)."""
    text = Path("/proc/self/smaps_rollup").read_text()
    return sum(int(kib) * 1024 for kib in re.findall(r"^Private_(?:Clean|Dirty):\s+(\d+) kB$", text, re.MULTILINE))

"""How much of a device's memory is in use, by whichever process."""

from __future__ import annotations

import sys
from pathlib import Path

from talk import say

root = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(root / "tests/gpu"), str(root / "clients/python/tests")]

from card import find_card  # noqa: E402

say(used_bytes=find_card(sys.argv[1]).used_bytes())

"""The card that is looked at: what all processes have of its memory, by the driver's own tool; or that of the stand-in."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
# Another process's context may come or go meanwhile, and the tool rounds.
SLACK_BYTES = 4 * MIB


@dataclass(frozen=True)
class Card:
    """A device. Sizes of regions are what it is asked for; the stand-in's card is small."""

    name: str
    driver: str
    uuid: str
    region_bytes: int
    large_bytes: int

    def used_bytes(self) -> int:
        """What any process has of its memory."""
        return int(_ask("memory.used", self.uuid)) * MIB


class StandInCard(Card):
    """A stand-in's (tests/cuda/README.md): it shows that these questions are asked rightly, and nothing of a GPU."""

    def used_bytes(self) -> int:
        folder = Path(os.environ["STAND_IN_CUDA_DIR"])
        # Contexts have no size there.
        return sum(path.stat().st_size for path in folder.glob("card0/memory-*") if _is_used(path))


def find_card(uuid: str) -> Card:
    """The card of that UUID."""
    if "STAND_IN_CUDA_DIR" in os.environ:
        return StandInCard("the stand-in, no card", "none", uuid, 4 * MIB, 64 * MIB)
    name, driver, total = _ask("name,driver_version,memory.total", uuid).split(", ")
    large = 16 << 30 if int(total) * MIB > 20 << 30 else int(total) * MIB // 2
    return Card(name, driver, uuid, 1 << 30, large)


def _ask(what: str, uuid: str) -> str:
    command = [
        "nvidia-smi",
        f"--query-gpu={what}",
        "--format=csv,noheader,nounits",
        f"--id={uuid}",
    ]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _is_used(path: Path) -> bool:
    # Only where a stand-in is, which has this module beside it.
    from cuda_stand_in import is_locked

    return is_locked(path)

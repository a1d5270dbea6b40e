"""The stand-in for CUDA's driver (tests/cuda), for one test: which calls fail, which were made, what of the cards is in
use. It shows how the driver is called and what is undone. It is no evidence of what a GPU does.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from harness import REPOSITORY, wait_for

UUIDS = ("GPU-57a4d000-0000-4000-8000-000000000000", "GPU-57a4d000-0000-4000-8000-000000000001")
CARD_BYTES = 256 << 20
HAS_BINDINGS = find_spec("cuda") is not None and find_spec("cuda.bindings") is not None
#: Beside numpy and the client, what processes that use it import at their first lines.
IMPORTED = ("harness", "cuda_stand_in", "tensord.cuda", *(["cuda.bindings.driver"] if HAS_BINDINGS else []))
_F_OFD_GETLK = 36


def _build() -> tuple[str, str]:
    """The folder of the library, or the reason why there is none."""
    if not (REPOSITORY / "tests/cuda/build.mjs").exists():
        return "", "needs the stand-in driver of tests/cuda"
    built = subprocess.run(
        [str(REPOSITORY / "node_modules/.bin/bun"), "tests/cuda/build.mjs"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode in (0, 3), built.stderr
    answer = built.stdout.strip()
    return (answer, "") if built.returncode == 0 else ("", answer)


LIBRARIES, LACKS_STAND_IN = _build()


class StandIn:
    """Two cards of their own for one test, unless it says how many."""

    def __init__(self, folder: Path, devices: int = 2) -> None:
        self.folder = folder
        lines = ["driver 13000", *(f"device {uuid} {CARD_BYTES}" for uuid in UUIDS[:devices])]
        (folder / "settings").write_text("\n".join(lines) + "\n")

    @property
    def environ(self) -> dict[str, str]:
        """What leads a process to it."""
        return {
            "LD_LIBRARY_PATH": LIBRARIES,
            "STAND_IN_CUDA_DIR": str(self.folder),
            "PYTHONPATH": str(Path(__file__).parent),
        }

    def order(self, *lines: str) -> None:
        """Tells calls to fail (tests/cuda/calls.c). Each process counts its calls from now on."""
        order(self.folder, *lines)

    def in_use(self) -> list[str]:
        """What is in use of all cards, by whichever process."""
        return in_use(self.folder)


@contextlib.contextmanager
def stand_in(devices: int = 2) -> Iterator[StandIn]:
    """Fails at its end unless all of every card is free again."""
    folder = Path(tempfile.mkdtemp(prefix="tensord-cuda-"))
    try:
        made = StandIn(folder, devices)
        yield made
        wait_for(lambda: not made.in_use(), "no process has anything of a card")
    finally:
        shutil.rmtree(folder)


def order(folder: Path, *lines: str) -> None:
    # At once, so that no process reads half of it.
    (folder / "control.new").write_text("\n".join(lines) + "\n")
    os.replace(folder / "control.new", folder / "control")


def was_ordered(folder: Path, call: str) -> bool:
    """Whether an order was obeyed at this call."""
    return re.search(rf" {call} ordered: ", (folder / "log").read_text()) is not None


def calls(folder: Path) -> list[str]:
    """The functions of every call so far, in order."""
    found = (re.match(r"\d+ \d+ (\w+)(?: .*)? = \d+$", line) for line in (folder / "log").read_text().splitlines())
    return [match[1] for match in found if match is not None]


def in_use(folder: Path) -> list[str]:
    return sorted(
        f"{path.parent.name}/{path.name}" for path in folder.glob("card*/*") if path.name[0] != "." and is_locked(path)
    )


def is_locked(path: Path | str, start: int = 0, length: int = 1) -> bool:
    """Whether an open file description holds a lock of these bytes."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        asked = struct.pack("@hhqqi0q", fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
        return bool(struct.unpack("@hhqqi0q", fcntl.fcntl(fd, _F_OFD_GETLK, asked))[0] != fcntl.F_UNLCK)
    finally:
        os.close(fd)

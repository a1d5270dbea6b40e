"""Looks at a card, row by row, and prints them as ``docs/gpu-verification.md`` has them: ``python tests/gpu/run.py``, or
with ``--only "part of a name"`` those rows alone.

Beside the repository it takes Python with numpy and websockets, and ``node_modules`` with Bun. Where the driver shows no
usable card it says so; with ``REQUIRE_GPU=1`` that is a failure.
"""

from __future__ import annotations

import argparse
import datetime
import os
import subprocess
import sys
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# The last is there where `npm run test:gpu -- --pack` has packed it.
sys.path[:0] = [str(ROOT / folder) for folder in ("clients/python/src", "clients/python/tests", "python")]
# For the children, too.
os.environ["PYTHONPATH"] = os.pathsep.join([*sys.path[:3], os.environ.get("PYTHONPATH", "")])

# They enter their rows.
import elastic_rows
import rate_rows
from card import find_card
from harness import TENSORD, Server, wait_for
from rows import ROWS, Bench, Row, Skipped

CONFORMANCE = "Storage on the device does all that the conformance suite asks of a storage"


def find_uuid(server: Server) -> str | None:
    """The first device whose memory this server can hand out."""
    with server.connect() as client:
        # A server does not wait for its driver.
        wait_for(lambda: client.devices().reason != "driver-asked", "the driver has answered")
        return next((device.uuid for device in client.devices().items if device.usable), None)


def run_conformance() -> str:
    bun = TENSORD[0] if "TEST_EXECUTABLE" not in os.environ else str(ROOT / "node_modules/.bin/bun")
    files = ["tests/conformance/storage.test.ts", "tests/conformance/regions.test.ts"]
    done = subprocess.run(
        [bun, "test", "--timeout", "100000", *files, "-t", os.environ.get("TEST_CONFORMANCE", "cuda_vmm")],
        cwd=ROOT,
        env={**os.environ, "TEST_DEVICE_DRIVER": "card"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return next(line for line in done.stderr.splitlines() if line.strip().endswith(" pass")).strip()


def choose_rows() -> dict[str, Row]:
    """The rows that the command line asks for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", metavar="PART", action="append", default=[], help="rows with this in their names")
    parts = parser.parse_args().only
    rows = {**ROWS, CONFORMANCE: lambda _: run_conformance()}
    for part in parts:
        if not any(part in what for what in rows):
            parser.error(f"Cannot choose a row by {part!r}: none has that in its name. See docs/gpu-verification.md")
    return {what: look for what, look in rows.items() if not parts or any(part in what for part in parts)}


def main() -> int:
    chosen = choose_rows()
    server = Server()
    server.start()
    failed = 0
    try:
        uuid = find_uuid(server)
        if uuid is None:
            print(
                "No device whose memory can be handed out: `tensord doctor` says why.",
                file=sys.stderr,
            )
            return 1 if os.environ.get("REQUIRE_GPU") else 0
        card = find_card(uuid)
        date = datetime.datetime.now(datetime.UTC).date().isoformat()
        bench = Bench(server, card)
        for what, look in chosen.items():
            try:
                seen = look(bench)
            except Skipped as skipped:
                print(f"skipped: {what}: {skipped}", file=sys.stderr, flush=True)
                continue
            except Exception:
                failed += 1
                bench.delete()
                print(
                    f"FAILED: {what}\n{traceback.format_exc()}",
                    file=sys.stderr,
                    flush=True,
                )
                continue
            command = "`npm run test:gpu`"
            print(
                f"| {what} | {card.name} | {card.driver} | {date} | {command} | {seen} |",
                flush=True,
            )
    finally:
        server.stop()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

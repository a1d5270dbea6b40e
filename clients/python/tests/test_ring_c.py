"""A program in C at the other side of a ring: ``clients/c/tensord-ring.h`` reads what this client writes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import DEADLINE_SECONDS, REPOSITORY, Server

import tensord
from tensord._ring.packed import to_mark

COMPILER = next(filter(None, map(shutil.which, ("gcc", "clang", "cc"))), None)
# As tests/harness/c-program.ts has it.
STRICT = ["-std=c11", "-pedantic", "-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror", "-O1", "-g"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]

pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs a C compiler")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("c") / "example-ring")
    # Where the sanitizers' libraries are not there, the warnings have to do.
    for flags in (SANITIZERS, []):
        command = [str(COMPILER), *STRICT, *flags, "-o", path, str(REPOSITORY / "clients/c/example-ring.c")]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode == 0:
            return path
    raise AssertionError(result.stderr)


@pytest.fixture
def receiver(program: str, server: Server, client: tensord.Client) -> Iterator[tuple[tensord.Ring, Any]]:
    """A ring, and the program that receives from it; a line of it is read by ``hear``."""
    with client.ring(slots=4, slot_bytes=64, name="requests", ttl=600) as ring:
        process = subprocess.Popen(
            [program, "requests"],
            env={"PATH": os.environ["PATH"], **server.environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield ring, process
        finally:
            process.kill()
            process.communicate(timeout=DEADLINE_SECONDS)


def test_it_reads_packed_references_as_the_vectors_have_them(program: str) -> None:
    vectors = json.loads(Path(REPOSITORY / "tests/vectors/ring-layout-2.json").read_text())
    good, refused = vectors["packed"], vectors["refused"]
    told = subprocess.run(
        [program, "--vectors"],
        input="".join(f"{case['hex']}\n" for case in (*good, *refused)),
        capture_output=True,
        text=True,
        check=True,
        timeout=DEADLINE_SECONDS,
    ).stdout.splitlines()
    for case, line in zip(good, told, strict=False):
        numbers = [case[name] for name in ("kind", "generation", "byte_offset", "byte_size", "dev", "ino")]
        mark = to_mark(case["region"]).hex()
        assert line == f"{case['dtype']} {case['shape']} {' '.join(map(str, numbers))} {mark}", case["note"]
    assert told[len(good) :] == ["refused"] * len(refused)


def test_it_receives_what_is_sent_and_answers_requests(receiver: tuple[tensord.Ring, Any]) -> None:
    ring, process = receiver
    hear = lambda: process.stdout.readline().rstrip("\n")  # noqa: E731
    assert hear() == "open", process.stderr.read()
    ring.send(np.zeros((2, 3), np.uint8))
    assert hear() == "U8 [2, 3]"
    for count in range(9):
        with ring.call(np.arange(count, dtype=np.float32)) as call:
            assert call.result(DEADLINE_SECONDS).tolist() == [2.0 * number for number in range(count)]
        assert hear() == f"F32 [{count}] request"
    with ring.call([1]) as call, pytest.raises(tensord.RequestFailed, match="its worker closed it without an answer"):
        call.result(DEADLINE_SECONDS)
    assert hear() == "I64 [1] request"
    ring.close()
    assert hear() == "lost 0"
    assert process.wait(DEADLINE_SECONDS) == 0, process.stderr.read()

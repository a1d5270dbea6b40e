"""The types of requests and answers are those of the document."""

from __future__ import annotations

import re
import subprocess
from typing import get_args

from harness import REPOSITORY

import tensord
from tensord._events.event import OPENED
from tensord._tensor import dtype as dtypes
from tensord._wire import schemas


def test_the_schemas_are_what_the_document_makes() -> None:
    checked = subprocess.run(
        [str(REPOSITORY / "node_modules/.bin/bun"), "clients/python/scripts/generate.mjs", "--check"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr


def test_this_package_knows_every_dtype_of_the_document() -> None:
    assert set(dtypes._TABLE) == set(get_args(schemas.Dtype))


def test_what_an_event_says_of_its_types_is_what_the_document_has() -> None:
    said: set[str] = set()
    prefix = ""
    for word in re.findall(r"``([a-z.]+)``", (tensord.Event.__doc__ or "").split("``subject``")[0])[1:]:
        if word.startswith("tensord.") and word.endswith("."):
            prefix = word
        else:
            said.add(word if word.startswith("tensord.") else prefix + word)
    # The first frame of a stream, which is handed to nobody.
    assert said | {OPENED} == set(schemas.KnownEvents.__annotations__)

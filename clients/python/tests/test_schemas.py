"""The types of requests and answers are those of the document."""

from __future__ import annotations

import subprocess
from typing import get_args

from harness import REPOSITORY

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

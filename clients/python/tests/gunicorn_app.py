"""What ``test_gunicorn.py`` has gunicorn serve: each worker gets the weights at its first request, and one builds them.

Loaded once, in the master, by ``--preload``: there the client has a session and a mapping of its own, and a thread that
holds them, when the workers are forked.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

import tensord

WEIGHTS = int(os.environ["WEIGHTS"])

client = tensord.connect(name="web")
masters = client.create("masters", np.arange(4))
kept: list[tensord.Region] = []


def build() -> dict[str, Any]:
    """Leaves a line for each time that it is called."""
    with open(os.environ["BUILD_LOG"], "a") as log:
        log.write(f"{os.getpid()}\n")
    return {"weights": np.arange(WEIGHTS, dtype=np.int64)}


def application(_: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answers who served it, and what of the weights it saw."""
    if not kept:
        kept.append(client.get_or_create("weights", build, timeout=180))
    assert client.session is not None
    answer = {
        "pid": os.getpid(),
        "region": kept[0].id,
        "session": client.session.id,
        "seen": [int(kept[0]["weights"].numpy()[-1]), int(masters.numpy()[3])],
    }
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(answer).encode()]

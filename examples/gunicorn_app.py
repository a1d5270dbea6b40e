"""gunicorn: all workers serve from one copy, which one of them has built. ``gunicorn --workers 4 gunicorn_app:application``"""

import json
import os

import numpy as np

import tensord

table = None


def build():
    """What takes long: it runs once on this machine, however many workers ask."""
    return {"squares": np.arange(1 << 20, dtype=np.int64) ** 2}


def application(environ, start_response):
    # At the first request, so that it is the worker's own, also under --preload.
    global table
    if table is None:
        table = tensord.get_or_create("example-gunicorn", build, timeout=60)
    answer = {"pid": os.getpid(), "region": table.id, "last": int(table["squares"].numpy()[-1])}
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(answer).encode()]

"""uvicorn, or any other ASGI server: as with gunicorn, without a framework. ``uvicorn --workers 4 uvicorn_app:application``"""

import asyncio
import json
import os

import numpy as np

import tensord

table = None


def build():
    """What takes long: it runs once on this machine, however many workers ask."""
    return {"squares": np.arange(1 << 20, dtype=np.int64) ** 2}


async def application(scope, receive, send):
    global table
    if scope["type"] == "lifespan":
        # Before the first request, in a thread, since who asks later waits for who builds.
        await receive()
        table = await asyncio.to_thread(tensord.get_or_create, "example-uvicorn", build, timeout=60)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    answer = {"pid": os.getpid(), "region": table.id, "last": int(table["squares"].numpy()[-1])}
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(answer).encode()})

"""What schemathesis cannot know of this API: who asks for what, which owners go together, and what would wait or stay."""

import os
import re
from typing import Any

import schemathesis

ADMIN = f"Bearer {os.environ['FUZZ_ADMIN_TOKEN']}"
WORKER = f"Bearer {os.environ['FUZZ_WORKER_TOKEN']}"
# The model of the client that must not be disturbed. Its regions are another caller's, but models are all the admin's.
WITNESS = os.environ["FUZZ_WITNESS_MODEL"]
ADMIN_OPERATIONS = {"registerModel", "changeModel", "unregisterModel", "diagnose", "getMetrics"}
# No region has the ETag of the document's examples, so that nothing would ever be found behind it.
EXAMPLE_ETAG = "reg_abcdefghijklmnopqrstuvwxyz."
UNKNOWN_OPERATION = "op_" + 26 * "a"
LONGEST_WAIT_MS = 20
LARGEST_BYTES = 65536
LEAST_LIMIT_BYTES = 2**40
OWNERS = ("ttl_ms", "linger_ms", "persist")


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: Any, kwargs: dict[str, Any]) -> None:
    """The last word on every request, whatever it was made of."""
    operation = case.operation.definition.raw.get("operationId")
    headers = {name.lower(): value for name, value in (case.headers or {}).items()}
    case.headers["Authorization"] = ADMIN if operation in ADMIN_OPERATIONS else WORKER
    if EXAMPLE_ETAG in headers.get("if-match", ""):
        drop(case.headers, "if-match")
    if re.search(r"wait\s*=\s*\"?\d", headers.get("prefer", "")):
        drop(case.headers, "prefer")
    # A stream never ends; tests of its own judge it.
    if "event-stream" in headers.get("accept", ""):
        drop(case.headers, "accept")
    if operation in ADMIN_OPERATIONS and (case.path_parameters or {}).get("model") == WITNESS:
        case.path_parameters["model"] = "default"
    # To delete an operation is to cancel it: one that has ended is told of for a while, which would be taken for a mistake.
    if operation == "cancelOperation" and case.meta.phase.name.value == "stateful":
        case.path_parameters["operation"] = UNKNOWN_OPERATION
    if isinstance(case.body, dict):
        if isinstance(case.body.get("deadline_ms"), int):
            case.body["deadline_ms"] = min(case.body["deadline_ms"], LONGEST_WAIT_MS)
        # Without memory nobody makes anything in it any more.
        if operation == "changeModel" and isinstance(case.body.get("memory_limit_bytes"), int | float):
            case.body["memory_limit_bytes"] += LEAST_LIMIT_BYTES
        if case.meta.phase.name.value == "stateful":
            if operation == "createRegion":
                case.body = possible(case.body)
            # Its 404 would be taken for the region's.
            if operation == "takeLease":
                case.body.pop("session", None)


def possible(body: dict[str, Any]) -> dict[str, Any]:
    """A creation that may succeed, so that there is something for the requests after it: rules that are sentences only."""
    kept = dict(body)
    owners = [owner for owner in OWNERS if kept.get(owner)]
    for owner in OWNERS:
        if owner != (owners or ["ttl_ms"])[0]:
            kept.pop(owner, None)
    if not owners:
        kept["ttl_ms"] = 600_000
    if kept.get("persist"):
        kept.setdefault("name", "kept")
    # A model that is registered and a session that lives are not to be had by chance.
    for word in ("model", "session", "claim", "huge_pages", "handoff_ms"):
        kept.pop(word, None)
    if kept.get("storage") not in ("shm", "memfd", "heap"):
        kept.pop("storage", None)
    if "tensors" in kept:
        kept.pop("byte_size", None)
    elif isinstance(kept.get("byte_size"), int | float):
        kept["byte_size"] = int(kept["byte_size"]) % LARGEST_BYTES
    return kept


def drop(headers: Any, name: str) -> None:
    """Takes a header away, however it is written."""
    for key in [key for key in headers if key.lower() == name]:
        del headers[key]

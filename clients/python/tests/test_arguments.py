"""Whatever is passed to a public call is of its kind or refused at once, with its value quoted. Every call and every
parameter is tried: a new one fails here until the table says what it takes.
"""

from __future__ import annotations

import inspect
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from harness import Server

import tensord
import tensord.onnx
import tensord.torch
from tensord import cuda
from tensord._wire.operation import parse_operation

# What people pass by mistake, and what must not come through by accident.
JUNK: dict[str, Any] = {
    "None": None,
    "True": True,
    "5": 5,
    "-1": -1,
    "1.5": 1.5,
    "nan": math.nan,
    "inf": math.inf,
    "-inf": -math.inf,
    "huge": 10**400,
    "digits": 10**5000,
    "text": "text",
    "": "",
    "path": "org/name",
    "..": "..",
    "line": "a\nb",
    "half": "\ud800",
    "bytes": b"text",
    "list": [1, 2],
    "texts": ["a", "b"],
    "pair": ("a", 2),
    "set": {1, 2},
    "dict": {1: 2},
    "labels": {"a": "b"},
    "removal": {"a": None},
    "surrogate label": {"a": "\ud800"},
    "object": object(),
    "class": int,
    "function": len,
    "array": np.arange(6.0).reshape(2, 3),
    "objects": np.array([None]),
    "records": np.zeros(2, [("a", "f4")]),
}

NAMES = {"text"}
OR_NONE = {"None"}
SECONDS = {"5", "1.5"}
TIMES = SECONDS | {"inf", "huge", "digits"}
COUNTS = {"5"}
FLAGS = {"True"}
TEXTS = {"text", "", "path", "..", "line"}
DTYPES = {"class"}
ARRAYS = {"True", "5", "-1", "1.5", "nan", "inf", "-inf", "list", "array"}

# What each parameter takes of it.
TAKES: dict[str, set[str]] = {
    "name": NAMES,
    "model": NAMES,
    "version": OR_NONE | {"text", "", ".."},
    "region": NAMES,
    "regions": {"texts"},
    "path": {"text", "path", "..", "line"},
    **dict.fromkeys(("region_id", "operation_id", "device_uuid"), TEXTS),
    "progress": OR_NONE | {"function", "class"},
    **dict.fromkeys(("ttl", "linger", "handoff", "deadline", "session_ttl"), OR_NONE | SECONDS),
    **dict.fromkeys(("wait", "retry"), TIMES),
    "timeout": OR_NONE | TIMES,
    **dict.fromkeys(("persist", "strict", "writable", "checksum", "stock_writable", "drain", "dry_run"), FLAGS),
    **dict.fromkeys(("reconnect", "start", "private", "read_only", "rebuild"), FLAGS),
    "evictable": FLAGS,
    "raw": FLAGS,
    **dict.fromkeys(("packed", "only_new"), FLAGS),
    "reason": TEXTS,
    "hand_off": OR_NONE | FLAGS,
    **dict.fromkeys(("slots", "slot_bytes", "byte_size", "byte_offset", "count"), COUNTS),
    **dict.fromkeys(("done_bytes", "total_bytes"), COUNTS),
    **dict.fromkeys(("capacity", "page_size", "minimum", "maximum"), OR_NONE | COUNTS),
    "moves": FLAGS,
    "if_match": OR_NONE | COUNTS,
    **dict.fromkeys(("quota_bytes", "memory_limit_bytes"), OR_NONE | COUNTS),
    **{name: set() for name in ("if_exists", "on_full", "mode", "advice", "ref", "attachment")},
    "pool": OR_NONE | TEXTS,
    "limits": OR_NONE | {"removal"},
    "labels": OR_NONE | {"labels"},
    "label": OR_NONE | {"texts"},
    "state": OR_NONE,
    "session": OR_NONE | TEXTS,
    "types": OR_NONE | TEXTS | {"texts"},
    "token": OR_NONE | {"text", "path", ".."},
    **dict.fromkeys(("storage", "huge_pages", "device", "hold"), OR_NONE),
    "after": OR_NONE | TEXTS,
    "url": OR_NONE,
    "hold": OR_NONE,
    "data": ARRAYS,
    "array": ARRAYS,
    "tensors": set(),
    "shape": {"5", "list"},
    "dtype": DTYPES,
    **{name: {"function", "class"} for name in ("build", "call", "chore", "register")},
    "unregister": OR_NONE | {"function", "class"},
    **dict.fromkeys(("build_empty", "configure"), OR_NONE | {"function", "class"}),
    "client": OR_NONE,
    # What JSON has.
    "fingerprint": TEXTS
    | FLAGS
    | {"5", "-1", "1.5", "huge", "half", "list", "texts", "pair"}
    | {"dict", "labels", "removal", "surrogate label"},
    "module": set(),
}
# Where the same word takes something else.
EXCEPTIONS: dict[str, set[str]] = {
    "connect.session": FLAGS,
    "connect.name": OR_NONE | {"text", "path", ".."},
    "Client.create.name": OR_NONE | NAMES,
    **{f"Client.{call}.name": OR_NONE | NAMES for call in ("ring", "copy", "load", "load_model")},
    "Region.to_device.name": OR_NONE | NAMES,
    "onnx.session.name": OR_NONE | NAMES,
    "onnx.session.fingerprint": OR_NONE | TAKES["fingerprint"],
    "Client.operations.model": OR_NONE | NAMES,
    "Region.to_device.device": set(),
    **{f"Client.{call}.device": set() for call in ("pool", "delete_pool")},
    "Client.pools.model": OR_NONE | NAMES,
    **dict.fromkeys(("Pool.map.byte_offset", "SharedPool.map.byte_offset"), OR_NONE | COUNTS),
    "PoolTensor.copy_from_host.data": set(JUNK),
    **{f"Client.{call}": OR_NONE | NAMES for call in ("list.model", "list.name", "evict.model", "events.model")},
    "Client.change.evictable": OR_NONE | FLAGS,
    "Client.change.labels": OR_NONE | {"labels", "removal"},
    "Client.attach.timeout": TIMES,
    "DeviceTensor.copy_from_host.data": set(JUNK),
    "DeviceRegion.copy_from_host.data": set(JUNK),
    **dict.fromkeys(("Client.attach.region", "attach.region"), NAMES | {"texts"}),
    "Client.seal.if_match": OR_NONE | {"list"},
    "attach.timeout": TIMES,
    "Receiver.open.packed": set(),
    "Client.hold.timeout": TIMES,
    "hold.timeout": TIMES,
    "attach_shared_tensor.timeout": TIMES,
}


# As the server tells of one.
ENDED = {
    "id": "op_a",
    "kind": "copy",
    "state": "failed",
    "model": "default",
    "source": "reg_a",
    "region": None,
    "done_bytes": 0,
    "total_bytes": 0,
    "started_at": "",
    "ended_at": "",
    "problem": {"code": "cancelled", "status": 409, "detail": "Cannot go on: the test says so"},
}


@dataclass
class Call:
    """A call that is in order: ``function`` with ``arguments``. Each is spoilt in turn."""

    function: Callable[..., Any]
    arguments: dict[str, Any]


@pytest.fixture
def calls(server: Server, client: tensord.Client) -> Iterator[dict[str, Call]]:
    region = client.create("region", np.zeros(2), ttl=600)
    with (
        region,
        client.attach("region") as reader,
        client.ring(ttl=600, slots=4, slot_bytes=64) as ring,
        ring.acquire() as slot,
        client.rings() as rings,
        client.receiver(ring.ref(), writable=True) as receiver,
        ring.call([1.0]) as call,
        receiver.receive() as message,
    ):
        session = client.session
        assert session is not None
        ref = ring.put([1.0])
        tensor = region["data"]
        # Over host memory, since no call that is refused gets as far as the device.
        device_region: Any = tensord.DeviceRegion(region._api, region.descriptor, region._attachment, created=False)
        operation = tensord.Operation(region._api, parse_operation(ENDED))
        yield {
            "connect": Call(tensord.connect, {}),
            "attach": Call(tensord.attach, {"region": "region"}),
            "hold": Call(tensord.hold, {"region": "region"}),
            "Client.hold": Call(client.hold, {"region": "region"}),
            "create_shared_tensor": Call(tensord.create_shared_tensor, {"name": "x", "array": [1], "ttl": 60}),
            "attach_shared_tensor": Call(tensord.attach_shared_tensor, {"name": "region"}),
            "get_or_create": Call(tensord.get_or_create, {"name": "x", "build": lambda: [1]}),
            "torch.share_module": Call(
                tensord.torch.share_module, {"name": "x", "build": lambda: [1], "fingerprint": "1"}
            ),
            "torch.private_bytes": Call(tensord.torch.private_bytes, {"module": [1]}),
            "progress_bar": Call(tensord.progress_bar, {"done_bytes": 0, "total_bytes": 1}),
            "onnx.session": Call(tensord.onnx.session, {"path": "none.onnx"}),
            "Client.device": Call(client.device, {"device_uuid": "GPU-1"}),
            "Client.create": Call(client.create, {"name": "x", "data": [1], "ttl": 60}),
            "Client.get_or_create": Call(client.get_or_create, {"name": "x", "build": lambda: [1]}),
            "Client.attach": Call(client.attach, {"region": "region"}),
            "Client.seal": Call(client.seal, {"regions": [region]}),
            "Client.open": Call(client.open, {"ref": ref}),
            "Client.ring": Call(client.ring, {"name": "x", "ttl": 60}),
            "Client.get": Call(client.get, {"name": "region"}),
            "Client.get_by_id": Call(client.get_by_id, {"region_id": region.id}),
            "Client.leases": Call(client.leases, {"region": "region"}),
            "Client.list": Call(client.list, {}),
            "Client.copy": Call(client.copy, {"region": "region", "ttl": 60}),
            "Client.load": Call(client.load, {"path": "/none", "ttl": 60}),
            "Client.load_model": Call(client.load_model, {"path": "/none", "ttl": 60}),
            "Client.operations": Call(client.operations, {}),
            "Client.operation": Call(client.operation, {"operation_id": "op_a"}),
            "Operation.wait": Call(operation.wait, {}),
            "Region.to_device": Call(reader.to_device, {"device": "cuda:0"}),
            "Client.change": Call(client.change, {"region": "region"}),
            "Client.verify": Call(client.verify, {"region": "region"}),
            "Client.delete": Call(client.delete, {"region": "region"}),
            "Client.evict": Call(client.evict, {"byte_size": 1}),
            "Client.model": Call(client.model, {"name": "default"}),
            "Client.register_model": Call(client.register_model, {"name": "x"}),
            "Client.change_model": Call(client.change_model, {"name": "default", "memory_limit_bytes": None}),
            "Client.unregister_model": Call(client.unregister_model, {"name": "x"}),
            "Client.events": Call(client.events, {}),
            "Region.seal": Call(region.seal, {}),
            "Region.numpy": Call(reader.numpy, {}),
            "Region.bytes": Call(reader.bytes, {}),
            "Region.advise": Call(reader.advise, {"advice": "sequential"}),
            "Region.pin": Call(reader.pin, {"register": lambda address, byte_size: None}),
            "Tensor.numpy": Call(reader["data"].numpy, {}),
            "Tensor.bytes": Call(reader["data"].bytes, {}),
            "Region.lock_read": Call(region.lock_read, {}),
            "Region.lock_write": Call(region.lock_write, {}),
            "Tensor.lock_read": Call(tensor.lock_read, {}),
            "Tensor.lock_write": Call(tensor.lock_write, {}),
            "DeviceRegion.advise": Call(device_region.advise, {"advice": "sequential"}),
            "DeviceRegion.pin": Call(device_region.pin, {"register": lambda address, byte_size: None}),
            "DeviceRegion.copy_from_host": Call(device_region.copy_from_host, {}),
            "DeviceTensor.numpy": Call(device_region["data"].numpy, {}),
            "DeviceTensor.bytes": Call(device_region["data"].bytes, {}),
            "DeviceTensor.copy_from_host": Call(device_region["data"].copy_from_host, {}),
            "Ring.acquire": Call(ring.acquire, {}),
            "Client.receiver": Call(client.receiver, {"ref": ring.ref()}),
            "Ring.put": Call(ring.put, {"data": [1.0]}),
            "Ring.send": Call(ring.send, {"data": [1.0]}),
            "Ring.call": Call(ring.call, {"data": [1.0]}),
            "Call.result": Call(call.result, {}),
            "Call.bytes": Call(call.bytes, {}),
            "Receiver.receive": Call(receiver.receive, {}),
            "Receiver.wait": Call(receiver.wait, {}),
            "Receiver.open": Call(receiver.open, {"packed": bytes(128)}),
            "Message.array": Call(message.array, {"shape": 2, "dtype": "F32"}),
            "Message.answer": Call(message.answer, {"data": [1.0]}),
            "Message.fail": Call(message.fail, {"reason": "no"}),
            "Rings.open": Call(rings.open, {"ref": ref}),
            "Slot.array": Call(slot.array, {"shape": 2, "dtype": "F32"}),
            "Slot.bytes": Call(slot.bytes, {"shape": 2, "dtype": "F32"}),
            "Slot.take_back": Call(slot.take_back, {}),
            "Slot.publish": Call(slot.publish, {}),
            "Slot.lend": Call(slot.lend, {}),
            "Client.pool": Call(client.pool, {"model": "default", "device": "cuda:0", "capacity": 1}),
            "Client.pools": Call(client.pools, {}),
            "Client.delete_pool": Call(client.delete_pool, {"model": "default", "device": "cuda:0"}),
            **_pool_calls(),
            "Session.use": Call(session.use, {"call": len}),
            "Session.own": Call(session.own, {"call": len}),
            "Session.later": Call(session.later, {"chore": len}),
        }


def _pool_calls() -> dict[str, Call]:
    """Of pools that were never made, since no call that is refused gets as far as a device."""
    pool, shared, tensor = (kind.__new__(kind) for kind in (cuda.Pool, cuda.SharedPool, cuda.PoolTensor))
    place = {"byte_offset": 0, "byte_size": 1}
    return {
        "Pool.map": Call(pool.map, {"byte_size": 1}),
        "Pool.unmap": Call(pool.unmap, place),
        "Pool.is_mapped": Call(pool.is_mapped, place),
        "Pool.tensor": Call(pool.tensor, {"byte_offset": 0, "shape": 2, "dtype": "F32"}),
        "Pool.pages": Call(pool.pages, {"count": 1}),
        "SharedPool.map": Call(shared.map, {"byte_size": 1}),
        "SharedPool.unmap": Call(shared.unmap, place),
        "SharedPool.change": Call(shared.change, {"minimum": 0}),
        "PoolTensor.copy_from_host": Call(tensor.copy_from_host, {"data": [1.0]}),
    }


def _public_calls() -> Iterator[tuple[str, inspect.Signature]]:
    """Every public function, and every public method of a class that is no record and no exception."""
    members = [(name, getattr(module, name)) for module in (tensord, cuda) for name in module.__all__]
    members += [(f"torch.{name}", getattr(tensord.torch, name)) for name in tensord.torch.__all__]
    members += [(f"onnx.{name}", getattr(tensord.onnx, name)) for name in tensord.onnx.__all__]
    for name, member in members:
        if inspect.isfunction(member):
            yield name, inspect.signature(member)
        elif inspect.isclass(member) and not hasattr(member, "__dataclass_fields__"):
            if issubclass(member, BaseException):
                continue
            for word, method in vars(member).items():
                if inspect.isfunction(method) and not word.startswith("_"):
                    yield f"{name}.{word}", inspect.signature(method)


def _parameters(signature: inspect.Signature) -> list[str]:
    return [name for name in signature.parameters if name != "self"]


def test_every_argument_of_every_public_call_is_of_its_kind_or_refused(calls: dict[str, Call]) -> None:
    public = {name: _parameters(signature) for name, signature in _public_calls() if _parameters(signature)}
    assert sorted(public) == sorted(calls), "every public call is tried"
    came_through, tried = [], 0
    for name, parameters in public.items():
        for parameter in parameters:
            takes = EXCEPTIONS.get(f"{name}.{parameter}") or TAKES[parameter]
            call = calls[name]
            for label, junk in JUNK.items():
                if label in takes or (parameter in ("data", "shape", "dtype", "tensors") and junk is None):
                    continue
                arguments = {**call.arguments, parameter: junk}
                if parameter in ("shape", "dtype") and name == "Client.create":
                    arguments = {"name": "x", "ttl": 60, "shape": 2, "dtype": "F32", parameter: junk}
                elif parameter == "tensors":
                    arguments = {"name": "x", "ttl": 60, "tensors": junk}
                tried += 1
                try:
                    call.function(**arguments)
                except tensord.ValidationFailed as error:
                    if _is_quoted(junk, str(error), parameter):
                        continue
                    came_through.append(f"{name}({parameter}={label}) is refused without its value: {error}")
                except Exception as error:
                    came_through.append(f"{name}({parameter}={label}): {type(error).__name__}: {error}")
                else:
                    came_through.append(f"{name}({parameter}={label}) is taken")
    assert tried > 2000
    assert came_through == [], "\n".join(came_through)
    assert any(thread.name == "tensord-session" for thread in threading.enumerate())


def _is_quoted(junk: Any, message: str, parameter: str) -> bool:
    """Whether a message shows the value, or what of it is wrong: a short one whole, one inside a tensor by its type."""
    if parameter in ("data", "array", "tensors") and isinstance(junk, dict):
        # It is of one of its members that it speaks.
        return repr(next(iter(junk))) in message or "(dict)" in message
    if parameter == "token" and isinstance(junk, str):
        # A secret is not shown.
        return "token" in message
    if parameter in ("data", "array") or not isinstance(junk, (int, float, str, bytes, type(None))):
        return type(junk).__name__ in message
    if isinstance(junk, int) and junk > 9:
        return "00000" in message or "<int>" in message
    return repr(junk) in message


def test_the_message_says_what_was_called_what_was_passed_and_what_is_wanted(client: tensord.Client) -> None:
    with pytest.raises(tensord.ValidationFailed) as caught:
        client.create("org/name", [1], ttl=60)
    assert str(caught.value) == (
        "Cannot call Client.create: name is 'org/name', want text of 1 to 128 of A-Z, a-z, 0-9, '.', '_' and '-', not "
        "beginning with '.', or None\nhint: write org/name as org--name: 'org--name'"
    )
    with pytest.raises(
        tensord.ValidationFailed, match=r"connect: session_ttl is '5' .*|session_ttl is '5', want seconds"
    ):
        tensord.connect(session_ttl="5")  # type: ignore[arg-type]


def test_what_python_itself_refuses_stays_a_type_error(client: tensord.Client) -> None:
    for call in (client.get, lambda: client.get("a", nmae="b"), lambda: client.get("a", "b")):  # type: ignore[call-arg,misc]
        with pytest.raises(TypeError, match="get"):
            call()


def test_numpys_scalars_are_numbers_texts_and_flags(client: tensord.Client) -> None:
    with client.create(
        np.str_("x"),
        shape=np.array([2, 3]),  # type: ignore[arg-type]
        dtype=np.float32,
        ttl=np.float32(60),  # type: ignore[arg-type]
        evictable=np.bool_(True),  # type: ignore[arg-type]
        labels={np.str_("a"): np.str_("b")},
    ) as region:
        assert region["data"].shape == (2, 3)
        assert (region.descriptor.evictable, region.descriptor.labels) == (True, {"a": "b"})
        assert client.change(region, ttl=np.int64(5)).owner.ttl_ms == 5000  # type: ignore[arg-type]
    with client.ring(slots=np.int64(2), slot_bytes=np.uint8(64), ttl=60) as ring:  # type: ignore[arg-type]
        assert (ring.slots, ring.slot_bytes) == (2, 64)


def test_a_tensor_is_looked_up_by_text_alone(client: tensord.Client) -> None:
    with client.create("x", [1], ttl=60) as region:
        for key in (5, None, [], {}, ("data",)):
            assert key not in region
            with pytest.raises(tensord.TensorNotFound, match="Cannot find tensor"):
                region[key]  # type: ignore[index]


def test_a_reference_is_read_from_text_alone() -> None:
    for text in (5, None, ["{}"], {}):
        with pytest.raises(tensord.ValidationFailed, match="its JSON is"):
            tensord.TensorReference.from_json(text)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://",
        "http://a:b",
        "unix:///a\0b",
        f"http://{'a' * 300}",
        "http://ho st",
        "http://h\u00e4\ud800",
        "ftp://x",
    ],
)
def test_an_address_that_is_none_is_refused_as_such(url: str) -> None:
    with pytest.raises(tensord.ValidationFailed, match="Cannot"):
        tensord.connect(url).stats()

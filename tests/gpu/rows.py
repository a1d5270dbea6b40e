"""What is to be seen on a card, one function a row of ``docs/gpu-verification.md``: each returns what it saw, or fails.

Real processes, a server of its own, and nothing that only a stand-in has.
"""

from __future__ import annotations

import contextlib
import signal
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensord
from card import MIB, SLACK_BYTES, Card
from harness import Child, Server, wait_for

MAKE = """
import hashlib
with tensord.connect() as client:
    region = client.create("w", tensors={"w": ("U8", (BYTES,))}, device=DEVICE, ttl=3600)
    data = np.random.default_rng(7).integers(0, 256, 4096, dtype=np.uint8)
    region["w"].copy_from_host(np.resize(data, BYTES))
    say(hashlib.sha256(np.resize(data, BYTES)).hexdigest())
    hear()
    region.seal()
    say("sealed")
    hear()
"""
READ = """
import hashlib, time
with tensord.connect() as client:
    begin = time.perf_counter()
    region = client.attach("w", device=DEVICE, timeout=180)
    attached = time.perf_counter() - begin
    say([hashlib.sha256(region["w"].copy_to_host()).hexdigest(), attached])
    while hear() == "again":
        say(hashlib.sha256(region["w"].copy_to_host()).hexdigest())
"""
WRITE = """
with tensord.connect() as client:
    region = client.attach("w", device=DEVICE, writable=True, timeout=180)
    region["w"].copy_from_host(np.full(BYTES, 5, np.uint8))
    say(None)
    hear()
    say(int(region["w"].copy_to_host().max()))
    hear()
"""
LOOK = """
with tensord.connect() as client:
    region = client.create(None, tensors={"w": ("U8", (BYTES,))}, device=DEVICE, ttl=3600)
    say(int(np.count_nonzero(region["w"].copy_to_host() == 171)))
    region["w"].copy_from_host(np.full(BYTES, 171, np.uint8))
    client.delete(region.id)
"""
ATTACH = """
import time
with tensord.connect() as client:
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        region = client.attach("w", device=DEVICE, timeout=180)
        times.append(time.perf_counter() - begin)
        region.close()
    say(times)
"""
VIEWS = """
import torch
with tensord.connect() as client:
    region = client.attach("w", device=DEVICE, timeout=180)
    tensor = region["w"].torch()
    same = tensor.data_ptr() == region["w"].address == region["w"].__cuda_array_interface__["data"][0]
    shared = torch.from_dlpack(region["w"]).data_ptr() == tensor.data_ptr()
    wanted = int(region["w"].copy_to_host()[:4096].sum(dtype=np.int64))
    say([str(tensor.device), same, shared, int(tensor[:4096].long().sum()), wanted])
"""
PIECE = 2 * MIB


class Skipped(Exception):
    """What it takes is not here."""


@dataclass
class Bench:
    """A row's server and card."""

    server: Server
    card: Card

    def child(self, script: str, byte_size: int | None = None) -> Child:
        size = self.card.region_bytes if byte_size is None else byte_size
        told = f"BYTES = {size}\nDEVICE = {self.card.uuid!r}\n"
        return Child(told + script, environ=self.server.environ)

    def until_free(self, before: int) -> None:
        """Waits until the card has no more in use than before."""
        wait_for(
            lambda: self.card.used_bytes() <= before + SLACK_BYTES,
            "the card has all of its memory back",
        )

    def delete(self) -> None:
        """Deletes the row's region, if it has come that far."""
        with (
            self.server.connect() as client,
            contextlib.suppress(tensord.RegionNotFound),
        ):
            client.delete("w")


Row = Callable[[Bench], str]
ROWS: dict[str, Row] = {}


def row(what: str) -> Callable[[Row], Row]:
    def enter(look: Row) -> Row:
        ROWS[what] = look
        return look

    return enter


@row("`tensord devices` and `tensord doctor` name the card, with its size, granularity and what can be done there")
def told(bench: Bench) -> str:
    with bench.server.connect() as client:
        device = client.device(bench.card.uuid)
    assert device.usable, device.detail
    assert device.granularity
    facts = f"compute capability {device.compute_capability}, compute mode {device.compute_mode}, MIG {device.mig}"
    return f"{device.name}: {to_mib(device.total_bytes or 0)} in pieces of {to_mib(device.granularity)}; {facts}"


@row("`tensord devices` has what is free and what others use, by NVML, and the server itself is not among them")
def free_by_nvml(bench: Bench) -> str:
    with bench.server.connect() as client:
        device = client.device(bench.card.uuid)
    if device.free_bytes is None or device.total_bytes is None:
        raise Skipped("there is no NVML here")
    assert abs(device.total_bytes - device.free_bytes - bench.card.used_bytes()) < bench.card.large_bytes
    return f"{to_mib(device.free_bytes)} free, {to_mib(device.others_bytes or 0)} used by others"


@row("A divided GPU (MIG) is told as such, and a region is made on an instance by its UUID")
def divided(bench: Bench) -> str:
    with bench.server.connect() as client:
        device = client.device(bench.card.uuid)
        if not device.mig:
            raise Skipped("the card is not divided, and its settings are not ours to change")
        with client.create("w", tensors={"w": ("U8", (PIECE,))}, device=bench.card.uuid, ttl=3600) as region:
            assert region.device_uuid == bench.card.uuid
        client.delete("w")
    return f"{bench.card.uuid}: a region of {to_mib(PIECE)} made, mapped and deleted"


@row("In the compute modes `PROHIBITED` and `EXCLUSIVE_PROCESS` the server says what it does")
def compute_mode(bench: Bench) -> str:
    with bench.server.connect() as client:
        device = client.device(bench.card.uuid)
    if device.compute_mode == "default":
        raise Skipped("the card's mode is the default, and its settings are not ours to change")
    return f"{device.compute_mode}: usable {device.usable}, {device.detail}"


@row("A region is created, attached by two processes, written by one and read by the other, and freed")
def attached_by_two(bench: Bench) -> str:
    before = bench.card.used_bytes()
    with bench.child(MAKE) as owner:
        digest = owner.hear()
        # It may attach as soon as the region is there, and must not write before its owner has.
        with bench.child(WRITE) as writer, bench.child(READ) as reader:
            writer.hear()
            writer.say(None)
            assert writer.hear() == 5
            writer.say(None)
            # A writer that maps it still keeps it from being sealed.
            writer.finish()
            owner.say(None)
            assert owner.hear() == "sealed"
            seen, _ = reader.hear()
            assert seen != digest, "the reader sees what the writer wrote after the owner"
            taken = bench.card.used_bytes() - before
            reader.say("end")
            reader.finish()
        owner.say(None)
        owner.finish()
    bench.delete()
    bench.until_free(before)
    sizes = f"one region of {to_mib(bench.card.region_bytes)}, {to_mib(taken)} of the card with two contexts"
    return f"{sizes}; all of it free afterwards"


@row("Memory of killed workers is released")
def killed_workers(bench: Bench) -> str:
    before = bench.card.used_bytes()
    with (
        bench.child(MAKE) as owner,
        bench.child(READ) as one,
        bench.child(READ) as other,
    ):
        owner.hear()
        owner.say(None)
        owner.hear()
        for reader in (one, other):
            reader.hear()
        for child in (owner, one, other):
            child.kill()
    with bench.server.connect() as client:
        wait_for(lambda: not client.get("w").in_use, "nobody maps it")
        client.delete("w")
    bench.until_free(before)
    return "three attached processes killed: nobody maps the region, and after its deletion the card's memory is free"


@row("Idle, the server has nothing of the card")
def idle(bench: Bench) -> str:
    before = bench.card.used_bytes()
    server = Server()
    server.start()
    try:
        with server.connect() as client:
            wait_for(lambda: any(device.usable for device in client.devices().items), "it has found the card")
        taken = bench.card.used_bytes() - before
    finally:
        server.stop()
    assert taken <= SLACK_BYTES, f"a server that has made nothing takes {taken} bytes"
    return f"{to_mib(max(0, taken))} more with a server than without"


@row("Memory that was freed and created anew does not show old bytes")
def old_bytes(bench: Bench) -> str:
    for turn in range(4):
        with bench.child(LOOK) as child:
            seen = child.hear()
            assert seen == 0, f"turn {turn}: {seen} bytes of an earlier region"
            child.finish()
    return f"four times {to_mib(bench.card.region_bytes)} written, freed and created again: no byte of it is seen"


@row("The server is killed under attached workers, and started again")
def killed_server(bench: Bench) -> str:
    before = bench.card.used_bytes()
    with bench.child(MAKE) as owner, bench.child(READ) as reader:
        digest = owner.hear()
        owner.say(None)
        owner.hear()
        assert reader.hear()[0] == digest
        bench.server.signal(signal.SIGKILL)
        reader.say("again")
        assert reader.hear() == digest, "what is mapped stays"
        bench.server.start()
        with bench.child(READ) as late:
            seen, seconds = late.hear()
            assert seen == digest, "the region is back with its bytes"
            late.say("end")
            late.finish()
    bench.delete()
    bench.until_free(before)
    return f"the worker reads on; a new one attaches to the same bytes in {seconds * 1000:.0f} ms; freed at the end"


@row("Attach of a large region in a new process")
def attach_large(bench: Bench) -> str:
    size = bench.card.large_bytes
    with bench.server.connect() as client:
        with client.create("w", tensors={"w": ("U8", (size,))}, device=bench.card.uuid, ttl=3600) as region:
            region.seal()
        with bench.child(ATTACH) as child:
            first, *again = child.hear()
            child.finish()
        client.delete("w")
    later = statistics.median(again)
    return f"{to_mib(size)}: {first * 1000:.1f} ms at first, context included; {later * 1000:.2f} ms again (median of 4)"


@row("A region is copied from host memory, and its checksum is the same")
def copied(bench: Bench) -> str:
    before = bench.card.used_bytes()
    size = bench.card.region_bytes
    with bench.server.connect() as client, client.create(None, tensors={"w": ("U8", (size,))}, ttl=3600) as source:
        array = source["w"].numpy()
        array[:] = np.resize(np.random.default_rng(7).integers(0, 256, 4096, dtype=np.uint8), size)
        source.seal(checksum=True)
        begin = time.perf_counter()
        client.copy(source, name="w", device=bench.card.uuid, ttl=3600).wait()
        seconds = time.perf_counter() - begin
        assert client.verify("w").ok, "its checksum, computed on the device, is that of the copy"
        assert client.get("w").checksum == source.refresh().checksum
    bench.delete()
    bench.until_free(before)
    return f"{to_mib(size)} in {seconds:.2f} s, read back and compared, a process and its context included"


@row("The Python client's views (CUDA array interface, DLPack, torch)")
def views(bench: Bench) -> str:
    try:
        import torch
    except ImportError:
        raise Skipped("no torch in this Python") from None
    if not torch.cuda.is_available():
        raise Skipped("torch sees no card")
    with bench.child(MAKE) as owner, bench.child(VIEWS) as viewer:
        owner.hear()
        owner.say(None)
        owner.hear()
        device, same, shared, seen, wanted = viewer.hear()
        assert (same, shared, seen) == (True, True, wanted)
        owner.say(None)
    bench.delete()
    return f"torch {torch.__version__} on {device}: one address in all three, and the bytes of the region"


def to_mib(byte_size: int) -> str:
    return f"{byte_size / MIB:.0f} MiB"

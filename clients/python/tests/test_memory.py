"""What each form of mapping does under locks, pins and writes: each cell of the table of docs/memory.md is measured."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator
from typing import Any

import pytest
from harness import REPOSITORY, Child, Server

import tensord

FORMS = """
import contextlib, ctypes, errno, itertools
libc = ctypes.CDLL(None, use_errno=True)
libc.mlock.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
PAGE, SIZE = 4096, 4 << 20
CURRENT, FUTURE, ONFAULT = 1, 2, 4
numbers = itertools.count()

def called(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result

def copied(path):
    "The private bytes of all maps of a file."
    kib, counts = 0, False
    for line in open("/proc/self/smaps"):
        if line[:1] in "0123456789abcdef":
            counts = path in line
        elif counts and line.startswith("Anonymous:"):
            kib += int(line.split()[1])
    # The page of the header, and one that a slot only begins in, may be there as well.
    return "0" if kib == 0 else "all" if SIZE <= kib << 10 <= SIZE + PAGE else f"{kib} KiB"

def pages(array):
    start = array.ctypes.data & -PAGE
    return start, array.ctypes.data + array.nbytes - start

@contextlib.contextmanager
def pinned(start, length):
    "As drivers pin for writing: io_uring_setup, io_uring_register with IORING_REGISTER_BUFFERS."
    params = (ctypes.c_ubyte * 120)()
    ring = called(libc.syscall(425, 1, params))
    try:
        iovec = (ctypes.c_uint64 * 2)(start, length)
        called(libc.syscall(427, ring, 0, iovec, 1))
        yield
    finally:
        os.close(ring)

def create(client):
    region = client.create(f"memory-{next(numbers)}", shape=(SIZE,), dtype="U8", ttl=3600)
    region.numpy()[:] = 1
    return region

@contextlib.contextmanager
def attached(client, view, **options):
    with create(client) as made:
        made.seal()
        path = made.descriptor.storage.path
        with client.attach(made.name, **options) as region:
            made.close()
            yield region, view(region), path
        client.delete(made.name)

@contextlib.contextmanager
def written(client, view):
    with create(client) as region:
        yield region, view(region), region.descriptor.storage.path
        client.delete(region.name)

@contextlib.contextmanager
def sealed(client, keep):
    with create(client) as region:
        kept = region.numpy()[1:] if keep else None
        region.seal()
        yield region, region.numpy(), region.descriptor.storage.path
        client.delete(region.name)

@contextlib.contextmanager
def slot(client, view):
    name = f"memory-{next(numbers)}"
    with client.ring(slots=2, slot_bytes=SIZE, name=name, ttl=3600) as ring, client.rings() as rings:
        with rings.open(ring.put(np.ones(SIZE, np.uint8))) as tensor:
            yield ring.region, view(tensor), ring.region.descriptor.storage.path
        client.delete(ring.region.name)

def plain(thing): return thing.numpy()
def private(thing): return thing.numpy(private=True)
def exported(thing): return np.from_dlpack(thing)

FORMS = {
    "Python `attach`, `open`: `numpy()`, `bytes()`": [
        lambda client: attached(client, plain),
        lambda client: attached(client, lambda region: client.open(region.ref()).bytes()),
    ],
    "Python `attach`, `open`: `torch()`, DLPack, `numpy(private=True)`": [
        lambda client: attached(client, private),
        lambda client: attached(client, exported),
        lambda client: attached(client, lambda region: client.open(region.ref()).bytes(private=True)),
    ],
    "Python `strict=True`": [lambda client: attached(client, plain, strict=True)],
    "Python `writable=True`, and `create` before its seal": [
        lambda client: written(client, plain),
        lambda client: written(client, lambda region: client.attach(region.name, writable=True).numpy()),
    ],
    "Python `create` after its seal, no array kept": [lambda client: sealed(client, False)],
    "Python `create` after its seal, an array or tensor kept": [lambda client: sealed(client, True)],
    "Python `rings.open`: `numpy()`, `bytes()`": [lambda client: slot(client, plain)],
    "Python `rings.open`: `torch()`, DLPack, `numpy(private=True)`": [
        lambda client: slot(client, private),
        lambda client: slot(client, exported),
    ],
}
"""

COLUMNS = """
def locked(form):
    with form(client) as (_, array, path):
        called(libc.mlock(*pages(array)))
        return copied(path)

def locked_all(form, flags=CURRENT):
    with form(client) as (_, array, path):
        called(libc.mlockall(flags))
        return copied(path)

def locked_before(form, flags=FUTURE):
    called(libc.mlockall(flags))
    with form(client) as (_, array, path):
        return copied(path)

def on_fault(form):
    answers = {locked_all(form, CURRENT | ONFAULT), locked_before(form, FUTURE | ONFAULT)}
    return answers.pop() if len(answers) == 1 else str(answers)

def pin(form):
    with form(client) as (_, array, path):
        try:
            with pinned(*pages(array)):
                return copied(path)
        except OSError as error:
            return errno.errorcode[error.errno]

def write(form):
    with form(client) as (_, array, path):
        child = os.fork()
        if child == 0:
            # By force, as what ignores that an array is read-only does.
            ctypes.memset(array.ctypes.data, 9, 1)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status == -signal.SIGSEGV:
            return "ends the process"
        assert status == 0, status
        return "reaches all" if array[0] == 9 else "private page"

def aliased(form):
    "Whatever the view is, what locks and pins by a map of its own copies nothing."
    with form(client) as (region, array, path):
        with region.lock_memory():
            answers = {copied(path)}
            assert any(line.startswith("VmFlags:") and " lo " in line for line in open("/proc/self/smaps"))
        with contextlib.ExitStack() as stack:
            with region.pin(lambda *place: stack.enter_context(pinned(*place))) as pin:
                answers.add(copied(path))
                assert all(np.array_equal(pin[name].numpy(), region[name].numpy()) for name in pin)
        return answers.pop() if len(answers) == 1 else str(answers)

columns = [locked, locked_all, locked_before, on_fault, pin, write]
with tensord.connect() as client:
    while (number := hear()) is not None:
        column = aliased if number == -1 else columns[number]
        row = {}
        for name, forms in FORMS.items():
            answers = set()
            for form in forms:
                try:
                    answers.add(column(form))
                finally:
                    called(libc.munlockall())
            row[name] = answers.pop() if len(answers) == 1 else str(answers)
        say(row)
"""
MEASURES = FORMS + COLUMNS


def _table() -> dict[str, list[str]]:
    """The rows of the table by what they begin with; the first one is its head."""
    text = (REPOSITORY / "docs/memory.md").read_text().replace("\\|", "or")
    lines = [line.strip("|\n ") for line in text.splitlines() if line.startswith("| ")]
    rows = [re.split(r" *\| *", line) for line in lines]
    return {row[0]: row[1:] for row in rows}


@functools.cache
def _may_lock() -> bool:
    with Child("import ctypes; say(ctypes.CDLL(None).mlockall(3))") as child:
        return bool(child.hear() == 0)


@functools.cache
def _may_pin() -> bool:
    with Child(FORMS + "say(libc.syscall(425, 1, (ctypes.c_ubyte * 120)()))") as child:
        return bool(child.hear() >= 0)


@pytest.fixture(scope="module")
def measures(_server: Server) -> Iterator[Child]:
    if not _may_lock():
        pytest.skip("this process may not lock all its memory (ulimit -l)")
    with Child(MEASURES, environ=_server.environ) as child:
        yield child
        child.finish()


@pytest.mark.parametrize("number", range(6))
def test_each_form_of_mapping_does_as_the_table_says(server: Server, measures: Child, number: int) -> None:
    if number == 4 and not _may_pin():
        pytest.skip("io_uring, which pins here as drivers do, is not allowed")
    measures.say(number)
    measured: dict[str, Any] = measures.hear()
    table = {name: row[number] for name, row in _table().items() if name.startswith("Python ")}
    assert measured == table


def test_locks_and_pins_by_a_map_of_their_own_copy_nothing(server: Server, measures: Child) -> None:
    if not _may_pin():
        pytest.skip("io_uring, which pins here as drivers do, is not allowed")
    measures.say(-1)
    assert set(measures.hear().values()) == {"0"}


def test_a_lock_of_the_users_own_outlives_the_first_view_that_can_be_written_to(server: Server) -> None:
    script = """
with tensord.connect() as client, attached(client, plain) as (region, array, path):
    called(libc.mlock(*pages(array)))
    private = region.numpy(private=True)
    say([copied(path), private.ctypes.data == array.ctypes.data])
    private[:PAGE] = 7
    say([copied(path), int(array[0]), int(array[-1])])
"""
    if not _may_lock():
        pytest.skip("this process may not lock all its memory (ulimit -l)")
    with Child(FORMS + script) as child:
        assert child.hear() == ["0", True]
        assert child.hear() == ["4 KiB", 7, 1]
        child.finish()


# What a worker of the server's group may do that is not root, with a limit on what it locks.
BECOME = """
import resource
def become(group, limit):
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit))
    os.setgroups([group])
    os.setgid(65534)
    os.setuid(65534)
def attempt(call):
    try:
        call()
    except tensord.TensordError as error:
        say([type(error).__name__, str(error)])
    else:
        say(None)
"""
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start processes under other uids")


@only_root
def test_who_may_lock_less_than_a_region_is_told_his_limit(server: Server) -> None:
    script = """
become(hear(), 2 << 20)
with tensord.connect() as client, attached(client, plain) as (region, array, path):
    attempt(region.lock_memory)
    with client.create("small", np.ones(1 << 20, np.uint8), ttl=3600) as small:
        with small.lock_memory() as lock: say(lock.released)
        lock.release()
        held = small.lock_memory()
    say([lock.released, held.released])
    called(libc.mlockall(FUTURE))
    attempt(lambda: client.attach(region.name))
"""
    with Child(FORMS + BECOME + script) as child:
        child.say(os.getegid())
        name, message = child.hear()
        assert name == "MappingFailed"
        assert f"{2 << 20} bytes" in message
        assert "ulimit -l" in message
        assert child.hear() is False
        assert child.hear() == [True, True]
        name, message = child.hear()
        assert name == "MappingFailed"
        assert "mlockall" in message
        child.finish()


@only_root
def test_a_sealed_file_is_pinned_for_reading_where_it_may_not_be_written(server: Server) -> None:
    script = """
become(hear(), 2 << 20)
calls = []
def register(address, byte_size):
    lines = [line.split() for line in open("/proc/self/maps") if line.startswith(f"{address:x}-")]
    calls.append([lines[0][1], byte_size >= SIZE])
with tensord.connect() as client, attached(client, plain) as (region, array, path):
    attempt(lambda: region.pin(register))
    with region.pin(register, lambda address: calls.append("unregistered"), read_only=True) as pin:
        say([calls, int(pin["data"].numpy().sum()), pin.released])
        attempt(pin["data"].torch)
    say([calls[1:], pin.released])
    open_region = create(client)
    pin = open_region.pin(register, lambda address: calls.append("unregistered"))
    say([calls[2:], pin["data"].numpy().flags.writeable])
    open_region.seal()
    open_region.close()
    say([calls[3:], pin.released])
    stock = create(client)
    stock.seal(stock_writable=True)
    attempt(lambda: stock.pin(register))
    def refuse(address, byte_size): raise OSError("no device")
    try: stock.pin(refuse)
    except OSError as error: say(str(error))
    stock.close()
    say([path for path in (stock.descriptor.storage.path,) if path in open("/proc/self/maps").read()])
"""
    with Child(FORMS + BECOME + script) as child:
        child.say(os.getegid())
        name, message = child.hear()
        assert name == "FeatureUnavailable"
        assert "read_only=True" in message
        assert child.hear() == [[["r--s", True]], 4 << 20, False]
        assert child.hear()[0] == "FeatureUnavailable"
        assert child.hear() == [["unregistered"], True]
        assert child.hear() == [[["rw-s", True]], False]
        assert child.hear() == [["unregistered"], True]
        assert child.hear() is None
        assert child.hear() == "no device"
        assert child.hear() == []
        child.finish()


def test_a_private_array_is_for_readers(client: tensord.Client) -> None:
    with client.create("private", [1, 2], ttl=3600) as region:
        with pytest.raises(tensord.ValidationFailed, match="mapped for writing"):
            region.numpy(private=True)
        region.seal()
        with client.attach("private", strict=True) as strict, pytest.raises(tensord.FeatureUnavailable, match="strict"):
            strict.bytes(private=True)
        with client.attach("private") as reader, client.attach("private") as other:
            reader.numpy(private=True)[0] = 5
            assert reader.numpy().tolist() == [5, 2]
            assert not reader.numpy().flags.writeable
            assert other.numpy().tolist() == [1, 2]

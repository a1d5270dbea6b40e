"""What is to be seen of elastic pools on a card: more rows of ``docs/gpu-verification.md``."""

from __future__ import annotations

import contextlib
import signal
import statistics
from collections.abc import Iterator
from typing import Any

import tensord
from card import MIB, SLACK_BYTES
from harness import Child, wait_for
from rows import Bench, Skipped, row, to_mib

PAGE = 2 * MIB
GIB = 1 << 30
# Does what it is told, and answers what came of it. Each end of a page carries a mark.
WORKER = """
import time
import tensord.cuda
client = tensord.connect()
def mark(pool, page, value):
    for at in (page * PAGE, page * PAGE + PAGE - 64):
        pool.tensor(at, 64, "U8").copy_from_host(np.full(64, value, np.uint8))
def seen(pool, page):
    ends = [pool.tensor(at, 64, "U8").copy_to_host() for at in (page * PAGE, page * PAGE + PAGE - 64)]
    values = {int(value) for end in ends for value in end}
    assert len(values) == 1, values
    return values.pop()
def has(pool, page): return pool.is_mapped(page * PAGE, PAGE)
def timed(call):
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin
say(None)
for how, line in iter(hear, None):
    say(eval(line) if how == "ask" else exec(line))
client.close()
"""


def ask(child: Child, what: str) -> Any:
    """What the expression is in that process."""
    child.say(["ask", what])
    return child.hear()


def tell(child: Child, what: str) -> None:
    """Runs statements there."""
    child.say(["tell", what])
    child.hear()


@contextlib.contextmanager
def workers(bench: Bench, count: int, capacity: int = 64 * PAGE, page_size: int = PAGE) -> Iterator[list[Child]]:
    """Processes that follow one pool of the default model; it is deleted at the end, and the card has all back."""
    before = bench.card.used_bytes()
    opened = f"pool = client.pool('default', DEVICE, {capacity}, page_size={page_size}, moves=True)"
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(bench.child(f"PAGE = {page_size}\n" + WORKER)) for _ in range(count)]
        for each in made:
            each.hear()
            tell(each, opened)
        yield made
    delete_pool(bench)
    bench.until_free(before)


def delete_pool(bench: Bench, model: str = "default") -> None:
    with bench.server.connect() as client:

        def is_deleted() -> bool:
            with contextlib.suppress(tensord.InUse):
                client.delete_pool(model, bench.card.uuid)
                return True
            return False

        wait_for(is_deleted, "nobody follows the pool")


def pool_of(bench: Bench, model: str = "default") -> Any:
    with bench.server.connect() as client:
        return client._api.elastic_pool(model, bench.card.uuid)


def until(child: Child, what: str) -> None:
    wait_for(lambda: ask(child, what) is True, what)


@row(
    "An elastic pool is made, and takes nothing of the card until a page is mapped; 128 GiB of range are reserved by a "
    "worker"
)
def reserved(bench: Bench) -> str:
    before = bench.card.used_bytes()
    with bench.child(f"PAGE = {PAGE}\n" + WORKER) as child:
        child.hear()
        # A pool of its own makes the process's context, which takes memory once.
        tell(child, "own = tensord.cuda.Pool(PAGE, device=DEVICE, page_size=PAGE)")
        ask(child, "own.close()")
        with_context = bench.card.used_bytes()
        tell(child, f"pool = client.pool('default', DEVICE, {128 * GIB}, page_size=PAGE)")
        reserved_bytes = bench.card.used_bytes() - with_context
        assert reserved_bytes <= SLACK_BYTES, f"a range without pages takes {reserved_bytes} bytes of the card"
        ask(child, "pool.map(16 * PAGE).byte_offset")
        mapped = bench.card.used_bytes() - with_context
        assert abs(mapped - 16 * PAGE) <= SLACK_BYTES, f"16 pages of {PAGE} take {mapped} bytes"
    delete_pool(bench)
    bench.until_free(before)
    return f"{to_mib(max(0, reserved_bytes))} more with 128 GiB of range, {to_mib(mapped)} more with 16 pages of 2 MiB"


@row(
    "Pages are mapped at an offset and into the first hole, taken by two processes, written by one and read by the "
    "other at the same offsets"
)
def shared_pages(bench: Bench) -> str:
    with workers(bench, 2) as (first, second):
        assert ask(first, "pool.map(2 * PAGE, 4 * PAGE, persist=True).byte_offset") == 4 * PAGE
        assert ask(first, "pool.map(2 * PAGE, persist=True).byte_offset") == 0
        for page, value in ((0, 3), (1, 4), (4, 5), (5, 6)):
            until(second, f"has(pool, {page})")
            ask(first, f"mark(pool, {page}, {value})")
            assert ask(second, f"seen(pool, {page})") == value
        bases = [ask(each, "pool.base_address") for each in (first, second)]
    return f"four pages at two offsets, the same bytes in both, at {bases[0]:#x} and {bases[1]:#x}"


def need_torch() -> None:
    try:
        import torch
    except ImportError:
        raise Skipped("no torch in this Python, to run a kernel") from None
    if not torch.cuda.is_available():
        raise Skipped("torch sees no card")


@row("A tensor over the pool grows in place, at the same address, while kernels run on what was there")
def grows(bench: Bench) -> str:
    need_torch()
    with workers(bench, 1) as (child,):
        ask(child, "pool.map(PAGE).byte_offset")
        tell(child, "import torch")
        tell(child, "tensor = pool.tensor(0, PAGE // 4, 'F32').torch(); tensor.zero_()")
        tell(child, "for _ in range(20000): tensor.add_(1)")
        running = ask(child, "not torch.cuda.current_stream().query()")
        assert ask(child, "pool.map(PAGE).byte_offset") == PAGE
        assert ask(child, "pool.tensor(0, PAGE // 2, 'F32').address == tensor.data_ptr()")
        still = ask(child, "not torch.cuda.current_stream().query()")
        assert ask(child, "[float(tensor.min()), float(tensor.max())]") == [20000.0, 20000.0]
    return f"kernels ran before: {running}, and after it had grown: {still}; 20,000 additions, none lost"


@row("An unmap waits for a worker whose kernel runs, and the page is free on the card after it has let go")
def unmap_waits(bench: Bench) -> str:
    need_torch()
    with workers(bench, 2) as (first, second):
        ask(first, "pool.map(PAGE, persist=True).byte_offset")
        until(second, "has(pool, 0)")
        tell(second, "import torch")
        tell(second, "tensor = pool.tensor(0, PAGE // 4, 'F32').torch(); tensor.zero_()")
        used = bench.card.used_bytes()
        tell(second, "for _ in range(50000): tensor.add_(1)")
        seconds = ask(first, "timed(lambda: pool.unmap(0, PAGE))")
        assert ask(second, "torch.cuda.current_stream().query()"), "what ran is done once the page has gone"
        wait_for(lambda: bench.card.used_bytes() <= used - PAGE + SLACK_BYTES, "the page is free on the card")
    return f"{seconds:.2f} s, until 50,000 kernels were done"


@row("A worker is killed with pages mapped: they are free on the card, and nobody else's are touched")
def killed_worker(bench: Bench) -> str:
    with workers(bench, 2) as (first, second):
        ask(first, "pool.map(4 * PAGE).byte_offset")
        ask(second, "pool.map(2 * PAGE).byte_offset")
        ask(second, "mark(pool, 4, 9)")
        first.kill()
        wait_for(lambda: pool_of(bench).physical_bytes == 2 * PAGE, "its pages are gone")
        until(second, "not has(pool, 0)")
        assert ask(second, "seen(pool, 4)") == 9
    return "four pages of the killed are gone, the two of the other have their bytes; all is free at the end"


@row("Pages are moved (`compact`) under a worker that agreed: their bytes are the same at the new offsets")
def compacted(bench: Bench) -> str:
    with workers(bench, 2) as (first, second):
        ask(first, "pool.map(4 * PAGE, persist=True).byte_offset")
        for page in (2, 3):
            until(second, f"has(pool, {page})")
            ask(first, f"mark(pool, {page}, {page + 20})")
        ask(first, "pool.unmap(0, 2 * PAGE)")
        assert ask(first, "[move.to_byte_offset for move in pool.compact()]") == [0]
        for each in (first, second):
            until(each, "has(pool, 0) and not has(pool, 2)")
            assert ask(each, "[seen(pool, 0), seen(pool, 1)]") == [22, 23]
    return "two pages moved to the first hole in both workers, with their bytes"


@row("Two models under the device's one limit: evictable pages of one make room for the other")
def two_models(bench: Bench) -> str:
    with bench.server.connect() as client:
        api, uuid = client._api, bench.card.uuid
        device = client.device(uuid)
        available = next(pool.available_bytes for pool in client.stats().pools if pool.pool == uuid)
        # Others' contexts take memory that the books do not know of.
        room = int(0.95 * min(available, device.free_bytes or available))
        # Few pages, however large the card is.
        page = max(PAGE, min(GIB, 1 << (room // 32).bit_length() - 1))
        with contextlib.suppress(tensord.ModelExists):
            client.register_model("other")
        for model in ("default", "other"):
            made = {"virtual_capacity": 128 * page, "page_size": page}
            api.create_elastic_pool(model, uuid, made)
        many = room // page
        wanted = many // 2
        api.map_pages("default", uuid, {"byte_size": many * page, "evictable": True})

        def is_mapped() -> bool:
            # What was used a moment ago is not evicted.
            with contextlib.suppress(tensord.PoolFull):
                api.map_pages("other", uuid, {"byte_size": wanted * page, "on_full": "evict"})
                return True
            return False

        wait_for(is_mapped, "the other model has its pages")
        left = pool_of(bench).mapped_bytes // page
        assert pool_of(bench, "other").mapped_bytes == wanted * page
        assert left < many, (left, many)
    for model in ("default", "other"):
        delete_pool(bench, model)
    return f"{many} pages of {to_mib(page)} filled the card; for {wanted} of another model's {many - left} went"


@row(
    "The server is killed under workers with pages, and started again: the pages that the fd holder kept are there, "
    "and are taken by a new worker"
)
def restarted(bench: Bench) -> str:
    with workers(bench, 1) as (first,):
        ask(first, "pool.map(2 * PAGE, persist=True).byte_offset")
        ask(first, "mark(pool, 1, 7)")
        survives = pool_of(bench).survives_restart
        bench.server.signal(signal.SIGKILL)
        assert ask(first, "seen(pool, 1)") == 7
        bench.server.start()
        told = pool_of(bench)
        assert bool(told.mapped_bytes) == bool(survives), (told, survives)
        if not survives:
            return "no page is kept on this machine, as `survives_restart` had said"
        with bench.child(f"PAGE = {PAGE}\n" + WORKER) as late:
            late.hear()
            tell(late, f"pool = client.pool('default', DEVICE, {64 * PAGE}, page_size={PAGE}, moves=True)")
            assert ask(late, "seen(pool, 1)") == 7
    return "the worker reads on; a new one has both pages with their bytes"


@row("Map and unmap of one page, and of a run of 256; attach of a pool of 2,048 pages")
def timed(bench: Bench) -> str:
    run = min(256, bench.card.large_bytes // PAGE)
    many = min(2048, bench.card.large_bytes // PAGE)
    capacity = 4096 * PAGE
    with workers(bench, 1, capacity) as (child,):
        told = [f"{_map_and_unmap(child, count)} for {count}" for count in (1, run)]
        ask(child, f"pool.map({many} * PAGE, persist=True).byte_offset")
        with bench.child(f"PAGE = {PAGE}\n" + WORKER) as late:
            late.hear()
            # Its context is made before.
            tell(late, "own = tensord.cuda.Pool(PAGE, device=DEVICE, page_size=PAGE)")
            opening = f"client.pool('default', DEVICE, {capacity}, page_size=PAGE, moves=True)"
            seconds = ask(late, f"timed(lambda: globals().update(pool={opening}))")
    return f"map and unmap {', '.join(told)} pages (medians of 5); {many} pages attached in {seconds * 1000:.0f} ms"


def _map_and_unmap(child: Child, count: int) -> str:
    size = f"{count} * PAGE"
    pairs = [
        (ask(child, f"timed(lambda: pool.map({size}, 0))"), ask(child, f"timed(lambda: pool.unmap(0, {size}))"))
        for _ in range(5)
    ]
    mapped, unmapped = (statistics.median(column) * 1000 for column in zip(*pairs, strict=True))
    return f"{mapped:.2f} and {unmapped:.2f} ms"


@row("A page that is mapped anew does not show old bytes")
def fresh_pages(bench: Bench) -> str:
    with workers(bench, 1) as (child,):
        for turn in range(4):
            ask(child, "pool.map(32 * PAGE).byte_offset")
            old = ask(child, "int(np.count_nonzero(pool.tensor(0, 32 * PAGE, 'U8').copy_to_host() == 171))")
            assert old == 0, f"turn {turn}: {old} bytes of an earlier page"
            ask(child, "pool.tensor(0, 32 * PAGE, 'U8').copy_from_host(np.full(32 * PAGE, 171, np.uint8))")
            ask(child, "pool.unmap(0, 32 * PAGE)")
    return "four times 32 pages written, unmapped and mapped anew: no byte of them is seen"

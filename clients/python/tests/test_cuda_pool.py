"""``tensord.cuda.Pool``: on a stand-in for the driver, which shows how it is called and what is undone, and nothing of
what a GPU does.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from cuda_stand_in import LACKS_STAND_IN, StandIn, calls, stand_in
from harness import rounds_of
from test_cuda_memory import BACKENDS
from test_cuda_memory import run as run_script

pytestmark = pytest.mark.skipif(LACKS_STAND_IN != "", reason=LACKS_STAND_IN or "there is one")


@pytest.fixture
def cuda() -> Iterator[StandIn]:
    with stand_in() as made:
        yield made


def run(cuda: StandIn, script: str) -> str:
    return run_script(cuda, f"from pool_support import *\nimport tensord.cuda\n{script}")


@pytest.mark.parametrize("backend", BACKENDS)
def test_pages_come_and_go_under_addresses_that_stay(cuda: StandIn, backend: str) -> None:
    run(
        cuda,
        f"""
use({backend!r})
with Pool(16 * PAGE, PAGE, "cuda:1") as pool:
    base = pool.base_address
    assert (pool.device, pool.device_uuid, pool.capacity, physical()) == ("cuda:1", UUIDS[1], 16 * PAGE, 0)
    first = pool.map(2 * PAGE)
    assert (first.byte_offset, first.byte_size, first.first_page, physical()) == (0, 2 * PAGE, 1, 2 * PAGE)
    assert pool.is_mapped(0, 2 * PAGE) and not pool.is_mapped(PAGE, PAGE + 1) and not pool.is_mapped(2 * PAGE, 1)
    small = pool.tensor(0, (PAGE // 4,), "F32")
    small.copy_from_host(np.arange(PAGE // 4, dtype=np.float32))
    # It grows in place.
    assert pool.map(PAGE, byte_offset=2 * PAGE).first_page == 3
    large = pool.tensor(0, (3, PAGE // 4), "F32")
    assert large.address == small.address == base
    assert (large.copy_to_host()[0] == small.copy_to_host()).all()
    assert large.__cuda_array_interface__["data"] == (base, False) and large.__dlpack_device__() == (2, 1)
    told = pool.statistics()
    assert [(r.byte_offset, r.byte_size, r.first_page) for r in told.runs] == [(0, 2 * PAGE, 1), (2 * PAGE, PAGE, 3)]
    pool.unmap(PAGE, PAGE)
    assert (small.copy_to_host() == np.arange(PAGE // 4, dtype=np.float32)).all()
    for use_it in (large.copy_to_host, lambda: large.address, large.__dlpack__, lambda: pool.tensor(0, 3 * PAGE, "U8")):
        assert "not mapped" in raised(tensord.NotMapped, use_it) or "has gone" in raised(tensord.NotMapped, use_it)
    # Another page at the same place is another page.
    pool.map(PAGE)
    assert "has gone" in raised(tensord.NotMapped, large.copy_to_host)
    check_books(pool)
    with pool.pages(3) as taken:
        assert (taken.byte_offset, pool.mapped_bytes) == (3 * PAGE, 6 * PAGE)
        pool.unmap(taken.byte_offset + PAGE, PAGE)
    assert pool.mapped_bytes == physical() == 3 * PAGE and pool.base_address == base
assert physical() == 0 and "closed" in raised(tensord.Closed, lambda: pool.map(PAGE))
assert "closed" in raised(tensord.Closed, small.copy_to_host)
pool.close()
""",
    )


def test_each_mistake_has_an_error_of_its_own_with_its_numbers(cuda: StandIn) -> None:
    run(
        cuda,
        """
for size in (0, 3 * PAGE, PAGE // 2, 2 << 30):
    assert "2097152" in raised(tensord.InvalidPageSize, lambda: Pool(64 << 30, size))
for capacity in (0, PAGE + 1, 65537 * PAGE):
    assert "65536 pages" in raised(tensord.ValidationFailed, lambda: Pool(capacity, PAGE))
for device in ("cuda:2", "GPU-00000000-0000-0000-0000-000000000000"):
    assert "see" in raised(tensord.DeviceNotFound, lambda: Pool(PAGE, PAGE, device))
for junk in ("cpu", 5, None):
    assert "device" in raised(tensord.ValidationFailed, lambda: Pool(PAGE, PAGE, junk))
pool = Pool(200 * PAGE, PAGE, limit_bytes=150 * PAGE)
pool.map(PAGE, 2 * PAGE)
for offset, size in ((1, PAGE), (0, PAGE + 1), (0, 0), (200 * PAGE, PAGE)):
    for call in (lambda: pool.map(size, offset), lambda: pool.unmap(offset, size)):
        assert str(size) in raised(tensord.OutOfRange, call)
assert "4194304" in raised(tensord.AlreadyMapped, lambda: pool.map(4 * PAGE, 0))
assert pool.is_mapped(2 * PAGE, PAGE)
def fields(kind, call):
    try:
        call()
    except kind as error:
        return error.fields
hole = fields(tensord.OutOfRange, lambda: pool.map(198 * PAGE))
assert hole == {"requested_bytes": 198 * PAGE, "largest_free_bytes": 197 * PAGE}, hole
absent = fields(tensord.NotMapped, lambda: pool.unmap(2 * PAGE, 3 * PAGE))
assert absent == {"byte_offset": 3 * PAGE, "byte_size": 2 * PAGE}, absent
full = fields(tensord.PoolFull, lambda: pool.map(150 * PAGE))
assert full == {"requested_bytes": 150 * PAGE, "available_bytes": 149 * PAGE, "limit_bytes": 150 * PAGE}, full
# The card has 128 pages, and a part of what was created is none.
assert fields(tensord.OutOfDeviceMemory, lambda: pool.map(149 * PAGE))["requested_bytes"] == 149 * PAGE
check_books(pool)
assert physical() == PAGE
for offset, shape, dtype in ((2 * PAGE + 2, 4, "F32"), (200 * PAGE - 4, 2, "F32")):
    assert "tensor" in raised(tensord.OutOfRange, lambda: pool.tensor(offset, shape, dtype))
tensor = pool.tensor(2 * PAGE, (2, 2), "F32")
for wrong in (np.zeros(4, np.float32), np.zeros((2, 2))):
    assert "F32" in raised(tensord.ValidationFailed, lambda: tensor.copy_from_host(wrong))
assert "processor" in raised(tensord.FeatureUnavailable, lambda: np.asarray(tensor))
pool.close()
""",
    )


def test_compact_closes_holes_and_keeps_what_is_in_the_pages(cuda: StandIn) -> None:
    run(
        cuda,
        """
pool = Pool(16 * PAGE, PAGE)
for value, offset, count in ((1, 1, 2), (2, 5, 1), (3, 8, 3)):
    pool.map(count * PAGE, offset * PAGE)
    fill(pool, offset * PAGE, count * PAGE, value)
before = pool.statistics()
assert before.largest_free_bytes == 5 * PAGE and before.fragmentation == 0.5
held = pool.tensor(8 * PAGE, PAGE, "U8")
with pool.pages(1) as run:
    assert run.byte_offset == 0
    fill(pool, 0, PAGE, 4)
    pool.unmap(PAGE, PAGE)
    moves = pool.compact()
    told = [(m.from_byte_offset // PAGE, m.to_byte_offset // PAGE, m.byte_size // PAGE, m.first_page) for m in moves]
    assert told == [(2, 1, 1, 2), (5, 2, 1, 3), (8, 3, 3, 4)], told
    assert content(pool) == {0: 4, PAGE: 1, 2 * PAGE: 2, 3 * PAGE: 3, 4 * PAGE: 3, 5 * PAGE: 3}
    assert "has gone" in raised(tensord.NotMapped, held.copy_to_host)
    assert pool.statistics().fragmentation == 0
    pool.unmap(PAGE, PAGE)
    pool.compact()
    assert pool.compact() == []
check_books(pool)
assert list(content(pool).values()) == [2, 3, 3, 3]
# A run of its own that moved is given back all the same.
pool.map(PAGE, 0)
with pool.pages(2) as run:
    pool.unmap(0, PAGE)
    pool.compact()
    fill(pool, 4 * PAGE, 2 * PAGE, 9)
assert list(content(pool).values()) == [2, 3, 3, 3]
pool.close()
""",
    )


def test_each_call_that_fails_is_undone_and_a_failure_in_the_undo_stays_in_the_books(cuda: StandIn) -> None:
    """The books are what the stand-in has in use, after each failure; and what is not lost has its bytes."""
    said = run(
        cuda,
        """
OLD = {2 * PAGE: 2, 3 * PAGE: 2, 6 * PAGE: 6}
def prepare():
    pool = Pool(8 * PAGE, PAGE)
    for offset, count in ((2, 2), (6, 1)):
        pool.map(count * PAGE, offset * PAGE)
        fill(pool, offset * PAGE, count * PAGE, offset)
    return pool
seen = set()
def look(pool, k, raised):
    check_books(pool)
    told = pool.statistics()
    seen.update(["stuck"] * len(told.stuck) + ["unreleased"] * len(told.unreleased))
    now = content(pool)
    if not told.stuck:
        assert (now == OLD) is raised, (k, raised, now)
    else:
        assert set(now.items()) <= set(OLD.items()), (k, now)
        # What is stuck on its way back comes back with its bytes.
        pool.trim()
        assert content(pool) == OLD, (k, content(pool))
def look_at_map(pool, k, raised):
    if not raised:
        fill(pool, 0, 2 * PAGE, 7)
    look(pool, k, raised)
print(*failures(prepare, lambda pool: pool.map(2 * PAGE), look_at_map))
print(*failures(prepare, lambda pool: pool.unmap(2 * PAGE, 2 * PAGE), look))
print(*failures(prepare, lambda pool: pool.compact(), look))
assert seen == {"stuck", "unreleased"}, seen
""",
    )
    for call in ("cuMemCreate", "cuMemMap", "cuMemSetAccess", "cuCtxSynchronize", "cuMemUnmap", "cuMemRelease"):
        assert call in said
    assert "cuMemAddressReserve" not in said


def test_at_random_the_books_are_what_the_driver_has_and_no_byte_is_lost(cuda: StandIn) -> None:
    """Maps, unmaps and compacts, while one call in some fails; each page has its number in it."""
    seed = random.randrange(1 << 32)
    run(
        cuda,
        f"""
import random
chance = random.Random({seed})
pool = Pool(12 * PAGE, PAGE, limit_bytes=10 * PAGE)
def look(step):
    check_books(pool)
    here = {{number: offset for offset, number in numbers(pool).items()}}
    assert {{number: mark_of(pool, offset) for number, offset in here.items()}} == {{
        number: number % 251 for number in here
    }}, step
    return set(here)
whole = set()
for step in range({rounds_of("elastic-pool-at-random")}):
    fails = chance.random() < 0.6
    orders = [f"* {{chance.randint(1, 30)}} 999" for _ in range(chance.randint(1, 3))] if fails else ["none 1 2"]
    order(FOLDER, *orders)
    what = f"seed {seed}, step {{step}}, {{orders}}"
    try:
        act = chance.choice(("map", "map", "unmap", "compact", "trim"))
        if act == "map":
            before = set(numbers(pool).values())
            pool.map(chance.randint(1, 3) * PAGE)
        elif act == "unmap":
            offset = chance.randrange(12) * PAGE
            pool.unmap(offset, min(chance.randint(1, 3) * PAGE, 12 * PAGE - offset))
        elif act == "compact":
            pool.compact()
        else:
            pool.trim()
        succeeded = True
    except tensord.DriverFailed:
        succeeded = False
    except (tensord.OutOfRange, tensord.PoolFull, tensord.NotMapped):
        succeeded = None
    order(FOLDER, "none 1 2")
    if act == "map" and succeeded:
        for offset, number in numbers(pool).items():
            if number > max(whole, default=0) and number not in before:
                fill(pool, offset, PAGE, number % 251)
    now = look(what)
    stuck = {{page.number for page in pool._space.stuck if page.home is not None}}
    if act != "unmap" or not succeeded:
        # What was there is there, or is stuck on its way back.
        assert whole <= now | stuck, what
    whole = now | stuck
pool.trim()
look("end")
assert set(numbers(pool).values()) == whole
pool.close()
assert physical() == 0
""",
    )


def test_runs_in_a_row_get_one_call_for_access_and_the_device_is_waited_for_before_an_unmap(cuda: StandIn) -> None:
    run(
        cuda,
        """
pool = Pool(8 * PAGE, PAGE)
start = len(calls(FOLDER))
pool.map(3 * PAGE)
pool.unmap(0, 3 * PAGE)
made = [name for name in calls(FOLDER)[start:] if "Ctx" not in name or "Sync" in name]
want = ["cuMemCreate"] * 3 + ["cuMemMap"] * 3 + ["cuMemSetAccess"] + ["cuCtxSynchronize"]
assert made == want + ["cuMemUnmap"] * 3 + ["cuMemRelease"] * 3, made
pool.close()
""",
    )
    assert "cuMemAddressFree" in calls(cuda.folder)


def test_what_close_cannot_take_back_the_next_pool_tries_again(cuda: StandIn) -> None:
    run(
        cuda,
        """
pool = Pool(4 * PAGE, PAGE)
pool.map(2 * PAGE)
order(FOLDER, "cuMemUnmap 1 999", "cuMemRelease 1 999")
assert "Cannot let go of the pool" in raised(tensord.DriverFailed, pool.close)
order(FOLDER, "none 1 2")
assert physical() == 2 * PAGE
Pool(4 * PAGE, PAGE).close()
assert what_is_there() == []
# One that nobody keeps goes, once nobody keeps a tensor of it either.
pool = Pool(4 * PAGE, PAGE)
pool.map(PAGE)
tensor = pool.tensor(0, 4, "F32")
del pool
gc.collect()
assert physical() == PAGE
capsule = tensor.__dlpack__()
del tensor
gc.collect()
assert physical() == PAGE
del capsule
gc.collect()
assert what_is_there() == []
order(FOLDER, "cuMemAddressReserve 1 2")
assert "cuMemAddressReserve" in raised(tensord.DriverFailed, lambda: Pool(4 * PAGE, PAGE))
assert what_is_there() == []
""",
    )


def test_a_forked_child_is_refused_in_words_and_the_parents_pool_is_as_it_was(cuda: StandIn) -> None:
    run(
        cuda,
        """
pool = Pool(4 * PAGE, PAGE)
pool.map(PAGE)
fill(pool, 0, PAGE, 5)
tensor = pool.tensor(0, 4, "U8")
child = os.fork()
if child == 0:
    try:
        for call in (lambda: pool.map(PAGE), lambda: pool.unmap(0, PAGE), pool.statistics, tensor.copy_to_host):
            assert "forked" in raised(tensord.Closed, call)
        pool.close()
        del tensor, pool
        gc.collect()
        os._exit(0)
    finally:
        os._exit(1)
assert os.waitpid(child, 0)[1] == 0
assert content(pool) == {0: 5}
pool.close()
""",
    )

"""Making regions: what may be stored, who owns it, and what a taken name means."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from harness import DEADLINE_SECONDS, Child, Server, wait_for

import tensord
from tensord._region import make
from tensord._transport.transport import Transport


def test_as_many_tensors_as_a_mixture_of_experts_has_make_one_region(client: tensord.Client) -> None:
    count = 31_337
    names = [f"model.layers.{index // 384}.mlp.experts.{index % 128}.proj.{index}" for index in range(count)]
    state = {name: np.full(4, index % 2048, np.float16) for index, name in enumerate(names)}
    with client.create("experts", state, ttl=600) as region:
        region.seal()
    with client.attach("experts") as region:
        assert len(region.keys()) == count
        assert list(region) == names
        assert region.descriptor.tensors is not None
        assert [info.name for info in region.descriptor.tensors[-2:]] == names[-2:]
        for index in (0, 1, 384, count - 1):
            assert np.array_equal(region[names[index]].numpy(), state[names[index]])
    with client.get_or_create("experts", lambda: state) as region:
        assert not region.created


def test_several_tensors_are_found_by_name(client: tensord.Client) -> None:
    data: dict[str, npt.NDArray[Any]] = {
        "w": np.ones((2, 3), np.float16),
        "b": np.arange(4, dtype=np.int64),
        "flag": np.array(True),
        "none": np.zeros((0, 7)),
    }
    with client.create("layer", data, ttl=600) as region:
        assert sorted(region.keys()) == sorted(data) == sorted(region)
        assert len(region) == 4
        assert "w" in region
        assert "x" not in region
        for name, array in data.items():
            tensor = region[name]
            assert (tensor.name, tensor.shape, tensor.byte_size) == (name, array.shape, array.nbytes)
            assert np.array_equal(tensor.numpy(), array)
            assert tensor.numpy().dtype == array.dtype
            assert tensor.numpy().flags.aligned
        assert {name: tensor.dtype for name, tensor in region.tensors.items()} == {
            "w": "F16",
            "b": "I64",
            "flag": "BOOL",
            "none": "F64",
        }
        with pytest.raises(KeyError, match="Cannot find tensor 'x'"):
            region["x"]
        with pytest.raises(tensord.TensorNotFound, match="it has"):
            region["x"]
        for call in (region.numpy, region.torch, region.bytes, region.ref, lambda: np.asarray(region)):
            with pytest.raises(TypeError, match="has 4 tensors"):
                call()


@pytest.mark.parametrize(
    "array",
    [
        np.array(2.5, np.float32),
        np.zeros((0,), np.int8),
        np.zeros((3, 0, 2), np.float64),
        np.arange(24).reshape(4, 6)[::2, ::-1],
        np.arange(24).reshape(4, 6).T,
        np.arange(5, dtype=">i4"),
        np.array([1 + 2j], np.complex64),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_arrays_of_every_kind_come_back_equal(client: tensord.Client, array: npt.NDArray[Any]) -> None:
    with client.create("kind", array, ttl=600) as region:
        region.seal()
        with client.attach("kind") as attached:
            assert attached.numpy().shape == array.shape
            assert attached.numpy().dtype == array.dtype.newbyteorder("=")
            assert np.array_equal(attached.numpy(), array)


def test_a_large_array_comes_back_equal(client: tensord.Client) -> None:
    array = np.random.default_rng(3).integers(0, 256, (70 << 20) + 12_345, np.uint8)
    with client.create("large", array, ttl=600) as region:
        assert np.array_equal(region.numpy(), array)


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_bf16_and_fp8_come_back_equal(client: tensord.Client, name: str) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes gives numpy bf16 and fp8")
    array = np.linspace(-4, 4, 50, dtype=np.float32).astype(getattr(ml_dtypes, name))
    with client.create("small", array, ttl=600) as region:
        assert region.numpy().dtype == array.dtype
        assert region.numpy().tobytes() == array.tobytes()


def test_a_type_that_numpy_lacks_is_there_as_bytes(client: tensord.Client) -> None:
    with client.create("f4", tensors={"q": ("F4", (4, 6))}, ttl=600) as region:
        with pytest.raises(tensord.FeatureUnavailable, match="bytes"):
            region.numpy()
        region.bytes()[:] = 0x21
        assert region.bytes().shape == (12,)
        assert region.bytes().sum() == 12 * 0x21


def test_memory_can_be_asked_for_without_data(client: tensord.Client) -> None:
    with client.create("zeros", shape=(2, 3), dtype="bfloat16", ttl=600) as region:
        assert (region["data"].dtype, region["data"].shape) == ("BF16", (2, 3))
        assert not region.bytes().any()
    with client.create("line", shape=np.int64(5), dtype=np.uint8, ttl=600) as region:
        assert region.numpy().shape == (5,)
    with client.create("scalar", shape=(), dtype="F64", ttl=600) as region:
        assert region.numpy().shape == ()
    with client.create("both", tensors={"a": ("F32", 3), "b": (np.int8, [1, 2])}, ttl=600) as region:
        assert {name: t.shape for name, t in region.tensors.items()} == {"a": (3,), "b": (1, 2)}


@pytest.mark.parametrize(
    "arguments",
    [{}, {"shape": 3}, {"dtype": "F32"}, {"data": [1], "shape": 1, "dtype": "I64"}, {"data": [1], "tensors": {}}],
    ids=str,
)
def test_what_a_region_holds_is_said_exactly_once(client: tensord.Client, arguments: dict[str, Any]) -> None:
    with pytest.raises(tensord.ValidationFailed, match="want either"):
        client.create("x", **arguments, ttl=600)


def test_a_region_needs_an_owner_and_the_error_says_how(server: Server, client: tensord.Client) -> None:
    with (
        server.connect(session=False) as without,
        pytest.raises(tensord.OwnerRequired, match=r"ttl=<seconds>, linger=<seconds>, or persist=True"),
    ):
        without.create("x", [1])
    with pytest.raises(tensord.ValidationFailed):
        client.create("x", [1], ttl=5, persist=True)
    with pytest.raises(tensord.ValidationFailed):
        client.create("x", [1], ttl=float("inf"))
    with client.create("kept", [1], persist=True) as region:
        assert region.descriptor.owner == tensord.Owner("persist")
        assert region.descriptor.expires_at is None


def test_a_taken_name_is_refused_attached_or_replaced(client: tensord.Client) -> None:
    first = client.create("name", [1, 2], ttl=600)
    with pytest.raises(tensord.NameTaken):
        client.create("name", [3, 4], ttl=600)
    with pytest.raises(tensord.NameTaken):
        client.create("name", [3.5, 4], ttl=600, if_exists="attach")

    with client.create("name", [3, 4], ttl=600, if_exists="attach") as second:
        assert (second.id, second.created, second.writable) == (first.id, False, True)
        assert second.numpy().tolist() == [1, 2]
    first.seal()
    with client.create("name", [3, 4], ttl=600, if_exists="attach") as third:
        assert (third.id, third.created, third.writable) == (first.id, False, False)
        assert third.numpy().tolist() == [1, 2]

    with client.create("name", [5, 6], ttl=600, if_exists="replace") as fourth:
        assert (fourth.created, client.get("name").id) == (True, first.id)
        fourth.seal()
        assert client.get("name").id == fourth.id
    assert first.numpy().tolist() == [1, 2]
    first.close()


@pytest.mark.parametrize(("call", "count"), [("copy_all", 1), ("write_all", 1 << 17)])
def test_a_failed_copy_leaves_no_region(
    server: Server, client: tensord.Client, monkeypatch: pytest.MonkeyPatch, call: str, count: int
) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(make, call, fail)
    # What is raised has this frame, and is kept.
    with pytest.raises(KeyboardInterrupt):
        client.create("half", np.ones(count), ttl=600)
    assert server.region_names() == []
    assert [pool.draining_bytes for pool in client.stats().pools if pool.pool == "host"] == [0]
    with pytest.raises(tensord.RegionNotFound):
        client.get("half")


def test_what_cannot_be_stored_is_refused_before_the_server_is_asked(client: tensord.Client) -> None:
    before = client.stats().http.requests
    with pytest.raises(tensord.ValidationFailed):
        client.create("x", np.array(["text"]), ttl=600)
    assert client.stats().http.requests == before + 1


def test_many_threads_create_and_attach(server: Server, client: tensord.Client) -> None:
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(10):
                name = f"t{number}-{turn}"
                with client.create(name, np.full(1000, number), ttl=600) as region:
                    region.seal()
                    with client.attach(name, timeout=60) as attached:
                        assert attached.numpy()[999] == number
                client.delete(region)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_SECONDS)
    assert errors == []


@pytest.fixture
def full_pool() -> Iterator[tensord.Client]:
    """A server whose memory has room for two regions of 7 MiB, ``a`` and ``b``, which are there."""
    # 8 MiB of it are the server's own.
    server = Server(TENSORD_MEMORY_LIMIT_BYTES=str(24 << 20))
    server.start()
    try:
        with server.connect() as client:
            for name in ("a", "b"):
                _make_large(client, name)
            yield client
    finally:
        server.stop()


def _make_large(client: tensord.Client, name: str, **options: Any) -> None:
    client.create(name, shape=7 << 20, dtype="U8", ttl=600, **options).close()


def _names(client: tensord.Client) -> list[str]:
    return sorted(region.name or "" for region in client.list())


@pytest.mark.parametrize("options", [{}, {"on_full": "fail", "deadline": 60}, {"on_full": "evict"}], ids=str)
def test_a_full_pool_is_refused_at_once_unless_the_caller_waits(
    full_pool: tensord.Client, options: dict[str, Any]
) -> None:
    # Nobody sealed it, so it is not evicted.
    full_pool.change(full_pool.get("b"), evictable=True)
    with pytest.raises(tensord.PoolFull):
        _make_large(full_pool, "c", **options)
    assert _names(full_pool) == ["a", "b"]


def _build_large(client: tensord.Client, name: str, **options: Any) -> None:
    client.get_or_create(name, lambda: np.zeros(7 << 20, np.uint8), **options).close()


@pytest.mark.parametrize("make", [_make_large, _build_large])
def test_a_wait_for_memory_ends_with_its_deadline(
    full_pool: tensord.Client, make: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    deadlines: list[int] = []
    request = Transport.request

    def note(transport: Transport, method: str, path: str, body: Any = None, **options: Any) -> Any:
        if body is not None and "deadline_ms" in body:
            deadlines.append(body["deadline_ms"])
        return request(transport, method, path, body, **options)

    monkeypatch.setattr(Transport, "request", note)
    with pytest.raises(tensord.DeadlineExceeded):
        make(full_pool, "c", on_full="wait", deadline=0.05)
    # And not with the default, which is half a minute.
    assert deadlines == [50]
    assert _names(full_pool) == ["a", "b"]


def test_a_wait_for_memory_ends_when_somebody_frees_it(full_pool: tensord.Client) -> None:
    def is_in_line() -> bool:
        # Another one, for which there is room, has to wait behind it.
        try:
            small = full_pool.create(None, [1], ttl=600, on_full="wait", deadline=0.02)
        except tensord.DeadlineExceeded:
            return True
        small.close()
        full_pool.delete(small)
        return False

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(_make_large, full_pool, "c", on_full="wait", deadline=60)
        wait_for(is_in_line, "it waits for memory")
        assert not waiting.done()
        full_pool.delete(full_pool.get("b"))
        waiting.result(DEADLINE_SECONDS)
    assert _names(full_pool) == ["a", "c"]


def test_an_evictable_region_makes_room_for_whoever_says_evict(full_pool: tensord.Client) -> None:
    for name in ("a", "b"):
        with full_pool.attach(name, writable=True) as region:
            region.seal()
        full_pool.change(region.id, evictable=True)

    def is_made(make: Callable[..., None], name: str, **options: Any) -> bool:
        try:
            make(full_pool, name, **options)
        except tensord.PoolFull:
            return False
        return True

    assert not is_made(_make_large, "c")
    # What was handed out less than 10 s ago is not evicted yet.
    wait_for(lambda: is_made(_make_large, "c", on_full="evict"), "one region makes room")
    assert not is_made(_build_large, "d")
    wait_for(lambda: is_made(_build_large, "d", on_full="evict"), "another one makes room")
    assert _names(full_pool) == ["c", "d"]


def _refuse_to_copy(_: object) -> None:
    raise AssertionError("it was copied through the map")


def test_a_region_of_a_mebibyte_is_written_into_its_file(
    client: tensord.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make, "copy_all", _refuse_to_copy)
    tensors = {"w": np.random.default_rng(2).standard_normal((512, 512), np.float32), "b": np.arange(77)}
    with client.create("written", tensors, ttl=600) as region:
        assert np.array_equal(region["w"].numpy(), tensors["w"])
        region.seal()
    with client.attach("written") as region:
        assert {name: region[name].bytes().tobytes() for name in region} == {
            name: array.tobytes() for name, array in tensors.items()
        }


def test_what_was_written_is_not_kept_by_its_region(client: tensord.Client) -> None:
    source = np.arange(1 << 17)
    kept = weakref.ref(source)
    with client.create(None, source, ttl=600) as region:
        del source
        gc.collect()
        assert kept() is None
        assert region.numpy()[-1] == (1 << 17) - 1


def test_what_cannot_be_written_into_its_file_is_copied_through_the_map(
    client: tensord.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make, "write_all", lambda _fd, _pairs: False)
    data = np.arange(1 << 17)
    with client.create(None, data, ttl=600) as region:
        assert np.array_equal(region.numpy(), data)


def test_a_limit_of_files_is_none_of_regions(server: Server) -> None:
    script = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
data = np.arange(1 << 18)
with tensord.connect() as client, client.create(None, data, ttl=600) as region:
    say(bool(np.array_equal(region.numpy(), data)))
"""
    with Child(script, environ=server.environ) as child:
        assert child.hear() is True
        child.finish()

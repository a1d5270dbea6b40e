"""Whatever the caller hands over arrives bit by bit, in windows and on threads or not."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import tensord
from tensord._mapping import libc
from tensord._mapping.attach import Place, map_place
from tensord._mapping.mapping import Access
from tensord._region import copy
from tensord._region.copy import copy_all, suits_file, suits_write, to_sources, write_all


def _stored(data: Any) -> npt.NDArray[np.uint8]:
    (source,) = to_sources(data)
    raw = np.full(source.array.nbytes, 0xEE, np.uint8)
    copy_all([(raw, source)])
    return raw


RANDOM = np.random.default_rng(5)


@pytest.mark.parametrize(
    "array",
    [
        RANDOM.standard_normal((4, 5), np.float32),
        RANDOM.standard_normal((40, 50)).T,
        RANDOM.standard_normal((40, 50))[::3, ::-7],
        np.asfortranarray(RANDOM.standard_normal((6, 7, 8))),
        np.broadcast_to(np.arange(5, dtype=np.int16), (3, 5)),
        np.array(3.5),
        np.zeros((0, 5), np.float64),
        np.array([True, False]),
        np.array([1 + 2j, 3 - 4j], np.complex64),
        np.array([1.5, np.nan, -0.0], np.float16),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_arrays_of_every_layout_arrive_in_row_major_order(array: npt.NDArray[Any]) -> None:
    assert _stored(array).tobytes() == array.tobytes()


def test_big_endian_arrays_are_swapped() -> None:
    array = np.arange(10, dtype=">u4").reshape(2, 5)
    (source,) = to_sources(array)
    assert source.dtype == "U32"
    assert _stored(array).tobytes() == array.astype("<u4").tobytes()


def test_lists_and_scalars_are_arrays_too() -> None:
    (source,) = to_sources([[1, 2], [3, 4]])
    assert (source.name, source.dtype, source.shape) == ("data", "I64", (2, 2))
    (source,) = to_sources(2.5)
    assert (source.dtype, source.shape) == ("F64", ())


def test_a_mapping_names_its_tensors_in_order() -> None:
    sources = to_sources({"b": np.zeros(1, np.int8), "a": np.zeros((2, 2), np.uint16)})
    assert [(source.name, source.dtype, source.shape) for source in sources] == [
        ("b", "I8", (1,)),
        ("a", "U16", (2, 2)),
    ]


@pytest.mark.parametrize("data", [np.array(["x"]), np.array([object()]), np.array([1j]), {"x": "text"}])
def test_what_regions_cannot_hold_is_refused(data: Any) -> None:
    with pytest.raises(tensord.ValidationFailed, match="Cannot store tensor"):
        to_sources(data)


def test_a_tensor_name_is_text() -> None:
    with pytest.raises(tensord.ValidationFailed, match="want text"):
        to_sources({5: np.zeros(1)})


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu"])
def test_ml_dtypes_arrays_arrive(name: str) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes gives numpy bf16 and fp8")
    array = np.arange(1, 13, dtype=np.float32).astype(getattr(ml_dtypes, name)).reshape(3, 4)[:, ::2]
    assert _stored(array).tobytes() == array.tobytes()


def test_torch_tensors_arrive() -> None:
    torch = pytest.importorskip("torch", reason="torch is an extra")
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    cases = {
        "BF16": base.to(torch.bfloat16).T,
        "F8_E4M3": base.to(torch.float8_e4m3fn)[::2],
        "F32": base.requires_grad_(),
        "BOOL": base > 5,
        "I64": base.to(torch.int64)[:, 1],
        "C64": (base + 1j * base).conj(),
        "F64": torch.tensor(2.5, dtype=torch.float64),
        "F16": torch.zeros((0, 3), dtype=torch.float16),
    }
    for dtype, tensor in cases.items():
        (source,) = to_sources(tensor)
        assert (source.dtype, source.shape) == (dtype, tuple(tensor.shape))
        expected = tensor.detach().resolve_conj().contiguous()
        raw = _stored(tensor)
        assert raw.tobytes() == (
            expected.view(torch.uint8).numpy().tobytes() if expected.dim() else expected.numpy().tobytes()
        )


def test_torch_tensors_that_are_elsewhere_are_refused_with_the_cure() -> None:
    torch = pytest.importorskip("torch", reason="torch is an extra")
    with pytest.raises(tensord.ValidationFailed, match=r"has no elements"):
        to_sources(torch.zeros(3, device="meta"))
    with pytest.raises(tensord.ValidationFailed, match=r"to_dense\(\)"):
        to_sources(torch.zeros(3, 3).to_sparse())
    with pytest.raises(tensord.ValidationFailed, match="elements of type"):
        to_sources(torch.zeros(3, dtype=torch.complex128))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("cpus", [1, 4])
def test_large_arrays_are_cut_into_windows(order: Any, cpus: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copy, "WINDOW_BYTES", 1000)
    monkeypatch.setattr(copy, "INLINE_BYTES", 0)
    monkeypatch.setattr(copy, "POPULATE_BYTES", 1 << 60)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cpus)))
    array = np.array(RANDOM.standard_normal((37, 41)), order=order)
    assert _stored(array).tobytes() == array.tobytes()


@pytest.mark.parametrize(("cpus", "window", "sizes"), [(2, 1 << 30, [500, 501]), (2, 400, [201, 400, 400])])
def test_each_thread_has_its_share_of_one_array(
    cpus: int, window: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copy, "WINDOW_BYTES", window)
    monkeypatch.setattr(copy, "INLINE_BYTES", 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cpus)))
    copied: list[int] = []
    monkeypatch.setattr(copy, "_copy", lambda _target, source: copied.append(source.nbytes))
    array = np.zeros(1001, np.uint8)
    copy_all([(array.copy(), source) for source in to_sources(array)])
    assert sorted(copied) == sorted(sizes)


def test_after_a_window_that_fails_no_other_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copy, "WINDOW_BYTES", 10)
    monkeypatch.setattr(copy, "INLINE_BYTES", 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    both = threading.Barrier(2)
    copied: list[int] = []

    def fail(_target: object, source: Any) -> None:
        copied.append(source.nbytes)
        both.wait(60)
        raise tensord.MappingFailed("no pages")

    monkeypatch.setattr(copy, "_copy", fail)
    array = np.zeros(1000, np.uint8)
    with pytest.raises(tensord.MappingFailed, match="no pages"):
        copy_all([(array.copy(), source) for source in to_sources(array)])
    assert copied == [10, 10]


def test_windows_are_populated_before_they_are_written(make_place: Callable[..., Place]) -> None:
    array = RANDOM.integers(0, 256, 1 << 20, np.uint8)
    place = make_place(bytes(4096 + array.nbytes))
    mapping = map_place(place, 0, place.byte_size, Access.WRITE)
    copy_all([(mapping.bytes(4096, array.nbytes), source) for source in to_sources(array)])
    assert Path(place.path).read_bytes()[4096:] == array.tobytes()


def test_a_truncated_file_is_an_error_and_no_signal(make_place: Callable[..., Place]) -> None:
    array = np.ones(1 << 20, np.uint8)
    place = make_place(bytes(array.nbytes))
    mapping = map_place(place, 0, place.byte_size, Access.WRITE)
    os.truncate(place.path, 4096)
    with pytest.raises(tensord.MappingFailed, match="truncate"):
        copy_all([(mapping.bytes(0, array.nbytes), source) for source in to_sources(array)])


@pytest.fixture
def opened(make_place: Callable[..., Place]) -> Iterator[tuple[int, Path]]:
    """A file of zeros, open for writing, and where it is."""
    place = make_place(bytes(1 << 20))
    assert place.path is not None
    fd = os.open(place.path, os.O_RDWR)
    yield fd, Path(place.path)
    os.close(fd)


def test_sources_are_written_where_their_tensors_are(opened: tuple[int, Path]) -> None:
    fd, path = opened
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes gives numpy bf16 and fp8")
    arrays = [
        RANDOM.standard_normal((40, 50), np.float32),
        np.array(3.5),
        np.zeros((0, 5), np.float64),
        np.arange(7, dtype=np.int8),
        RANDOM.standard_normal((3, 4)).astype(ml_dtypes.bfloat16),
    ]
    expected, pairs = bytearray(1 << 20), []
    for number, array in enumerate(arrays):
        (source,) = to_sources(array)
        offset = 4096 + 65_543 * number
        pairs.append((offset, source))
        expected[offset : offset + array.nbytes] = array.tobytes()
    assert write_all(fd, pairs)
    assert path.read_bytes() == expected


def test_a_write_that_stops_in_the_middle_goes_on(opened: tuple[int, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    fd, path = opened
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, rest, offset: pwrite(fd, rest[:1000], offset))
    array = RANDOM.integers(0, 256, 9999, np.uint8)
    assert write_all(fd, [(77, to_sources(array)[0])])
    assert path.read_bytes()[77:10_076] == array.tobytes()


def test_what_may_not_be_written_to_is_left_to_the_map(opened: tuple[int, Path]) -> None:
    read_only = os.open(opened[1], os.O_RDONLY)
    try:
        assert not write_all(read_only, [(0, to_sources(np.ones(10))[0])])
    finally:
        os.close(read_only)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.ENOMEM])
def test_pages_that_cannot_be_had_for_a_write_are_an_error(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pwrite", refuse)
    with pytest.raises(tensord.OutOfSharedMemory, match="Cannot write 80 bytes") as raised:
        write_all(-1, [(0, to_sources(np.ones(10))[0])])
    assert raised.value.fields["requested_bytes"] == 80


def test_what_is_written_lies_as_it_shall_and_is_neither_small_nor_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copy, "WRITE_HUGE_BYTES", range(100, 200))
    for array, suits in (
        (np.ones(100, np.uint8), True),
        (np.ones(99, np.uint8), False),
        (np.ones(200, np.uint8), False),
        (np.ones((10, 20), np.uint8)[:, ::2], False),
        (np.ones(50, ">u2"), False),
    ):
        assert suits_write(to_sources(array)) is suits
    assert suits_write([source for size in (60, 60) for source in to_sources(np.ones(size, np.uint8))])


@pytest.mark.parametrize(
    ("byte_size", "page_bytes", "suits"), [(99, 2 << 20, True), (200, 2 << 20, False), (200, 4096, True)]
)
def test_a_large_array_is_written_where_files_are_of_huge_pages(
    opened: tuple[int, Path], byte_size: int, page_bytes: int, suits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copy, "WRITE_BYTES", range(50, 100))
    # What a file has that is of small pages is then as large as a huge one.
    monkeypatch.setattr(libc, "LARGE_PAGE_SIZE", page_bytes)
    assert suits_file(opened[0], to_sources(np.ones(byte_size, np.uint8))) is suits

"""What a caller may hand to ``create``, and the copy of it into a fresh region: small ones are written into the file,
large ones copied in windows that are populated first, on a few threads. All calls release the GIL. It knows arrays,
addresses and descriptors, no regions.
"""

from __future__ import annotations

import errno
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

if sys.platform != "win32":
    # As in lease.py.
    import resource

from tensord._arguments.quoting import quote, type_name
from tensord._errors import (
    MappingFailed,
    OutOfSharedMemory,
    TensordError,
    ValidationFailed,
    refuse_without_descriptor,
)
from tensord._mapping import libc
from tensord._tensor.dtype import NUMPY_DTYPES, parse_dtype, to_numpy_dtype

from .beside import Unstorable, check_torch, to_array

# Populated and copied in turn, by each thread a window at a time. The C library brings only what is large past the
# caches, in half the time: glibc from three quarters of the cache that the processor reports, which is 192 MiB on an
# EPYC. An interrupt waits for one.
WINDOW_BYTES = 256 << 20
MAX_THREADS = 4
# Below this a thread costs more than it saves, and a few page faults less than a system call.
INLINE_BYTES = 8 << 20
POPULATE_BYTES = 64 << 10
# Fresh pages that are written into the file are neither zeroed nor mapped first: that takes half the time. Below the
# first bound it costs more to open the file, from the second on threads are as fast.
WRITE_BYTES = range(128 << 10, INLINE_BYTES)
# Where files are of huge pages by themselves none is zeroed before it is touched, and one that is written whole not at
# all; from here on two threads are as fast.
WRITE_HUGE_BYTES = range(128 << 10, WINDOW_BYTES)

LONE_TENSOR = "data"

Array = npt.NDArray[Any]

# numpy's own arrays of these need no conversion, and nothing more has to be asked about them.
_PLAIN = {to_numpy_dtype(name): name for name in NUMPY_DTYPES}


@dataclass(frozen=True, slots=True)
class Source:
    """A tensor to be stored. ``array`` may have another type than ``dtype`` says, of the same width: its bits count.

    With ``alias_of`` its bytes are those of the tensor of that name, from ``alias_byte_offset`` on: nothing to copy.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    array: Array
    alias_of: str | None = None
    alias_byte_offset: int = 0


def to_sources(data: Any) -> list[Source]:
    """Tensors from an array-like, which becomes ``data``, or from a mapping of names to array-likes. Copies nothing
    that numpy can see in place. Raises ``ValidationFailed``.
    """
    if isinstance(data, Mapping):
        return [_to_source(name, value) for name, value in data.items()]
    return [_to_source(LONE_TENSOR, data)]


def _to_source(name: Any, value: Any) -> Source:
    if not isinstance(name, str):
        raise ValidationFailed(f"Cannot name a tensor {quote(name)}: want text")
    if type(value) is np.ndarray and (plain := _PLAIN.get(value.dtype)) is not None:
        return Source(name, plain, value.shape, value)
    # Of many tensors it says which one.
    refused = f"Cannot store tensor {name!r} ({type_name(value)})"
    try:
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(value, torch.Tensor):
            return _from_torch(name, value)
        array = to_array(value)
        # Regions are little-endian; numpy swaps while it copies, into an array of the native type.
        return Source(name, parse_dtype(array.dtype.newbyteorder("=")), array.shape, array)
    except Unstorable as unstorable:
        raise ValidationFailed(f"{refused}: {unstorable.why}", hint=unstorable.hint) from None
    except TensordError as error:
        error.detail = f"{refused}: {error.detail.removeprefix('Cannot store ')}"
        raise
    except MemoryError:
        raise
    except Exception as error:
        if isinstance(error, OSError):
            # What numpy or torch load for it at first use.
            refuse_without_descriptor(error, refused.removeprefix("Cannot "))
        # Its own conversion to an array fails, in whichever way.
        raise ValidationFailed(
            f"{refused}: {type(error).__name__}: {error}",
            hint="pass an array of numbers",
        ) from error


def _from_torch(name: str, tensor: Any) -> Source:
    import torch

    check_torch(tensor)
    # A lazy conjugate or negation is a flag beside the bits; strides stay as they are.
    plain = tensor.detach().resolve_conj().resolve_neg()
    dtype = parse_dtype(plain.dtype)
    # numpy gets integers of the same width, because it knows neither bf16 nor fp8 on its own.
    carrier = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[plain.element_size()]
    return Source(name, dtype, tuple(plain.shape), plain.view(carrier).numpy())


def suits_write(sources: Sequence[Source]) -> bool:
    """Whether ``write_all`` can bring these into fresh pages, and may be the faster way: all lie as they shall."""
    return (
        sum(source.array.nbytes for source in sources) in WRITE_HUGE_BYTES
        and all(source.array.flags.c_contiguous and source.array.dtype.isnative for source in sources)
        and not _is_file_size_limited()
    )


def suits_file(fd: int, sources: Sequence[Source]) -> bool:
    """Whether ``write_all`` of what suits is the faster way into this file."""
    return (
        sum(source.array.nbytes for source in sources) in WRITE_BYTES or os.fstat(fd).st_blksize >= libc.LARGE_PAGE_SIZE
    )


def _is_file_size_limited() -> bool:
    """``ulimit -f``, past which a write ends the process where nobody ignores SIGXFSZ; mapped memory knows none."""
    return resource.getrlimit(resource.RLIMIT_FSIZE)[0] != resource.RLIM_INFINITY


def write_all(fd: int, pairs: Iterable[tuple[int, Source]]) -> bool:
    """Writes each source into the file from its byte offset on. Returns whether all is there: where a file may not be
    written to though it can be mapped, ``copy_all`` does it.

    Raises ``OutOfSharedMemory`` if the pages cannot be had; what was written until then stays.
    """
    for byte_offset, source in pairs:
        # As one row of bytes, of types that the buffer protocol has no word for as well.
        rest = source.array.reshape(-1).view(np.uint8).data
        offset = byte_offset
        while rest:
            try:
                written = os.pwrite(fd, rest, offset)
            except OSError as error:
                if error.errno in (errno.ENOMEM, errno.ENOSPC):
                    raise _out_of_memory(len(rest), error) from error
                return False
            offset += written
            rest = rest[written:]
    return True


def copy_all(pairs: Iterable[tuple[npt.NDArray[np.uint8], Source]]) -> None:
    """Copies each source into its bytes, which must be mapped for writing. Returns when all is there.

    Raises ``OutOfSharedMemory`` or ``MappingFailed`` if the pages cannot be had; what was copied until then stays.
    """
    copies = [
        (raw.view(source.array.dtype.newbyteorder("=")).reshape(source.shape), source.array)
        for raw, source in pairs
        if source.array.nbytes > 0
    ]
    byte_size = sum(source.nbytes for _, source in copies)
    threads = min(MAX_THREADS, len(os.sched_getaffinity(0)))
    # Each thread has its share, of one array too.
    window_bytes = max(INLINE_BYTES, min(WINDOW_BYTES, -(-byte_size // threads)))
    windows = [window for target, source in copies for window in _split(target, source, window_bytes)]
    threads = min(threads, len(windows))
    if threads <= 1 or byte_size < INLINE_BYTES:
        for target, source in windows:
            _copy(target, source)
        return
    rest = deque(windows)
    # This thread is one of them.
    with ThreadPoolExecutor(threads - 1, thread_name_prefix="tensord-copy") as pool:
        try:
            futures = [pool.submit(_copy_rest, rest) for _ in range(threads - 1)]
            _copy_rest(rest)
            for future in futures:
                future.result()
        finally:
            # The pool's exit waits for the running ones: nobody may write when the region goes.
            rest.clear()


def _copy_rest(rest: deque[tuple[Array, Array]]) -> None:
    """Copies windows that no other thread has begun with. After one that fails nobody begins with another."""
    try:
        while True:
            try:
                target, source = rest.popleft()
            except IndexError:
                return
            _copy(target, source)
    except BaseException:
        rest.clear()
        raise


def _split(target: Array, source: Array, window_bytes: int) -> Iterator[tuple[Array, Array]]:
    """Pairs of about a window each; the target parts are contiguous."""
    if source.nbytes <= window_bytes:
        yield target, source
        return
    if source.flags.c_contiguous:
        target, source = target.reshape(-1), source.reshape(-1)
    rows = -(-window_bytes * len(source) // source.nbytes)
    for start in range(0, len(source), rows):
        yield target[start : start + rows], source[start : start + rows]


def _copy(target: Array, source: Array) -> None:
    if target.nbytes >= POPULATE_BYTES:
        _populate(target)
    np.copyto(target, source, casting="equiv")


def _populate(target: Array) -> None:
    try:
        libc.populate_for_writing(target.ctypes.data, target.nbytes)
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise _out_of_memory(target.nbytes, error) from error
        raise MappingFailed(
            f"Cannot write into the region: {error}", hint="did somebody truncate the region's file?"
        ) from error


def _out_of_memory(byte_size: int, error: OSError) -> OutOfSharedMemory:
    return OutOfSharedMemory(
        f"Cannot write {byte_size} bytes into the region: {error}",
        hint="raise this container's memory limit",
        fields={"requested_bytes": byte_size},
    )

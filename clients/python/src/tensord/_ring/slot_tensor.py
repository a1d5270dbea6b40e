"""The other side of a ring: a slot's reference, opened to read it, or to write into it if it was lent for that.

The slot stays locked until the tensor is closed, so that its owner does not fill it anew meanwhile.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable

from tensord._errors import DeadlineExceeded, FeatureUnavailable, MappingFailed, StaleRef, ValidationFailed
from tensord._mapping.attach import Asked
from tensord._mapping.lease import take_lease
from tensord._mapping.lock_file import LockFile, LockKind, rounds
from tensord._mapping.mapping import Access, View, map_file
from tensord._region.mapper import open_reference, place_of
from tensord._tensor.reference import TensorReference
from tensord._tensor.tensor import OpenedTensor
from tensord._tensor.tensor_lock import TensorLock

from .layout import WORD_BYTES, parse_word, word_start


class SlotTensor(OpenedTensor):
    """A tensor in a slot of a ring, which is locked until ``close``.

    If it is dropped without that, the slot is locked until the last array or torch tensor over it is gone. Arrays that
    are kept beyond ``close`` show what the owner writes next: copy what you keep. A forked child cannot use it.
    """

    __slots__ = ("_lock_file", "_ref", "_unlocker")

    def __init__(self, opened: OpenedTensor, ref: TensorReference, lock_file: LockFile) -> None:
        super().__init__(opened._attachment, opened._info)
        self._ref = ref
        self._lock_file = lock_file
        anchor, _ = opened._attachment.view.buffer()
        self._unlocker = weakref.finalize(anchor, lock_file.close)
        self._unlocker.atexit = False

    def write_apart(self) -> None:
        """Has what may be written to over this tensor in private pages of its own, not in those of the whole ring."""
        info, lock_file = self._info, self._lock_file
        self._attachment.view.write_apart(lambda: _map_apart(lock_file, info.byte_offset, info.byte_size))

    def close(self) -> None:
        """Lets go of the slot and of the region."""
        self._unlocker()
        super().close()

    def ref(self) -> TensorReference:
        """The reference that it was opened from: good for as long as the slot's owner lets it be. Raises ``Closed``."""
        _ = self._view
        return self._ref

    @property
    def _view(self) -> View:
        view = super()._view
        self._lock_file.check()
        return view

    def _lock(self, kind: LockKind, timeout: float | None) -> TensorLock:
        raise FeatureUnavailable(
            f"Cannot lock a tensor in a slot of ring {self._ref.region}: opening it has locked the slot already",
            hint="open it with writable=True to have it alone",
        )


def open_slot(
    ref: TensorReference,
    access: Access,
    timeout: float | None,
    asked: Asked | None,
    map_tensor: Callable[[TensorReference, Access, Asked | None], OpenedTensor] = open_reference,
) -> SlotTensor:
    """Opens a reference with a generation; ``asked`` as for ``open_reference``. Raises ``StaleRef`` if its slot was
    taken since, ``DeadlineExceeded``.
    """
    word = word_start(ref.generation)
    if word + WORD_BYTES > ref.byte_offset:
        raise ValidationFailed(
            f"Cannot read a tensor reference: generation is {ref.generation}, want that of a slot before byte "
            f"{ref.byte_offset}"
        )
    kind = LockKind.WRITE if access is Access.WRITE else LockKind.READ
    opened = map_tensor(ref, access, asked)
    try:
        lock_file = LockFile(place_of(ref, asked), kind)
        try:
            _lock_slot(lock_file, kind, ref, word, timeout)
            tensor = SlotTensor(opened, ref, lock_file)
            if access is Access.PRIVATE and opened._attachment.access is Access.STRICT:
                tensor.write_apart()
            return tensor
        except BaseException:
            lock_file.close()
            raise
    except BaseException:
        opened.close()
        raise


def _map_apart(lock_file: LockFile, byte_offset: int, byte_size: int) -> View:
    fd = lock_file.reopen()
    try:
        take_lease(fd)
        return map_file(fd, byte_offset, byte_size, Access.PRIVATE)
    except OSError as error:
        raise MappingFailed(f"Cannot map {byte_size} bytes of a slot once more: {error}") from error
    finally:
        os.close(fd)


def _lock_slot(lock_file: LockFile, kind: LockKind, ref: TensorReference, word: int, timeout: float | None) -> None:
    """Locks the reference's bytes, and returns only if they are of its generation *then*."""
    for _ in rounds(timeout):
        locked = lock_file.try_lock(kind, ref.byte_offset, max(ref.byte_size, 1))
        # Asked without the lock too: whoever has it may be the owner, at work on the slot's next tensor.
        generation = parse_word(lock_file.read(word, WORD_BYTES))
        if generation != ref.generation:
            raise StaleRef(
                f"Cannot open a slot of ring {ref.region}: its generation is {generation}, want {ref.generation}",
                hint="open references sooner, make the ring with more slots, or lend the slot instead of publishing it",
                fields={"generation": generation},
            )
        if locked:
            return
    raise DeadlineExceeded(
        f"Cannot open a slot of ring {ref.region}: somebody else still has it locked after {timeout:g} s",
        hint="who writes into it must close it first",
        fields={"region": ref.region, "generation": ref.generation},
    )

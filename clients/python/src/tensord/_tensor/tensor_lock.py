"""Read-write locks of a tensor, between threads, processes and languages. They bind those who take them."""

from __future__ import annotations

from types import TracebackType
from typing import NoReturn

from tensord._errors import DeadlineExceeded, ValidationFailed
from tensord._mapping.attachment import Attachment
from tensord._mapping.lock_file import LockFile, LockKind
from tensord._mapping.mapping import Access
from tensord._wire.tensors import TensorInfo


class TensorLock:
    """A held lock. Release it, or use it in a ``with`` statement; one that nobody refers to any more is released.

    It belongs to the process that took it, ends with it however that ends, and is of no use in a forked child.
    """

    __slots__ = ("_file",)

    def __init__(self, file: LockFile | None) -> None:
        # None for a tensor of no bytes, of which there is nothing to lock.
        self._file = file

    def release(self) -> None:
        """Lets go. Raises ``Closed`` if it was released before, and in a forked child, which never had it."""
        if self._file is not None:
            self._file.check()
            self._file.close()

    def __enter__(self) -> TensorLock:
        if self._file is not None:
            self._file.check()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a lock cannot be pickled or copied: take it where it is needed")


def lock_tensor(attachment: Attachment, info: TensorInfo, kind: LockKind, timeout: float | None) -> TensorLock:
    """Takes a lock of the tensor's bytes, waiting at most ``timeout`` seconds, without end if it is ``None``.

    Raises ``DeadlineExceeded``; ``ValidationFailed`` for a writer that does not map the region
    for writing; ``StaleRef`` if it was deleted; ``Closed``.
    """
    place = attachment.place
    writable = attachment.view.access is Access.WRITE
    if kind is LockKind.WRITE and not writable:
        raise ValidationFailed(
            f"Cannot write-lock tensor {info.name!r} of region {place.region}: it is mapped for reading",
            hint="attach the region with writable=True",
        )
    if info.byte_size == 0:
        return TensorLock(None)
    file = LockFile(place, kind)
    if not file.lock(kind, info.byte_offset, info.byte_size, timeout):
        file.close()
        raise DeadlineExceeded(
            f"Cannot {kind.name.lower()}-lock tensor {info.name!r} of region {place.region}: somebody else still holds "
            f"it after {timeout:g} s",
            hint="wait longer, or find out who holds it: a dead process does not",
            fields={"region": place.region},
        )
    return TensorLock(file)

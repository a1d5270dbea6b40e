"""The devices of this process: the driver, loaded and initialised once, and a device found by its UUID.

A context does not survive ``fork``, and neither does the driver's state: a child whose parent has initialised it is
refused in words before the driver is asked.
"""

from __future__ import annotations

import os
import re
import threading
from dataclasses import dataclass

from tensord._errors import DeviceNotFound, DriverFailed, FeatureUnavailable, ValidationFailed

from .by_bindings import BindingsDriver
from .by_ctypes import LIBRARY, CtypesDriver
from .driver import NO_DEVICE, NOT_INITIALIZED, Driver

_UUID = re.compile(r"(?:GPU-|MIG-)?([0-9a-f]{8})-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{12})")
_ORDINAL = re.compile(r"cuda(?::([0-9]{1,4}))?")

FORK_HINT = "start workers with multiprocessing's spawn or forkserver, or fork before CUDA is used"

_lock = threading.Lock()
_driver: Driver | None = None
_initialised_in: int | None = None


@dataclass(frozen=True, slots=True)
class Device:
    """A device as this process sees it: its ``ordinal`` is this process's, its ``uuid`` everybody's."""

    ordinal: int
    uuid: str

    @property
    def shown(self) -> str:
        """What libraries call it here."""
        return f"cuda:{self.ordinal}"


def usable_driver() -> Driver:
    """The driver, initialised. Raises ``FeatureUnavailable``, ``DriverFailed``."""
    global _driver, _initialised_in  # noqa: PLW0603  # a process has one driver
    # Without the lock, which another thread of the parent may have held.
    if _initialised_in not in (None, os.getpid()):
        raise FeatureUnavailable(
            f"Cannot use CUDA here: process {_initialised_in} has begun to, and this is its forked child "
            f"{os.getpid()}, where the driver does not work",
            hint=FORK_HINT,
        )
    with _lock:
        if _driver is None:
            _driver = _load()
        if _initialised_in is None:
            _init(_driver)
            _initialised_in = os.getpid()
        return _driver


def _load() -> Driver:
    try:
        return BindingsDriver()
    except ImportError:
        pass
    try:
        return CtypesDriver()
    except OSError as error:
        raise FeatureUnavailable(
            f"Cannot use CUDA here: {LIBRARY} cannot be loaded ({error})",
            hint="it comes with NVIDIA's driver; a container gets it from the NVIDIA container toolkit (docker: "
            "--gpus all, Kubernetes: a GPU resource claim)",
        ) from error
    except AttributeError as error:
        raise FeatureUnavailable(
            f"Cannot use CUDA here: {LIBRARY} lacks a call ({error})", hint="want a driver of CUDA 11.2 or newer"
        ) from error


def _init(driver: Driver) -> None:
    try:
        driver.init()
    except DriverFailed as error:
        error.detail = f"Cannot use CUDA here: {error.detail}"
        if error.fields["result"] == NOT_INITIALIZED:
            error.hint = f"was CUDA used before this process was forked? Then {FORK_HINT}"
        if error.fields["result"] == NO_DEVICE:
            error.hint = "is a GPU visible to this process (CUDA_VISIBLE_DEVICES, the container's devices)?"
        raise
    except RuntimeError as error:
        # As cuda.bindings says that it finds no library.
        raise FeatureUnavailable(
            f"Cannot use CUDA here: {error}", hint="install NVIDIA's driver, or give the container its library"
        ) from error


def visible_devices(driver: Driver) -> list[Device]:
    """All devices that this process can see. Raises ``DriverFailed``."""
    return [Device(ordinal, _to_text(driver.device_uuid(ordinal))) for ordinal in range(driver.device_count())]


def find_device(driver: Driver, uuid: str) -> Device:
    """The device with that UUID. Raises ``FeatureUnavailable`` where this process does not see it, ``DriverFailed``."""
    wanted = _to_hex(uuid)
    seen = visible_devices(driver)
    for device in seen:
        if _to_hex(device.uuid) == wanted:
            return Device(device.ordinal, uuid)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    shown = ", ".join(f"{device.shown} is {device.uuid}" for device in seen) or "it sees none"
    raise FeatureUnavailable(
        f"Cannot reach device {uuid}: this process does not see it ({shown}; CUDA_VISIBLE_DEVICES is "
        f"{'not set' if visible is None else repr(visible)})",
        hint="give this process, or its container, that device; by UUID, since numbers differ between processes",
        fields={"device_uuid": uuid},
    )


def choose_device(wanted: str) -> str:
    """The UUID that a caller's word for a device means: ``"cuda:0"``, ``"cuda"``, which is the first, or a UUID itself,
    for which no driver is asked. Raises ``ValidationFailed``, ``FeatureUnavailable``, ``DriverFailed``.
    """
    if _UUID.fullmatch(wanted.removeprefix("GPU-").removeprefix("MIG-").lower()) is not None:
        return wanted
    match = _ORDINAL.fullmatch(wanted)
    if match is None:
        raise ValidationFailed(f'Cannot choose device {wanted!r:.80}: want "cuda:0" or such, or a UUID, "GPU-…"')
    driver = usable_driver()
    ordinal, count = int(match[1] or 0), driver.device_count()
    if ordinal >= count:
        raise ValidationFailed(
            f"Cannot choose device {wanted!r}: this process sees {count} devices, numbered from 0",
            hint="CUDA_VISIBLE_DEVICES says which",
        )
    return _to_text(driver.device_uuid(ordinal))


def find_usable_device(wanted: str) -> tuple[Driver, Device]:
    """The device that a caller's word means, as ``choose_device``, and its driver. Raises ``DeviceNotFound`` for one
    that this process does not see, ``ValidationFailed`` for no word of a device, ``FeatureUnavailable``,
    ``DriverFailed``.
    """
    driver = usable_driver()
    match = _ORDINAL.fullmatch(wanted)
    if match is not None and int(match[1] or 0) >= (count := driver.device_count()):
        raise DeviceNotFound(
            f"Cannot reach device {wanted}: this process sees {count} devices, numbered from 0",
            hint="CUDA_VISIBLE_DEVICES says which",
        )
    uuid = choose_device(wanted)
    try:
        return driver, find_device(driver, uuid)
    except FeatureUnavailable as error:
        raise DeviceNotFound(error.detail, hint=error.hint, fields=error.fields) from None


def is_same(uuid: str, other: str) -> bool:
    """Whether two texts are one UUID."""
    return _to_hex(uuid) == _to_hex(other)


def _to_hex(uuid: str) -> str:
    match = _UUID.fullmatch(uuid[:4] + uuid[4:].lower())
    # What is no UUID is only like itself.
    return uuid if match is None else "".join(match.groups())


def _to_text(uuid: bytes) -> str:
    digits = uuid.hex()
    return f"GPU-{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"

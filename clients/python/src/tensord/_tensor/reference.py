"""The tensor reference: the few bytes that let another process map one tensor without asking the server.

References arrive from other processes, so reading one trusts nothing: every field has a type, a bound, and must agree
with the others. Opening one is ``_mapping``'s business.
"""

from __future__ import annotations

import functools
import json
import os.path
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from tensord._arguments.kinds import MAX_BYTES, MAX_DIMENSIONS
from tensord._arguments.quoting import quote
from tensord._errors import ValidationFailed
from tensord._mapping.origin_file import FILE

from .dtype import byte_size_of, is_dtype

VERSION = 1
# Host memory by the name of a file, by a descriptor from the broker, or, of what no process maps, as a copy.
STORAGE = "shm"
# Other kinds are read, and passed on; who maps them is the one to refuse them.
HEAP = "heap"
# Of a file of somebody else's no reference says the path: the server is asked for it.
MAPPED_STORAGES = (STORAGE, "memfd", HEAP, FILE)
# Memory of a device, of which a driver maps what its server hands out.
DEVICE_STORAGE = "cuda_vmm"
MAX_PATH_CHARACTERS = 4096
MAX_DEVICE_CHARACTERS = 128
MAX_JSON_CHARACTERS = 64 * 1024

_FILE_NAME = re.compile(r"tensord\.([a-z0-9-]{1,32})\.[a-z2-7]{26}")
_INSTANCE = re.compile(r"[a-z0-9-]{1,32}")
_REGION_ID = re.compile(r"reg_[a-z2-7]{26}")
_WORD = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_FIELDS = frozenset(
    {
        "v",
        "storage",
        "instance",
        "region",
        "path",
        "device_uuid",
        "dev",
        "ino",
        "byte_offset",
        "byte_size",
        "dtype",
        "shape",
        "generation",
    }
)
# The first form of version 1 had host memory only.
_FIRST_FIELDS = _FIELDS - {"storage", "device_uuid"}


@functools.lru_cache(maxsize=256)
def instance_of(path: str) -> str | None:
    """The instance in the name of a region's file, or ``None`` if it is not such a name."""
    match = _FILE_NAME.fullmatch(os.path.basename(path))
    return None if match is None else match[1]


def is_region_id(text: str) -> bool:
    """Whether it looks like a region's id, as the server makes them."""
    return _REGION_ID.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class TensorReference:
    """One tensor, by the file that holds it. Immutable, hashable, picklable, and about 300 bytes as JSON.

    ``path``, ``dev`` and ``ino`` name the file and prove that it is still the same one; ``byte_offset`` counts from
    its start, ``byte_size`` is the tensor's, ``shape`` in elements of ``dtype``. ``generation`` is 0 outside rings.
    ``storage`` is what the region is made of: ``shm``, or what a newer client knows how to map, without a ``path`` if
    it has no name, and with the ``device_uuid`` of the device whose memory it is. It keeps nothing alive: whoever sends
    one sees to it that the region lives until it is opened.
    """

    instance: str
    region: str
    path: str | None
    dev: int
    ino: int
    byte_offset: int
    byte_size: int
    dtype: str
    shape: tuple[int, ...]
    generation: int = 0
    storage: str = STORAGE
    device_uuid: str | None = None

    def __post_init__(self) -> None:
        _check_storage(self)
        _check_tensor(self)

    def to_dict(self) -> dict[str, Any]:
        """The wire form, ready for JSON: ``dev`` and ``ino`` are strings, since they are 64 bits wide."""
        return {
            "v": VERSION,
            "storage": self.storage,
            "instance": self.instance,
            "region": self.region,
            "path": self.path,
            "device_uuid": self.device_uuid,
            "dev": str(self.dev),
            "ino": str(self.ino),
            "byte_offset": self.byte_offset,
            "byte_size": self.byte_size,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "generation": self.generation,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> TensorReference:
        """Reads the wire form.

        One of a later version is read by the fields that this one has, and what else it has is ignored. Raises
        ``ValidationFailed`` for anything else, unknown fields of this version among it.
        """
        if not isinstance(value, Mapping):
            _refuse("it", type(value).__name__, "an object")
        version = value.get("v")
        if type(version) is not int or version < VERSION:
            _refuse("v", version, f"an integer from {VERSION}")
        fields = set(value)
        if not (fields in (_FIELDS, _FIRST_FIELDS) if version == VERSION else fields >= _FIELDS):
            _refuse("its fields", sorted(map(str, fields)), sorted(_FIELDS))
        shape = value["shape"]
        if not isinstance(shape, (list, tuple)):
            _refuse("shape", shape, "a list")
        return cls(
            instance=value["instance"],
            region=value["region"],
            path=value["path"],
            dev=_parse_identity("dev", value["dev"]),
            ino=_parse_identity("ino", value["ino"]),
            byte_offset=value["byte_offset"],
            byte_size=value["byte_size"],
            dtype=value["dtype"],
            shape=tuple(shape),
            generation=value["generation"],
            storage=value.get("storage", STORAGE),
            device_uuid=value.get("device_uuid"),
        )

    def to_json(self) -> str:
        """The wire form as JSON text."""
        return json.dumps(self.to_dict(), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> TensorReference:
        """Reads JSON text, at most 64 KiB of it. Raises ``ValidationFailed``."""
        if not isinstance(text, (str, bytes, bytearray)):
            _refuse("its JSON", text, "text")
        if len(text) > MAX_JSON_CHARACTERS:
            _refuse("its JSON", f"{len(text)} characters", f"at most {MAX_JSON_CHARACTERS}")
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValidationFailed(f"Cannot read a tensor reference: it is no JSON ({error})") from error
        return cls.from_dict(value)


def _check_storage(ref: TensorReference) -> None:
    _check_text("instance", ref.instance)
    _check_text("region", ref.region)
    if not is_region_id(ref.region):
        _refuse("region", ref.region, "reg_ and 26 base32 characters")
    _check_int("dev", ref.dev, (1 << 64) - 1)
    _check_int("ino", ref.ino, (1 << 64) - 1)
    _check_text("storage", ref.storage)
    if _WORD.fullmatch(ref.storage) is None:
        _refuse("storage", ref.storage, "the word for a kind of storage")
    if ref.storage in MAPPED_STORAGES:
        _check_file(ref)
    elif ref.storage == DEVICE_STORAGE:
        if ref.path is not None:
            _refuse("path", ref.path, f"None, as {ref.storage} has it")
        if not (isinstance(ref.device_uuid, str) and 0 < len(ref.device_uuid) <= MAX_DEVICE_CHARACTERS):
            _refuse("device_uuid", ref.device_uuid, f"text of at most {MAX_DEVICE_CHARACTERS} characters")
        _check_instance(ref.instance)
    else:
        # Whoever can map it knows what else must be true.
        _check_optional("path", ref.path, MAX_PATH_CHARACTERS)
        _check_optional("device_uuid", ref.device_uuid, MAX_DEVICE_CHARACTERS)


def _check_file(ref: TensorReference) -> None:
    if ref.device_uuid is not None:
        _refuse("device_uuid", ref.device_uuid, f"None, as {ref.storage} has it")
    if ref.storage != STORAGE and ref.path is not None:
        _refuse("path", ref.path, f"None, as {ref.storage} has it")
    if ref.path is None:
        # It is private: its server hands it out.
        _check_instance(ref.instance)
        return
    if not isinstance(ref.path, str):
        _refuse("path", ref.path, "text, or None")
    # normpath, so that no ".." walks out of what a reader of the path believes to see; realpath would ask the disk.
    if (
        not ref.path.startswith("/")
        or "\0" in ref.path
        or os.path.normpath(ref.path) != ref.path
        or len(ref.path) > MAX_PATH_CHARACTERS
    ):
        _refuse("path", ref.path, "an absolute, normal path")
    if instance_of(ref.path) != ref.instance:
        _refuse("path", ref.path, f"a file named tensord.{ref.instance}.<26 base32 characters>")


def _check_instance(instance: str) -> None:
    if _INSTANCE.fullmatch(instance) is None:
        _refuse("instance", instance, "1 to 32 of a-z, 0-9 and -")


def _check_tensor(ref: TensorReference) -> None:
    _check_int("byte_offset", ref.byte_offset, MAX_BYTES)
    _check_int("byte_size", ref.byte_size, MAX_BYTES)
    _check_int("generation", ref.generation, (1 << 64) - 1)
    _check_text("dtype", ref.dtype)
    if not is_dtype(ref.dtype):
        _refuse("dtype", ref.dtype, "a safetensors dtype")
    if not isinstance(ref.shape, tuple) or len(ref.shape) > MAX_DIMENSIONS:
        _refuse("shape", ref.shape, f"a tuple of at most {MAX_DIMENSIONS} sizes")
    for size in ref.shape:
        _check_int("shape", size, MAX_BYTES)
    if byte_size_of(ref.dtype, ref.shape) != ref.byte_size:
        _refuse("byte_size", ref.byte_size, f"{byte_size_of(ref.dtype, ref.shape)}, which its shape and dtype make")
    if ref.byte_offset + ref.byte_size > MAX_BYTES:
        _refuse("byte_offset", ref.byte_offset, f"an end of at most {MAX_BYTES}")


def _parse_identity(name: str, value: Any) -> int:
    if not isinstance(value, str) or re.fullmatch(r"[0-9]{1,20}", value) is None:
        _refuse(name, value, "a decimal string")
    return int(value)


def _check_text(name: str, value: Any) -> None:
    if not isinstance(value, str):
        _refuse(name, value, "text")


def _check_optional(name: str, value: Any, limit: int) -> None:
    if value is not None and not (isinstance(value, str) and 0 < len(value) <= limit):
        _refuse(name, value, f"None, or text of at most {limit} characters")


def _check_int(name: str, value: Any, limit: int) -> None:
    # bool is an int to Python and nothing of the kind to whoever sends a reference.
    if type(value) is not int or not 0 <= value <= limit:
        _refuse(name, value, f"an integer from 0 to {limit}")


def _refuse(name: str, value: Any, want: Any) -> NoReturn:
    raise ValidationFailed(f"Cannot read a tensor reference: {name} is {quote(value)}, want {want}")

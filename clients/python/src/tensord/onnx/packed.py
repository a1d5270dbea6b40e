"""A packed model: what ONNX Runtime has optimised and packed once, as a region holds it, and sessions of it.

A region has the tensors ``data`` (the weights, raw and packed, as ONNX Runtime saved them) and ``model`` (the optimised
graph, whose weights lie in the region's own file). Who maps the file and loads ``model`` needs nothing else.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from tensord._errors import ReadWriteError
from tensord._mapping.libc import trim_heap
from tensord._region.region import Region

from .key import refused
from .options import Options, import_onnxruntime
from .protobuf import Malformed
from .relocate import padded, relocate

DATA, MODEL = "data", "model"
# Smaller ones stay in the model.
MIN_EXTERNAL_BYTES = "1024"
# Longer than the name of any region's file, and further than any place in one: what the model takes at most.
_LONGEST_NAME, _FURTHEST = "x" * 96, 1 << 62
_PAD_BYTES = 16
_PROVIDERS = ("CPUExecutionProvider",)
# Errors alone: that what is saved is for this hardware only is why it has a key.
_SEVERITY_OF_PACKING = 3


class Refused(Exception):
    """ONNX Runtime does not load what is in a region."""


class Packed:
    """What a builder has packed, in files without a name, which are gone with this process however it ends."""

    def __init__(self, path: str, options: Options) -> None:
        """Raises ``InvalidModelFile`` for what ONNX Runtime refuses, ``ReadWriteError`` where there is no room."""
        with tempfile.TemporaryFile() as model, tempfile.TemporaryFile() as data:
            _pack(path, options, model, data)
            self._model = os.pread(model.fileno(), os.fstat(model.fileno()).st_size, 0)
            self._data = _mapped(data)
        trim_heap()
        try:
            room = len(relocate(self._model, self._data, _LONGEST_NAME, _FURTHEST)) + _PAD_BYTES
        except Malformed as error:
            raise ReadWriteError(
                f"Cannot save the optimised model of {path}: what was written has {error}",
                hint=f"is {tempfile.gettempdir()} full? TMPDIR names another folder",
            ) from error
        self._room = room

    def tensors(self) -> dict[str, Any]:
        """What the region is made of. The model is written when the region is there, whose file it names."""
        return {DATA: self._data, MODEL: np.zeros(self._room, np.uint8)}

    def complete(self, region: Region) -> None:
        """Writes the model into the region, which is still open."""
        name = Path(region.descriptor.storage.path or "").name
        model = relocate(self._model, self._data, name, region[DATA].byte_offset)
        region[MODEL].bytes()[:] = np.frombuffer(padded(model, self._room), np.uint8)


def _pack(path: str, options: Options, model: IO[bytes], data: IO[bytes]) -> None:
    onnxruntime = import_onnxruntime()
    chosen = options.make(packing=True)
    chosen.log_severity_level = _SEVERITY_OF_PACKING
    # Both are called by their descriptors: a folder of names would be left behind by who is killed here.
    chosen.optimized_model_filepath = f"/proc/self/fd/{model.fileno()}"
    for key, value in (
        ("session.optimized_model_external_initializers_file_name", str(data.fileno())),
        ("session.optimized_model_external_initializers_min_size_in_bytes", MIN_EXTERNAL_BYTES),
        ("session.save_external_prepacked_constant_initializers", "1"),
    ):
        chosen.add_session_config_entry(key, value)
    try:
        onnxruntime.InferenceSession(path, chosen, providers=list(_PROVIDERS))
    except Exception as error:
        raise refused(path, str(error)) from error


def _mapped(file: IO[bytes]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    size = os.fstat(file.fileno()).st_size
    if size == 0:
        return np.zeros(0, np.uint8)
    return np.frombuffer(mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ), np.uint8)


def session_of(region: Region, options: Options) -> Any:
    """A session whose weights are the region's pages, which is leased for as long as the session is there. Raises
    ``Refused``.
    """
    onnxruntime = import_onnxruntime()
    if region.attached_by != "name":
        raise Refused("its file has no path that this process can open")
    if DATA not in region or MODEL not in region:
        raise Refused("it is no packed model")
    chosen = options.make()
    chosen.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(Path(str(region.descriptor.storage.path)).parent)
    )
    # It is optimised.
    chosen.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        made = onnxruntime.InferenceSession(region[MODEL].bytes().tobytes(), chosen, providers=list(_PROVIDERS))
    except Exception as error:
        raise Refused(str(error)) from error
    # The lease goes with the last of both.
    made._tensord_region = region
    # To see that the packed weights fit, each was packed once more, and let go of.
    trim_heap()
    return made


def plain_session(path: str, options: Options) -> Any:
    """A session as without this package. Raises ``InvalidModelFile``."""
    try:
        return import_onnxruntime().InferenceSession(path, options.make(), providers=list(_PROVIDERS))
    except Exception as error:
        raise refused(path, str(error)) from error

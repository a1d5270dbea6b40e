"""One worker optimises and packs an ONNX model, and all of them, the packer too, use one copy of what it has packed."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from tensord._arguments.checked import checked
from tensord._arguments.kinds import FilePath, Labels, Name, Seconds, Timeout
from tensord._client import DEFAULT_MODEL, LINGER_SECONDS, Client
from tensord._connect import process_client
from tensord._errors import InvalidModelFile, ValidationFailed
from tensord._region.claim import get_or_build
from tensord._region.region import Region
from tensord._region.requests import OnFull, to_creation

from .key import check_fingerprint, identify, version_of
from .options import Options, import_onnxruntime
from .packed import Packed, Refused, plain_session, session_of

if TYPE_CHECKING:
    from onnxruntime import InferenceSession  # type: ignore[import-untyped]

_log = logging.getLogger("tensord")

# As loaded files have it.
FILE_LABEL = "tensord.file"
LABEL_CHARACTERS = 256
# How often a region is found whose name goes before ONNX Runtime has opened it.
TRIES = 4


@checked
def session(
    path: FilePath,
    configure: Callable[[Any], object] | None = None,
    *,
    name: Name | None = None,
    fingerprint: Any = None,
    client: Client | None = None,
    model: Name = DEFAULT_MODEL,
    linger: Seconds | None = None,
    handoff: Seconds | None = None,
    ttl: Seconds | None = None,
    persist: bool = False,
    timeout: Timeout | None = None,
    evictable: bool = False,
    on_full: OnFull = "fail",
    deadline: Seconds | None = None,
    labels: Labels | None = None,
) -> InferenceSession:
    """An ``onnxruntime.InferenceSession`` of the model file at ``path``, for the CPU, whose weights are in a region
    that all workers of this machine map: as ONNX Runtime has optimised the graph and packed the weights for its
    kernels.

    One worker packs, as in ``get_or_create``, and the region holds the weights raw and packed: about twice the model,
    once. Each worker, that one too, then loads from it. Nothing of what is in the region is copied; what stays its own
    are initializers under 1 KiB, and what a kernel packs and does not let be saved. Answers are those of a session
    without tensord.

    ``configure(options)`` sets what it wants of a fresh ``onnxruntime.SessionOptions``. The region's version stands for
    all that decides what is packed: the model's files (device, inode, size, times, and what the file says beside its
    weights), the versions of ONNX Runtime and of this package, the processor's features, and the options, less those of
    threads, logs and profiles. ``fingerprint`` is what there is beside them, such as the version of a library of
    operators of yours: text, numbers, lists and mappings. Another version is another region beside the old one.

    ONNX Runtime compares what is packed with what it would pack itself, and refuses what differs. Then it is packed
    anew, once; and if that is refused as well, or this process cannot open the region's file by its path, the session
    is made as without tensord, and the log says why.

    The region is used for as long as the session is there: nothing needs closing. ``name`` is the file's, without its
    suffix and with ``.packed``, unless it is said. ``client`` is the one to ask, else it is the one that the
    environment names; ``model`` is the model of the server in whose pool it is. The rest is as in ``get_or_create``.

    Raises what ``configure`` and ``get_or_create`` raise; ``InvalidModelFile`` for what ONNX Runtime does not take, or
    what changes while it is packed; ``UnsupportedFormat`` for ``.ort`` files; ``ValidationFailed`` for options that
    cannot be shared; ``FeatureUnavailable`` where onnxruntime is missing.
    """
    import_onnxruntime()
    asked = client or process_client()
    said = check_fingerprint(fingerprint)
    options = Options(configure)
    file = _to_local(str(path))
    files = identify(file)
    body = to_creation(
        model=model,
        name=name or _name_of(file),
        version=version_of(files, options, said),
        ttl=ttl,
        linger=LINGER_SECONDS if (ttl, linger, handoff, persist) == (None, None, None, False) else linger,
        handoff=handoff,
        persist=persist,
        evictable=evictable,
        on_full=on_full,
        deadline=deadline,
        labels={FILE_LABEL: _to_label(file), **(labels or {})},
        # Of what has a path.
        storage="shm",
    )
    packed: list[Packed] = []

    def build() -> dict[str, Any]:
        packed[:] = [Packed(file, options)]
        if identify(file) != files:
            raise InvalidModelFile(
                f"Cannot make a session of {file}: it changed while it was packed",
                hint="replace model files by a rename, and make the session again",
            )
        return packed[0].tensors()

    def complete(region: Region) -> None:
        packed[0].complete(region)

    def get(*, rebuild: bool = False) -> Region:
        owner = asked._session
        if owner is None:
            raise ValidationFailed(
                f"Cannot take turns to pack {file}: this client has no session", hint="connect without session=False"
            )
        try:
            return get_or_build(
                asked._api,
                owner,
                build,
                body,
                name=body["name"],
                timeout=timeout,
                checksum=False,
                strict=False,
                rebuild=rebuild,
                complete=complete,
            )
        finally:
            # Its memory is needed no more.
            packed.clear()

    return _open(file, options, get)


def _open(file: str, options: Options, get: Callable[..., Region]) -> InferenceSession:
    region, why = get(), ""
    rebuilt = False
    for _ in range(TRIES):
        try:
            made: InferenceSession = session_of(region, options)
        except Refused as refused:
            why = str(refused)
            region.close()
            current = get()
            # Another worker may have packed it anew meanwhile; and one whose name is gone was replaced, or deleted.
            if current.id == region.id and not rebuilt and current.attached_by == "name":
                _log.warning("%s is packed anew, since ONNX Runtime refuses what is there: %s", file, why)
                current.close()
                current, rebuilt = get(rebuild=True), True
            elif current.id == region.id:
                current.close()
                break
            region = current
        else:
            return made
    region.close()
    _log.warning("%s is loaded without tensord, into memory of this process, as its region is refused: %s", file, why)
    return plain_session(file, options)


def _to_local(path: str) -> str:
    return unquote(path.removeprefix("file://")) if path.startswith("file:///") else path


def _to_label(path: str) -> str:
    """The path, or its end, where it is too long for a label, which counts in UTF-16."""
    whole = os.path.abspath(path)
    while len(whole.encode("utf-16-le")) > 2 * LABEL_CHARACTERS:
        whole = f"…{whole[2:]}"
    return whole


def _name_of(path: str) -> str:
    # What a name cannot have becomes a dash.
    return re.sub(r"[^A-Za-z0-9._-]", "-", Path(path).stem)[:100].lstrip(".") + ".packed"

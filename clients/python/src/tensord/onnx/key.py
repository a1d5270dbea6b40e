"""What a packed model depends on, and the version that it names: the files it was made of, ONNX Runtime, the processor,
and the options that count.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import stat
from functools import lru_cache
from pathlib import Path
from typing import Any

from tensord._arguments.quoting import quote
from tensord._errors import InvalidModelFile, UnsupportedFormat, ValidationFailed
from tensord._version import __version__

from .model_proto import Outline, outline_of
from .options import Options, import_onnxruntime
from .protobuf import Malformed, Read

# Of 128 bits: no two of one name meet.
VERSION_CHARACTERS = 32
# What is read of a file at a time.
WINDOW_BYTES = 1 << 16
# Of one model.
MAX_FILES = 10_000
# Of /proc/cpuinfo, on x86-64 and arm64: what kernels are chosen by.
_OF_PROCESSOR = frozenset(
    {"vendor_id", "cpu family", "model", "flags", "CPU implementer", "CPU architecture", "CPU part", "Features"}
)


def check_fingerprint(given: Any) -> str:
    """JSON of it. Raises ``ValidationFailed`` for what is not the same text in every process."""
    try:
        return json.dumps(given, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValidationFailed(
            f"Cannot call session: fingerprint is {quote(given)}, want text, numbers, lists and mappings of them",
            hint="say in it what the session depends on beside the model's files and the options",
        ) from error


def version_of(files: list[str], options: Options, fingerprint: str) -> str:
    """Another one for whatever changes what is packed. Raises ``ValidationFailed``."""
    onnxruntime = import_onnxruntime()
    whole = {
        "files": files,
        "fingerprint": fingerprint,
        "onnxruntime": [onnxruntime.get_version_string(), onnxruntime.get_build_info()],
        "options": options.mark,
        "processor": _processor(),
        "tensord": __version__,
    }
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:VERSION_CHARACTERS]


@lru_cache(maxsize=1)
def _processor() -> list[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        text = ""
    # The first one's: they are told one after the other, with an empty line between.
    rows = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    found = sorted(f"{key.strip()}={value.strip()}" for key, _, value in rows if key.strip() in _OF_PROCESSOR)
    return [platform.machine(), *(found or [platform.processor()])]


def identify(path: str) -> list[str]:
    """The state of a model's files: device, inode, size, times, and what the model file says beside its weights.
    Nothing that is large is read.

    Raises ``InvalidModelFile`` for what is no model file that could be read, ``UnsupportedFormat``.
    """
    try:
        # A FIFO would wait for somebody who writes.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise refused(path, str(error)) from error
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise refused(path, "it is no regular file")
        if status.st_size == 0:
            raise refused(path, "it is empty")
        if os.pread(fd, 8, 0)[4:] == b"ORTM":
            raise UnsupportedFormat(
                f"Cannot share a session of {path}: it is in ORT format, whose weights lie inside",
                hint="pass the .onnx file that it was made of",
            )
        outline = outline_of(_windows(fd), status.st_size)
    except Malformed as error:
        raise refused(path, f"it is no ONNX model: it has {error}") from error
    except OSError as error:
        raise refused(path, str(error)) from error
    finally:
        os.close(fd)
    return [_state(status), outline.digest, *_beside(path, outline)]


def _beside(path: str, outline: Outline) -> list[str]:
    if len(outline.locations) > MAX_FILES:
        raise refused(path, f"its weights are in {len(outline.locations)} files, at most {MAX_FILES} are taken")
    folder = Path(path).parent
    states = []
    for location in sorted(outline.locations):
        try:
            # Where it may lie is ONNX Runtime's to say, which opens it; here it is only looked at.
            states.append(f"{location}={_state((folder / location).stat())}")
        except (OSError, ValueError) as error:
            raise refused(path, f"its weights are in {quote(location)}: {error}") from error
    return states


def _state(status: os.stat_result) -> str:
    return f"{status.st_dev}.{status.st_ino}.{status.st_size}.{status.st_mtime_ns}.{status.st_ctime_ns}"


def _windows(fd: int) -> Read:
    """Reads that mostly go on where the last one was."""
    begin, window = 0, b""

    def read(at: int, size: int) -> bytes:
        nonlocal begin, window
        if not (begin <= at and at + size <= begin + len(window)):
            begin, window = at, os.pread(fd, max(size, WINDOW_BYTES), at)
        return window[at - begin : at - begin + size]

    return read


def refused(path: str, reason: str) -> InvalidModelFile:
    """What is raised of a model file that no session can be made of."""
    return InvalidModelFile(
        f"Cannot make a session of {path}: {reason}",
        hint="want an ONNX model file that onnxruntime.InferenceSession(path) takes",
    )

"""Options of a session, taken down as somebody sets them: which of them decide what is packed, and the same ones again
for each session that is made.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tensord._arguments.quoting import quote
from tensord._errors import FeatureUnavailable, ValidationFailed

# Where the model's weights lie, and what a session writes: this package says it.
_OURS = frozenset({"optimized_model_filepath"})
_OUR_ENTRIES = (
    "session.model_external_initializers_file_folder_path",
    "session.optimized_model_",
    "session.save_",
    "session.load_model_format",
    "session.disable_prepacking",
    "session.use_external_initializer_file_buffers_directly",
)
# What these put into a session is in no file, or on no CPU.
_REFUSED = {
    "add_initializer": "an initializer of this process is in no file that others could map",
    "add_external_initializers": "an initializer of this process is in no file that others could map",
    "add_external_initializers_from_files_in_memory": "an initializer of this process is in no file",
    "add_provider": "what is packed is packed for the CPU",
    "add_provider_for_devices": "what is packed is packed for the CPU",
    "set_provider_selection_policy": "what is packed is packed for the CPU",
    "set_provider_selection_policy_delegate": "what is packed is packed for the CPU",
}
# They decide how a session runs, and not what it holds.
_OF_RUNNING = frozenset(
    {
        "enable_cpu_mem_arena",
        "enable_mem_pattern",
        "enable_mem_reuse",
        "enable_profiling",
        "execution_mode",
        "execution_order",
        "inter_op_num_threads",
        "intra_op_num_threads",
        "log_severity_level",
        "log_verbosity_level",
        "logid",
        "profile_file_prefix",
        "set_load_cancellation_flag",
        "use_per_session_threads",
    }
)
_ENTRIES_OF_RUNNING = ("session.intra_op", "session.inter_op", "session.force_spinning_stop", "session.log_")
# Of the session that packs nothing else is wanted.
_NOT_FOR_PACKING = frozenset({"enable_profiling", "profile_file_prefix"})

Step = tuple[str, tuple[Any, ...]]


def import_onnxruntime() -> Any:
    """The module onnxruntime. Raises ``FeatureUnavailable``."""
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise FeatureUnavailable(
            "Cannot make a session of ONNX Runtime: onnxruntime is not installed",
            hint='pip install onnxruntime (or "tensord[onnx]")',
        ) from error


class Options:
    """What ``configure`` has done to a ``SessionOptions``, step by step."""

    def __init__(self, configure: Callable[[Any], object] | None) -> None:
        self._steps: list[Step] = []
        if configure is not None:
            configure(_recording(self._steps))

    def make(self, *, packing: bool = False) -> Any:
        """Fresh options on which the same was done."""
        options = import_onnxruntime().SessionOptions()
        for name, arguments in self._steps:
            if packing and name in _NOT_FOR_PACKING:
                continue
            member = getattr(options, name)
            if callable(member):
                member(*arguments)
            else:
                setattr(options, name, *arguments)
        return options

    @property
    def mark(self) -> list[list[str]]:
        """The steps that decide what is packed, as text that is the same in every process."""
        return [[name, *map(_to_text, arguments), *_file_of(name, arguments)] for name, arguments in self._counting()]

    def _counting(self) -> list[Step]:
        return [
            (name, arguments)
            for name, arguments in self._steps
            if name not in _OF_RUNNING
            and not (name == "add_session_config_entry" and str(arguments[0]).startswith(_ENTRIES_OF_RUNNING))
        ]


def _recording(steps: list[Step]) -> Any:
    kind = import_onnxruntime().SessionOptions

    class Recording(kind):  # type: ignore[misc, valid-type]
        """A ``SessionOptions`` that takes down what is done to it."""

        def __setattr__(self, name: str, value: Any) -> None:
            if name in _OURS:
                raise ValidationFailed(
                    f"Cannot set {name}: where a shared session is saved, tensord says", hint="leave it out"
                )
            super().__setattr__(name, value)
            steps.append((name, (value,)))

    def recorded(name: str) -> Callable[..., Any]:
        call = getattr(kind, name)

        def do(self: Any, *arguments: Any) -> Any:
            _check(name, arguments)
            result = call(self, *arguments)
            steps.append((name, arguments))
            return result

        return do

    for name in dir(kind):
        if name.startswith(("add_", "set_", "register_", "clear_")) and callable(getattr(kind, name)):
            setattr(Recording, name, recorded(name))
    return Recording()


def _check(name: str, arguments: tuple[Any, ...]) -> None:
    if name in _REFUSED:
        raise ValidationFailed(
            f"Cannot {name} of a shared session: {_REFUSED[name]}",
            hint="make such a session by onnxruntime.InferenceSession",
        )
    if name == "add_session_config_entry" and str(arguments[0]).startswith(_OUR_ENTRIES):
        raise ValidationFailed(
            f"Cannot set {quote(arguments[0])} of a shared session: tensord sets it", hint="leave it out"
        )


def _to_text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_to_text, value))}]"
    # Enumerations of ONNX Runtime's have a name; objects have an address, which no other process has.
    if isinstance(value, (str, int, float, bool, os.PathLike)) or hasattr(value, "name"):
        return str(value)
    raise ValidationFailed(
        f"Cannot share a session with the option {quote(value)}: it is not the same text in every process",
        hint="make such a session by onnxruntime.InferenceSession",
    )


def _file_of(name: str, arguments: tuple[Any, ...]) -> list[str]:
    """What stands for the state of a library of operators."""
    if name != "register_custom_ops_library":
        return []
    status = Path(str(arguments[0])).stat()
    return [f"{status.st_dev}.{status.st_ino}.{status.st_size}.{status.st_mtime_ns}"]

"""One worker builds a module, and all of them, the builder too, use one copy of its tensors."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from tensord._arguments.checked import checked
from tensord._arguments.kinds import Labels, Name, Seconds, Timeout
from tensord._client import DEFAULT_MODEL, Client
from tensord._connect import process_client
from tensord._errors import TensordError, ValidationFailed
from tensord._region.requests import HugePages, OnFull, StorageKind
from tensord._tensor.dtype import import_torch

from .fingerprint import FINGERPRINT_TENSOR, Fingerprint, to_fingerprint
from .places import check_shareable, fill, kinds_of, tensors_of
from .wrappers import WRAPPERS_TENSOR

if TYPE_CHECKING:
    from torch.nn import Module

_log = logging.getLogger("tensord")

_Module = TypeVar("_Module", bound="Module")


@checked
def share_module(
    name: Name,
    build: Callable[[], _Module],
    build_empty: Callable[[], _Module] | None = None,
    *,
    fingerprint: Any,
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
    storage: StorageKind | None = None,
    private: bool = False,
    huge_pages: HugePages | None = None,
) -> _Module:
    """The module that ``build()`` returns, with its tensors in a region that all workers of this machine map.

    One worker builds, as in ``get_or_create``. Each other one makes a module without weights, and gets the region's
    tensors put into it: every parameter and buffer, also those that are not persistent, and tensors that are attributes
    of a module; what is tied is tied. A tensor that is made of others, as torchao's quantised weights are, is made of
    the region's. Nothing is copied, and nothing stays on meta. The module without weights is what ``build_empty()``
    returns, else what ``build()`` does under ``torch.device("meta")``, where tensors have no memory: ``build_empty`` is
    for a ``build`` that looks at elements, or reads files. All that is no tensor is that module's: hooks, ``training``,
    ``requires_grad``.

    ``fingerprint`` says what the weights depend on: the configuration, the version of the code, of the libraries, of
    the weights; text, numbers, lists and mappings. It names the region's version, together with the versions of torch
    and of this package: another fingerprint is another build, beside the old one, which the log tells, with what
    differs. **What is not in it is not noticed**: who changes ``build`` alone gets what was built before.

    The region is sealed: a write in place, as of an optimizer, changes pages of this process and nobody else's, and
    ``private_bytes`` tells how many. It is used for as long as the module, or a tensor of it, is there: nothing needs
    closing. ``client`` is the one to ask, else it is the one that the environment names; ``model`` is the model of the
    server in whose pool it is. The rest is as in ``get_or_create``.

    Raises what ``build`` and ``get_or_create`` raise; ``ValidationFailed`` for what is no module, for one whose
    weights are in no tensor (torch.ao's ``quantize_dynamic`` packs them), and where a module without weights cannot be
    made or is not like the one that was built; ``FeatureUnavailable`` where torch is missing.
    """
    asked = client or process_client()
    mark = to_fingerprint(fingerprint)
    built: list[_Module] = []

    def build_tensors() -> dict[str, Any]:
        _explain(asked, name, model, mark)
        module = build()
        check_shareable(name, module)
        built.append(module)
        tensors: dict[str, Any] = {**tensors_of(module), FINGERPRINT_TENSOR: _to_bytes(mark.text)}
        if kinds := kinds_of(module):
            tensors[WRAPPERS_TENSOR] = _to_bytes(json.dumps(kinds))
        return tensors

    region = asked.get_or_create(
        name,
        build_tensors,
        model=model,
        version=mark.version,
        linger=linger,
        handoff=handoff,
        ttl=ttl,
        persist=persist,
        timeout=timeout,
        evictable=evictable,
        on_full=on_full,
        deadline=deadline,
        labels=labels,
        storage=storage,
        private=private,
        huge_pages=huge_pages,
    )
    # What its tensors are in stays mapped for as long as they are there.
    with region:
        module = built[0] if built else _make_empty(name, build, build_empty)
        tensors = region.state_dict()
        tensors.pop(FINGERPRINT_TENSOR, None)
        kinds = tensors.pop(WRAPPERS_TENSOR, None)
        fill(name, module, tensors, {} if kinds is None else json.loads(bytes(kinds.tolist())))
    return module


def _to_bytes(text: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.frombuffer(text.encode(), np.uint8)


def _make_empty(name: str, build: Callable[[], _Module], build_empty: Callable[[], _Module] | None) -> _Module:
    if build_empty is not None:
        module = build_empty()
    else:
        try:
            with import_torch().device("meta"):
                module = build()
        except Exception as error:
            raise ValidationFailed(
                f"Cannot make module {name!r} without weights: build() fails under torch.device('meta'): "
                f"{type(error).__name__}: {error}",
                hint="pass build_empty=, which makes the same module and neither reads weights nor looks at elements",
            ) from error
    check_shareable(name, module)
    return module


def _explain(client: Client, name: str, model: str, mark: Fingerprint) -> None:
    """Tells in the log why a module is built though there is one of that name."""
    try:
        other = client.attach(name, model=model)
    except TensordError:
        # There is none, or none that could be had: then there is nothing to tell.
        return
    with other:
        if other.version == mark.version or FINGERPRINT_TENSOR not in other:
            return
        text = other[FINGERPRINT_TENSOR].bytes().tobytes().decode()
    _log.warning(
        "Module %s is built anew, as version %s beside %s, since its fingerprint differs: %s",
        name,
        mark.version,
        other.version,
        mark.differences(Fingerprint(text)),
    )

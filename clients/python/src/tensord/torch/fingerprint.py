"""What a module's weights depend on, as text that is the same in every process, and the version that it names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tensord._arguments.quoting import quote
from tensord._errors import ValidationFailed
from tensord._tensor.dtype import import_torch
from tensord._version import __version__

# Of 128 bits: no two builds of one name meet.
VERSION_CHARACTERS = 32
SHOWN = 4
# Beside the module's own names, which begin with those of its attributes.
FINGERPRINT_TENSOR = "tensord:fingerprint"


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """``text`` is JSON: what the caller says, and the versions of torch and this package."""

    text: str

    @property
    def version(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()[:VERSION_CHARACTERS]

    def differences(self, other: Fingerprint) -> str:
        """In words, what of ``other`` has become what here: ``fingerprint.layers is 24, was 12``."""
        here, there = dict(_flatten("", json.loads(self.text))), dict(_flatten("", json.loads(other.text)))
        differing = [key for key in {**here, **there} if here.get(key) != there.get(key)]
        told = [f"{key} is {here.get(key, 'not there')}, was {there.get(key, 'not there')}" for key in differing]
        more = f" and {len(told) - SHOWN} more" if len(told) > SHOWN else ""
        return "; ".join(told[:SHOWN]) + more


def to_fingerprint(given: Any) -> Fingerprint:
    """Raises ``ValidationFailed`` for what is not the same text in every process."""
    try:
        if given is None:
            raise TypeError("None says nothing")
        # Read again, so that what JSON cannot tell apart, a tuple and a list, is the same.
        whole = {"fingerprint": given, "tensord": __version__, "torch": str(import_torch().__version__)}
        return Fingerprint(json.dumps(whole, sort_keys=True, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValidationFailed(
            f"Cannot call share_module: fingerprint is {quote(given)}, want text, numbers, lists and mappings of them",
            hint="say in it what the weights depend on, as in {'weights': sha256, 'config': config.to_dict()}; "
            "write str(…) around a dtype or a path",
        ) from error


def _flatten(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, member in value.items():
            yield from _flatten(f"{path}.{key}" if path else key, member)
    else:
        yield path, quote(value)

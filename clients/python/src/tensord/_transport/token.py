"""The token that says who asks: from an argument, the environment, or a file, which is read again as it changes."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from tensord._errors import ValidationFailed

# As RFC 6750 has it: nothing else can stand in the header.
_FORM = re.compile(r"[A-Za-z0-9._~+/-]+=*")
MAX_CHARACTERS = 512
# A file is asked for no more often: the server looks as often whether its own has changed.
KEEP_SECONDS = 1.0


@dataclass(slots=True)
class _Kept:
    """What a file said, and until when that is believed."""

    text: str = ""
    until: float = 0.0


@dataclass(frozen=True, slots=True)
class Token:
    """One token, or the file that has it. Neither shows in a ``repr``, and so in no log and no traceback."""

    text: str | None = field(default=None, repr=False)
    path: str | None = None
    _kept: _Kept = field(default_factory=_Kept, repr=False, compare=False)

    def read(self) -> str:
        """The token as it is now. Raises ``ValidationFailed`` if the file cannot be read, or has none."""
        if self.text is not None:
            return self.text
        now = time.monotonic()
        if now >= self._kept.until:
            self._kept.text = _read_file(self.path or "")
            self._kept.until = now + KEEP_SECONDS
        return self._kept.text


def find_token(given: str | None, environ: Mapping[str, str]) -> Token | None:
    """``given``, else ``TENSORD_TOKEN``, else what the file ``TENSORD_TOKEN_FILE`` has; None: none is sent.

    Raises ``ValidationFailed`` for what is no token, which is not shown.
    """
    if given is not None:
        return Token(_checked(given.strip(), "the argument token"))
    from_environment = environ.get("TENSORD_TOKEN", "").strip()
    if from_environment:
        return Token(_checked(from_environment, "TENSORD_TOKEN"))
    path = environ.get("TENSORD_TOKEN_FILE", "")
    if not path:
        return None
    token = Token(path=path)
    token.read()
    return token


def _read_file(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            text = file.read(MAX_CHARACTERS + 64).strip()
    except OSError as error:
        raise ValidationFailed(
            f"Cannot read the token from {path} (TENSORD_TOKEN_FILE): {error.strerror}",
            hint="let this process's user read it, or set TENSORD_TOKEN",
        ) from error
    return _checked(text, f"{path} (TENSORD_TOKEN_FILE)")


def _checked(text: str, where: str) -> str:
    if len(text) <= MAX_CHARACTERS and _FORM.fullmatch(text):
        return text
    raise ValidationFailed(
        f"Cannot use the token of {where}: it is none",
        hint=f"want at most {MAX_CHARACTERS} of A-Z a-z 0-9 . _ ~ + / -, as the server's TENSORD_TOKENS_FILE has it",
    )

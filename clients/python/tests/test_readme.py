"""The README's examples run, in the order in which they stand there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from harness import Server

README = Path(__file__).resolve().parents[1] / "README.md"


def test_the_examples_run(server: Server) -> None:
    pytest.importorskip("torch", reason="one example loads a state_dict")
    examples = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(examples) >= 4
    namespace: dict[str, object] = {}
    for example in examples:
        exec(compile(example, str(README), "exec"), namespace)
    namespace.clear()

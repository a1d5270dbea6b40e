"""The README's examples run, each by itself, twice and in any order."""

from __future__ import annotations

import gc
import re
import threading
from pathlib import Path

import pytest
from harness import Server, wait_for

README = Path(__file__).resolve().parents[1] / "README.md"


def _run(example: str) -> None:
    exec(compile(example, str(README), "exec"), {"__name__": "__main__"})
    # What it mapped at its top level is in cycles with its functions.
    gc.collect()


def _nothing_is_left_of_sessions(server: Server) -> bool:
    with server.connect(session=False) as client:
        return all(region.owner.kind != "session" for region in client.list())


def test_the_examples_run_twice_and_in_any_order(server: Server) -> None:
    pytest.importorskip("torch", reason="one example loads a state_dict")
    examples = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(examples) >= 10
    (reader,) = [example for example in examples if "timeout=30)" in example]
    examples.remove(reader)
    # Backwards and then forwards, each has been before and after each other one.
    for order in (examples[::-1], examples):
        # What was mapped beyond its session goes when its lease is next asked for.
        wait_for(lambda: _nothing_is_left_of_sessions(server), "the regions of the last round are gone")
        for example in order:
            if 'create("embedding"' not in example:
                _run(example)
                continue
            failures: list[BaseException] = []

            def read(failures: list[BaseException] = failures) -> None:
                try:
                    _run(reader)
                except BaseException as error:
                    failures.append(error)

            # It waits for what the other makes.
            waiting = threading.Thread(target=read)
            waiting.start()
            _run(example)
            waiting.join()
            assert failures == []

"""The bar that is drawn while a load or a copy goes on."""

import io
import sys
from types import SimpleNamespace

import pytest

from tensord import progress_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def drawn(monkeypatch):
    terminal = Terminal()
    # Where it is looked for, since pytest puts its own in place when a test begins.
    monkeypatch.setattr("tensord._progress_bar.sys", SimpleNamespace(stderr=terminal))
    return terminal


def test_it_goes_over_one_line_and_ends_it(drawn):
    total = 3 * 2**30
    for done in (0, total // 2, total):
        progress_bar(done, total)
    lines = drawn.getvalue().split("\r")[1:]
    assert lines == [
        f"[{'-' * 30}]   0 % of 3.0 GiB",
        f"[{'#' * 15}{'-' * 15}]  50 % of 3.0 GiB",
        f"[{'#' * 30}] 100 % of 3.0 GiB\n",
    ]


def test_small_sizes_are_whole_and_more_than_all_is_all(drawn):
    progress_bar(2000, 1000)
    assert drawn.getvalue() == f"\r[{'#' * 30}] 100 % of 1000 B\n"


def test_what_has_nothing_to_do_has_no_bar(drawn):
    progress_bar(0, 0)
    assert drawn.getvalue() == ""


def test_a_file_and_a_pipe_get_none(monkeypatch):
    pipe = io.StringIO()
    monkeypatch.setattr(sys, "stderr", pipe)
    progress_bar(1, 2)
    assert pipe.getvalue() == ""

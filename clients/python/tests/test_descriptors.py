"""A process that may open no more files is told so, in words that say what to do, and loses nothing by it."""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import resource
from collections.abc import Iterator

import numpy as np
import pytest
from harness import Server, wait_for

import tensord
from tensord._errors import refuse_without_descriptor


@contextlib.contextmanager
def no_descriptor() -> Iterator[None]:
    """Within it this process can open nothing. What is open stays."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def links() -> list[str]:
    """What each descriptor of this process is of."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        # The listing's own is gone by now, and threads of others close theirs.
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
    return found


def count_open(path: str | None = None) -> int:
    """Descriptors of this process: of one file; or all, of which others come and go by themselves."""
    return sum(path is None or link == path for link in links())


def check(error: tensord.OutOfDescriptors, action: str) -> None:
    assert (error.code, error.status, error.fields) == ("out-of-descriptors", None, {"limit": 3})
    assert str(error).startswith(f"Cannot {action}")
    assert "3 are the most (EMFILE)" in str(error)
    assert "ulimit -n" in str(error)
    # As plain code expects it of a call that opens something.
    assert isinstance(error, OSError)


def test_a_client_without_a_descriptor_says_what_to_raise(server: Server) -> None:
    with tensord.connect(server.url) as client:
        before = count_open()
        for ask in (client.stats, lambda: client.get("absent")):
            with no_descriptor(), pytest.raises(tensord.OutOfDescriptors) as caught:
                ask()
            check(caught.value, f"connect to {server.url}")
        # Nothing of it stays; threads of others open and close what they need.
        wait_for(lambda: count_open() <= before, "nothing of it is open")
        assert client.stats().regions is not None


def test_attaching_without_a_descriptor_leaves_neither_lease_nor_file(client: tensord.Client) -> None:
    with client.create("few", np.arange(4), ttl=3600) as region:
        reference = region["data"].ref()
    # Other descriptors come and go by themselves: the client holds a session.
    with open(reference.path):
        assert count_open(reference.path) == 1
    with no_descriptor():
        for _ in range(3):
            with pytest.raises(tensord.OutOfDescriptors) as caught:
                client.open(reference)
            check(caught.value, f"open region {region.id}")
    assert count_open(reference.path) == 0
    with client.open(reference) as tensor:
        assert tensor.numpy().tolist() == [0, 1, 2, 3]


def test_a_session_that_cannot_be_held_for_want_of_a_descriptor_is_held_by_the_next_call(server: Server) -> None:
    with tensord.connect(server.url, session=True) as client:
        with no_descriptor(), pytest.raises(tensord.OutOfDescriptors) as caught:
            client.create("held", np.arange(4))
        assert "ulimit -n" in str(caught.value)
        with client.create("held", np.arange(4)) as region:
            assert region.descriptor.owner.kind == "session"


def test_following_the_events_without_a_descriptor_says_so(client: tensord.Client) -> None:
    with no_descriptor(), pytest.raises(tensord.OutOfDescriptors):
        next(client.events())


def test_a_machine_without_descriptors_is_told_apart_and_other_errors_pass() -> None:
    with pytest.raises(tensord.OutOfDescriptors, match=r"fs\.file-max"):
        refuse_without_descriptor(OSError(errno.ENFILE, "Too many open files in system"), "open it")
    refuse_without_descriptor(OSError(errno.EIO, "I/O error"), "open it")


def test_it_travels_between_processes() -> None:
    with pytest.raises(tensord.OutOfDescriptors) as caught:
        refuse_without_descriptor(OSError(errno.EMFILE, "Too many open files"), "open it")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again), again.fields) == (tensord.OutOfDescriptors, str(caught.value), caught.value.fields)

"""What comes out of Server-Sent Events does not depend on how they were cut, and has a bound."""

from __future__ import annotations

import pytest

import tensord
from tensord._events.sse import MAX_BLOCK_BYTES, SseParser

TEXT = (
    b': hello\nretry: 1000\nid: 1\ndata: {"a":"\xc3\xa9"}\n\n'
    b": keep-alive\n\nevent: x\ndata:two\ndata:  lines\n\nid: 3\n\n"
)
BLOCKS = [b'{"a":"\xc3\xa9"}', b"two\n lines"]


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 1000])
def test_blocks_are_the_same_however_the_bytes_were_cut(line_end: bytes, size: int) -> None:
    text = TEXT.replace(b"\n", line_end)
    parser = SseParser()
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    assert [block for piece in pieces for block in parser.feed(piece)] == BLOCKS


def test_a_block_whose_end_did_not_come_is_not_given_out() -> None:
    parser = SseParser()
    assert list(parser.feed(b"data: 1\n\ndata: 2\n")) == [b"1"]
    assert list(parser.feed(b"data: 3")) == []
    assert list(parser.feed(b"\n\n")) == [b"2\n3"]


def test_a_line_without_an_end_is_refused() -> None:
    parser = SseParser()
    assert list(parser.feed(b"data: " + b"x" * (MAX_BLOCK_BYTES - 6))) == []
    with pytest.raises(tensord.ServerFault, match="more than 1048576 bytes"):
        list(parser.feed(b"x"))


def test_lines_of_data_without_an_end_are_refused() -> None:
    parser = SseParser()
    with pytest.raises(tensord.ServerFault, match="more than 1048576 bytes"):
        list(parser.feed(b"data:\n" * MAX_BLOCK_BYTES))

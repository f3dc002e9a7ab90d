"""Answers are cut out of the bytes of a connection, wherever those were split."""

from __future__ import annotations

import pytest

from bench.line import Reply, parted

LENGTH = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3;x=1\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"
)
NOTHING = b"HTTP/1.1 204 No Content\r\nVary: x\r\n\r\n"
LAST = b"HTTP/1.1 503 Busy\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "reply", "closes"),
    [
        pytest.param(LENGTH, Reply(200, b"hello"), False, id="with a length"),
        pytest.param(CHUNKED, Reply(201, b"hello"), False, id="in chunks"),
        pytest.param(NOTHING, Reply(204, b""), False, id="without a body"),
        pytest.param(LAST, Reply(503, b""), True, id="the last of its connection"),
    ],
)
def test_an_answer_is_whole_only_at_its_last_byte(data: bytes, reply: Reply, closes: bool) -> None:
    for end in range(len(data)):
        assert parted(data[:end]) is None, data[:end]
    assert parted(data) == (reply, b"", closes)
    assert parted(data + b"HTTP/1.1 2") == (reply, b"HTTP/1.1 2", closes)

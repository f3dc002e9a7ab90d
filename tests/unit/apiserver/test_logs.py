"""What is not written into the log."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from apiserver import logs
from tests.fakes import kube_face

PLANTED = b"hunter2-in-a-header"


@pytest.mark.parametrize(
    "header",
    [
        b"Authorization: Bearer " + PLANTED + b"a" * 40_000,
        b"Authorization Bearer " + PLANTED,
        b"Author\x00ization: " + PLANTED,
    ],
    ids=["too long", "without a colon", "with a NUL"],
)
async def test_a_request_that_is_not_http_leaves_nothing_of_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, header: bytes
) -> None:
    logging.getLogger("aiohttp.server").addFilter(logs._told_shortly)
    async with kube_face.running(tmp_path) as rig:
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.client.server.port)
        writer.write(b"GET /version HTTP/1.1\r\nHost: a\r\n" + header + b"\r\n\r\n")
        async with asyncio.timeout(20):
            assert b" 400 " in await reader.readline()
        writer.close()
    assert PLANTED.decode() not in caplog.text


def test_what_goes_wrong_in_the_server_itself_is_written(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("aiohttp.server").addFilter(logs._told_shortly)
    try:
        raise RuntimeError("a defect")
    except RuntimeError:
        logging.getLogger("aiohttp.server").exception("Unhandled exception")
    assert "a defect" in caplog.text

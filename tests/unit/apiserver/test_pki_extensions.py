"""The private extensions: encoded as the reference's certificates carry them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiserver.pki import extensions
from apiserver.pki.extensions import Unreadable


@pytest.mark.parametrize(
    ("text", "der"),
    [
        pytest.param("ab", b"\x13\x02ab", id="printable"),
        pytest.param("a_b", b"\x0c\x03a_b", id="an underscore is not printable"),
        pytest.param("é", b"\x0c\x02\xc3\xa9", id="utf-8"),
        pytest.param("device:x", b"\x13\x08device:x", id="a device"),
        pytest.param("a" * 200, b"\x13\x81\xc8" + b"a" * 200, id="long"),
        pytest.param("a" * 300, b"\x13\x82\x01\x2c" + b"a" * 300, id="longer"),
    ],
)
def test_texts_are_written_as_bare_asn1_strings(text: str, der: bytes) -> None:
    assert extensions.encode(text) == der
    assert extensions.decode(der) == text


@given(st.text(max_size=250))
def test_what_was_written_is_read(text: str) -> None:
    assert extensions.decode(extensions.encode(text)) == text


@pytest.mark.parametrize(
    "der",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x13", id="no length"),
        pytest.param(b"\x04\x01a", id="an octet string"),
        pytest.param(b"\x13\x03ab", id="cut off"),
        pytest.param(b"\x13\x01ab", id="more behind"),
        pytest.param(b"\x13\x81\x01a", id="not the shortest length"),
        pytest.param(b"\x0c\x01\xff", id="not UTF-8"),
    ],
)
def test_anything_else_is_unreadable_and_not_absent(der: bytes) -> None:
    with pytest.raises(Unreadable):
        extensions.decode(der)


def test_garbage_is_no_certificate() -> None:
    with pytest.raises(Unreadable):
        extensions.identity_of(b"\x30\x00")

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from apiserver.errors import BadRequest, UnsupportedMediaType
from apiserver.wire import body, messages

TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=15,
)  # fmt: skip


@given(st.dictionaries(TEXT, VALUES, max_size=5))
def test_json_comes_back_as_it_was(document: dict[str, Any]) -> None:
    raw = json.dumps(document).encode()
    assert body.decode("application/json; charset=utf-8", raw) == (document, [])


@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), VALUES, max_size=4))
def test_json_is_yaml_too(document: dict[str, Any]) -> None:
    raw = json.dumps(document).encode()
    assert body.decode("application/yaml", raw)[0] == document


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0644", 420),
        ("0o644", 420),
        ("0x1F", 31),
        ("-12", -12),
        ("1_000", 1000),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("yes", True),
        ("off", False),
        ("~", None),
        ("2026-11-23", "2026-11-23"),
        ("2026-11-23T10:00:00Z", "2026-11-23T10:00:00Z"),
        ("12:30:45", "12:30:45"),
        ("089", "089"),
        ("'0644'", "0644"),
        ("1.2.3", "1.2.3"),
    ],
)
def test_yaml_scalars_mean_what_kubernetes_means(text: str, value: object) -> None:
    found = body.decode("application/yaml", f"a: {text}".encode())[0]["a"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("media", "raw", "paths"),
    [
        ("application/json", '{"a":1,"a":2}', ["a"]),
        ("application/json", '{"s":{"t":[{"x":1},{"y":1,"y":2,"y":3}]}}', ["s.t[1].y"]),
        ("application/yaml", "s:\n  a: 1\n  b: 2\n  a: 3\n", ["s.a"]),
        ("application/yaml", "l:\n- a: 1\n  a: 1\n", ["l[0].a"]),
        ("application/yaml", "b: &b {x: 1}\na:\n  <<: *b\n  x: 2\n", []),
    ],
)
def test_duplicate_fields_are_found_by_path(media: str, raw: str, paths: list[str]) -> None:
    assert body.decode(media, raw.encode())[1] == paths


def test_of_duplicates_the_last_counts() -> None:
    assert body.decode("application/json", b'{"a":1,"a":2}')[0] == {"a": 2}
    assert body.decode("application/yaml", b"a: 1\na: 2\n")[0] == {"a": 2}


BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join(['*' + old] * 10)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("media", "raw"),
    [
        ("application/json", b""),
        ("application/json", b"{"),
        ("application/json", b"[]"),
        ("application/json", b'"text"'),
        ("application/json", b"null"),
        ("application/json", b'{"a":NaN}'),
        ("application/json", b'{"a":1e999}'),
        ("application/json", b'{"a":123456789012345678901234567890}'),
        ("application/json", b'{"a":"\\ud800"}'),
        ("application/json", b'{"a":"\\u0000"}'),
        ("application/json", b'{"\\u0000":1}'),
        ("application/json", b'{"a":"\xff"}'),
        ("application/json", b'{"a":' + b"[" * 2000 + b"]" * 2000 + b"}"),
        ("application/json", b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}"),
        ("application/yaml", b""),
        ("application/yaml", b"a: ["),
        ("application/yaml", b"just text"),
        ("application/yaml", b"a: !!python/object/apply:os.system [ls]"),
        ("application/yaml", b"a: .inf"),
        ("application/yaml", b"a: !!binary aGFsbG8="),
        ("application/yaml", b"a: 1\n---\nb: 2\n"),
        ("application/yaml", b"[a, b]: 1"),
        ("application/yaml", b"a: " + b"[" * 3000 + b"]" * 3000),
        ("application/yaml", b"a: &a [*a]"),
        ("application/yaml", BOMB.encode()),
        ("application/yaml", b"a: \xff\xfe"),
        ("application/yaml", b"a:\n" + b"- x\n" * 100_000),
    ],
)
def test_what_can_not_be_stored_is_a_bad_request(media: str, raw: bytes) -> None:
    with pytest.raises(BadRequest):
        body.decode(media, raw)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    for media in ("application/json", "application/yaml"):
        try:
            found, _ = body.decode(media, raw)
        except BadRequest:
            continue
        json.dumps(found, allow_nan=False).encode()


@pytest.mark.parametrize(
    "media", ["text/plain", "application/cbor", "application/merge-patch+json"]
)
def test_other_types_are_415_with_those_that_are_read(media: str) -> None:
    with pytest.raises(UnsupportedMediaType, match="application/json, application/yaml"):
        body.decode(media, b"{}")


def test_protobuf_is_refused_with_a_way_out() -> None:
    with pytest.raises(UnsupportedMediaType, match="kubectl create -f"):
        body.decode(messages.MEDIA, b"k8s\0\n\x1d\n\x14flightctl.io/v1beta1\x12\x05Fleet")


def test_without_a_content_type_it_is_json() -> None:
    assert body.decode("", b"{}") == ({}, [])


def test_keys_become_text() -> None:
    found = body.decode("application/yaml", b"1: a\ntrue: b\n1.5: c\n")[0]
    assert found == {"1": "a", "true": "b", "1.5": "c"}


def test_what_yaml_dumps_is_read_again() -> None:
    document = {"metadata": {"name": "a", "labels": {"x": "yes", "y": "0644"}}, "n": [1, 2.5]}
    assert body.decode("application/yaml", yaml.safe_dump(document).encode())[0] == document

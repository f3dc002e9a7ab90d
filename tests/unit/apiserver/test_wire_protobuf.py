"""Protobuf by tables, against the protobuf library as yardstick, and against what kubectl sends."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given
from hypothesis import strategies as st

from apiserver import gnostic, openapi
from apiserver.app import BUILTINS
from apiserver.catalogue import Catalogue
from apiserver.wire import messages, protobuf
from resources.kind import Json
from resources.registry import KINDS

_Field = descriptor_pb2.FieldDescriptorProto
INNER: protobuf.Message = {1: ("text", "text"), 2: ("number", "int")}
OUTER: protobuf.Message = {
    1: ("text", "text"),
    2: ("number", "int"),
    3: ("flag", "bool"),
    4: ("inner", INNER),
    5: ("inners", [INNER]),
    6: ("texts", ["text"]),
    7: ("pairs", "map"),
    8: ("ratio", "double"),
}


def _library() -> Any:
    """The same two messages as the library has them, from a descriptor written out here."""
    file = descriptor_pb2.FileDescriptorProto(name="t.proto", package="t", syntax="proto2")
    inner = file.message_type.add(name="Inner")
    inner.field.add(name="text", number=1, type=_Field.TYPE_STRING, label=1)
    inner.field.add(name="number", number=2, type=_Field.TYPE_INT64, label=1)
    outer = file.message_type.add(name="Outer")
    outer.field.add(name="text", number=1, type=_Field.TYPE_STRING, label=1)
    outer.field.add(name="number", number=2, type=_Field.TYPE_INT64, label=1)
    outer.field.add(name="flag", number=3, type=_Field.TYPE_BOOL, label=1)
    outer.field.add(name="inner", number=4, type=11, label=1, type_name=".t.Inner")
    outer.field.add(name="inners", number=5, type=11, label=3, type_name=".t.Inner")
    outer.field.add(name="texts", number=6, type=_Field.TYPE_STRING, label=3)
    pair = outer.nested_type.add(name="PairsEntry")
    pair.options.map_entry = True
    pair.field.add(name="key", number=1, type=_Field.TYPE_STRING, label=1)
    pair.field.add(name="value", number=2, type=_Field.TYPE_STRING, label=1)
    outer.field.add(name="pairs", number=7, type=11, label=3, type_name=".t.Outer.PairsEntry")
    outer.field.add(name="ratio", number=8, type=_Field.TYPE_DOUBLE, label=1)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Outer"))


OUTER_CLASS = _library()
integers = st.integers(-(2**63), 2**63 - 1)
texts = st.text(min_size=1, max_size=5)
inners = st.fixed_dictionaries({"text": texts}, optional={"number": integers})
documents = st.fixed_dictionaries(
    {},
    optional={
        "text": texts,
        "number": integers,
        "flag": st.booleans(),
        "inner": inners,
        "inners": st.lists(inners, min_size=1, max_size=3),
        "texts": st.lists(st.text(max_size=3), min_size=1, max_size=3),
        "pairs": st.dictionaries(texts, st.text(max_size=3), min_size=1, max_size=3),
        "ratio": st.floats(allow_nan=False),
    },
)


@given(documents)
def test_what_the_library_writes_is_read(document: Json) -> None:
    written = OUTER_CLASS(**document).SerializeToString()
    assert protobuf.decode(OUTER, written) == document


@given(documents)
def test_what_is_written_the_library_reads(document: Json) -> None:
    assert OUTER_CLASS.FromString(protobuf.encode(OUTER, document)) == OUTER_CLASS(**document)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    for message in (messages.EVENT, messages.LEASE, OUTER):
        try:
            protobuf.decode(message, raw)
        except protobuf.Malformed:
            continue


@given(documents, st.integers(0, 40))
def test_a_message_that_was_cut_is_refused_or_shorter(document: Json, at: int) -> None:
    written = protobuf.encode(OUTER, document)
    try:
        protobuf.decode(OUTER, written[:at])
    except protobuf.Malformed:
        return


# As kubectl 1.33 sent it: `kubectl create namespace x`, and `kubectl auth can-i get fleets`.
def envelope(version: str, kind: str, raw: bytes) -> bytes:
    outer: protobuf.Message = {1: ("typeMeta", {1: ("a", "text"), 2: ("k", "text")})}
    written = protobuf.encode(outer, {"typeMeta": {"a": version, "k": kind}})
    return b"k8s\0" + written + b"\x12" + bytes([len(raw)]) + raw + b'\x1a\0"\0'


def test_a_namespace_is_read_as_go_writes_it() -> None:
    """With every empty text and message that Go spells out."""
    raw = bytes.fromhex(
        "0a130a01781200 1a00 2200 2a00 3200 3800 4200 12001a020a00".replace(" ", "")
    )
    raw = b"\x0a\x11" + raw[2:19] + raw[19:]
    found = messages.decode(envelope("v1", "Namespace", raw))
    assert found == {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": "x", "generation": 0},
    }


def test_a_review_of_others_is_read_with_who_and_what() -> None:
    """As Go's SubjectAccessReviewSpec has it, with `extra` (5), which is passed over."""
    attributes = b"\x12\x03get\x2a\x06fleets"
    spec = b"\x0a" + bytes([len(attributes)]) + attributes
    spec += b"\x1a\x03eve\x22\x01a\x22\x01b\x2a\x05\x0a\x01k\x12\x00\x32\x01u"
    raw = b"\x12" + bytes([len(spec)]) + spec
    for kind in ("SubjectAccessReview", "LocalSubjectAccessReview"):
        found = messages.decode(envelope("authorization.k8s.io/v1", kind, raw))
        assert found is not None
        assert found["spec"] == {
            "resourceAttributes": {"verb": "get", "resource": "fleets"},
            "user": "eve",
            "groups": ["a", "b"],
            "uid": "u",
        }


def test_times_are_rfc_3339_and_the_zero_time_is_none() -> None:
    time = protobuf.encode({1: ("s", "int"), 2: ("n", "int")}, {"s": 1_767_225_600, "n": 1500})
    spec = b"\x1a" + bytes([len(time)]) + time + b"\x22\x00"
    raw = b"\x12" + bytes([len(spec)]) + spec
    found = messages.decode(envelope("coordination.k8s.io/v1", "Lease", raw))
    assert found is not None
    assert found["spec"] == {"acquireTime": "2026-01-01T00:00:00.000001Z"}


@pytest.mark.parametrize("raw", [b"", b"{}", b"k8s\0\xff", b"k8s\0\x0a\x7f"])
def test_bodies_without_an_envelope_are_refused(raw: bytes) -> None:
    with pytest.raises(protobuf.Malformed):
        messages.decode(raw)


def test_a_kind_of_ours_is_not_read_from_protobuf() -> None:
    assert messages.decode(envelope("flightctl.io/v1beta1", "Fleet", b"")) is None


def test_the_swagger_document_comes_back_whole_from_its_bytes() -> None:
    document = openapi.v2(Catalogue((*BUILTINS, *KINDS)))
    turned = gnostic.turned(document)
    found = protobuf.decode(gnostic.DOCUMENT, gnostic.encode(document))
    names = {entry["name"] for entry in found["definitions"]["entries"]}
    assert names == set(document["definitions"])
    assert [entry["name"] for entry in found["paths"]["items"]] == list(document["paths"])
    fleet = "io.flightctl.v1beta1.Fleet"
    (shown,) = (e["value"] for e in found["definitions"]["entries"] if e["name"] == fleet)
    (wanted,) = (e["value"] for e in turned["definitions"]["entries"] if e["name"] == fleet)
    assert shown == wanted

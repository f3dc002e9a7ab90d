from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiserver.errors import NotAcceptable
from apiserver.wire import accept

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
PARTIAL = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
PROTOBUF = "application/vnd.kubernetes.protobuf"
V2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
V2_BETA = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"


@pytest.mark.parametrize(
    ("header", "media", "shape"),
    [
        ("", accept.JSON, ""),
        ("*/*", accept.JSON, ""),
        ("application/*", accept.JSON, ""),
        ("application/json", accept.JSON, ""),
        ("application/yaml", accept.YAML, ""),
        (f"{TABLE},application/json", accept.JSON, "Table"),
        (
            "application/json;as=Table;v=v1;g=meta.k8s.io,"
            "application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
            accept.JSON,
            "Table",
        ),
        ("application/json;as=Table;v=v9;g=meta.k8s.io,application/json", accept.JSON, ""),
        (PARTIAL, accept.JSON, "PartialObjectMetadata"),
        (f"{PROTOBUF};as=PartialObjectMetadata;g=meta.k8s.io;v=v1,{PARTIAL}",
         accept.JSON, "PartialObjectMetadata"),
        (f"{PROTOBUF},application/json", accept.JSON, ""),
        ("application/yaml;q=0.1, application/json;q=0.9", accept.JSON, ""),
        ("text/html, application/xhtml+xml, */*;q=0.8", accept.JSON, ""),
    ],
)  # fmt: skip
def test_the_first_clause_that_can_be_served_wins(header: str, media: str, shape: str) -> None:
    found = accept.negotiate(header)
    assert (found.media, found.shape) == (media, shape)


@pytest.mark.parametrize(
    "header",
    [PROTOBUF, "application/cbor", "text/html", "application/json;q=0",
     "application/json;as=Table;v=v9;g=meta.k8s.io"],
)  # fmt: skip
def test_what_can_not_be_served_is_406_with_what_can(header: str) -> None:
    with pytest.raises(NotAcceptable, match="application/json, application/yaml"):
        accept.negotiate(header)


def test_watches_are_json_only() -> None:
    with pytest.raises(NotAcceptable):
        accept.negotiate("application/yaml", watching=True)


@pytest.mark.parametrize(
    ("header", "aggregated"),
    [
        ("", False),
        ("application/json", False),
        (f"{V2},{V2_BETA},application/json", True),
        (f"{V2_BETA},application/json", False),
        (f"application/json,{V2}", False),
    ],
)
def test_discovery_is_aggregated_where_that_is_preferred(header: str, aggregated: bool) -> None:
    assert accept.negotiate_discovery(header) is aggregated


@given(st.text())
def test_any_header_is_answered_or_refused(header: str) -> None:
    with contextlib.suppress(NotAcceptable):
        accept.negotiate(header)

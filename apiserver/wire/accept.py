"""Content negotiation: which representation a client wants and we can make.

Clauses of Accept are an ordered wish list (Kubernetes clients order by preference and send no q;
where q is sent it counts first). The first clause that we can serve wins. The invariant: what is
answered was asked for; a client that accepts only what we can't make gets 406, never a surprise.
Protobuf and CBOR are refused: no answer of ours is in them.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from apiserver.errors import NotAcceptable, UnsupportedMediaType

JSON = "application/json"
YAML = "application/yaml"
TABLE = "Table"
PARTIAL = "PartialObjectMetadata"
PARTIAL_LIST = "PartialObjectMetadataList"

_META_GROUP = "meta.k8s.io"
_DISCOVERY_GROUP = "apidiscovery.k8s.io"
_SHAPES = {TABLE, PARTIAL, PARTIAL_LIST}
_MAX_CLAUSES = 32


@dataclass(frozen=True, slots=True)
class Clause:
    """One media range of an Accept header."""

    media: str
    params: Mapping[str, str] = field(default_factory=dict)
    quality: float = 1.0


@dataclass(frozen=True, slots=True)
class Representation:
    """What to answer: the media type, and for `shape` other than "" the meta.k8s.io kind that the
    objects are turned into."""

    media: str = JSON
    shape: str = ""
    pretty: bool = False

    @property
    def content_type(self) -> str:
        return self.media


PLAIN = Representation()


def clauses(header: str) -> list[Clause]:
    """The clauses of an Accept header, best first; an empty header accepts anything."""
    found = []
    for text in header.split(",")[:_MAX_CLAUSES]:
        media, *rest = (part.strip() for part in text.split(";"))
        if not media:
            continue
        params = {}
        for part in rest:
            name, _, value = part.partition("=")
            params[name.strip().lower()] = value.strip().strip('"')
        found.append(Clause(media.lower(), params, _quality(params.pop("q", "1"))))
    found.sort(key=lambda clause: -clause.quality)
    return [c for c in found if c.quality > 0] if found else [Clause("*/*")]


def _quality(text: str) -> float:
    try:
        return min(max(float(text), 0.0), 1.0)
    except ValueError:
        return 1.0


def media_of(clause: Clause, offered: Sequence[str]) -> str | None:
    """The offered media type that satisfies a clause."""
    if clause.media in ("*/*", "application/*"):
        return offered[0]
    return clause.media if clause.media in offered else None


@functools.lru_cache(maxsize=256)
def negotiate(header: str, *, watching: bool = False) -> Representation:
    """The representation of objects and lists. Watches are streams of JSON and nothing else."""
    offered = (JSON,) if watching else (JSON, YAML)
    for clause in clauses(header):
        media = media_of(clause, offered)
        if media is None:
            continue
        shape = clause.params.get("as", "")
        if not shape:
            return Representation(media, "", "pretty" in clause.params)
        served = clause.params.get("g") == _META_GROUP and clause.params.get("v") == "v1"
        if served and shape in _SHAPES:
            return Representation(media, shape)
    raise refusal(offered)


@functools.lru_cache(maxsize=64)
def negotiate_discovery(header: str) -> bool:
    """True where the client prefers the aggregated document of `/api` and `/apis` (v2)."""
    for clause in clauses(header):
        if media_of(clause, (JSON, YAML)) is None:
            continue
        shape = clause.params.get("as", "")
        if not shape:
            return False
        group, version = clause.params.get("g"), clause.params.get("v")
        if (group, version, shape) == (_DISCOVERY_GROUP, "v2", "APIGroupDiscoveryList"):
            return True
    raise refusal((JSON,))


def refusal(offered: Sequence[str]) -> NotAcceptable:
    return NotAcceptable(f"only the following media types are accepted: {', '.join(offered)}")


def media_type(content_type: str) -> str:
    """The bare media type of a Content-Type header."""
    return content_type.partition(";")[0].strip().lower()


def unsupported(content_type: str, offered: Sequence[str], hint: str = "") -> UnsupportedMediaType:
    """The 415 that names what we read, since kubectl shows it to a person."""
    return UnsupportedMediaType(
        f"the body of the request was in an unknown format ({content_type or 'none given'}) - "
        f"accepted media types include: {', '.join(offered)}{hint}"
    )

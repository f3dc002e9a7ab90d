"""ResourceSync: keeps fleets as a Git repository describes them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from resources import formats
from resources.kind import Json
from resources.meta import (
    Complaints,
    Condition,
    Document,
    Int64,
    Model,
    checked,
    conditions,
    mapping,
    raise_all,
)


class ResourceSyncSpec(Model):
    repository: str = Field(min_length=1, description="Name of the Repository to read from.")
    target_revision: str = Field(
        min_length=1,
        max_length=244,
        pattern=formats.GIT_REVISION,
        description="Branch, tag or commit. A branch is followed.",
    )
    path: str = Field(
        max_length=2048, description="File or directory in the repository that holds the manifests."
    )
    type: Literal["fleet", "catalog"] | None = Field(
        None, description="What is described there: fleet (the default) or catalog."
    )
    allow_empty: bool | None = Field(
        None,
        description="True lets it delete everything that it keeps when it finds no manifest any "
        "more. Otherwise it takes an empty path for a mistake, and deletes nothing.",
    )


class ResourceSyncStatus(Model):
    conditions: list[Condition] | None = conditions(
        "Accessible, ResourceParsed and Synced: how far the last look at the repository came; "
        "Ready, Reconciling and Stalled for programs that wait."
    )
    observed_commit: str | None = Field(None, description="Commit that was last applied.")
    observed_generation: Int64 | None = Field(
        None, description="The generation of spec that was last applied."
    )


class ResourceSync(Document):
    """Fleets that are kept as a Git repository describes them."""

    spec: ResourceSyncSpec = Field(description="Where the manifests are.")
    status: ResourceSyncStatus | None = Field(None, description="How the last look at it went.")


def check(document: Json) -> None:
    """The rules for a whole ResourceSync."""
    raise_all(_check(mapping(document, "spec")))


def _check(spec: Json) -> Complaints:
    yield from checked(spec, "repository", "spec", formats.subdomain)
    yield from checked(spec, "targetRevision", "spec", formats.revision)

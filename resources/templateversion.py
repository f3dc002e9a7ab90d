"""TemplateVersion: a fleet's template with everything outside it frozen, at one moment.

It is never edited: a changed template makes a new one, so that "version v3" means one thing for
every device and for ever.
"""

from __future__ import annotations

from pydantic import Field

from resources import formats, manifest
from resources.device import DeviceSpec
from resources.errors import INVALID, FieldError
from resources.kind import Json
from resources.meta import (
    Complaints,
    Condition,
    Count,
    Document,
    Model,
    Timestamp,
    Unique,
    checked,
    conditions,
    items,
    keyed,
    mapping,
    raise_all,
)


class TemplateVersionSpec(Model):
    fleet: str = Field(description="Name of the fleet whose template this is.")


class FrozenInput(Model):
    """What one outside source gave, and where it stood then."""

    name: str = Field(description="Name of the source in config.")
    manifest: str = Field(description="Digest of the list of files, with their bytes' digests.")
    revision: str = Field(
        description="Where the source stood: the commit, the digest of the HTTP answer, or the "
        "resourceVersion of the Secret."
    )
    etag: str | None = Field(None, description="ETag of the HTTP answer.")
    files: Count | None = Field(None, description="Number of files.")
    updated_at: Timestamp | None = Field(None, description="When that content was seen first.")


class TemplateVersionStatus(DeviceSpec):
    """The frozen template: the parts of a device's spec, beside the conditions."""

    inputs: list[FrozenInput] | None = Field(
        None,
        description="What the outside sources in config gave: the same for every device.",
        json_schema_extra=keyed("name"),
    )

    conditions: list[Condition] | None = conditions("Whether everything outside could be frozen.")
    updated_at: Timestamp | None = Field(None, description="When the version was completed.")


class TemplateVersion(Document):
    """A fleet's template as it was at one moment, with everything outside it frozen."""

    spec: TemplateVersionSpec = Field(description="Whose template it is.")
    status: TemplateVersionStatus | None = Field(None, description="The frozen template.")


def check(document: Json) -> None:
    """The rules for a whole TemplateVersion."""
    raise_all(_check(document))


def _check(document: Json) -> Complaints:
    yield from checked(mapping(document, "spec"), "fleet", "spec", formats.subdomain)
    yield from check_inputs(mapping(document, "status"), "status")


def check_inputs(holder: Json, path: str) -> Complaints:
    """The rules for a list of frozen inputs, in a version or as one device is handed it."""
    names = Unique("name")
    for index, found in items(holder, "inputs"):
        yield from names.check(f"{path}.inputs[{index}].name", found.get("name"))
        if not manifest.is_digest(found.get("manifest")):
            yield FieldError(f"{path}.inputs[{index}].manifest", INVALID, "must be a digest")

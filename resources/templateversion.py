"""TemplateVersion: a fleet's template with everything outside it frozen, at one moment.

It is never edited: a changed template makes a new one, so that "version v3" means one thing for
every device and for ever.
"""

from __future__ import annotations

from pydantic import Field

from resources import formats
from resources.device import DeviceSpec
from resources.kind import Json
from resources.meta import (
    Complaints,
    Condition,
    Document,
    Model,
    Timestamp,
    checked,
    conditions,
    mapping,
    raise_all,
)


class TemplateVersionSpec(Model):
    fleet: str = Field(description="Name of the fleet whose template this is.")


class TemplateVersionStatus(DeviceSpec):
    """The frozen template: the parts of a device's spec, beside the conditions."""

    conditions: list[Condition] | None = conditions("Whether everything outside could be frozen.")
    updated_at: Timestamp | None = Field(None, description="When the version was completed.")


class TemplateVersion(Document):
    """A fleet's template as it was at one moment, with everything outside it frozen."""

    spec: TemplateVersionSpec = Field(description="Whose template it is.")
    status: TemplateVersionStatus | None = Field(None, description="The frozen template.")


def check(document: Json) -> None:
    """The rules for a whole TemplateVersion."""
    raise_all(_check(mapping(document, "spec")))


def _check(spec: Json) -> Complaints:
    yield from checked(spec, "fleet", "spec", formats.subdomain)

"""Organization: a tenant of the service. Each is paired with one namespace, for ever."""

from __future__ import annotations

from pydantic import Field

from resources.meta import Document, Model


class OrganizationSpec(Model):
    display_name: str | None = Field(None, description="Name for people.")
    external_id: str | None = Field(
        None, description="How the identity provider names the organization."
    )


class Organization(Document):
    """A tenant; its objects live in the namespace that it is paired with."""

    spec: OrganizationSpec | None = Field(None, description="What the organization is called.")

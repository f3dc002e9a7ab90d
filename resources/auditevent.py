"""AuditEvent: who did what to which object, from where, and what came of it. Never a body.

Written by the service with the change itself, read by auditors, changed by nobody.
"""

from __future__ import annotations

from pydantic import Field

from resources.meta import Count, Document, Model


class AuditedObject(Model):
    api_version: str | None = Field(None, description="Group and version of its kind.")
    kind: str | None = Field(None, description="Kind of the object, if there is such a kind.")
    namespace: str | None = Field(None, description="Namespace, which is the organization.")
    name: str | None = Field(None, description="Name of the object.")
    subresource: str | None = Field(None, description="Part of the object, such as approval.")
    uid: str | None = Field(None, description="UID of the object.")
    resource_version: str | None = Field(None, description="Version of the object afterwards.")


class AuditEventSpec(Model):
    user: str | None = Field(None, description="Who asked; empty for who could not say.")
    groups: list[str] | None = Field(
        None,
        description="Groups of the user.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    roles: list[str] | None = Field(
        None,
        description="What the user was allowed to be there.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    authenticated_by: str | None = Field(
        None,
        description="What proved it: certificate, authprovider/NAMESPACE/NAME, socket; data "
        "directory for who could write there, service for the service itself.",
    )
    source_address: str | None = Field(None, description="Address that the request came from.")
    user_agent: str | None = Field(None, description="What the client says it is.")
    request_id: str | None = Field(None, description="X-Request-Id of the answer.")
    verb: str | None = Field(None, description="What was asked: create, update, delete, ...")
    object: AuditedObject | None = Field(None, description="What it was about.")
    code: Count | None = Field(None, description="HTTP status of the answer.")
    reason: str | None = Field(
        None, description="Reason of a refusal, or what came of a request for a certificate."
    )


class AuditEvent(Document):
    """A write that was done, or something that was refused. Read-only."""

    spec: AuditEventSpec | None = Field(None, description="Who, what, where, and the outcome.")

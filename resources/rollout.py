"""Rollout: one attempt to bring one template version to the devices of a fleet.

The target is fixed at creation, so that an attempt means the same from its first device to its
last, whatever becomes of the fleet meanwhile. People steer by `spec.control`, whose fields are
levels and not commands: writing the same value twice does nothing. The object stays when the
attempt has ended, for it is also the record.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from resources import formats
from resources.fleet import RolloutPolicy, check_policy
from resources.kind import Json
from resources.meta import (
    ATOMIC,
    INT_OR_STRING,
    Complaints,
    Condition,
    Count,
    Document,
    Int64,
    IntOrString,
    LabelSelector,
    Model,
    Timestamp,
    checked,
    conditions,
    keyed,
    mapping,
    raise_all,
)

Phase = Literal["Pending", "Active", "Waiting", "Suspended", "Completed", "Failed", "Aborted"]


class RolloutTarget(Model):
    fleet: str = Field(description="Name of the fleet.")
    template_version: str = Field(description="Name of the TemplateVersion, such as web.v3.")
    policy: RolloutPolicy | None = Field(
        None, description="The fleet's rollout policy as it was when the attempt began."
    )
    reverts: str | None = Field(
        None, description="Name of the Rollout whose devices this one takes back."
    )


class RolloutControl(Model):
    paused: bool | None = Field(
        None, description="True binds no more devices; those that are bound go on."
    )
    approved: int | None = Field(
        None,
        ge=0,
        description="Batches with a number below this may begin whatever their gate says.",
    )
    aborted: bool | None = Field(
        None, description="True ends the attempt; devices that are bound keep what they have."
    )
    retry: int | None = Field(
        None,
        ge=0,
        description="Raise it by one to let failed devices try once more; after the end of the "
        "attempt, in another one.",
    )
    revert: bool | None = Field(
        None,
        description="True ends the attempt, and another one takes its devices back to the last "
        "version whose rollout ended well.",
    )


class RolloutSpec(Model):
    target: RolloutTarget = Field(description="What goes where, and how. It cannot be changed.")
    control: RolloutControl | None = Field(None, description="What people want of the attempt.")


class RolloutCounts(Model):
    selected: Count | None = Field(None, description="Devices whose batch has come.")
    bound: Count | None = Field(None, description="Devices whose spec is the target's.")
    rendered: Count | None = Field(None, description="Devices that are given the new document.")
    done: Count | None = Field(None, description="Devices that report that they run it.")
    failed: Count | None = Field(
        None, description="Devices that tried and went back, or could not be rendered for."
    )
    refused: Count | None = Field(
        None, description="Of the failed, those for which the template could not be rendered."
    )
    held: Count | None = Field(
        None, description="Devices that wait for the disruption budget or for their minute."
    )
    timed_out: Count | None = Field(None, description="Devices that took too long.")
    disconnected: Count | None = Field(None, description="Devices that are not heard of.")


class RolloutBatch(Model):
    number: int = Field(ge=0, description="Place in the sequence, from 0.")
    phase: Phase = Field(description="What the batch is doing.")
    selector: LabelSelector | None = Field(None, description="Devices that it takes.")
    limit: IntOrString | None = Field(
        None, description="How many of them, or what share.", json_schema_extra=INT_OR_STRING
    )
    counts: RolloutCounts | None = Field(None, description="Its devices by state.")
    success_percentage: int | None = Field(
        None, ge=0, le=100, description="Share that succeeded, once it has ended."
    )
    started_at: Timestamp | None = Field(None, description="When its first device was chosen.")
    finished_at: Timestamp | None = Field(
        None, description="When its last device was accounted for."
    )
    message: str | None = Field(None, description="What it waits for, or why it ended.")


class RolloutFailure(Model):
    cause: str = Field(description="What went wrong, without the device's particulars.")
    count: Count = Field(description="Devices that it happened to.")
    example: str | None = Field(None, description="Name of one of them.")


class RolloutStatus(Model):
    phase: Phase | None = Field(None, description="What the attempt is doing, or how it ended.")
    batches: list[RolloutBatch] | None = Field(
        None, description="The batches, in order.", json_schema_extra=keyed("number")
    )
    current_batch: int | None = Field(None, ge=0, description="Number of the batch under way.")
    counts: RolloutCounts | None = Field(None, description="All its devices by state.")
    retry: int | None = Field(
        None, ge=0, description="How often what failed was tried again in this attempt."
    )
    failures: list[RolloutFailure] | None = Field(
        None, description="What went wrong, the most frequent first.", json_schema_extra=ATOMIC
    )
    started_at: Timestamp | None = Field(None, description="When the first device was chosen.")
    finished_at: Timestamp | None = Field(None, description="When the attempt ended.")
    observed_generation: Int64 | None = Field(
        None, description="The generation of spec that this was concluded from."
    )
    conditions: list[Condition] | None = conditions(
        "Progressing while devices change; Succeeded once it has ended, and how; Ready, Reconciling"
        " and Stalled for programs that wait."
    )


class Rollout(Document):
    """One attempt to bring a template version to a fleet's devices, and the record of it."""

    spec: RolloutSpec = Field(description="What goes where, and what people want of it.")
    status: RolloutStatus | None = Field(None, description="How far it has come.")


def check(document: Json) -> None:
    """The rules for a whole Rollout."""
    raise_all(_check(mapping(document, "spec", "target")))


def _check(target: Json) -> Complaints:
    yield from checked(target, "fleet", "spec.target", formats.subdomain)
    yield from checked(target, "templateVersion", "spec.target", formats.subdomain)
    yield from checked(target, "reverts", "spec.target", formats.subdomain)
    if target.get("policy") is not None:
        yield from check_policy(mapping(target, "policy"), "spec.target.policy")

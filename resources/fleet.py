"""Fleet: devices chosen by labels, the template that they share, and how changes reach them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from resources import device, formats
from resources.errors import INVALID, REQUIRED, FieldError
from resources.kind import Json
from resources.meta import (
    ATOMIC,
    INT_OR_STRING,
    SET,
    Complaints,
    Condition,
    Count,
    Document,
    Duration,
    Int64,
    IntOrString,
    LabelSelector,
    Model,
    Percentage,
    TemplateMeta,
    Unique,
    check_selector,
    check_template_metadata,
    checked,
    complain,
    conditions,
    items,
    mapping,
    raise_all,
)

# Ours, of use without batches and budgets too.
_ALONE = ("maxFailures", "maxDevicesPerMinute")
_MATCH_ATOMIC: Json = {"x-kubernetes-map-type": "atomic"}


class Batch(Model):
    selector: LabelSelector | None = Field(
        None,
        description="Devices of the fleet that belong to this batch; all that are left if absent.",
        json_schema_extra=_MATCH_ATOMIC,
    )
    limit: IntOrString | None = Field(
        None,
        description="How many of them: a number of at least 1, or a percentage such as 10%.",
        json_schema_extra=INT_OR_STRING,
    )
    success_threshold: Percentage | None = Field(
        None,
        description="Share of the batch before that must have succeeded for it to begin: 90%.",
    )
    bake_time: Duration | None = Field(
        None, description="How long its devices are watched before the next batch begins."
    )


class BatchSequence(Model):
    strategy: Literal["BatchSequence"] = Field(
        description="How devices are chosen: BatchSequence takes the batches one after another."
    )
    sequence: list[Batch] | None = Field(
        None,
        min_length=1,
        description="The batches in order; what they leave over follows as one last batch.",
        json_schema_extra=ATOMIC,
    )


class DisruptionBudget(Model):
    group_by: (
        list[Annotated[str, Field(pattern=r"^([A-Za-z0-9][-A-Za-z0-9_/.]*)?[A-Za-z0-9]$")]] | None
    ) = Field(
        None,
        description="Label keys; devices with the same values form a group with its own budget.",
        json_schema_extra=SET,
    )
    min_available: int | None = Field(
        None, ge=1, description="Devices of a group that must stay undisturbed."
    )
    max_unavailable: int | None = Field(
        None, ge=1, description="Devices of a group that may be updating at a time."
    )


class RolloutPolicy(Model):
    device_selection: BatchSequence | None = Field(
        None, description="In what batches a change goes out; to all at once if absent."
    )
    disruption_budget: DisruptionBudget | None = Field(
        None, description="How many devices may be disturbed at a time."
    )
    success_threshold: Percentage | None = Field(
        None, description="Share of a batch that must succeed, unless it says otherwise. 90%."
    )
    default_update_timeout: Duration | None = Field(
        None, description="How long a device may take before it counts as failed. Default 24h."
    )
    # Ours from here on.
    approval: Literal["Automatic", "Manual"] | None = Field(
        None,
        description="Manual: each batch but the first waits until somebody approves it.",
    )
    bake_time: Duration | None = Field(
        None, description="How long a batch is watched, unless it says otherwise. Not at all."
    )
    max_failures: IntOrString | None = Field(
        None,
        description="Devices of the fleet that may fail, a number or a percentage; when more do, "
        "the rollout is aborted at once, in the middle of a batch too.",
        json_schema_extra=INT_OR_STRING,
    )
    on_too_many_failures: Literal["Stop", "Revert"] | None = Field(
        None,
        description="Revert: once more than maxFailures have failed, devices are taken back to the "
        "last version whose rollout ended well. Stop, which is the default, leaves them.",
    )
    max_devices_per_minute: int | None = Field(
        None, ge=1, description="Devices that are given something new in any minute, at most."
    )


class Template(Model):
    metadata: TemplateMeta | None = Field(None, description="Metadata of the template.")
    spec: device.DeviceSpec = Field(description="What every device of the fleet should be.")


class FleetSpec(Model):
    selector: LabelSelector | None = Field(
        None,
        description="Labels of the devices that belong to the fleet; none do if absent.",
        json_schema_extra=_MATCH_ATOMIC,
    )
    template: Template = Field(
        description="What each device becomes; {{ .metadata.labels.x }} takes a label's value."
    )
    rollout_policy: RolloutPolicy | None = Field(
        None, description="How changes of the template reach the devices; at once if absent."
    )


class CapabilityCounts(Model):
    os_mode: dict[str, Count] | None = Field(None, description="Devices by kind of OS.")


class DevicesSummary(Model):
    total: Count = Field(description="Devices of the fleet.")
    application_status: dict[str, Count] | None = Field(
        None, description="Devices by the state of their applications."
    )
    summary_status: dict[str, Count] | None = Field(None, description="Devices by their summary.")
    update_status: dict[str, Count] | None = Field(
        None, description="Devices by whether they run what they should."
    )
    capabilities: CapabilityCounts | None = Field(None, description="Devices by capability.")


class FleetRolloutStatus(Model):
    current_batch: int | None = Field(None, description="Number of the batch that is under way.")


class FleetStatus(Model):
    conditions: list[Condition] | None = conditions(
        "What is going on: Valid says whether the template can be used, RolloutInProgress "
        "whether a change is on its way, InputsCurrent whether its outside sources are followed."
    )
    observed_generation: Int64 | None = Field(
        None,
        description="The generation of spec that was looked at last; 0 before the first look.",
    )
    devices_summary: DevicesSummary | None = Field(None, description="Devices by their states.")
    rollout: FleetRolloutStatus | None = Field(None, description="The rollout under way.")


class Fleet(Document):
    """Devices chosen by labels, and the template that they share."""

    spec: FleetSpec = Field(description="Which devices, what they become, and how.")
    status: FleetStatus | None = Field(None, description="What the service made of it.")


def check(document: Json) -> None:
    """The rules for a whole Fleet."""
    raise_all(_check(mapping(document, "spec")))


def _check(spec: Json) -> Complaints:
    yield from check_selector(spec.get("selector"), "spec.selector")
    template = mapping(spec, "template")
    yield from check_template_metadata(mapping(template, "metadata"), "spec.template.metadata")
    yield from device.check_spec(mapping(template, "spec"), "spec.template.spec", templated=True)
    if spec.get("rolloutPolicy") is not None:
        yield from check_policy(mapping(spec, "rolloutPolicy"), "spec.rolloutPolicy")


def check_policy(policy: Json, path: str) -> Complaints:
    """The rules for a rollout policy, in a fleet or as a Rollout keeps it."""
    selection, budget = policy.get("deviceSelection"), policy.get("disruptionBudget")
    if selection is None and budget is None and all(policy.get(key) is None for key in _ALONE):
        yield FieldError(path, REQUIRED, "give deviceSelection or disruptionBudget, or remove it")
    if policy.get("onTooManyFailures") == "Revert" and policy.get("maxFailures") is None:
        yield FieldError(f"{path}.maxFailures", REQUIRED, "say how many are too many")
    yield from checked(policy, "successThreshold", path, formats.percentage)
    yield from checked(policy, "defaultUpdateTimeout", path, formats.duration)
    yield from checked(policy, "bakeTime", path, formats.duration)
    most = policy.get("maxFailures")
    if isinstance(most, str):
        yield from complain(f"{path}.maxFailures", formats.percentage(most))
    elif isinstance(most, int) and most < 0:
        yield FieldError(f"{path}.maxFailures", INVALID, "must be at least 0")
    for index, batch in items(selection, "sequence"):
        here = f"{path}.deviceSelection.sequence[{index}]"
        yield from check_selector(batch.get("selector"), f"{here}.selector")
        yield from checked(batch, "successThreshold", here, formats.percentage)
        yield from checked(batch, "bakeTime", here, formats.duration)
        yield from _check_limit(batch.get("limit"), f"{here}.limit")
    if isinstance(budget, dict):
        yield from _check_budget(budget, f"{path}.disruptionBudget")


def _check_limit(limit: object, path: str) -> Complaints:
    if isinstance(limit, str):
        yield from complain(path, formats.percentage(limit))
    elif isinstance(limit, int) and limit < 1:
        yield FieldError(path, INVALID, "must be at least 1; leave it out for no limit")


def _check_budget(budget: Json, path: str) -> Complaints:
    if budget.get("minAvailable") is None and budget.get("maxUnavailable") is None:
        yield FieldError(path, REQUIRED, "give minAvailable or maxUnavailable, or both")
    keys = Unique("grouping")
    groups = budget.get("groupBy")
    for index, key in enumerate(groups if isinstance(groups, list) else ()):
        if isinstance(key, str):
            yield from complain(f"{path}.groupBy[{index}]", formats.label_key(key))
            yield from keys.check(f"{path}.groupBy[{index}]", key)

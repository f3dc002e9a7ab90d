"""Backlog: how much work on devices is waiting in a namespace, in one small object.

Controllers watch it instead of the devices: a change of its counts wakes them, and there are few
of it however many devices there are. The service writes it; nobody else does.
"""

from __future__ import annotations

from pydantic import Field

from resources.meta import Condition, Count, Document, Model, conditions

# The one object in each namespace.
NAME = "devices"


class BacklogStatus(Model):
    render_needed: Count | None = Field(
        None, description="Devices whose inputs differ from what they were given."
    )
    fleets: dict[str, Count] | None = Field(
        None, description="By fleet, its devices that do not have its current template version."
    )
    conditions: list[Condition] | None = conditions("Whether the work is being done.")


class Backlog(Document):
    """Work on devices that is waiting in a namespace. Written by the service only."""

    status: BacklogStatus | None = Field(None, description="The counts.")

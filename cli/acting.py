"""What is asked of devices beside their specification: of an application, or to go on.

The invariant: a set of devices is sent as the selector that it was typed as, and is chosen by the
service; who came or went meanwhile is not named from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cli import targets
from cli.problems import Problem
from cli.selecting import BadChoice
from cli.targets import Target

if TYPE_CHECKING:
    from cli.reaching import Reach

_DEVICES = "devices.flightctl.io"
_FLEETS = "fleets.flightctl.io"


class NoApplications(Problem):
    """What was named has no applications that could be asked anything."""


def ask(reach: Reach, where: str, name: str, action: str, dry_run: str) -> Target:
    """Ask the application `name` of a device, or of all of a fleet, to `action`."""
    chosen = targets.parse(reach.kinds, [where], reach.namespace)
    target = chosen[0]
    kinds = [reach.kinds.find(kind) for kind in (_DEVICES, _FLEETS)]
    if len(chosen) > 1 or not target.name or target.resource not in kinds:
        raise NoApplications(f'"{where}" is neither device/NAME nor fleet/NAME')
    if target.resource != kinds[0] and action == "restart":
        raise NoApplications(
            "only a device's application can be restarted; a fleet's would be down on all devices",
            "stop and start it, or name the devices one by one",
        )
    body = {"application": name, "action": action}
    _send(reach, target.path("lifecycle"), body, dry_run)
    return target


def resume(
    reach: Reach, chosen: Sequence[Target], selector: str, field_selector: str, dry_run: str
) -> int:
    """How many devices there were to be resumed."""
    device = reach.kinds.find(_DEVICES)
    if any(target.resource != device for target in chosen):
        raise BadChoice("only devices can be resumed; for rollouts there is homeport rollout")
    body = {"labelSelector": selector, "fieldSelector": field_selector}
    names = [target.name for target in chosen if target.name]
    if names:
        body["fieldSelector"] = f"metadata.name in ({','.join(names)})"
    body = {key: value for key, value in body.items() if value}
    backlog = reach.kinds.find("backlogs.homeport.dev")
    path = Target(backlog, reach.namespace, "devices").path("resume")
    number: int = _send(reach, path, body, dry_run).get("resumedDevices", 0)
    return number


def suffix(dry_run: str) -> str:
    return "" if dry_run == "none" else f" ({dry_run} dry run)"


def _send(reach: Reach, path: str, body: dict[str, str], dry_run: str) -> dict[str, Any]:
    if dry_run == "client":
        return {}
    query = {"dryRun": "All"} if dry_run == "server" else {}
    answer: dict[str, Any] = reach.client.ask("POST", path, query=query, body=body)
    return answer

"""Applications that are told to stop, start or restart, on a device or on all of a fleet.

What is asked is kept beside the specification and laid over what the agent is given
(`resources.overrides`): nothing is rendered, and nothing from outside is needed. A fleet's wish is
written down with the fleet first, and then handed down to its devices, a thousand a transaction;
what a crash leaves undone the housekeeping does.
"""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from apiserver import errors
from apiserver.auditing import Act, note
from apiserver.auth.identity import Caller
from apiserver.builtins import telling
from apiserver.operations import Operations
from apiserver.store import Store, Transaction, devices, overriding, sets
from resources import overrides, pause
from resources.kind import Json, Kind
from resources.registry import DEVICE, FLEET

REASON = "ApplicationLifecycleChanged"
SUBRESOURCE = "lifecycle"
_HEAD = ("apiVersion", "kind", "metadata")
_DONE = {"stop": "stopped", "start": "started", "restart": "restarted"}


@dataclass(frozen=True, slots=True)
class _Wish:
    caller: Caller
    kind: Kind
    namespace: str
    name: str
    application: str
    action: str


async def act(
    operations: Operations,
    caller: Caller,
    kind: Kind,
    namespace: str,
    name: str,
    body: Json,
    *,
    dry_run: bool = False,
) -> Json:
    """The device, or the fleet, as it is then. `body` has application and action. Raises
    BadRequest, and NotFound for an application that is in no specification."""
    wish = _Wish(caller, kind, namespace, name, *_asked(kind, body))
    on = _on_device if kind is DEVICE else _on_fleet
    written = await operations.store.write(lambda tx: on(tx, wish), dry_run=dry_run)
    if kind is FLEET and not dry_run:
        await hand_down(operations.store, namespace, name)
    return written


def _asked(kind: Kind, body: Json) -> tuple[str, str]:
    wanted = {key: value for key, value in body.items() if key not in _HEAD}
    application, action = wanted.pop("application", None), wanted.pop("action", None)
    if wanted:
        raise errors.BadRequest(f'unknown field "{min(wanted)}"; use application and action')
    if not isinstance(application, str) or not application:
        raise errors.BadRequest("application must be the name of an application")
    actions = overrides.ACTIONS if kind is DEVICE else overrides.FLEET_ACTIONS
    if action not in actions:
        raise errors.BadRequest(f"action must be one of {', '.join(actions)}")
    return application, action


def _on_device(tx: Transaction, wish: _Wish) -> Json:
    row = devices.row_by_name(tx.connection, wish.namespace, wish.name)
    old = tx.get(DEVICE, wish.namespace, wish.name)
    if row is None or old is None:
        raise errors.not_found(DEVICE, wish.name)
    if row["decommissioning"]:
        raise _refusal(wish, "it is being decommissioned")
    if row["pause"]:
        until = "resume it first" if pause.is_conflict(row["pause"]) else "it has not called since"
        raise _refusal(wish, f"it is left alone after the service was restored; {until}")
    _check_there(wish, old["spec"])
    own, fleets = devices.layers(row)
    own = overrides.pruned(own, overrides.names_of(old["spec"]))
    wishes = overrides.asked(own, wish.action, wish.application, _now_ns(tx), fleets)
    columns = overriding.columns(row, overrides=overriding.text_of(wishes))
    saved = devices.save(tx, row, columns)
    stored = devices.document_of(DEVICE, saved, old["spec"])
    _tell(tx, wish, stored)
    return stored


def _on_fleet(tx: Transaction, wish: _Wish) -> Json:
    old = tx.get(FLEET, wish.namespace, wish.name)
    if old is None:
        raise errors.not_found(FLEET, wish.name)
    template = old["spec"]["template"].get("spec") or {}
    _check_there(wish, template)
    own = orjson.loads(overriding.kept_by(old) or "{}")
    own = overrides.pruned(own, overrides.names_of(template))
    text = overriding.text_of(overrides.asked(own, wish.action, wish.application, _now_ns(tx)))
    metadata = old["metadata"]
    annotations = {**(metadata.get("annotations") or {}), devices.FLEETS_OVERRIDES: text}
    new = old | {"metadata": metadata | {"annotations": annotations}}
    stored = tx.update(FLEET, old, new)
    _tell(tx, wish, stored)
    return stored


async def hand_down(store: Store, namespace: str, fleet: str) -> None:
    """Give the devices of a fleet what it asks. Repeating it changes nothing."""
    while True:
        given = await store.write(lambda tx: overriding.hand_down(tx, namespace, fleet))
        if given < sets.CHUNK:
            return


async def hand_down_all(store: Store) -> None:
    """What a crash, or a device that was left alone, has left undone."""
    for namespace, fleet in await store.read(overriding.asked_fleets):
        await hand_down(store, namespace, fleet)


def _check_there(wish: _Wish, spec: Json) -> None:
    if wish.application not in overrides.names_of(spec):
        raise errors.NotFound(f'Application of name "{wish.application}" not found')


def _refusal(wish: _Wish, why: str) -> errors.BadRequest:
    message = f"cannot {wish.action} {wish.application}: {why}"
    return errors.BadRequest(message, kind=wish.kind, name=wish.name)


def _now_ns(tx: Transaction) -> int:
    return int(tx.now.timestamp() * 1_000_000_000)


def _tell(tx: Transaction, wish: _Wish, stored: Json) -> None:
    note(tx, Act(wish.caller, "update", wish.kind, wish.namespace, wish.name, SUBRESOURCE), stored)
    message = f"Application {wish.application} was {_DONE[wish.action]} by {wish.caller.name}."
    details = {"detailType": REASON, "appName": wish.application, "action": wish.action}
    telling.tell(tx, stored, REASON, message, details)

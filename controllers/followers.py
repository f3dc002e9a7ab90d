"""Devices without fleet whose files come from outside: fetched for each by itself, handed over.

The API server lists them, knows what each was given, and renders; who waits to be fetched for the
first time is in the Backlog's count, so a new one wakes us. Among many with the same sources each
is asked for once in a round (`freezing`), and a device whose sources gave nothing new costs
nothing more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import structlog

from controllers import freezing, versions
from controllers.client import ApiError, Client, Unreachable
from controllers.freezing import Freezer, Unfrozen
from resources.errors import Invalid

Json = dict[str, Any]
Now = Callable[[], str]

ROOT = "spec"

log = structlog.get_logger()


async def reconcile(client: Client, namespace: str, *, freezer: Freezer, now: Now) -> bool:
    """Look at all of a namespace. Whether there are any, and so to be looked at again. What cannot
    be fetched is told on the device. Raises an ExceptionGroup of what the API server refused."""
    problems: list[Exception] = []
    after, has_any = "", False
    while True:
        page = await client.following(namespace, after)
        for device in page["items"]:
            has_any = True
            try:
                await _follow(client, namespace, device, freezer, now())
            except (ApiError, Unreachable) as problem:
                # One device that cannot be served must not keep the others waiting.
                problem.add_note(f"device {device['name']}")
                problems.append(problem)
        after = page["after"]
        if not after:
            break
    if problems:
        raise ExceptionGroup("devices were left", problems)
    return has_any


async def _follow(client: Client, namespace: str, device: Json, freezer: Freezer, now: str) -> None:
    known: Sequence[Json] = device["inputs"]
    by_name = {found["name"]: found for found in known}
    try:
        spec = freezing.checked(device["spec"], ROOT, templated=False)
        inputs = await freezer.freeze(namespace, spec, ROOT, by_name, now=now, templated=False)
    except (Unfrozen, Invalid) as problem:
        # What it has stays valid while its sources just do not answer.
        if device["renderNeeded"] or not getattr(problem, "is_passing", False):
            await _hand_over(client, namespace, device, {"problem": str(problem)}, freezer)
        return
    is_settled = device["specValid"] and not device["renderNeeded"]
    if not is_settled or not versions.are_same(inputs, known):
        await _hand_over(client, namespace, device, {"inputs": inputs}, freezer)


async def _hand_over(
    client: Client, namespace: str, device: Json, what: Json, freezer: Freezer
) -> None:
    request = {"generation": device["generation"], **what}
    try:
        answer = await client.hand_over(namespace, device["name"], request)
    except ApiError as error:
        if freezing.is_missing(error):
            freezer.forget()
        if error.code not in (404, 409):
            raise
        # It is gone, or something else by now: then there is other work for it, or none.
        log.info("device left", device=device["name"], reason=error.message)
        return
    if "inputs" in what:
        version = answer["renderedVersion"]
        log.info("device handed over", device=device["name"], version=version)

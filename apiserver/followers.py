"""Devices without fleet that take files from outside: nobody freezes a template for them.

They are marked where their spec is written; the controllers find them, fetch, and hand over what
came; here it is kept and rendered. Each step looks again whether the device still is what was
fetched for, so a hand-over that comes late changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from apiserver import bindings, errors, inputs
from apiserver.store import Snapshot, Store, Transaction, devices, following
from resources import digest, templateversion
from resources.errors import Invalid
from resources.kind import Json
from resources.registry import DEVICE


async def page(store: Store, namespace: str, after: str, limit: int) -> Json:
    """Those devices by name, above the name `after`: their specs, and what they have been given."""
    found = await store.read(lambda s: following.page(s, namespace, after=after, limit=limit))
    return {"items": found, "after": found[-1]["name"] if len(found) == limit else ""}


async def hand_over(store: Store, namespace: str, name: str, request: Json) -> Json:
    """What the controllers fetched for a device without fleet, or why they could not.

    The body has `generation`, of the spec that it is for, and either `inputs`, as a template
    version has them, or `problem`, a sentence. Answers {renderedVersion}. 409 when the device has
    changed meanwhile or got a fleet, 422 with what is missing.
    """
    problem, found = request.get("problem"), request.get("inputs") or []
    if problem is not None:
        if not isinstance(problem, str) or not problem:
            raise errors.BadRequest("problem must be a sentence")
        return await store.write(lambda tx: _not_fetched(tx, namespace, name, request, problem))
    complaints = list(templateversion.check_inputs(request, ""))
    if complaints:
        raise errors.unprocessable(DEVICE, name, Invalid(complaints))
    kept = await store.write(lambda tx: _keep_inputs(tx, namespace, name, request, found))

    def render_it(snapshot: Snapshot) -> tuple[str, bytes]:
        row = _follower(snapshot, namespace, name, request)
        spec = snapshot.documents.fetch(snapshot.connection, [row["spec_digest"]])
        frozen = inputs.load(snapshot, found)
        rendered = bindings.rendered_alone(row, spec[row["spec_digest"]], frozen)
        body = digest.canonical(rendered.rendered)
        return snapshot.digest_of(body, is_secret=frozen.is_secret), body

    try:
        rendered_digest, body = await store.read(render_it)
    except Invalid as refused:
        raise errors.unprocessable(DEVICE, name, refused) from refused

    def move(tx: Transaction) -> Json:
        row = _follower(tx, namespace, name, request)
        columns = bindings.rendered_to(tx, row, rendered_digest, body) | {"inputs_digest": kept}
        return {"renderedVersion": devices.save(tx, row, columns)["rendered_version"]}

    return await store.write(move)


def _keep_inputs(
    tx: Transaction, namespace: str, name: str, request: Json, found: list[Json]
) -> str:
    row = _follower(tx, namespace, name, request)
    spec = tx.documents.fetch(tx.connection, [row["spec_digest"]])[row["spec_digest"]]
    kept = digest.canonical({"spec": row["spec_digest"], "inputs": found})
    try:
        inputs.accept(tx, tx.digest_of(kept), spec, found, "", templated=False)
    except Invalid as problem:
        raise errors.unprocessable(DEVICE, name, problem) from problem
    return tx.put_content(kept)


def _not_fetched(tx: Transaction, namespace: str, name: str, request: Json, problem: str) -> Json:
    row = _follower(tx, namespace, name, request)
    saved = devices.save(tx, row, bindings.spec_valid(tx, row, "False", "Invalid", problem))
    return {"renderedVersion": saved["rendered_version"]}


def _follower(snapshot: Snapshot, namespace: str, name: str, request: Json) -> Mapping[str, Any]:
    """The row of a device that still is what it was fetched for."""
    row = devices.row_by_name(snapshot.connection, namespace, name)
    if row is None:
        raise errors.not_found(DEVICE, name)
    if row["fleet"] or row["owner"]:
        raise errors.conflict(DEVICE, name, "it is owned, and follows its owner's sources")
    if row["pause"]:
        raise errors.conflict(DEVICE, name, "it is left alone since the service was restored")
    if row["generation"] != request.get("generation"):
        raise errors.conflict(DEVICE, name, "its spec has changed since")
    return dict(row)

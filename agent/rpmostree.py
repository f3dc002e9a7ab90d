"""rpm-ostree: argument vectors to give it, and its output read. Nothing is run here.

The image is rebased to from what podman has pulled, so that an update needs no network once its
download is complete. Errors read as bootc's do (`bootc.error`): both sit on the same library.
"""

from __future__ import annotations

import json
from typing import Any

from agent import osimage

Json = dict[str, Any]

PROBE = ["rpm-ostree", "--version"]
# `ostree-unverified-registry:`, `ostree-image-signed:docker://`, `ostree-remote-image:NAME:docker://`
_SOURCES = ("containers-storage:", "docker://", "registry:", "docker:")


def status_argv() -> list[str]:
    return ["rpm-ostree", "status", "--json"]


def stage_argv(name: str) -> list[str]:
    return ["rpm-ostree", "rebase", f"ostree-unverified-image:containers-storage:{name}"]


def discard_argv() -> list[str]:
    return ["rpm-ostree", "cleanup", "--pending"]


def rollback_argv() -> list[str]:
    return ["rpm-ostree", "rollback"]


def slots(stdout: str) -> osimage.Slots | None:
    """None = nothing is booted by it. Raises ValueError for what is no status.

    The list is in the order in which the boot loader takes them: what stands before the booted one
    and is not staged was queued by a rollback.
    """
    document = json.loads(stdout)
    found = document.get("deployments") if isinstance(document, dict) else None
    if not isinstance(found, list):
        raise ValueError("no deployments in it")
    entries = [entry for entry in found if isinstance(entry, dict)]
    booted = next((e for e in entries if e.get("booted") is True), None)
    if booted is None:
        return None
    staged = next((e for e in entries if e.get("staged") is True), None)
    others = [e for e in entries if e is not booted and e is not staged]
    rollback = others[0] if others else None
    is_queued = rollback is not None and entries.index(rollback) < entries.index(booted)
    return osimage.Slots(_slot(booted), _slot(staged), _slot(rollback), is_queued)


def _slot(entry: Json | None) -> osimage.Slot | None:
    if entry is None:
        return None
    return osimage.Slot(
        image_of(str(entry.get("container-image-reference") or "")),
        str(entry.get("container-image-reference-digest") or ""),
        str(entry.get("id") or ""),
    )


def image_of(reference: str) -> str:
    """The image in a reference that names its verification and its transport too."""
    kind, _, rest = reference.partition(":")
    if not kind.startswith("ostree-"):
        return reference
    if kind in ("ostree-unverified-registry", "ostree-remote-registry"):
        return rest.partition(":")[2] if kind == "ostree-remote-registry" else rest
    if kind == "ostree-remote-image":
        rest = rest.partition(":")[2]
    for source in _SOURCES:
        if rest.startswith(source):
            return rest.removeprefix(source)
    return rest

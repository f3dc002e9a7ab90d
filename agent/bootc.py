"""bootc: argument vectors to give it, and its output read. Nothing is run here.

Versions differ in what `status` holds; all but the two fields of each slot is optional. Whether a
failure may be tried again is one ordered table of words, as for podman.
"""

from __future__ import annotations

import json
from typing import Any

from agent import errors, osimage

Json = dict[str, Any]

PROBE = ["bootc", "--version"]


def status_argv() -> list[str]:
    return ["bootc", "status", "--json"]


def stage_argv(name: str) -> list[str]:
    """From what podman has pulled, so that no network is needed any more; without a reboot."""
    return ["bootc", "switch", "--transport", "containers-storage", "--retain", name]


def undeploy_argv() -> list[str]:
    """libostree's word for what bootc has none for: number 0 is what is staged, if anything is."""
    return ["ostree", "admin", "undeploy", "0"]


def rollback_argv() -> list[str]:
    """Exchanges what the next boot starts, and drops what is staged; a second one takes it back."""
    return ["bootc", "rollback"]


def slots(stdout: str) -> osimage.Slots | None:
    """None = this host was not booted by bootc. Raises ValueError for what is no status.

    While another bootc holds the lock, progress lines may come instead of JSON.
    """
    document = json.loads(stdout)
    status = document.get("status") if isinstance(document, dict) else None
    if not isinstance(status, dict):
        raise ValueError("no status in it")
    booted = _slot(status.get("booted"))
    if booted is None:
        return None
    return osimage.Slots(
        booted,
        _slot(status.get("staged")),
        _slot(status.get("rollback")),
        status.get("rollbackQueued") is True,
    )


def _slot(entry: Any) -> osimage.Slot | None:
    if not isinstance(entry, dict):
        return None
    # A slot that was not made from a container image has no image, and may be gone back to.
    image = _table(entry.get("image"))
    ostree = _table(entry.get("ostree"))
    checksum = str(ostree.get("checksum") or "")
    deployment = f"{checksum}.{ostree.get('deploySerial', 0)}" if checksum else ""
    return osimage.Slot(
        str(_table(image.get("image")).get("image") or ""),
        str(image.get("imageDigest") or ""),
        deployment,
    )


def _table(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


# (words, cause, whether a retry may help); the first row that fits counts.
_WORDS: tuple[tuple[str, str, bool], ...] = (
    ("no space left", errors.RESOURCE_EXHAUSTED, True),
    ("context deadline exceeded", errors.DEADLINE_EXCEEDED, True),
    ("must be executed as the root user", errors.PERMISSION_DENIED, False),
    ("system not booted via bootc", errors.FAILED_PRECONDITION, False),
    ("no rollback available", errors.NOT_FOUND, False),
    ("ostree.bootable", errors.INVALID_ARGUMENT, False),
    ("ostree.commit", errors.INVALID_ARGUMENT, False),
)


def is_image_missing(words: str) -> bool:
    text = words.lower()
    return any(w in text for w in ("image not known", "no such image", "does not resolve"))


def error(words: str, *, image: str) -> errors.Retry | errors.Reject:
    """What is not in the table is tried again: it may be a lock, or a disk."""
    text = words.lower()
    detail = errors.one_line(last_line(words))
    for word, cause, may_help in _WORDS:
        if word in text:
            kind = errors.Retry if may_help else errors.Reject
            return kind(cause, detail, component=errors.OS, element=image)
    return errors.Retry(errors.UNAVAILABLE, detail, component=errors.OS, element=image)


def last_line(words: str) -> str:
    """Rust tools put the cause on the last line, after `error:` or `Caused by:`."""
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    return lines[-1] if lines else "no output"

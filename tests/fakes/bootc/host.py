"""What `bootc status` says: three slots, as a document. No I/O.

A clean-room imitation of a public interface: field names, nulls and omissions as bootc 1.16 prints
them, and as 1.1 did, which knew fewer fields and called its API v1alpha1. A client that reads one
of them only is found out by the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Image:
    """Where a deployment came from. `digest` and the rest are null when nobody wrote them down."""

    reference: str
    transport: str
    digest: str | None = None
    version: str | None = None
    timestamp: str | None = None
    architecture: str | None = None

    def is_same_source(self, other: Image | None) -> bool:
        """The same words in a specification; what they point at may have moved meanwhile."""
        return other is not None and (self.reference, self.transport) == (
            other.reference,
            other.transport,
        )


@dataclass(frozen=True, slots=True)
class Deployment:
    image: Image | None
    stateroot: str
    checksum: str
    serial: int
    is_pinned: bool = False


@dataclass(frozen=True, slots=True)
class Host:
    """The slots. `booted` is None exactly where the system was not booted from a deployment."""

    staged: Deployment | None = None
    booted: Deployment | None = None
    rollback: Deployment | None = None
    is_rollback_queued: bool = False

    @property
    def wanted(self) -> Image | None:
        """What shall run after the next boot, as `spec.image` says it."""
        if self.staged is not None:
            return self.staged.image
        slot = self.rollback if self.is_rollback_queued else self.booted
        return slot.image if slot is not None else None


def document(host: Host, *, is_modern: bool = True) -> Json:
    """The BootcHost; `is_modern` chooses between the two generations of its shape."""
    wanted = host.wanted
    status: Json = {
        "staged": _slot(host.staged, is_modern),
        "booted": _slot(host.booted, is_modern),
        "rollback": _slot(host.rollback, is_modern),
        "rollbackQueued": host.is_rollback_queued,
        "type": "bootcHost" if host.booted is not None else None,
    }
    if is_modern and host.booted is not None:
        status |= {"usrOverlay": None, "readOnly": False}
    return {
        "apiVersion": "org.containers.bootc/v1" if is_modern else "org.containers.bootc/v1alpha1",
        "kind": "BootcHost",
        "metadata": {"name": "host"},
        "spec": {
            "image": _source(wanted),
            "bootOrder": "rollback" if host.is_rollback_queued else "default",
        },
        "status": status,
    }


def _slot(deployment: Deployment | None, is_modern: bool) -> Json | None:
    if deployment is None:
        return None
    image = deployment.image
    slot: Json = {
        "image": image
        and {
            "image": _source(image),
            "version": image.version,
            "timestamp": image.timestamp,
            "imageDigest": image.digest,
            "architecture": image.architecture,
        },
        "cachedUpdate": None,
        # A deployment that no image made can not be changed by bootc.
        "incompatible": image is None,
        "pinned": deployment.is_pinned,
    }
    if is_modern:
        slot |= {"softRebootCapable": False, "downloadOnly": False}
    slot |= {
        "store": "ostreeContainer" if image else None,
        "ostree": {
            "stateroot": deployment.stateroot,
            "checksum": deployment.checksum,
            "deploySerial": deployment.serial,
        },
    }
    return slot | {"composefs": None} if is_modern else slot


def _source(image: Image | None) -> Json | None:
    return image and {"image": image.reference, "transport": image.transport}

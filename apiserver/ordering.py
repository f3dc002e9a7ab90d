"""What a signer outside is asked for: a request that is approved and waits, judged once more."""

from __future__ import annotations

from apiserver import approvals, certifying, errors
from apiserver.pki import revocations, signers, waiting
from apiserver.pki.orders import Order
from apiserver.pki.requests import Refused
from apiserver.store import Snapshot
from apiserver.storing import organization_of
from resources.kind import Json


def order_of(snapshot: Snapshot, document: Json, now: float) -> Order:
    """What a signer outside is asked for a request that is approved and waits. Judged again, as
    when it was approved. Raises Refused."""
    metadata, spec = document["metadata"], document["spec"]
    namespace = metadata["namespace"]
    if not waiting.is_as_approved(document):
        raise Refused("it was changed after it was approved")
    organization = organization_of(snapshot, namespace)
    if document["kind"] == approvals.ENROLLMENT_REQUEST.kind:
        device = metadata["name"]
        parsed, granted = approvals.granted(document, organization)
        requester = document["status"].get("approval", {}).get("approvedBy")
    else:
        peer = certifying.asker(document)
        device = "" if peer is None else signers.device_of(peer)
        try:
            parsed = certifying.verified(document, peer)
            if device:
                certifying.check_device(snapshot, namespace, device)
        except errors.StatusError as refused:
            raise Refused(refused.message) from refused
        granted = certifying.granted(document, parsed, organization, peer)
        requester = spec.get("username")
    if device and revocations.is_barred(snapshot, namespace, device, now):
        raise Refused("the device's certificates are revoked")
    return Order(
        uid=metadata["uid"],
        kind=document["kind"],
        namespace=namespace,
        name=metadata["name"],
        request=parsed,
        granted=granted,
        requester=requester if isinstance(requester, str) else "",
    )

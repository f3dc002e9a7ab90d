"""A signer behind the certificates API of a Kubernetes cluster (certificates.k8s.io/v1).

The object's name is made from the uid of our request, so it can't be made twice. Who approves it,
and who signs it, is the cluster's business; both are waited for. What we want in the certificate
beyond the CSR is said in annotations, since a CSR is its device's and says only what a device may
say. The cluster forgets these objects by itself (after an hour, or a day when nobody decided), and
then it is asked anew.
"""

from __future__ import annotations

import base64
import binascii

from cryptography.hazmat.primitives import serialization

from apiserver.pki import extensions
from apiserver.pki.calling import Line, NotReached, Reply
from apiserver.pki.orders import (
    Answer,
    Declined,
    Issued,
    Order,
    Pending,
    Unavailable,
    Unusable,
)
from apiserver.pki.signerfile import EXPIRATION_S_MIN, Kubernetes
from apiserver.pki.signers import SERVER_SVC
from resources import conditions
from resources.kind import Json

PATH = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
PREFIX = "homeport.dev/"


class KubernetesSigner:
    def __init__(self, line: Line, settings: Kubernetes) -> None:
        self._line = line
        self._settings = settings
        self._base = settings.url.rstrip("/") + PATH

    @property
    def title(self) -> str:
        return f"{self._settings.signer_name} at {self._settings.url}"

    async def ask(self, order: Order) -> Answer:
        wanted = document_of(order, self._settings)
        try:
            reply = await self._line.call("GET", f"{self._base}/{name_of(order)}")
            if reply.status == 404:
                reply = await self._line.call("POST", self._base, wanted)
        except NotReached as error:
            return Unavailable(str(error))
        return answer_of(reply, wanted)

    async def forget(self, order: Order) -> None:
        """A refused object would refuse the next approval too. If this does not arrive, the cluster
        still forgets it within the hour."""
        try:
            await self._line.call("DELETE", f"{self._base}/{name_of(order)}")
        except NotReached:
            return


def name_of(order: Order) -> str:
    return f"homeport-{order.uid}"


def document_of(order: Order, settings: Kubernetes) -> Json:
    """The object that is created there."""
    granted = order.granted
    lifetime_s = int(granted.lifetime.total_seconds())
    asked_s = min(lifetime_s, settings.expiration_seconds or lifetime_s)
    said = {
        "common-name": granted.common_name,
        "signer-name": granted.signer,
        "organization": str(granted.organization) if granted.organization else "",
        "fingerprint": granted.fingerprint or "",
        "requester": order.requester,
        "kind": order.kind,
        "namespace": order.namespace,
        "name": order.name,
    }
    oids = {
        "signer-name": extensions.SIGNER,
        "organization": extensions.ORGANIZATION,
        "fingerprint": extensions.FINGERPRINT,
    }
    # The extensions once more under their numbers, so that a signer can write them unread.
    numbered = {f"extension.{oid.dotted_string}": said[key] for key, oid in oids.items()}
    usages = ["client auth", "digital signature", "key encipherment"]
    return {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {
            "name": name_of(order),
            "labels": {"app.kubernetes.io/managed-by": "homeport"},
            "annotations": {PREFIX + key: text for key, text in (said | numbered).items() if text},
        },
        "spec": {
            "request": base64.b64encode(
                order.request.csr.public_bytes(serialization.Encoding.PEM)
            ).decode(),
            "signerName": settings.signer_name,
            "expirationSeconds": max(EXPIRATION_S_MIN, asked_s),
            "usages": usages + (["server auth"] if granted.signer == SERVER_SVC else []),
        },
    }


def answer_of(reply: Reply, wanted: Json) -> Answer:
    """What the object, or the refusal to make it, means. Pure."""
    if reply.status == 403:
        # RBAC's sentence says which right is missing.
        return Unavailable(f"it does not let us: {reply.message or reply.status}")
    if (trouble := reply.trouble()) is not None:
        return trouble
    if reply.status == 409:
        return Pending("another of our processes has just made it", 1.0)
    if reply.status == 422 and reply.message:
        return Declined(reply.message)
    found = reply.document
    if reply.status not in (200, 201) or found is None:
        return Unavailable(f"it answers {reply.status} {reply.message}".rstrip())
    spec = found.get("spec") or {}
    if any(spec.get(key) != wanted["spec"][key] for key in ("request", "signerName")):
        return Unusable(f"{wanted['metadata']['name']} is there and asks for something else")
    return _status(found.get("status") or {})


def _status(status: Json) -> Answer:
    said = status.get("conditions")
    for kind in ("Denied", "Failed"):
        condition = conditions.get(said, kind)
        if condition is not None:
            why = condition.get("message") or condition.get("reason") or "no reason given"
            return Declined(f"{kind.lower()} in the cluster: {why}")
    certificate = status.get("certificate")
    if certificate:
        try:
            return Issued(base64.b64decode(certificate, validate=True))
        except (binascii.Error, TypeError, ValueError):
            return Unusable("the object's certificate is no base64")
    if conditions.is_true(said, "Approved"):
        return Pending("approved in the cluster, not signed yet")
    return Pending("not approved in the cluster yet")

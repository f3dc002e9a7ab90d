"""Whether a certificate counts at this time. TLS asks once, when a connection begins; connections
live on for days, so it is asked again at each request, and of what is held open."""

from __future__ import annotations

from apiserver.errors import Unauthorized
from apiserver.pki.extensions import PeerIdentity


def check(identity: PeerIdentity, now: float) -> None:
    """Raises Unauthorized. `now`: Unix seconds."""
    if identity.expires_at <= now:
        raise Unauthorized("the client certificate has expired")
    if identity.begins_at > now:
        raise Unauthorized("the client certificate is not valid yet; are the clocks right?")

"""Webhooks of forges: `POST /hooks/<namespace>/<repository>`. Open to all, for a forge has no
identity here; it proves that it knows the Repository's secret, and all that it may do is wake.

The invariant: whatever is wrong (no such Repository, one without a secret, another secret, none),
the answer is the same, and it comes after the whole body was read.
"""

from __future__ import annotations

from aiohttp import web

from apiserver.errors import Unauthorized
from apiserver.hooks import Hooks
from apiserver.kube import bodies, rendering
from apiserver.wire.delivery import BODY_BYTES_MAX, Delivery

HOOKS = web.AppKey("HOOKS", Hooks)
REFUSED = (
    "nothing was done: there is no such Repository with a spec.webhookSecret, or the delivery is "
    "not signed with that secret (X-Hub-Signature-256, X-Gitea-Signature, X-Forgejo-Signature or "
    "Bitbucket's X-Hub-Signature; X-Gitlab-Token or Authorization: Bearer with the secret itself)"
)


async def receive(request: web.Request) -> web.StreamResponse:
    """202 when those who read from the Repository will look; 200 for what is no push."""
    hooks = request.app[HOOKS]
    place = request.match_info["namespace"], request.match_info["repository"]
    delivery = Delivery(request.headers, await hooks.secret(*place))
    await bodies.feed(request, BODY_BYTES_MAX, delivery.feed)
    if not delivery.is_proved():
        raise Unauthorized(REFUSED)
    if not delivery.is_push():
        said = "understood; this event moves no branch and no tag, so nobody has to look"
        return await rendering.plain(request, {"message": said})
    await hooks.wake(*place)
    said = "whoever reads from this Repository looks at once"
    return await rendering.plain(request, {"message": said}, status=202)

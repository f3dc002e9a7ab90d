"""What a forge sends to a webhook: is it proved who sent it, and is it about a push? Pure.

    GitHub              X-Hub-Signature-256: sha256=HEX            X-GitHub-Event: push
    Gitea, Forgejo      X-Gitea-Signature, X-Forgejo-Signature     X-Gitea-Event, X-Forgejo-Event
    Bitbucket           X-Hub-Signature: sha256=HEX                X-Event-Key: repo:push
    GitLab              X-Gitlab-Token: the secret itself          X-Gitlab-Event: Push Hook
    anything else       X-Hub-Signature-256, or Authorization: Bearer and the secret

Signatures are HMAC-SHA256 of the body under the secret that both sides know. The body is hashed as
it comes and never held, let alone parsed: a delivery says only *look there*, and what is there is
asked of the repository. So a delivery that somebody repeats does no harm either.

Forges send several headers for one thing, old ones among them; one proof that holds is enough, and
one that is not among these, as SHA-1, is none. All comparisons take as long for a wrong value as
for the right one.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping

# GitHub's limit, the highest of them.
BODY_BYTES_MAX = 25 << 20

_PREFIXED = ("X-Hub-Signature-256", "X-Hub-Signature")
_BARE = ("X-Gitea-Signature", "X-Forgejo-Signature")
_EVENTS = ("X-GitHub-Event", "X-Gitea-Event", "X-Forgejo-Event", "X-Gitlab-Event", "X-Event-Key")
# What moves a branch or a tag; GitLab's system hooks tell of everything under one name.
_PUSHES = frozenset(
    {
        "push",
        "create",
        "delete",
        "Push Hook",
        "Tag Push Hook",
        "System Hook",
        "repo:push",
        "repo:refs_changed",
        "mirror:repo_synchronized",
    }
)
_BEARER = re.compile(r"bearer +(\S+)", re.IGNORECASE)


class Delivery:
    """One request: made of its headers and the secret, fed with its body."""

    def __init__(self, headers: Mapping[str, str], secret: str) -> None:
        self._headers = headers
        self._secret = secret.encode()
        self._hmac = hmac.new(self._secret, digestmod=hashlib.sha256)

    def feed(self, chunk: bytes) -> None:
        self._hmac.update(chunk)

    def is_proved(self) -> bool:
        """Whether the sender knows the secret. Ask when all of the body was fed."""
        expected = self._hmac.hexdigest().encode()
        proofs = [hmac.compare_digest(expected, given) for given in self._signatures()]
        proofs += [self._is_secret(given) for given in self._tokens()]
        return any(proofs)

    def is_push(self) -> bool:
        """Whether a branch or a tag may have moved. Who names no event means that."""
        named = [self._headers[key] for key in _EVENTS if key in self._headers]
        return not named or any(event in _PUSHES for event in named)

    def _signatures(self) -> list[bytes]:
        found = [self._headers.get(key, "").strip() for key in _PREFIXED]
        bare = [text.removeprefix("sha256=") for text in found if text.startswith("sha256=")]
        bare += [self._headers[key].strip() for key in _BARE if key in self._headers]
        return [_bytes(text).lower() for text in bare]

    def _tokens(self) -> list[bytes]:
        bearer = _BEARER.fullmatch(self._headers.get("Authorization", "").strip())
        found = [self._headers.get("X-Gitlab-Token", ""), bearer[1] if bearer else ""]
        return [_bytes(text) for text in found if text]

    def _is_secret(self, given: bytes) -> bool:
        # Digests, since comparing what is of another length would be over at once.
        known, said = (hashlib.sha256(text).digest() for text in (self._secret, given))
        return hmac.compare_digest(known, said)


def _bytes(text: str) -> bytes:
    # Headers may hold bytes that are no text.
    return text.encode(errors="surrogateescape")

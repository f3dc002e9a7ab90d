"""Opaque tokens bear the name of who gave them out, from the login on.

Nothing can be read in such a token, so without a name every provider would have to be shown it in
turn; and an AuthProvider that an organisation's administrator made must never be shown what others
gave out, or it could keep it and be its owner. The exchange writes the name before the token, for
whatever client; here it is read. A token without a name is shown to providers that are vouched for.
"""

from __future__ import annotations

from apiserver.auth.claims import Provider

# None of names and namespaces has it, and RFC 6750 lets tokens have it.
_SEPARATOR = "~"
_MARK = "homeport"


def marked(provider: Provider, token: str) -> str:
    """What its owner brings."""
    return _SEPARATOR.join((_MARK, provider.home, provider.name, token))


def read(token: str) -> tuple[str, str, str] | None:
    """Namespace and name of the provider, and its token; None for one that bears no name."""
    parts = token.split(_SEPARATOR, 3)
    if len(parts) != 4 or parts[0] != _MARK:
        return None
    return parts[1], parts[2], parts[3]

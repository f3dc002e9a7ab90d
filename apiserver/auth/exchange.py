"""What a login needs of the service: which providers there are, and the client's secret.

Browsers and the CLI get codes from the identity provider themselves; exchanging one for tokens
takes the client secret, which never leaves the service (contract §9). Nothing is kept here, and no
token is logged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
import orjson

from apiserver.auth import oidc
from apiserver.auth.claims import Provider
from apiserver.auth.tokens import TIMEOUT_S, Tokens, limited
from apiserver.errors import BadRequest, NotFound
from resources import masking, registry
from resources.kind import Json

DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
GRANTS = ("authorization_code", "refresh_token", DEVICE_CODE)
SAID_OF_ERRORS = ("error", "error_description")
# All else that a client says stays here.
PASSED_ON = (
    "grant_type",
    "code",
    "redirect_uri",
    "code_verifier",
    "refresh_token",
    "scope",
    "device_code",
)


@dataclass(frozen=True, slots=True)
class Logins:
    """The open half of authentication."""

    tokens: Tokens

    async def config(self) -> Json:
        """AuthConfig: who may be asked for a token, secrets masked."""
        known = await self.tokens.known()
        shown = [
            masking.masked(registry.AUTH_PROVIDER, _document(each)) for each in known.providers
        ]
        found: Json = {
            "apiVersion": registry.V1BETA1,
            "organizationsEnabled": True,
            "providers": sorted(shown, key=lambda each: str(each["metadata"]["name"])),
        }
        if known.providers:
            # The reference's rule: the first of the configuration, and "" if there is none in it.
            ours = sorted(each.name for each in known.providers if not each.home)
            found["defaultProvider"] = ours[0] if ours else ""
        return found

    async def exchange(self, name: str, asked: Mapping[str, str]) -> tuple[int, Json]:
        """Status and TokenResponse for a TokenRequest, as the provider gives them. Raises NotFound,
        BadRequest, ServiceUnavailable."""
        if asked.get("grant_type") not in GRANTS:
            raise BadRequest(f"grant_type: write one of {', '.join(GRANTS)}")
        return await self._pass_on(name, asked, "token_endpoint")

    async def begin_on_a_device(self, name: str, asked: Mapping[str, str]) -> tuple[int, Json]:
        """The same for a login where there is no browser (RFC 8628 §3.1); ours, not the
        contract's."""
        return await self._pass_on(name, asked, "device_authorization_endpoint")

    async def _pass_on(
        self, name: str, asked: Mapping[str, str], endpoint: str
    ) -> tuple[int, Json]:
        provider = await self._provider(name, asked.get("client_id", ""))
        url = await self.tokens.keys_of(provider.issuer).endpoint(endpoint)
        form = {key: asked[key] for key in PASSED_ON if asked.get(key)}
        form |= {"client_id": provider.client_id}
        if secret := provider.spec.get("clientSecret"):
            form["client_secret"] = secret
        try:
            timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
            async with self.tokens.session.post(url, data=form, timeout=timeout) as response:
                answer = orjson.loads(await limited(response))
        except (aiohttp.ClientError, TimeoutError, ValueError, oidc.ProviderUnreachable) as error:
            raise oidc.unreachable(provider.issuer) from error
        if not isinstance(answer, dict):
            raise oidc.unreachable(provider.issuer)
        if response.status == 200:
            return 200, answer
        kept = {key: answer[key] for key in SAID_OF_ERRORS if isinstance(answer.get(key), str)}
        return 400, kept or {"error": "server_error"}

    async def _provider(self, name: str, client_id: str) -> Provider:
        found = [each for each in (await self.tokens.known()).providers if each.name == name]
        for provider in found:
            if provider.client_id == client_id:
                return provider
        if found:
            raise BadRequest(f'client_id: "{client_id}" is not that of identity provider {name}')
        raise NotFound(f'authproviders.flightctl.io "{name}" not found', name=name)


def _document(provider: Provider) -> Json:
    kind = registry.AUTH_PROVIDER
    metadata = {"name": provider.name} | ({"namespace": provider.home} if provider.home else {})
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": metadata,
        "spec": provider.spec,
    }

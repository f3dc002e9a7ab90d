"""What a login needs of the service: which providers there are, and the client's secret.

Browsers and the CLI get codes from the identity provider themselves; exchanging one for tokens
takes the client secret, which never leaves the service (contract §9). Nothing is kept here, and no
token is logged. Access tokens that only their provider can read get its name (auth/provenance.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from apiserver.auth import asking, oidc, provenance
from apiserver.auth.asking import ProviderUnreachable
from apiserver.auth.claims import Provider
from apiserver.auth.tokens import Tokens
from apiserver.errors import BadRequest, NotFound
from resources import masking, registry
from resources.authprovider import K8S, OAUTH2, OIDC
from resources.kind import Json

DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
GRANTS = ("authorization_code", "refresh_token", DEVICE_CODE)
SAID_OF_ERRORS = ("error", "error_description")
# Where an AuthProvider of type oauth2 has what others say by discovery.
_KEYS = {
    "token_endpoint": "tokenUrl",
    "device_authorization_endpoint": "deviceAuthorizationUrl",
}
# Of our machine, and nobody else's business.
_OURS = ("tokenFile", "caFile")
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
        provider, status, answer = await self._pass_on(name, asked, "token_endpoint")
        token = answer.get("access_token")
        if provider.type == OAUTH2 and isinstance(token, str):
            answer = answer | {"access_token": provenance.marked(provider, token)}
        return status, answer

    async def begin_on_a_device(self, name: str, asked: Mapping[str, str]) -> tuple[int, Json]:
        """The same for a login where there is no browser (RFC 8628 §3.1); ours, not the
        contract's."""
        _, status, answer = await self._pass_on(name, asked, "device_authorization_endpoint")
        return status, answer

    async def _pass_on(
        self, name: str, asked: Mapping[str, str], endpoint: str
    ) -> tuple[Provider, int, Json]:
        provider = await self._provider(name, asked.get("client_id", ""))
        url = await self._address(provider, endpoint)
        form = {key: asked[key] for key in PASSED_ON if asked.get(key)}
        form |= {"client_id": provider.client_id}
        if secret := provider.spec.get("clientSecret"):
            form["client_secret"] = secret
        # Some answer in forms, unless they are asked for this.
        headers = {"Accept": "application/json"}
        try:
            status, answer = await asking.ask(
                self.tokens.session, "POST", url, data=form, headers=headers
            )
        except ProviderUnreachable as error:
            raise oidc.unreachable(provider.issuer) from error
        # And some call a refusal a success.
        if status == 200 and "error" not in answer:
            return provider, 200, answer
        kept = {key: answer[key] for key in SAID_OF_ERRORS if isinstance(answer.get(key), str)}
        return provider, 400, kept or {"error": "server_error"}

    async def _address(self, provider: Provider, endpoint: str) -> str:
        """Raises BadRequest, ServiceUnavailable."""
        if provider.type == OIDC:
            return await self.tokens.keys_of(provider.issuer).endpoint(endpoint)
        key = _KEYS[endpoint]
        if url := provider.spec.get(key):
            return str(url)
        if provider.type == K8S:
            raise BadRequest(
                f"the tokens of {provider.name} come from its cluster: kubectl create token ... | "
                "homeport login URL --token -"
            )
        raise BadRequest(f"identity provider {provider.name} has no {key}: log in by browser")

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
        "spec": {key: value for key, value in provider.spec.items() if key not in _OURS},
    }

"""Whether a Repository can be read: one friendly question to it, and the answer in words.

git: which branches it has. http: the address that it is tested by answers 200. oci: the registry's
/v2/, with the token that it asks for. Credentials go to the server that the Repository names; of an
OCI registry also to the token service that it names, over TLS or where the registry itself is
spoken to without. The words never hold a credential.
"""

from __future__ import annotations

import base64
import re
import ssl
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from controllers import tls
from controllers.giterrors import GitError
from controllers.gitmirror import Mirrors
from controllers.remotes import Known

Json = dict[str, Any]

TOTAL_S, CONNECT_S = 30.0, 10.0
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


async def problem_of(mirrors: Mirrors, known: Known) -> str:
    """Why it cannot be read, and what to do; "" if it can."""
    spec = known.repository["spec"]
    match spec.get("type"):
        case "git":
            try:
                await mirrors.refs(known.remote)
            except GitError as problem:
                return str(problem)
            return ""
        case "http":
            return await _asked(_http_answers, spec, spec.get("httpConfig") or {}, spec["url"])
        case "oci":
            scheme = spec.get("scheme") or "https"
            return await _asked(_registry_answers, spec, spec, f"{scheme}://{spec['registry']}")
        case other:
            return f"spec.type: repositories of type {other} are not read"


_Ask = Callable[[aiohttp.ClientSession, Json, str, str], Awaitable[str]]


async def _asked(ask: _Ask, spec: Json, trust: Json, url: str) -> str:
    """`ask` with a session that trusts as `trust` says; its troubles in words."""
    host = urlsplit(url).netloc.rpartition("@")[2]
    field = "spec.httpConfig" if trust is not spec else "spec"
    try:
        context = _context(trust)
    except (ssl.SSLError, ValueError):
        return f"{field}: holds a certificate or key that cannot be used"
    timeout = aiohttp.ClientTimeout(total=TOTAL_S, sock_connect=CONNECT_S)
    connector = aiohttp.TCPConnector(ssl=context, force_close=True)
    try:
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            return await ask(session, spec, url, host)
    except aiohttp.ClientConnectorCertificateError:
        return (
            f"the certificate of {host} is not vouched for by a known authority, or is for another "
            f"name: put the authority's certificate into {field}[ca.crt]"
        )
    except aiohttp.ClientConnectorDNSError:
        return f"the name {host} cannot be resolved: check it, and the resolver of the service"
    except TimeoutError:
        return f"{host} did not answer in time"
    except aiohttp.InvalidURL:
        return "spec.url: is not an address"
    except (aiohttp.ClientError, OSError) as problem:
        why = getattr(problem, "strerror", None) or type(problem).__name__
        return f"{host} does not take connections ({why}): check that the service may reach it"


async def _http_answers(session: aiohttp.ClientSession, spec: Json, url: str, host: str) -> str:
    config = spec.get("httpConfig") or {}
    headers = {}
    if config.get("token"):
        headers["Authorization"] = f"Bearer {config['token']}"
    elif config.get("password"):
        headers["Authorization"] = _basic(config["username"], config["password"])
    address = url + (spec.get("validationSuffix") or "")
    # Where credentials come along, a redirection may not lead them elsewhere.
    async with session.get(address, headers=headers, allow_redirects=not headers) as response:
        match response.status:
            case 200:
                return ""
            case 401 | 403:
                return (
                    f"{host} answered {response.status}: renew the credentials of spec.httpConfig"
                )
            case 404:
                return f"{host} answered 404: spec.url with spec.validationSuffix is not there"
            case code if 300 <= code < 400:
                return f"{host} sends to another address: write that one into spec.url"
            case code:
                return f"{host} answered {code}; 200 is expected of spec.url with its suffix"


async def _registry_answers(session: aiohttp.ClientSession, spec: Json, url: str, host: str) -> str:
    auth = spec.get("ociAuth") or {}
    basic = _basic(auth["username"], auth["password"]) if auth.get("password") else ""
    async with session.get(f"{url}/v2/", allow_redirects=False) as response:
        if response.status == 200:
            return ""
        challenge = response.headers.get("WWW-Authenticate", "")
        if response.status != 401:
            return f"{host} answered {response.status} to /v2/: it is no registry, or not there"
    scheme, _, rest = challenge.partition(" ")
    if scheme.lower() == "basic":
        return await _logs_in(session, f"{url}/v2/", basic, host)
    said = dict(_CHALLENGE.findall(rest))
    realm = said.get("realm", "")
    if scheme.lower() != "bearer" or not realm.startswith(("https://", "http://")):
        return f"{host} wants a way of logging in that is not spoken here ({scheme or 'none'})"
    if basic and realm.startswith("http://") and url.startswith("https://"):
        return f"{host} wants its credentials sent without encryption; they are not sent"
    query = {"service": said["service"]} if "service" in said else {}
    headers = {"Authorization": basic} if basic else {}
    async with session.get(realm, params=query, headers=headers, allow_redirects=False) as given:
        if given.status == 200:
            return ""
        if given.status in (401, 403):
            return _refused(host, basic)
        return f"{urlsplit(realm).netloc}, which gives out the tokens of {host}, answered {given.status}"  # noqa: E501


async def _logs_in(session: aiohttp.ClientSession, url: str, basic: str, host: str) -> str:
    headers = {"Authorization": basic} if basic else {}
    async with session.get(url, headers=headers, allow_redirects=False) as response:
        if response.status == 200:
            return ""
        if response.status in (401, 403):
            return _refused(host, basic)
        return f"{host} answered {response.status} to /v2/"


def _refused(host: str, basic: str) -> str:
    if basic:
        return f"{host} refused the credentials of spec.ociAuth: renew them"
    return f"{host} wants credentials: give username and password in spec.ociAuth"


def _basic(username: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{username}:{password}'.encode()).decode()}"


def _context(config: Json) -> ssl.SSLContext:
    """As httpConfig, or the spec of a registry, says whom to trust and who we are."""
    ca, certificate, key = (
        base64.b64decode(config.get(name) or "").decode()
        for name in ("ca.crt", "tls.crt", "tls.key")
    )
    verify = not config.get("skipServerVerification")
    return tls.context(authorities=ca, certificate=certificate, key=key, verify=verify)

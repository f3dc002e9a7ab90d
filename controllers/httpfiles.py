"""One file from an HTTP server: bounded in size and time, asked for again only if it changed.

The address is the Repository's URL with the suffix behind it, nothing in between. Credentials go to
the server that the Repository names and to no other: a redirect to another one is followed only by
those who come without.
"""

from __future__ import annotations

import base64
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

import aiohttp

from controllers import gitremote, tls
from controllers.giterrors import BadRemote
from controllers.gitremote import Remote
from controllers.sources import Unusable
from resources import digest, manifest

Json = dict[str, Any]

TOTAL_S, CONNECT_S = 30.0, 10.0
REDIRECTS = 5
REPOSITORY, SUFFIX = "httpRef.repository", "httpRef.suffix"
_CHUNK = 64 * 1024
_REDIRECTED = frozenset((301, 302, 303, 307, 308))


@dataclass(frozen=True, slots=True)
class Answer:
    """The body, and what it is asked for again with; `blob` is None if it has not changed."""

    blob: bytes | None
    etag: str = ""

    @property
    def revision(self) -> str:
        return digest.of_bytes(self.blob or b"")


def remote_of(repository: Mapping[str, Any]) -> Remote:
    """How the Repository, with its credentials, is reached. Raises Unusable."""
    metadata, spec = repository["metadata"], repository["spec"]
    if spec.get("type") not in ("http", "git"):
        cause = f'Repository "{metadata["name"]}" is of type {spec.get("type")}, not http'
        raise Unusable(REPOSITORY, cause)
    # What gets into a Git repository over HTTPS gets in here, too.
    as_git = {"metadata": metadata, "spec": {**spec, "type": "git"}}
    try:
        remote = gitremote.remote_of(as_git)
    except BadRemote as problem:
        raise Unusable(REPOSITORY, f'Repository "{metadata["name"]}": {problem}') from problem
    if not remote.is_http:
        cause = f'Repository "{metadata["name"]}": spec.url must be https:// or http://'
        raise Unusable(REPOSITORY, cause)
    return remote


async def get(remote: Remote, suffix: str, *, etag: str = "") -> Answer:
    """Ask for the file; with the `etag` of an earlier answer, only for a changed one."""
    url, host = remote.url + suffix, remote.host
    try:
        context = _context(remote)
    except (ssl.SSLError, ValueError) as problem:
        cause = "spec.httpConfig holds a certificate or key that cannot be used"
        raise Unusable(REPOSITORY, cause) from problem
    timeout = aiohttp.ClientTimeout(total=TOTAL_S, sock_connect=CONNECT_S)
    connector = aiohttp.TCPConnector(ssl=context, force_close=True)
    try:
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            return await _ask(session, remote, url, etag)
    except aiohttp.ClientConnectorCertificateError as problem:
        cause = (
            f"the certificate of {host} is not vouched for by a known authority, or is for another "
            "name: put the authority's certificate into spec.httpConfig[ca.crt]"
        )
        raise Unusable(REPOSITORY, cause) from problem
    except aiohttp.InvalidURL as problem:
        raise Unusable(SUFFIX, "does not make an address with the Repository's URL") from problem
    except (TimeoutError, aiohttp.ServerTimeoutError) as problem:
        cause = f"{host} did not answer in {TOTAL_S:g} s"
        raise Unusable(REPOSITORY, cause, is_passing=True) from problem
    except (aiohttp.ClientError, OSError) as problem:
        cause = f"{host} cannot be reached: {_words(problem)}"
        raise Unusable(REPOSITORY, cause, is_passing=True) from problem


def _words(problem: Exception) -> str:
    """What the system says of a connection; nothing that was sent is in it."""
    if isinstance(problem, aiohttp.ClientConnectorError):
        return problem.strerror or type(problem.os_error).__name__
    return type(problem).__name__


async def _ask(session: aiohttp.ClientSession, remote: Remote, url: str, etag: str) -> Answer:
    has_credentials = bool(remote.secrets())
    offered = {"Authorization": _authorization(remote), "If-None-Match": etag}
    headers = {key: value for key, value in offered.items() if value} | {"User-Agent": "homeport"}
    for _ in range(REDIRECTS + 1):
        async with session.get(url, headers=headers, allow_redirects=False) as response:
            if response.status not in _REDIRECTED:
                return await _answer(response, remote, etag)
            target = urljoin(url, response.headers.get("Location", ""))
        if has_credentials and urlsplit(target)[:2] != urlsplit(url)[:2]:
            cause = (
                f"{remote.host} sends to {urlsplit(target).netloc}, where its credentials do not "
                "go: write that address into spec.url of the Repository"
            )
            raise Unusable(REPOSITORY, cause)
        url = target
    raise Unusable(REPOSITORY, f"{remote.host} sends from address to address without end")


async def _answer(response: aiohttp.ClientResponse, remote: Remote, etag: str) -> Answer:
    match response.status:
        case 200:
            return Answer(await _body(response), response.headers.get("ETag", ""))
        case 304 if etag:
            return Answer(None, etag)
        case 401 | 403:
            cause = (
                f"{remote.host} answered {response.status}: give other credentials in "
                "spec.httpConfig of the Repository"
            )
            raise Unusable(REPOSITORY, cause)
        case 404 | 410:
            raise Unusable(
                SUFFIX, f"{remote.host} answered {response.status}: there is no such file"
            )
        case code:
            cause = f"{remote.host} answered {code}"
            raise Unusable(REPOSITORY, cause, is_passing=code >= 500 or code == 429)


async def _body(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK):
        body += chunk
        if len(body) > manifest.FILE_BYTES_MAX:
            cause = f"the file is larger than {manifest.FILE_BYTES_MAX} bytes"
            raise Unusable(SUFFIX, cause)
    return bytes(body)


def _authorization(remote: Remote) -> str:
    if remote.token:
        return f"Bearer {remote.token}"
    if remote.password:
        pair = f"{remote.username}:{remote.password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"
    return ""


def _context(remote: Remote) -> ssl.SSLContext:
    return tls.context(
        authorities=remote.authorities,
        certificate=remote.certificate,
        key=remote.certificate_key,
        verify=remote.verify,
    )

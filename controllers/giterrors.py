"""What goes wrong with a Git repository, told apart by who has to do something about it.

    GitError                 the message is for people: it names the host, says what to do, and
    │                        holds no credential
    ├── BadRemote            the Repository itself cannot be used: a key that is no key, a scheme
    ├── AccessDenied         the server wants other credentials
    ├── HostKeyUnknown       the SSH server is not the one that we were told to expect
    ├── Untrusted            the TLS server is not vouched for by an authority that we trust
    ├── Unreachable          no answer, or not in time: trying again later is right
    └── NotFound             the server answered, and has no such thing
        ├── RepositoryNotFound
        ├── RevisionNotFound
        └── PathNotFound

Git tells its troubles in prose on standard error, so they are recognised by their words; its
messages have been stable for many years, and it runs in the C locale. What is not recognised is
Unreachable with git's own last words, so nothing is taken for permanent that might pass.
"""

from __future__ import annotations

from collections.abc import Callable


class GitError(Exception):
    """Something about a repository; see the tree above."""


class BadRemote(GitError): ...


class AccessDenied(GitError): ...


class HostKeyUnknown(GitError): ...


class Untrusted(GitError): ...


class Unreachable(GitError): ...


class NotFound(GitError): ...


class RepositoryNotFound(NotFound): ...


class RevisionNotFound(NotFound): ...


class PathNotFound(NotFound): ...


# The first row of which a phrase occurs counts; `{host}` and `{url}` are filled in.
_TROUBLES: tuple[tuple[tuple[str, ...], type[GitError], str], ...] = (
    (
        ("remote host identification has changed",),
        HostKeyUnknown,
        "{host} answers with another host key than the known one: if it was replaced, renew it in "
        "spec.sshConfig.knownHosts or the service's known_hosts; if not, somebody is in between",
    ),
    (
        ("host key verification failed", "no matching host key type"),
        HostKeyUnknown,
        "the host key of {host} is not known, so nothing was sent: add it to "
        "spec.sshConfig.knownHosts or the service's known_hosts (ssh-keyscan prints it; compare it "
        "with what the server's operator says)",
    ),
    (
        ("terminal prompts disabled", "could not read username", "could not read password"),
        AccessDenied,
        "{host} wants credentials and was given none that it takes: give username and password, "
        "or another token, in spec.httpConfig",
    ),
    (
        ("authentication failed", "http basic: access denied", "error: 401"),
        AccessDenied,
        "{host} refused the credentials of spec.httpConfig: renew them",
    ),
    (
        ("error: 403",),
        AccessDenied,
        "{host} forbids reading {url} with the credentials of spec.httpConfig: grant them the "
        "right to read it",
    ),
    (
        ("permission denied (", "too many authentication failures"),
        AccessDenied,
        "{host} refused the key of spec.sshConfig.sshPrivateKey: register its public part there, "
        "with the right to read {url}",
    ),
    (
        (
            "ssl certificate problem",
            "certificate verification failed",
            "no alternative certificate subject name",
            "does not match target host name",
            "self-signed certificate",
            "unable to get local issuer certificate",
        ),
        Untrusted,
        "the certificate of {host} is not vouched for by a known authority, or is for another "
        "name: put the authority's certificate into spec.httpConfig[ca.crt]",
    ),
    (
        ("tlsv13 alert certificate required", "alert bad certificate", "alert unknown ca",
         "sslv3 alert handshake failure", "alert certificate expired"),
        AccessDenied,
        "{host} wants another client certificate: see spec.httpConfig[tls.crt] and [tls.key]",
    ),
    (
        ("returned error: 30",),
        Unreachable,
        "{host} sends to another address, where no token is sent: write that address into spec.url",
    ),
    (
        (
            "does not appear to be a git repository",
            "repository not found",
            "not found: did you run git update-server-info",
            "' not found",
            "could not be found",
            "error: 404",
        ),
        RepositoryNotFound,
        "{host} has no Git repository at {url}, or hides it from these credentials: check spec.url",
    ),
    (
        ("could not resolve host", "name or service not known", "temporary failure in name"),
        Unreachable,
        "the name {host} cannot be resolved: check spec.url, and the resolver of the service",
    ),
    (
        ("connection refused", "failed to connect", "couldn't connect", "no route to host",
         "network is unreachable"),
        Unreachable,
        "{host} does not take connections: check spec.url, and that the service may reach it",
    ),
    (
        ("timed out", "timeout", "too slow"),
        Unreachable,
        "{host} did not answer in time",
    ),
)  # fmt: skip


def recognised(
    said: str, *, host: str, url: str, scrub: Callable[[str], str] = lambda text: text
) -> GitError:
    """The error that git's standard error tells. `scrub` takes credentials out of quotations."""
    lowered = said.lower()
    for phrases, kind, message in _TROUBLES:
        if any(phrase in lowered for phrase in phrases):
            return kind(message.format(host=host, url=url))
    return Unreachable(f"{host}: {scrub(_last_words(said))}")


def _last_words(said: str) -> str:
    """The line that says most: git's last `fatal:` or `error:`, else the last one."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(("fatal:", "error:", "ssh:"))]
    return (telling or lines or ["git failed without a word"])[0][:300]

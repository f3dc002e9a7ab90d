"""Why a download failed, whether a retry may help, and what somebody can do about it. Pure.

The tools say it in no other way than by words, so it is one ordered table of them, most specific
first. What the table does not know is tried again, for a device that gives up because of an unknown
word helps nobody; what says that the image, or the right to it, is not there is final.

Content that is not what its digest says is between the two: a damaged line or somebody in between
may have done it, and that passes; a registry that goes on with it will not mend by being asked. So
`of` calls it `Wrong`, which is tried again, and who counts these ends it with `refused`.

The sentence names the registry and what to do; the tool's own words come last, since the service
cuts what is too long.
"""

from __future__ import annotations

import re

from agent import errors, podman


class Wrong(errors.Retry):
    """What came is not what was asked for."""


# (words that must all occur, cause, whether a retry may help); the first row that fits counts.
_WORDS: tuple[tuple[tuple[str, ...], str, bool], ...] = (
    (("short-name",), errors.INVALID_ARGUMENT, False),
    (("toomanyrequests",), errors.UNAVAILABLE, True),
    (("too many requests",), errors.UNAVAILABLE, True),
    (("statuscode: 429",), errors.UNAVAILABLE, True),
    (("no space left",), errors.RESOURCE_EXHAUSTED, True),
    (("disk quota exceeded",), errors.RESOURCE_EXHAUSTED, True),
    (("context deadline exceeded",), errors.DEADLINE_EXCEEDED, True),
    (("tls handshake timeout",), errors.UNAVAILABLE, True),
    (("i/o timeout",), errors.UNAVAILABLE, True),
    (("timeout",), errors.UNAVAILABLE, True),
    (("no such host",), errors.UNAVAILABLE, True),
    (("name resolution",), errors.UNAVAILABLE, True),
    (("unable to resolve host",), errors.UNAVAILABLE, True),
    (("connection refused",), errors.UNAVAILABLE, True),
    (("connection reset",), errors.UNAVAILABLE, True),
    (("network is unreachable",), errors.UNAVAILABLE, True),
    (("no route to host",), errors.UNAVAILABLE, True),
    (("unexpected eof",), errors.UNAVAILABLE, True),
    (("signal: killed",), errors.ABORTED, True),
    (("received unexpected http status: 5",), errors.UNAVAILABLE, True),
    (("status code 5",), errors.UNAVAILABLE, True),
    (("manifest unknown",), errors.NOT_FOUND, False),
    (("name unknown",), errors.NOT_FOUND, False),
    (("repository name not known",), errors.NOT_FOUND, False),
    # Helm's library has words of its own for what is not there.
    (("fetchreference", "not found"), errors.NOT_FOUND, False),
    (("authentication required",), errors.UNAUTHENTICATED, False),
    (("invalid username/password",), errors.UNAUTHENTICATED, False),
    (("unauthorized",), errors.PERMISSION_DENIED, False),
    (("access", "denied"), errors.UNAUTHENTICATED, False),
    (("status code 403",), errors.PERMISSION_DENIED, False),
    (("403 forbidden",), errors.PERMISSION_DENIED, False),
    (("invalid reference format",), errors.INVALID_ARGUMENT, False),
    (("no image found in", "for architecture"), errors.FAILED_PRECONDITION, False),
    (("x509",), errors.UNAUTHENTICATED, True),
)
_NOT_TRUSTED = "its certificate is not trusted here, put who signed it into"
_BUSY = ("toomanyrequests", "too many requests", "statuscode: 429")

_DIGEST = r"sha256:[0-9a-f]{64}"
# What podman, skopeo, our mirror and Helm say of content that is not what its digest says.
_WRONG = tuple(
    re.compile(
        words.replace("ASKED", f"(?P<asked>{_DIGEST})").replace("CAME", f"(?P<came>{_DIGEST})")
    )
    for words in (
        r"expected ASKED, got CAME",
        r"CAME does not match expected ASKED",
        r"manifest ASKED came as CAME",
        r'received "CAME" when expecting "ASKED"',
        r"provided manifest digest ASKED",
        r"(?i:digest did not match|does not match digest)",
        r"(?i:mismatched digest|mismatch content-length)",
    )
)
# A digest as people compare it; all of it is in the log.
_SHOWN_CHARS = len("sha256:") + 12
_RETRY_AFTER = re.compile(r"^retry-after: (\d{1,9})$", re.MULTILINE)


def of(
    stderr: str, *, reference: str, element: str, auth_file: str, component: str = errors.PREFETCH
) -> errors.Retry | errors.Reject:
    """`auth_file`: where credentials for `reference` belong on this device."""
    said = podman.last_words(stderr)
    if _wrong(said, reference):
        detail = f"{_wrong(stderr, reference)}, tried again: {said}"
        return Wrong(errors.UNAVAILABLE, detail, component=component, element=element)
    # The last complaint counts; before it stand those of attempts that the tool has made itself.
    text = _without_names(said, reference)
    found = _found(text) or _found(_without_names(stderr, reference))
    cause, may_help = found or (errors.UNAVAILABLE, True)
    advice = _advice(text, cause, reference, auth_file)
    detail = f"{advice}: {said}" if advice else said
    if not may_help:
        return errors.Reject(cause, detail, component=component, element=element)
    after_s = asked_to_wait_s(stderr)
    return errors.Retry(cause, detail, component=component, element=element, after_s=after_s)


def refused(
    stderr: str, times: int, *, reference: str, element: str, component: str = errors.PREFETCH
) -> errors.Reject:
    """Of `Wrong` content that has come so many times."""
    wrong, said = _wrong(stderr, reference), podman.last_words(stderr)
    detail = f"{wrong}, {times} times in a row: {said}"
    return errors.Reject(errors.INVALID_ARGUMENT, detail, component=component, element=element)


def asked_to_wait_s(stderr: str) -> float:
    """How long the registry does not want to be asked, as our mirror has heard it."""
    found = _RETRY_AFTER.findall(stderr)
    return float(found[-1]) if found else 0.0


def _wrong(stderr: str, reference: str) -> str:
    """Empty = it says nothing of the kind."""
    found = next((match for words in _WRONG if (match := words.search(stderr))), None)
    if found is None:
        return ""
    digests = {key: value[:_SHOWN_CHARS] for key, value in found.groupdict().items()}
    place = podman.without_tag(reference)
    asked, came = digests.get("asked"), digests.get("came", "something else")
    return f"{place} has {came} in place of {asked}" if asked else f"{place} has wrong content"


def _found(text: str) -> tuple[str, bool] | None:
    for words, cause, may_help in _WORDS:
        if all(word in text for word in words):
            return cause, may_help
    return None


def _without_names(words: str, reference: str) -> str:
    """An image may be called `timeout`, or `unauthorized`."""
    name, path = reference.removeprefix("oci://").partition("@")[0], podman.without_tag(reference)
    text = words.lower()
    for one in (reference, name, path, f"/v2/{path.partition('/')[2]}/"):
        text = text.replace(one.lower(), " it ") if "/" in one else text
    return text


def registry_of(reference: str) -> str:
    """The host that serves it; empty where only the device's configuration could say."""
    first, slash, _ = reference.removeprefix("oci://").partition("/")
    return first if slash and ("." in first or ":" in first or first == "localhost") else ""


def _advice(text: str, cause: str, reference: str, auth_file: str) -> str:
    registry = registry_of(reference) or "the registry"
    if "x509" in text and cause == errors.UNAUTHENTICATED:
        return f"{registry}: {_NOT_TRUSTED} /etc/containers/certs.d/{registry}/"
    if any(word in text for word in _BUSY):
        return f"{registry} is asked too often, tried again later"
    match cause:
        case errors.UNAUTHENTICATED | errors.PERMISSION_DENIED:
            return f"{registry} does not let this device have it, credentials go into {auth_file}"
        case errors.NOT_FOUND:
            return f"{registry} has no {reference.removeprefix('oci://')}, check name and tag"
        case errors.RESOURCE_EXHAUSTED:
            return "no room for it, free some disk"
        case errors.UNAVAILABLE:
            return f"{registry} does not answer as it should, tried again"
        case errors.DEADLINE_EXCEEDED:
            return f"{registry} is too slow for pull-timeout, tried again"
        case _:
            return ""

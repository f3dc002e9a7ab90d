"""Downloads that fail: what may work later, what never will, and who can mend it."""

from __future__ import annotations

import pytest

from agent import errors, pullerrors

IMAGE = "quay.io/org/web:9"
AUTH = "/root/.config/containers/auth.json"


def of(words: str, reference: str = IMAGE) -> errors.Retry | errors.Reject:
    return pullerrors.of(words, reference=reference, element="web", auth_file=AUTH)


@pytest.mark.parametrize(
    ("words", "kind", "cause"),
    [
        ("Error: toomanyrequests: x", errors.Retry, errors.UNAVAILABLE),
        ("response status code 429: Too Many Requests", errors.Retry, errors.UNAVAILABLE),
        ("response status code 503: Service Unavailable", errors.Retry, errors.UNAVAILABLE),
        ("received unexpected HTTP status: 502 Bad Gateway", errors.Retry, errors.UNAVAILABLE),
        ("net/http: TLS handshake timeout", errors.Retry, errors.UNAVAILABLE),
        ("Temporary failure in name resolution", errors.Retry, errors.UNAVAILABLE),
        ("lookup r: no such host", errors.Retry, errors.UNAVAILABLE),
        ("read: connection reset by peer", errors.Retry, errors.UNAVAILABLE),
        ("unexpected EOF", errors.Retry, errors.UNAVAILABLE),
        ('reading manifest v1 in q.io/x: StatusCode: 429, ""', errors.Retry, errors.UNAVAILABLE),
        ("context deadline exceeded", errors.Retry, errors.DEADLINE_EXCEEDED),
        ("write: no space left on device", errors.Retry, errors.RESOURCE_EXHAUSTED),
        ("write: disk quota exceeded", errors.Retry, errors.RESOURCE_EXHAUSTED),
        ("signal: killed", errors.Retry, errors.ABORTED),
        ("words from the future", errors.Retry, errors.UNAVAILABLE),
        ("", errors.Retry, errors.UNAVAILABLE),
        ("x509: certificate signed by unknown authority", errors.Retry, errors.UNAUTHENTICATED),
        ("reading manifest x: manifest unknown", errors.Reject, errors.NOT_FOUND),
        ("repository name not known to registry", errors.Reject, errors.NOT_FOUND),
        ("unauthorized: no", errors.Reject, errors.PERMISSION_DENIED),
        ("unauthorized: authentication required", errors.Reject, errors.UNAUTHENTICATED),
        ("requested access to the resource is denied", errors.Reject, errors.UNAUTHENTICATED),
        ("invalid reference format", errors.Reject, errors.INVALID_ARGUMENT),
        ("short-name resolution enforced", errors.Reject, errors.INVALID_ARGUMENT),
    ],
)
def test_what_may_work_later_is_told_from_what_never_will(
    words: str, kind: type, cause: str
) -> None:
    found = of(words)
    assert type(found) is kind
    assert (found.cause, found.component, found.element) == (cause, errors.PREFETCH, "web")


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        ("authentication required", f"quay.io does not let this device have it, "
         f"credentials go into {AUTH}: "),
        ("manifest unknown", "quay.io has no quay.io/org/web:9, check name and tag: "),
        ("connection refused", "quay.io does not answer as it should, tried again: "),
        ("toomanyrequests: x", "quay.io is asked too often, tried again later: "),
        ('StatusCode: 429, ""', "quay.io is asked too often, tried again later: "),
        ("no space left on device", "no room for it, free some disk: "),
        ("context deadline exceeded", "quay.io is too slow for pull-timeout, tried again: "),
        ("x509: unknown", "quay.io: its certificate is not trusted here, put who signed it into "
         "/etc/containers/certs.d/quay.io/: "),
        ("invalid reference format", ""),
    ],
)  # fmt: skip
def test_it_is_said_where_and_what_to_do(words: str, advice: str) -> None:
    assert of(words).detail == advice + words


ASKED, CAME = f"sha256:{'a1' * 32}", f"sha256:{'c2' * 32}"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (f'Error: writing blob: storing blob to file "/var/tmp/container_images_storage1/1": '
         f"happened during read: Digest did not match, expected {ASKED}, got {CAME}",
         "has sha256:c2c2c2c2c2c2 in place of sha256:a1a1a1a1a1a1"),
        (f"Error: reading blob {ASKED}: Digest did not match, expected {ASKED}, got {CAME}",
         "has sha256:c2c2c2c2c2c2 in place of sha256:a1a1a1a1a1a1"),
        (f"Error: parsing image configuration: Download config.json digest {CAME} does not match "
         f"expected {ASKED}", "has sha256:c2c2c2c2c2c2 in place of sha256:a1a1a1a1a1a1"),
        (f"Error: determining manifest MIME type for docker://{IMAGE}@{ASKED}: Manifest does not "
         f"match provided manifest digest {ASKED}",
         "has something else in place of sha256:a1a1a1a1a1a1"),
        # With what our mirror has seen.
        (f"manifest {ASKED} came as {CAME}\nError: determining manifest MIME type for "
         f"docker://{IMAGE}@{ASKED}: Manifest does not match provided manifest digest {ASKED}",
         "has sha256:c2c2c2c2c2c2 in place of sha256:a1a1a1a1a1a1"),
        (f'time="2026-11-27T01:58:31Z" level=fatal msg="Error parsing manifest for image: Manifest '
         f'does not match provided manifest digest {ASKED}"',
         "has something else in place of sha256:a1a1a1a1a1a1"),
        (f'Error: failed to perform "FetchReference" on source: GET "https://quay.io/v2/org/web/'
         f'manifests/{ASKED}": invalid response; digest mismatch in Docker-Content-Digest: '
         f'received "{CAME}" when expecting "{ASKED}"',
         "has sha256:c2c2c2c2c2c2 in place of sha256:a1a1a1a1a1a1"),
        ('Error: failed to perform "Push" on destination: mismatched digest', "has wrong content"),
        (f'Error: failed to perform "Fetch" on source: GET "https://quay.io/v2/org/web/blobs/{ASKED}'
         '": mismatch Content-Length', "has wrong content"),
        ("Error: Digest did not match", "has wrong content"),
    ],
    ids=["layer", "artifact", "config", "manifest", "mirror", "skopeo", "helm-manifest",
         "helm-layer", "helm-length", "no-digests"],
)  # fmt: skip
def test_content_that_is_not_what_its_digest_says_is_told_with_both_and_where(
    words: str, told: str
) -> None:
    """podman 5.4.2 with its skopeo and helm 3.19 say it so, of a registry that tampers."""
    found = of(words)
    assert type(found) is pullerrors.Wrong
    assert found.cause == errors.UNAVAILABLE
    assert found.detail.startswith(f"quay.io/org/web {told}, tried again: ")
    final = pullerrors.refused(words, 5, reference=IMAGE, element="web")
    assert (final.cause, final.element) == (errors.INVALID_ARGUMENT, "web")
    assert final.detail.startswith(f"quay.io/org/web {told}, 5 times in a row: ")
    failure = errors.failure_of(final, phase=errors.PREPARING, at="2026-11-26 21:00:00")
    assert told in failure.message("12"), "all of it can be read"


def test_a_wrong_attempt_before_the_last_complaint_does_not_count() -> None:
    words = f"level=warning Digest did not match, expected {ASKED}, got {CAME}\nError: i/o timeout"
    assert type(of(words)) is errors.Retry


@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        ('retry-after: 30\nError: StatusCode: 429, ""', 30),
        ("Error: received unexpected HTTP status: 503 Service Unavailable", 0),
        ("retry-after: 30\nError: reading manifest x: manifest unknown", None),
    ],
)
def test_how_long_a_registry_wants_to_be_left_alone_is_kept(
    words: str, seconds: float | None
) -> None:
    assert getattr(of(words), "after_s", None) == seconds


def test_one_text_always_means_the_same() -> None:
    words = "unauthorized ... connection refused ... manifest unknown"
    assert {of(words).cause for _ in range(20)} == {errors.UNAVAILABLE}


def test_the_last_complaint_counts_and_not_those_before_it() -> None:
    words = """level=warning msg="Failed, retrying in 1s (1/3). Error: connection refused"
Error: reading manifest 9 in quay.io/org/web: manifest unknown
"""
    assert of(words).cause == errors.NOT_FOUND


@pytest.mark.parametrize("reference", ["q.io/timeout:1", "q.io/no/unauthorized:x509", "q.io/a@b:c"])
def test_what_an_image_is_called_is_no_reason(reference: str) -> None:
    name = reference.partition("@")[0].rpartition(":")[0] or reference
    words = (
        f"Error: initializing source docker://{reference}: reading it in {name}: manifest unknown"
    )
    assert of(words, reference).cause == errors.NOT_FOUND


@pytest.mark.parametrize(
    ("reference", "registry"),
    [
        ("quay.io/org/web:9", "quay.io"),
        ("oci://localhost:5000/web:1", "localhost:5000"),
        ("localhost/web", "localhost"),
        ("org/web:1", ""),
        ("web:1", ""),
    ],
)
def test_registries(reference: str, registry: str) -> None:
    assert pullerrors.registry_of(reference) == registry


def test_the_whole_message_fits_and_names_the_registry() -> None:
    """What people see is cut at 250 characters."""
    error = of("Error: initializing source docker://quay.io/org/web:9: authentication required")
    failure = errors.failure_of(error, phase=errors.PREPARING, at="2026-11-26T21:00:00Z")
    message = failure.message("12")
    assert "authentication failed: quay.io does not let this device have it" in message
    assert AUTH in message

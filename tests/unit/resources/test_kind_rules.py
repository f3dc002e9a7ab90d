"""Rules that are few: repositories, syncs, certificates, events, devices kept up by packages."""

from __future__ import annotations

import base64
import contextlib
from typing import Any, ClassVar

import pytest
from pydantic import ValidationError

from resources import device, event, pem, repository, resourcesync
from resources.errors import Invalid
from resources.kind import Json
from tests.contract.data.wrong_documents import PEM

B64 = base64.b64encode(b"pem").decode()
SECRET = "s3cret-value"


def paths(spec: Json) -> list[str]:
    with contextlib.suppress(Invalid):
        repository.check({"spec": spec})
        return []
    with pytest.raises(Invalid) as caught:
        repository.check({"spec": spec})
    assert SECRET not in str(caught.value)
    return [error.path for error in caught.value.errors]


class TestRepository:
    @pytest.mark.parametrize(
        "spec",
        [
            {"type": "git", "url": "https://a/b.git"},
            {"type": "git", "url": "ssh://a", "sshConfig": {"sshPrivateKey": B64}},
            {"type": "http", "url": "https://a", "httpConfig": {"token": "a.b.c"}},
            {"type": "http", "url": "https://a", "httpConfig": {"tls.crt": B64, "tls.key": B64}},
            {"type": "http", "url": "https://me@a:1/b", "httpConfig": {"ca.crt": B64}},
            {"type": "oci", "registry": "quay.io:443", "baseImages": []},
        ],
    )
    def test_right(self, spec: Json) -> None:
        assert paths(spec) == []

    @pytest.mark.parametrize(
        ("spec", "path"),
        [
            ({"httpConfig": {}, "sshConfig": {}}, "spec.sshConfig"),
            ({"url": f"https://me:{SECRET}@a/b"}, "spec.url"),
            ({"httpConfig": {"username": SECRET}}, "spec.httpConfig.password"),
            ({"httpConfig": {"password": SECRET}}, "spec.httpConfig.username"),
            ({"httpConfig": {"tls.crt": B64}}, "spec.httpConfig[tls.key]"),
            ({"httpConfig": {"ca.crt": SECRET + "%"}}, "spec.httpConfig[ca.crt]"),
            ({"httpConfig": {"token": SECRET}}, "spec.httpConfig.token"),
            ({"sshConfig": {"sshPrivateKey": SECRET + "%"}}, "spec.sshConfig.sshPrivateKey"),
            ({"sshConfig": {"privateKeyPassphrase": SECRET}}, "spec.sshConfig.sshPrivateKey"),
            ({"type": "oci", "registry": "https://quay.io"}, "spec.registry"),
            ({"type": "oci", "ca.crt": SECRET + "%"}, "spec[ca.crt]"),
            (
                {"type": "oci", "ociAuth": {"username": "", "password": "a"}},
                "spec.ociAuth.username",
            ),
            (
                {"type": "oci", "baseImages": [{"imageName": "a"}] * 2},
                "spec.baseImages[1].imageName",
            ),
            (
                {"type": "oci", "baseImages": [{"imageName": "a", "tags": ["1", "1"]}]},
                "spec.baseImages[0].tags[1]",
            ),
        ],
    )
    def test_wrong(self, spec: Json, path: str) -> None:
        assert paths(spec) == [path]


@pytest.mark.parametrize("revision", ["-x", "", "a b"])
def test_a_sync_follows_a_revision(revision: str) -> None:
    with pytest.raises(Invalid, match="targetRevision"):
        resourcesync.check({"spec": {"repository": "a", "targetRevision": revision, "path": "/"}})


class TestPem:
    @pytest.mark.parametrize(
        "text",
        [PEM, PEM.strip(), PEM.replace("\n", "  \n"), "\n" + PEM, PEM.replace("\n", "\r\n")],
    )
    def test_a_request_may_have_blanks_around_its_lines(self, text: str) -> None:
        assert pem.request(text) is None

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "hello",
            PEM.replace("REQUEST", "SOMETHING"),
            PEM + PEM,
            PEM + "tail",
            "-----BEGIN CERTIFICATE REQUEST-----\n",
            "-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----",
            "-----BEGIN CERTIFICATE REQUEST-----\n%%%\n-----END CERTIFICATE REQUEST-----",
        ],
    )
    def test_anything_else_is_none(self, text: str) -> None:
        assert pem.request(text)
        assert pem.request_or_tpm(text)

    def test_a_bundle_of_a_tpm_is_told_by_its_first_bytes(self) -> None:
        bundle = base64.b64encode(b"\x01\x00\x01\x00rest").decode()
        assert pem.request_or_tpm(bundle) is None
        assert pem.request(bundle)
        assert pem.request_or_tpm(base64.b64encode(b"other").decode())


class TestEvent:
    EVENT: ClassVar[Json] = {
        "apiVersion": "flightctl.io/v1beta1",
        "kind": "Event",
        "metadata": {"name": "a"},
        "involvedObject": {"kind": "Fleet", "name": "web"},
        "reason": "FleetRolloutStarted",
        "message": "m",
        "type": "Normal",
        "source": {"component": "api"},
        "actor": "user:admin",
    }

    @pytest.mark.parametrize(
        "details",
        [
            None,
            {
                "detailType": "FleetRolloutStarted",
                "templateVersion": "v1",
                "rolloutStrategy": "None",
            },
            {"detailType": "ResourceUpdated", "updatedFields": ["spec.template"], "newOwner": None},
        ],
    )
    def test_right(self, details: Any) -> None:
        event.Event.model_validate(self.EVENT | {"details": details})

    @pytest.mark.parametrize(
        "change",
        [
            {"reason": "Happened"},
            {"details": {"detailType": "Other"}},
            {"details": {"detailType": "ResourceUpdated"}},
            {"source": {}},
        ],
    )
    def test_wrong(self, change: Json) -> None:
        with pytest.raises(ValidationError):
            event.Event.model_validate(self.EVENT | change)


IMAGE, OTHER, ITEM = (
    {"image": "quay.io/x/os:1"},
    {"image": "quay.io/x/os:2"},
    {"catalogItemRef": {"item": "x"}},
)


@pytest.mark.parametrize(
    ("mode", "old", "new", "complaints"),
    [
        pytest.param("image", {}, IMAGE, 0, id="a device that boots images"),
        pytest.param("unknown", {}, IMAGE, 0, id="one that has not said"),
        pytest.param("package", {}, IMAGE, 1, id="newly set"),
        pytest.param("package", {}, ITEM, 1, id="by catalog"),
        pytest.param("package", IMAGE, OTHER, 1, id="another one"),
        pytest.param("package", IMAGE, IMAGE, 0, id="kept"),
        pytest.param("package", IMAGE, {}, 0, id="cleared"),
    ],
)
def test_a_device_kept_up_by_packages_is_given_no_image(
    mode: str, old: Json, new: Json, complaints: int
) -> None:
    specs = ({"os": os} if os else {} for os in (old, new))
    assert len(list(device.check_os_mode(mode, *specs))) == complaints

"""kubectl writes: create, apply, diff, edit, replace, patch, label, annotate, delete."""

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from tests.conformance.conftest import Kubectl, fleet, namespace_manifest
from tests.fakes import agent_client


def image_of(kubectl: Kubectl, name: str = "web") -> str:
    path = "jsonpath={.spec.template.spec.os.image}"
    return kubectl("get", "fleet", name, "-o", path)


def version_of(kubectl: Kubectl, name: str = "web") -> str:
    return kubectl("get", "fleet", name, "-o", "jsonpath={.metadata.resourceVersion}")


@pytest.fixture
def web(kubectl: Kubectl) -> Kubectl:
    kubectl("apply", "-f", "-", stdin=fleet("web"))
    return kubectl


def test_apply_creates_configures_and_leaves_alone(kubectl: Kubectl) -> None:
    assert "created" in kubectl("apply", "-f", "-", stdin=fleet("web"))
    before = version_of(kubectl)
    assert "unchanged" in kubectl("apply", "-f", "-", stdin=fleet("web"))
    assert version_of(kubectl) == before
    assert "configured" in kubectl("apply", "-f", "-", stdin=fleet("web", "quay.io/acme/os:2"))
    assert image_of(kubectl) == "quay.io/acme/os:2"


def test_apply_removes_what_left_the_manifest(web: Kubectl) -> None:
    document = yaml.safe_load(fleet("web"))
    del document["metadata"]["labels"]
    web("apply", "-f", "-", stdin=yaml.safe_dump(document))
    assert web("get", "fleet", "web", "-o", "jsonpath={.metadata.labels}") == ""


def server_side(kubectl: Kubectl, manifest: str, *more: str) -> str:
    return kubectl("apply", "--server-side", *more, "-f", "-", stdin=manifest)


def test_apply_server_side_owns_removes_and_names_conflicts(kubectl: Kubectl) -> None:
    assert "serverside-applied" in server_side(kubectl, fleet("web"))
    before = version_of(kubectl)
    server_side(kubectl, fleet("web"))
    assert version_of(kubectl) == before
    other = fleet("web", "quay.io/acme/os:2")
    named = ("apply", "--server-side", "--field-manager=argo", "-f", "-")
    error = kubectl.refused(*named, stdin=other)
    assert 'conflict with "kubectl"' in error
    assert ".spec.template.spec.os.image" in error
    server_side(kubectl, other, "--field-manager=argo", "--force-conflicts")
    assert image_of(kubectl) == "quay.io/acme/os:2"
    shown = kubectl("get", "fleet", "web", "--show-managed-fields", "-o", "json")
    managers = [e["manager"] for e in json.loads(shown)["metadata"]["managedFields"]]
    assert sorted(managers) == ["argo", "kubectl"]
    unlabelled = yaml.safe_load(fleet("web", "quay.io/acme/os:2"))
    del unlabelled["metadata"]["labels"]
    server_side(kubectl, yaml.safe_dump(unlabelled), "--field-manager=argo")
    assert kubectl("get", "fleet", "web", "-o", "jsonpath={.metadata.labels}")
    server_side(kubectl, yaml.safe_dump(unlabelled))
    assert not kubectl("get", "fleet", "web", "-o", "jsonpath={.metadata.labels}")


def test_apply_moves_from_client_side_to_server_side_and_back(web: Kubectl) -> None:
    server_side(web, fleet("web", "quay.io/acme/os:2"))
    assert image_of(web) == "quay.io/acme/os:2"
    unlabelled = yaml.safe_load(fleet("web", "quay.io/acme/os:2"))
    del unlabelled["metadata"]["labels"]
    server_side(web, yaml.safe_dump(unlabelled))
    assert not web("get", "fleet", "web", "-o", "jsonpath={.metadata.labels}")
    assert "configured" in web("apply", "-f", "-", stdin=fleet("web", "quay.io/acme/os:3"))
    assert image_of(web) == "quay.io/acme/os:3"


def test_a_server_side_diff_shows_the_difference(web: Kubectl) -> None:
    ran = web.run("diff", "--server-side", "-f", "-", stdin=fleet("web", "quay.io/acme/os:9"))
    assert ran.code == 1, ran.err
    assert "quay.io/acme/os:9" in ran.out


def test_create_twice_says_that_it_exists(web: Kubectl) -> None:
    assert "AlreadyExists" in web.refused("create", "-f", "-", stdin=fleet("web"))


def test_diff_shows_the_difference_and_nothing_is_written(web: Kubectl) -> None:
    before = version_of(web)
    ran = web.run("diff", "-f", "-", stdin=fleet("web", "quay.io/acme/os:9"))
    assert ran.code == 1
    assert "+      image: quay.io/acme/os:9" in ran.out.replace("+        ", "+      ")
    assert version_of(web) == before
    assert web.run("diff", "-f", "-", stdin=fleet("web")).code == 0


def test_a_server_side_dry_run_is_judged_and_not_stored(kubectl: Kubectl) -> None:
    out = kubectl("create", "--dry-run=server", "-f", "-", stdin=fleet("ghost"))
    assert "created (server dry run)" in out
    kubectl.refused("get", "fleet", "ghost")


def test_edit_writes_what_the_editor_left(web: Kubectl, tmp_path: Path) -> None:
    editor = tmp_path / "editor.sh"
    editor.write_text('#!/bin/sh\nsed -i "s|acme/os:1|acme/os:7|" "$1"\n')
    editor.chmod(editor.stat().st_mode | stat.S_IXUSR)
    web.environment = {"KUBE_EDITOR": str(editor)}
    assert "edited" in web("edit", "fleet", "web")
    assert image_of(web) == "quay.io/acme/os:7"


def test_replace_puts_the_whole_document(web: Kubectl) -> None:
    assert "replaced" in web("replace", "-f", "-", stdin=fleet("web", "quay.io/acme/os:3"))
    assert image_of(web) == "quay.io/acme/os:3"


def test_replace_of_an_old_version_is_a_conflict(web: Kubectl) -> None:
    old = json.loads(web("get", "fleet", "web", "-o", "json"))
    web("label", "fleet", "web", "moved=on")
    assert "Conflict" in web.refused("replace", "-f", "-", stdin=json.dumps(old))


@pytest.mark.parametrize(
    ("how", "patch"),
    [
        ("merge", '{"spec":{"template":{"spec":{"os":{"image":"quay.io/acme/os:4"}}}}}'),
        (
            "json",
            '[{"op":"replace","path":"/spec/template/spec/os/image","value":"quay.io/acme/os:4"}]',
        ),
    ],
)
def test_patches(web: Kubectl, how: str, patch: str) -> None:
    assert "patched" in web("patch", "fleet", "web", f"--type={how}", "-p", patch)
    assert image_of(web) == "quay.io/acme/os:4"
    assert "no change" in web("patch", "fleet", "web", f"--type={how}", "-p", patch)


def test_a_json_patch_whose_test_fails_is_422_and_changes_nothing(web: Kubectl) -> None:
    before = version_of(web)
    patch = '[{"op":"test","path":"/metadata/name","value":"other"}]'
    error = web.refused("patch", "fleet", "web", "--type=json", "-p", patch)
    assert "test of /metadata/name failed" in error
    assert version_of(web) == before


def test_a_strategic_patch_is_refused_with_the_types_that_work(web: Kubectl) -> None:
    error = web.refused("patch", "fleet", "web", "--type=strategic", "-p", '{"metadata":{}}')
    assert "application/merge-patch+json" in error


def test_label_and_annotate(web: Kubectl) -> None:
    web("label", "fleet", "web", "site=berlin")
    web("annotate", "fleet", "web", "acme.io/note=hello")
    metadata = json.loads(web("get", "fleet", "web", "-o", "json"))["metadata"]
    assert metadata["labels"]["site"] == "berlin"
    assert metadata["annotations"]["acme.io/note"] == "hello"
    web("label", "fleet", "web", "site-")
    assert "site" not in web("get", "fleet", "web", "-o", "jsonpath={.metadata.labels}")


def test_the_status_subresource_leaves_the_rest_alone(web: Kubectl) -> None:
    patch = json.dumps({"spec": {"selector": {"matchLabels": {"fleet": "stolen"}}},
                        "status": {"conditions": []}})  # fmt: skip
    web("patch", "fleet", "web", "--subresource=status", "--type=merge", "-p", patch)
    document = json.loads(web("get", "fleet", "web", "-o", "json"))
    assert document["spec"]["selector"] == {"matchLabels": {"fleet": "web"}}
    assert document["status"]["conditions"] == []


def test_delete_waits_until_it_is_gone(web: Kubectl) -> None:
    assert 'fleet.flightctl.io "web" deleted' in web("delete", "fleet", "web")
    web.refused("get", "fleet", "web")
    assert web("delete", "fleet", "web", "--ignore-not-found") == ""


def test_delete_by_label_and_all(web: Kubectl) -> None:
    web("create", "-f", "-", stdin=fleet("other").replace("edge", "core"))
    web("delete", "fleets", "-l", "tier=edge")
    assert web("get", "fleets", "-o", "name").split() == ["fleet.flightctl.io/other"]
    web("delete", "fleets", "--all")
    assert web("get", "fleets", "-o", "name") == ""


@pytest.fixture
def owned(web: Kubectl) -> Kubectl:
    """A fleet that another one owns, that blocks, and that something holds."""
    uid = web("get", "fleet", "web", "-o", "jsonpath={.metadata.uid}")
    document = yaml.safe_load(fleet("gin"))
    document["metadata"] |= {
        "finalizers": ["acme.io/clean"],
        "ownerReferences": [
            {
                "apiVersion": "flightctl.io/v1beta1", "kind": "Fleet", "name": "web", "uid": uid,
                "blockOwnerDeletion": True,
            }
        ],
    }  # fmt: skip
    web("create", "-f", "-", stdin=json.dumps(document))
    return web


def released(kubectl: Kubectl) -> None:
    nothing = '{"metadata":{"finalizers":null}}'
    kubectl("patch", "fleet", "gin", "--type=merge", "-p", nothing)


def left(kubectl: Kubectl) -> list[str]:
    return kubectl("get", "fleets", "-o", "jsonpath={.items[*].metadata.name}").split()


def test_cascade_foreground_deletes_the_owner_last(owned: Kubectl) -> None:
    owned("delete", "fleet", "web", "--cascade=foreground", "--wait=false")
    assert left(owned) == ["gin", "web"]
    marks = "jsonpath={.items[*].metadata.finalizers[*]}"
    assert owned("get", "fleets", "-o", marks) == "acme.io/clean foregroundDeletion"
    with owned.start("delete", "fleet", "web", "--cascade=foreground", "--timeout=30s") as waiting:
        assert waiting.stdout is not None
        # It says so when it begins to wait.
        assert waiting.stdout.readline() == 'fleet.flightctl.io "web" deleted\n'
        assert left(owned) == ["gin", "web"]
        released(owned)
        said, _ = waiting.communicate()
    assert (waiting.returncode, said) == (0, "")
    assert left(owned) == []


def test_cascade_background_deletes_the_owner_at_once(owned: Kubectl) -> None:
    assert "deleted" in owned("delete", "fleet", "web", "--cascade=background")
    assert left(owned) == ["gin"]
    assert owned("get", "fleet", "gin", "-o", "jsonpath={.metadata.deletionTimestamp}")
    released(owned)
    assert left(owned) == []


def test_cascade_orphan_leaves_what_it_owned(owned: Kubectl) -> None:
    assert "deleted" in owned("delete", "fleet", "web", "--cascade=orphan")
    kept = json.loads(owned("get", "fleet", "gin", "-o", "json"))["metadata"]
    assert "deletionTimestamp" not in kept
    assert "ownerReferences" not in kept
    released(owned)
    assert left(owned) == ["gin"]


def test_unknown_fields_are_refused_by_name(kubectl: Kubectl) -> None:
    wrong = fleet("web").replace("spec:\n  selector", "spec:\n  colour: blue\n  selector", 1)
    error = kubectl.refused("create", "-f", "-", stdin=wrong)
    assert "strict decoding error" in error
    assert 'unknown field "spec.colour"' in error
    kubectl.refused("get", "fleet", "web")


def test_unknown_fields_are_warned_of_where_that_is_asked_for(kubectl: Kubectl) -> None:
    wrong = fleet("web").replace("spec:\n  selector", "spec:\n  colour: blue\n  selector", 1)
    ran = kubectl.run("create", "--validate=warn", "-f", "-", stdin=wrong)
    assert ran.code == 0, ran.err
    assert 'Warning: unknown field "spec.colour"' in ran.err


def test_invalid_values_are_refused_by_field(kubectl: Kubectl) -> None:
    wrong = fleet("web").replace("{fleet: web}", '{fleet: "no spaces here"}')
    error = kubectl.refused("create", "-f", "-", stdin=wrong)
    assert "spec.selector.matchLabels" in error


def test_namespaces_come_and_go(kubectl: Kubectl) -> None:
    name = f"{kubectl.namespace}-more"
    assert "created" in kubectl("apply", "-f", "-", stdin=namespace_manifest(name))
    assert "Active" in kubectl("get", "ns", name)
    assert kubectl("get", "organization", name, "-o", "name")
    kubectl("delete", "ns", name)
    kubectl.refused("get", "organization", name)


def test_create_ns_without_a_file(kubectl: Kubectl) -> None:
    assert "created" in kubectl("create", "ns", f"{kubectl.namespace}-short")


def test_writing_into_a_namespace_that_is_not_there_is_404(kubectl: Kubectl) -> None:
    kubectl.namespace = "nowhere"
    error = kubectl.refused("create", "-f", "-", stdin=fleet("web"))
    assert 'namespaces "nowhere" not found' in error


def signing_request(common_name: str, key: ec.EllipticCurvePrivateKey) -> str:
    pem = agent_client.signing_request(key, common_name).encode()
    spec = {
        "request": base64.b64encode(pem).decode(),
        "signerName": "flightctl.io/enrollment",
        "usages": ["clientAuth", "CA:false"],
    }
    document = {
        "apiVersion": "flightctl.io/v1beta1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": "line-4"},
        "spec": spec,
    }
    return yaml.safe_dump(document)


def test_a_certificate_request_that_is_applied_is_verified_and_signed(kubectl: Kubectl) -> None:
    key, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    error = kubectl.refused(
        "apply", "--server-side", "-f", "-", stdin=signing_request("device:x", key)
    )
    assert "reserved for devices" in error
    rehearsed = server_side(
        kubectl, signing_request("line-4", key), "--dry-run=server", "-o", "json"
    )
    assert "certificate" not in json.loads(rehearsed)["status"]
    assert "serverside-applied" in server_side(kubectl, signing_request("line-4", key))
    path = "jsonpath={.status.certificate}"
    given = base64.b64decode(kubectl("get", "fcsr", "line-4", "-o", path))
    assert x509.load_pem_x509_certificate(given).public_key() == key.public_key()
    # By the other apply, and by replace: what was signed is not asked anew.
    for verb in (("apply",), ("replace",), ("apply", "--server-side", "--force-conflicts")):
        error = kubectl.refused(*verb, "-f", "-", stdin=signing_request("line-4", other))
        assert "Conflict" in error or "make another request" in error
    assert base64.b64decode(kubectl("get", "fcsr", "line-4", "-o", path)) == given

"""One walk through all verbs by each kubectl that people have."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path

from tests.conformance.conftest import WANTED, Kubectl, binaries, fleet

IMAGE = "jsonpath={.spec.template.spec.os.image}"


def test_the_four_are_tried_where_they_are() -> None:
    found = shutil.which("kubectl")
    assert found is not None
    beside = {path.name for path in Path(found).resolve().parent.glob("kubectl.[0-9]*")}
    print(f"kubectl binaries tried: {len(binaries())}: {', '.join(p.name for p in binaries())}")
    wanted = {f"kubectl.{version}" for version in WANTED}
    assert beside & wanted <= {path.name for path in binaries()}
    # A machine with one kubectl tries that one; where several stand side by side, none is missing.
    assert not beside or wanted <= beside, f"missing beside kubectl: {sorted(wanted - beside)}"


def test_this_kubectl_does_everything(every_kubectl: Kubectl, tmp_path: Path) -> None:
    run = every_kubectl
    assert "created" in run("create", "-f", "-", stdin=fleet("web"))
    assert run("get", "fleets").splitlines()[0].split()[:2] == ["NAME", "OWNER"]
    assert "OS IMAGE" in run("get", "fleets", "-o", "wide")
    assert "kind: Fleet" in run("get", "fleet", "web", "-o", "yaml")
    assert run("get", "fleet", "web", "-o", IMAGE) == "quay.io/acme/os:1"
    assert "quay.io/acme/os:1" in run("describe", "fleet", "web")
    assert "selector" in run("explain", "fleet.spec")
    assert "fleets" in run("api-resources", "--api-group=flightctl.io")
    unknown = fleet("odd").replace("spec:\n  selector", "spec:\n  colour: blue\n  selector", 1)
    assert "colour" in run.refused("create", "-f", "-", stdin=unknown)

    assert "configured" in run("apply", "-f", "-", stdin=fleet("web", "quay.io/acme/os:2"))
    assert "unchanged" in run("apply", "-f", "-", stdin=fleet("web", "quay.io/acme/os:2"))
    assert run.run("diff", "-f", "-", stdin=fleet("web", "quay.io/acme/os:3")).code == 1
    assert "serverside-applied" in run("apply", "--server-side", "-f", "-", stdin=fleet("ssa"))
    moved = fleet("web", "quay.io/acme/os:3")
    assert "serverside-applied" in run("apply", "--server-side", "-f", "-", stdin=moved)
    assert "replaced" in run("replace", "-f", "-", stdin=fleet("web", "quay.io/acme/os:4"))
    editor = tmp_path / "editor.sh"
    editor.write_text('#!/bin/sh\nsed -i "s|acme/os:4|acme/os:5|" "$1"\n')
    editor.chmod(editor.stat().st_mode | stat.S_IXUSR)
    run.environment = {"KUBE_EDITOR": str(editor)}
    assert "edited" in run("edit", "fleet", "web")
    pointer = "/spec/template/spec/os/image"
    for how, patch in (
        ("merge", json.dumps({"metadata": {"labels": {"by": "merge"}}})),
        ("json", json.dumps([{"op": "test", "path": pointer, "value": "quay.io/acme/os:5"}])),
    ):
        run("patch", "fleet", "web", f"--type={how}", "-p", patch)
    assert "labeled" in run("label", "fleet", "web", "site=berlin")
    assert "annotate" in run("annotate", "fleet", "web", "acme.io/note=hello")
    assert "condition met" in run("wait", "fleet/web", f"--for={IMAGE}=quay.io/acme/os:5")

    watching = run.start("get", "fleet", "web", "-w", "-o", "name")
    assert watching.stdout is not None
    with watching.stdout:
        assert watching.stdout.readline().strip().endswith("/web")
        watching.kill()
        watching.wait(10)

    assert run("auth", "can-i", "delete", "fleets").strip() == "yes"
    assert "system:masters" in run("auth", "whoami")
    assert "created" in run("create", "ns", f"{run.namespace}-more")
    assert "deleted" in run("delete", "ns", f"{run.namespace}-more")
    assert "deleted" in run("delete", "fleet", "web", "ssa")
    assert "deleted" in run("delete", "fleets", "--all") or not run("get", "fleets", "-o", "name")

"""The other ways the agent gets onto a device: RPMs, its SELinux policy, an image with it in.

Real: rpmbuild, rpm and its scriptlets in a root of Debian (no system with RPMs is at hand), the
policy's compiler, podman's build. Not run: dnf, an SELinux kernel, bootc, a base from a registry.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.e2e import devices, osimages, rootfs, standins
from tests.e2e.checkout import CHECKOUT

PACKAGING = CHECKOUT / "agent/packaging"
SELINUX = Path("/usr/share/selinux/devel/Makefile")
TIMEOUT_S = 300
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]
needs_root = pytest.mark.skipif(
    bool(devices.cannot_boot()), reason=f"devices: {devices.cannot_boot()}"
)
needs_rpm = pytest.mark.skipif(
    not shutil.which("rpmbuild"), reason="no rpmbuild (make setup installs it)"
)
needs_selinux = pytest.mark.skipif(
    not SELINUX.exists(), reason="no selinux-policy-dev (make setup installs it)"
)
AGENT, GREENBOOT, POLICY = "homeport-agent", "homeport-agent-greenboot", "homeport-agent-selinux"

# In a mount namespace of its own: a layer over the devices' root, into which rpm changes its root.
RPM_LIFE = """set -e
mkdir upper work root
mount -t overlay overlay -o "lowerdir=$ROOT,upperdir=upper,workdir=work" root
mount -t proc proc root/proc
rm root/usr/bin/flightctl-agent
(cd root && find etc usr var -xdev | sort) >before
rpm() { command rpm --root="$PWD/root" --dbpath=/var/lib/rpm --nodeps --force-debian "$@"; }
command rpm --root="$PWD/root" --dbpath=/var/lib/rpm --initdb
rpm --install "$@"
chroot root /usr/bin/flightctl-agent version
chroot root systemctl is-enabled flightctl-agent.service
chroot root getent passwd flightctl
test -x root/usr/lib/greenboot/check/required.d/20_check_flightctl_agent.sh
test -d root/home/flightctl/.config/containers/systemd
test -n "$(find root/usr/lib/homeport-agent -name '*.pyc')"
rpm --verify homeport-agent
echo verified
rpm --upgrade --replacepkgs "$@"
echo identity >root/var/lib/flightctl/kept
rpm --erase homeport-agent-greenboot homeport-agent
test ! -e root/var/lib/systemd/linger/flightctl
cat root/var/lib/flightctl/kept
(cd root && find etc usr var -xdev | sort) >after
echo left
comm -13 before after
echo lost
comm -23 before after
"""
# What a removal leaves: the device's identity, its records, the user of the applications.
LEFT = (
    *("var/lib/rpm", "var/lib/flightctl", "var/log/flightctl", "var/lib/systemd/linger"),
    *("etc/sub", "etc/.pwd.lock", "usr/share/licenses"),
)


def built(folder: Path, **environ: str) -> dict[str, Path]:
    argv = [PACKAGING / "build-rpm.sh", folder, "7"]
    done = run(argv, HOMEPORT_COMMIT="abc", **environ)
    found = [Path(line) for line in done.splitlines() if line.endswith(".rpm")]
    return {path.name.partition("-2")[0]: path for path in found}


def run(argv: list[str | Path], cwd: Path | None = None, **environ: str) -> str:
    done = subprocess.run(
        argv,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        cwd=cwd,
        env={**os.environ, **environ},
    )
    assert done.returncode == 0, f"{argv}: {done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@needs_root
@needs_rpm
def test_the_rpm_is_installed_upgraded_and_erased_and_leaves_the_devices_identity(
    tmp_path: Path,
) -> None:
    packages = built(tmp_path / "packages")
    assert set(packages) == {AGENT, GREENBOOT}
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", RPM_LIFE, "rpm"]
    said = run([*argv, *packages.values()], cwd=tmp_path, ROOT=str(rootfs.make())).splitlines()
    assert said[1:3] == ["abc", "enabled"]
    assert said[3].startswith("flightctl:x:")
    assert said[4:6] == ["verified", "identity"]
    left, lost = said[said.index("left") + 1 : said.index("lost")], said[said.index("lost") + 1 :]
    assert [path for path in left if not path.startswith(LEFT) and not path.endswith("-")] == []
    # An empty folder that was there before, and is the package's.
    assert lost == ["etc/flightctl"]


@needs_rpm
def test_the_rpm_says_what_it_needs(tmp_path: Path) -> None:
    packages = built(tmp_path)
    needs = run(["rpm", "--query", "--requires", "--package", packages[AGENT]])
    assert {"python3 >= 3.11", "python3-cryptography >= 42", "python3-pyyaml"} <= set(
        needs.splitlines()
    )
    # `newuidmap` and `setpriv`, without which nothing runs for users, and what podman has for them.
    assert {"shadow-utils", "util-linux"} <= set(needs.splitlines())
    wishes = run(["rpm", "--query", "--recommends", "--package", packages[AGENT]]).splitlines()
    assert {"podman >= 5", "passt"} <= set(wishes)
    assert "flightctl-agent" in run(["rpm", "--query", "--conflicts", "-p", packages[AGENT]])
    listed = run(["rpm", "--query", "--list", "--package", packages[AGENT]]).splitlines()
    assert not [path for path in listed if "__pycache__" in path or "/lib/greenboot" in path]


@needs_rpm
@needs_selinux
def test_the_policy_compiles_and_knows_its_files(tmp_path: Path) -> None:
    """Against the reference policy of Debian; nobody has loaded it into a kernel here."""
    packages = built(tmp_path / "packages", HOMEPORT_SELINUX="1")
    assert set(packages) == {AGENT, GREENBOOT, POLICY}
    folder = tmp_path / "selinux"
    shutil.copytree(PACKAGING / "selinux", folder)
    run(["make", "-f", SELINUX, "flightctl_agent.pp"], cwd=folder)
    run(["semodule_unpackage", "flightctl_agent.pp", "module", "contexts"], cwd=folder)
    contexts: Mapping[str, str] = {
        line.split()[0]: line.split()[-1].split(":")[-2]
        for line in (folder / "contexts").read_text().splitlines()
        if line.startswith("/")
    }
    assert contexts == {
        "/usr/bin/flightctl-agent": "flightctl_agent_exec_t",
        r"/usr/lib/flightctl/custom-info\.d(/.*)?": "flightctl_agent_custom_info_exec_t",
        "/var/lib/flightctl(/.*)?": "flightctl_agent_var_lib_t",
        "/var/log/flightctl(/.*)?": "flightctl_agent_var_log_t",
        "/run/flightctl-agent(/.*)?": "flightctl_agent_var_run_t",
    }
    rules = " ".join((folder / "tmp/flightctl_agent.tmp").read_text().split())
    for needed in (
        # setpriv is a program like others, run where it may become anybody.
        "type_transition flightctl_agent_t bin_t:process unconfined_t;",
        # Files get the labels and the SELinux users that they are to have.
        "typeattribute flightctl_agent_t can_change_object_identity;",
    ):
        assert needed in rules


STORAGE_CONF = """[storage]
driver = "overlay"
runroot = "{folder}/run"
graphroot = "{folder}/storage"
[storage.options]
additionalimagestores = ["{base}"]
"""


@needs_root
def test_the_agent_is_added_to_an_image_that_has_what_it_needs(tmp_path: Path) -> None:
    (tmp_path / "containers.conf").write_text(standins.CONFINED_CONF)
    storage = STORAGE_CONF.format(folder=tmp_path, base=osimages.base().store)
    (tmp_path / "storage.conf").write_text(storage)
    environ = {
        "CONTAINERS_CONF": str(tmp_path / "containers.conf"),
        "CONTAINERS_STORAGE_CONF": str(tmp_path / "storage.conf"),
        "PODMAN_IGNORE_CGROUPSV1_WARNING": "1",
    }
    argv: list[str | Path] = ["podman", "build", "--isolation=chroot", "--network=host"]
    # The layer of the base has no history, which a build on top of it would want.
    argv += ["--squash-all"]
    argv += ["--file", PACKAGING / "Containerfile", "--build-arg", f"BASE={osimages.BASE}"]
    argv += ["--build-arg", "COMMIT=abc", "--tag", "localhost/device:1", "--pull=never", CHECKOUT]
    try:
        run(argv, **environ)
        mounted = run(["podman", "image", "mount", "localhost/device:1"], **environ).strip()
        try:
            looked_at(Path(mounted))
        finally:
            run(["podman", "image", "unmount", "localhost/device:1"], **environ)
    finally:
        subprocess.run(["umount", "--lazy", tmp_path / "storage/overlay"], capture_output=True)


def looked_at(image: Path) -> None:
    said = run(["chroot", image, "/usr/bin/flightctl-agent", "version"])
    assert said.splitlines()[1] == "abc"
    wants = image / "etc/systemd/system/multi-user.target.wants/flightctl-agent.service"
    assert wants.readlink() == Path("/usr/lib/systemd/system/flightctl-agent.service")
    assert not (image / "usr/src/homeport").exists()
    assert "flightctl:x:" in (image / "etc/passwd").read_text()
    # Compiled, and good whatever time the image's file system gives to files.
    modules = list((image / "usr/lib/homeport-agent/agent/__pycache__").glob("*.pyc"))
    assert modules
    assert all(int.from_bytes(m.read_bytes()[4:8], "little") == 3 for m in modules)

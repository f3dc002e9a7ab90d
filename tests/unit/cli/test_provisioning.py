"""The forms that provisioning systems take: whatever the form, an agent reads the same from it; and
the systems' own validators find nothing to complain of.

cloud-init itself, in a booted device: tests/e2e/test_late_binding.py.
"""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import yaml

from agent import config, configfiles
from cli import provisioning
from tests.e2e import rootfs
from tests.fakes.clocked_world import ClockedWorld

Json = dict[str, Any]

TESTS = Path(__file__).parents[2]
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB+/=\n-----END CERTIFICATE-----\n"
KEY = "-----BEGIN EC PRIVATE KEY-----\nMHcC+/=\n-----END EC PRIVATE KEY-----\n"


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


SETTINGS: Json = {
    "enrollment-service": {
        "authentication": {
            "client-certificate-data": encoded(CERTIFICATE),
            "client-key-data": encoded(KEY),
        },
        "service": {"server": "https://a:7443", "certificate-authority-data": encoded("CA")},
        "enrollment-ui-endpoint": "https://a:3443",
    }
}


def key_of(*paths: Path) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:16]


def ignition_validator() -> Path:
    source = TESTS / "conformance" / "ignition"
    key = key_of(source / "go.mod", source / "go.sum", source / "main.go")
    return rootfs.cache() / "provisioning" / f"ignition-{key}"


def kickstart_validator() -> Path:
    key = key_of(TESTS / "setup" / "kickstart.txt")
    return rootfs.cache() / "provisioning" / f"kickstart-{key}" / "bin" / "ksvalidator"


def needed(program: Path) -> Path:
    if not program.exists():
        pytest.skip(f"no {program.name} in the cache; tests/setup/provisioning.sh puts it there")
    return program


def from_cloud_init(text: str) -> dict[str, tuple[str, int]]:
    assert text.startswith("#cloud-config\n")
    files = yaml.safe_load(text)["write_files"]
    return {f["path"]: (f["content"], int(f["permissions"], 8)) for f in files}


def from_ignition(text: str) -> dict[str, tuple[str, int]]:
    files = json.loads(text)["storage"]["files"]
    return {
        f["path"]: (unquote(f["contents"]["source"].removeprefix("data:,")), f["mode"])
        for f in files
    }


def from_kickstart(text: str, root: Path) -> dict[str, tuple[str, int]]:
    """What the section does, run by a shell below `root`, whose paths stand for the machine's."""
    lines = text.splitlines()
    assert (lines[0], lines[-1]) == ("%post --erroronfail", "%end")
    script = "\n".join(lines[1:-1])
    for folder in ("/etc/", "/var/"):
        script = script.replace(folder, f"{root}{folder}")
    # No systemd and no labels here; the rest is what Anaconda would run.
    quiet = "systemctl() { :; }; restorecon() { :; }\n"
    subprocess.run(["bash", "-euc", quiet + script], check=True, cwd=root)
    return {
        f"/{path.relative_to(root)}": (
            # The configuration names files too.
            path.read_text().replace(str(root), ""),
            path.stat().st_mode & 0o777,
        )
        for path in root.rglob("*")
        if path.is_file()
    }


def agents_view(files: Mapping[str, tuple[str, int]], root: Path) -> config.Settings:
    world = ClockedWorld(root)
    for path, (text, _) in files.items():
        world.put(path, text)
    return configfiles.load(world)


@pytest.mark.parametrize("form", ["cloud-init", "ignition", "kickstart"])
def test_an_agent_finds_its_credentials_in_files_that_it_removes(form: str, tmp_path: Path) -> None:
    text = provisioning.FORMATS[form](SETTINGS)
    device, installed = tmp_path / "device", tmp_path / "installed"
    installed.mkdir()
    match form:
        case "cloud-init":
            files = from_cloud_init(text)
        case "ignition":
            files = from_ignition(text)
        case _:
            files = from_kickstart(text, installed)
    assert {mode for _, mode in files.values()} == {0o600}
    settings = agents_view(files, device)
    world = ClockedWorld(device)
    service = settings.enrollment
    assert (service.certificate.load(world), service.key.load(world)) == (
        CERTIFICATE.encode(),
        KEY.encode(),
    )
    assert service.certificate.path
    assert service.key.path
    assert settings.remove_after_enrollment
    assert service.authority.load(world) == b"CA"
    assert service.server == "https://a:7443"


def test_as_config_all_is_in_one_file_and_stays() -> None:
    document = yaml.safe_load(provisioning.config(SETTINGS))
    assert document == SETTINGS


def test_ignitions_own_parser_takes_it() -> None:
    program = needed(ignition_validator())
    text = provisioning.ignition(SETTINGS)
    for judged, code in ((text, 0), (text.replace('"/etc/', '"etc/'), 1)):
        done = subprocess.run([program], input=judged, capture_output=True, text=True, timeout=30)
        assert done.returncode == code, done.stdout + done.stderr


def test_kickstarts_own_validator_takes_it(tmp_path: Path) -> None:
    program = needed(kickstart_validator())
    text = provisioning.kickstart(SETTINGS)
    for judged, code in ((text, 0), (text.replace("%end", "%fin"), 1)):
        file = tmp_path / "late.ks"
        file.write_text(f"reboot\n{judged}")
        done = subprocess.run(
            [program, "--version", "F40", file], capture_output=True, text=True, timeout=30
        )
        assert done.returncode == code, done.stdout + done.stderr

"""The root file system that devices boot: Debian 13 with systemd, podman and Python, made once.

It is kept in the cache folder under a key made of everything it is made from, is only ever read
(devices lay a layer of their own over it), and appears there whole or not at all.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

Packages = tuple[str, ...]

SUITE = "trixie"
MIRROR = "http://deb.debian.org/debian"
PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "procps", "iproute2", "ca-certificates", "curl"),
    *("python3", "python3-yaml", "python3-cryptography"),
    *("podman", "podman-compose", "runc", "crun", "netavark", "aardvark-dns"),
    *("nftables", "catatonit", "skopeo"),
    *("ostree", "ostree-boot", "gir1.2-ostree-1.0", "python3-gi"),
)
WITHOUT = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*")

# What makes no sense in a namespace, or would go out to a network that is not there.
MASKED = (
    "systemd-modules-load.service",
    "systemd-udev-trigger.service",
    "systemd-udevd.service",
    "console-getty.service",
    "getty.target",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
)

# No limits of memory, processes or CPU: these controllers do not reach into a device.
CONTAINERS_CONF = """[containers]
default_ulimits = ["nofile=16384:16384", "nproc=16384:16384"]
keyring = false
pids_limit = 0
[engine]
events_logger = "file"
"""

# The checkout is mounted read-only, so compiled modules go elsewhere.
LAUNCHER = """#!/usr/bin/python3
import sys
sys.pycache_prefix = "/var/cache/homeport-agent"
sys.path.insert(0, "/opt/homeport")
from agent.__main__ import main
sys.exit(main())
"""

# Where a device finds its images: plain HTTP, at the end of a cable to the host.
REGISTRY_PORT = 5000
REGISTRIES_CONF = f"""[[registry]]
location = "localhost:{REGISTRY_PORT}"
insecure = true
"""

FILES = {
    "etc/containers/registries.conf.d/demo.conf": (REGISTRIES_CONF, 0o644),
    "etc/containers/containers.conf": (CONTAINERS_CONF, 0o644),
    "etc/systemd/journald.conf.d/device.conf": ("[Journal]\nStorage=persistent\n", 0o644),
    "usr/bin/flightctl-agent": (LAUNCHER, 0o755),
    "etc/hosts": ("127.0.0.1 localhost\n", 0o644),
}
FOLDERS = ("opt/homeport", "var/log/journal", "etc/flightctl", "var/cache/homeport-agent")


def cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "homeport"


def key(more: Packages = ()) -> str:
    made_from = [SUITE, (*PACKAGES, *more), WITHOUT, MASKED, FILES, FOLDERS]
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:16]


def is_made() -> bool:
    return (cache() / "roots" / key()).is_dir()


def make(more: Packages = ()) -> Path:
    """The root, out of the cache if it is there; `more` are packages for some tests. Needs root;
    half a minute the first time."""
    roots = cache() / "roots"
    roots.mkdir(parents=True, exist_ok=True)
    root = roots / key(more)
    with (roots / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two test runs make it once
        if root.is_dir():
            return root
        for older in roots.iterdir():
            if older.name.startswith(".making"):
                shutil.rmtree(older)
        making = roots / f".making-{key(more)}"
        _bootstrap(making, (*PACKAGES, *more))
        _furnish(making)
        making.rename(root)
    return root


def _bootstrap(target: Path, packages: Packages) -> None:
    argv = ["mmdebstrap", "--quiet", "--variant=minbase", "--mode=root"]
    argv += [f"--include={','.join(packages)}", "--aptopt=Acquire::Languages none"]
    argv += [f"--dpkgopt=path-exclude={path}" for path in WITHOUT]
    done = subprocess.run([*argv, SUITE, target, MIRROR], capture_output=True, text=True)
    if done.returncode:
        shutil.rmtree(target, ignore_errors=True)
        raise RuntimeError(f"mmdebstrap failed:\n{done.stderr[-2000:]}")


def _furnish(root: Path) -> None:
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, (text, mode) in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
    for unit in MASKED:
        link = root / "etc/systemd/system" / unit
        link.unlink(missing_ok=True)
        link.symlink_to("/dev/null")
    # Empty, so that each device gets one of its own at its first boot.
    (root / "etc/machine-id").write_text("")
    (root / "etc/hostname").unlink(missing_ok=True)

"""System information: which facts about this device the service gets to see.

Only the keys that the settings name, always as texts; a fact that cannot be had is an empty text,
so that its absence can be seen. Cheap facts are read again at every look, since addresses and host
names change; custom scripts run once for each life and each reload.
"""

from __future__ import annotations

import logging
import posixpath
import re
from collections.abc import Callable, Iterable
from typing import Any

from agent import config, sources, version, world

log = logging.getLogger("agent.collectors")

Json = dict[str, Any]

CUSTOM_DIR = "/usr/lib/flightctl/custom-info.d"
CUSTOM_CHARS_MAX = 4096
OPERATING_SYSTEM = "linux"
# What runtime collectors may say, as the reference filters it.
_RUNTIME_TEXT = re.compile(r"[^a-zA-Z0-9 .:_/@+-]")

BUILT_IN: dict[str, Callable[[sources.Machine], str]] = {
    "hostname": sources.Machine.hostname,
    "kernel": sources.Machine.kernel,
    "architecture": lambda m: m.architecture,
    "distroName": lambda m: m.os_release().get("NAME", ""),
    "distroVersion": lambda m: m.os_release().get("VERSION", ""),
    "distroId": lambda m: m.os_release().get("ID", ""),
    "productName": lambda m: m.dmi("product_name"),
    "productUuid": lambda m: m.dmi("product_uuid"),
    "productSerial": lambda m: m.dmi("product_serial"),
    "biosVendor": lambda m: m.dmi("bios_vendor"),
    "biosVersion": lambda m: m.dmi("bios_version"),
    "cpuCores": lambda m: _count(cores(m.processors())),
    "cpuProcessors": lambda m: _count(len({p.get("physical id", "0") for p in m.processors()})),
    "cpuModel": lambda m: next(
        (p.get("model name") or p.get("Model") or "" for p in m.processors()), ""
    ),
    "memoryTotalKb": lambda m: _count(m.memory().get("MemTotal", 0)),
    "gpu": lambda m: ", ".join(m.gpus()),
    "netInterfaceDefault": sources.Machine.default_interface,
    "netIpDefault": lambda m: m.address(m.default_interface()),
    "netMacDefault": lambda m: m.hardware_address(m.default_interface()),
}
# Known keys whose collector is there only sometimes; unregistered, they are left out.
RUNTIME = ("managementCertNotAfter", "managementCertSerial", "tpmVendorInfo")


class SystemInfo:
    """`runtime` gives the value of a runtime key, None where it has none to give."""

    def __init__(
        self,
        where: world.World,
        machine: sources.Machine,
        *,
        runtime: Callable[[str], str | None] = lambda key: None,
        real_path: Callable[[str], str] = str,
    ) -> None:
        self._world = where
        self._machine = machine
        self._runtime = runtime
        self._real_path = real_path
        self._keys: tuple[str, ...] = ()
        self._custom: dict[str, str] | None = None

    def configure(self, settings: config.Settings) -> None:
        """At start and at reload: which keys, and the custom scripts anew."""
        self._keys = settings.system_info
        for key in self._keys:
            if key not in BUILT_IN and key not in RUNTIME:
                log.warning("unknown system-info key: %s", key)
        self._custom = None
        self._custom_keys = settings.system_info_custom
        self._timeout_s = settings.system_info_timeout_s

    def collect(self) -> Json:
        """`status.systemInfo`; the four texts that must be there always are."""
        info: Json = {
            "architecture": self._machine.architecture,
            "operatingSystem": OPERATING_SYSTEM,
            "bootID": self._machine.boot_id(),
            "agentVersion": version.VERSION,
        }
        for key in self._keys:
            if key in BUILT_IN:
                info[key] = self._built_in(key)
            elif key in RUNTIME:
                value = self._runtime(key)
                if value is not None:
                    info[key] = _RUNTIME_TEXT.sub("", value)
        if self._custom is None:
            self._custom = self._run_custom()
        if self._custom:
            info["customInfo"] = dict(self._custom)
        return info

    def _built_in(self, key: str) -> str:
        try:
            return BUILT_IN[key](self._machine)
        except (OSError, ValueError) as error:
            log.warning("system-info %s cannot be read: %s", key, error)
            return ""

    def _run_custom(self) -> dict[str, str]:
        """All scripts together have the configured time; what is missing then is empty."""
        deadline = self._world.monotonic() + self._timeout_s
        names = self._world.listdir(CUSTOM_DIR)
        return {key: self._custom_value(key, names, deadline) for key in self._custom_keys}

    def _custom_value(self, key: str, names: Iterable[str], deadline: float) -> str:
        for name in scripts_for(key, names):
            path = f"{CUSTOM_DIR}/{name}"
            found = self._world.stat(path)
            if found is None or not found.mode & 0o111:
                continue
            left_s = deadline - self._world.monotonic()
            if left_s <= 0:
                break
            done = self._world.run([self._real_path(path)], timeout_s=left_s)
            if done.ok:
                return done.stdout.strip()[:CUSTOM_CHARS_MAX]
            log.warning("custom info %s failed: %s: %s", key, path, done.words)
            break
        return ""


def run_all(
    where: world.World, names: Iterable[str], *, real_path: Callable[[str], str]
) -> dict[str, str]:
    """Every custom script, by its key, within the longest time that is allowed."""
    deadline = where.monotonic() + config.MAX_SYSTEM_INFO_TIMEOUT_S
    found: dict[str, str] = {}
    for name in names:
        path = f"{CUSTOM_DIR}/{name}"
        stat = where.stat(path)
        left_s = deadline - where.monotonic()
        if stat is None or not stat.mode & 0o111 or left_s <= 0:
            continue
        done = where.run([real_path(path)], timeout_s=left_s)
        key = re.sub(r"^\d+-", "", posixpath.splitext(name)[0])
        found.setdefault(key, done.stdout.strip()[:CUSTOM_CHARS_MAX] if done.ok else "")
    return found


def scripts_for(key: str, names: Iterable[str]) -> list[str]:
    """Files that serve `key`: `siteName`, `siteName.sh`, `20-siteName.sh`; in order of name."""
    wanted = key.lower()

    def serves(name: str) -> bool:
        stem = posixpath.splitext(name)[0].lower()
        return stem == wanted or stem.endswith(f"-{wanted}")

    return [name for name in sorted(names) if serves(name)]


def cores(processors: list[dict[str, str]]) -> int:
    """Cores, not threads; where the kernel does not say, each thread is one."""
    known = {(p.get("physical id", "0"), p["core id"]) for p in processors if "core id" in p}
    return len(known) or len(processors)


def _count(number: int) -> str:
    return str(number) if number else ""

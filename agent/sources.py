"""What the kernel says about this machine: files of /proc and /sys, parsed, and nothing decided.

`/proc` and `/sys` describe the machine and not the root that an agent was given, so where a root
has none of its own, the real ones are read. A source that cannot be read is an empty text: no fact
is worth a device that does not report.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path

from agent import world

READ_BYTES_MAX = 1 << 20
GO_ARCHITECTURES = {
    "x86_64": "amd64",
    "amd64": "amd64",
    "aarch64": "arm64",
    "arm64": "arm64",
    "armv7l": "arm",
    "armv6l": "arm",
    "i686": "386",
    "i386": "386",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
    "riscv64": "riscv64",
    "loongarch64": "loong64",
}
_SIOCGIFADDR = 0x8915
_SIOCGIFNETMASK = 0x891B
_ROUTE_UP = 0x1
_GPU_CLASSES = ("0x0300", "0x0302", "0x0380")


class Machine:
    """`real` reads a file outside any root; tests give one that knows of nothing."""

    def __init__(
        self,
        where: world.World,
        *,
        real: Callable[[str], bytes | None] | None = None,
        address_of: Callable[[str], str] | None = None,
        architecture: str = "",
    ) -> None:
        self._world = where
        self._real = real or _read_real
        self._address_of = address_of or address4_of
        self.architecture = architecture or go_architecture(os.uname().machine)

    def text(self, path: str) -> str:
        raw: bytes | None = None
        with contextlib.suppress(OSError):
            raw = self._world.read(path)
        if raw is None and path.startswith(("/proc/", "/sys/")):
            raw = self._real(path)
        return (raw or b"").decode(errors="replace").strip()

    def boot_id(self) -> str:
        try:
            return self._world.boot_id()
        except OSError:
            return ""

    def hostname(self) -> str:
        return self.text("/proc/sys/kernel/hostname") or self.text("/etc/hostname")

    def kernel(self) -> str:
        return self.text("/proc/sys/kernel/osrelease")

    def os_release(self) -> dict[str, str]:
        text = self.text("/etc/os-release") or self.text("/usr/lib/os-release")
        found: dict[str, str] = {}
        for line in text.splitlines():
            key, equals, value = line.strip().partition("=")
            if equals and not key.startswith("#"):
                found[key] = value.strip('"')
        return found

    def dmi(self, name: str) -> str:
        return self.text(f"/sys/class/dmi/id/{name}")

    def processors(self) -> list[dict[str, str]]:
        """One dict for each thread, keys as in /proc/cpuinfo."""
        blocks = self.text("/proc/cpuinfo").split("\n\n")
        parsed = (
            {k.strip(): v.strip() for k, c, v in (ln.partition(":") for ln in b.splitlines()) if c}
            for b in blocks
        )
        return [block for block in parsed if "processor" in block]

    def memory(self) -> dict[str, int]:
        """kB by name of /proc/meminfo."""
        found: dict[str, int] = {}
        for line in self.text("/proc/meminfo").splitlines():
            name, _, rest = line.partition(":")
            number = rest.split()[:1]
            if number and number[0].isdigit():
                found[name] = int(number[0])
        return found

    def cpu_times(self) -> tuple[int, int]:
        """(busy, all) ticks of all processors since the boot; zeros where unknown."""
        for line in self.text("/proc/stat").splitlines():
            if line.startswith("cpu "):
                ticks = [int(word) for word in line.split()[1:9] if word.isdigit()]
                idle = sum(ticks[3:5])
                return sum(ticks) - idle, sum(ticks)
        return 0, 0

    def default_interface(self) -> str:
        """The one that the default route with the best metric leaves by; IPv4 before IPv6."""
        routes: list[tuple[int, str]] = []
        for line in self.text("/proc/net/route").splitlines()[1:]:
            words = line.split()
            if len(words) < 8 or words[1] != "00000000" or words[7] != "00000000":
                continue
            with contextlib.suppress(ValueError):
                if int(words[3], 16) & _ROUTE_UP:
                    routes.append((int(words[6]), words[0]))
        if routes:
            return min(routes)[1]
        for line in self.text("/proc/net/ipv6_route").splitlines():
            words = line.split()
            if len(words) == 10 and words[0] == "0" * 32 and words[1] == "00" and words[9] != "lo":
                with contextlib.suppress(ValueError):
                    routes.append((int(words[5], 16), words[9]))
        return min(routes)[1] if routes else ""

    def boot_time(self) -> int:
        """Seconds since 1970; 0 where the kernel does not say."""
        for line in self.text("/proc/stat").splitlines():
            name, _, number = line.partition(" ")
            if name == "btime" and number.strip().isdigit():
                return int(number)
        return 0

    def interfaces(self) -> list[str]:
        root = "/sys/class/net"
        names = self._world.listdir(root) or _list_real(root)
        return [name for name in names if name != "lo"]

    def is_virtual(self, interface: str) -> bool:
        """Without a device of a bus behind it: bridges, tunnels, those of containers."""
        path = f"/sys/class/net/{interface}/device"
        return self._world.stat(path) is None and not Path(path).exists()

    def gateway(self, interface: str) -> str:
        """Of the default route by `interface`; empty where it has none, or for IPv6."""
        for line in self.text("/proc/net/route").splitlines()[1:]:
            words = line.split()
            if len(words) >= 8 and words[0] == interface and words[1] == words[7] == "00000000":
                with contextlib.suppress(ValueError):
                    return str(ipaddress.IPv4Address(int(words[2], 16).to_bytes(4, "little")))
        return ""

    def name_servers(self) -> list[str]:
        # systemd-resolved may have a link of its own on the way, which root does not follow.
        told = self.text("/etc/resolv.conf") or self.text("/run/systemd/resolve/resolv.conf")
        lines = (line.split() for line in told.splitlines())
        return [words[1] for words in lines if len(words) > 1 and words[0] == "nameserver"]

    def addresses(self, interface: str) -> list[str]:
        """With their prefix lengths, IPv4 before IPv6."""
        found = [self._address_of(interface), self._address6(interface)]
        return [address for address in found if address]

    def address(self, interface: str) -> str:
        """With its prefix length; an address that is not link-local is preferred."""
        if not interface:
            return ""
        return self._address_of(interface) or self._address6(interface)

    def hardware_address(self, interface: str) -> str:
        return self.text(f"/sys/class/net/{interface}/address") if interface else ""

    def gpus(self) -> list[str]:
        """`vendor:device`, hexadecimal, in order of the bus."""
        root = "/sys/bus/pci/devices"
        names = self._world.listdir(root) or _list_real(root)
        return [
            ":".join(self.text(f"{root}/{n}/{part}")[2:] for part in ("vendor", "device"))
            for n in names
            if self.text(f"{root}/{n}/class").startswith(_GPU_CLASSES)
        ]

    def _address6(self, interface: str) -> str:
        found: list[tuple[bool, str]] = []
        for line in self.text("/proc/net/if_inet6").splitlines():
            words = line.split()
            if len(words) == 6 and words[5] == interface:
                address = ipaddress.IPv6Address(int(words[0], 16))
                found.append((address.is_link_local, f"{address}/{int(words[2], 16)}"))
        return min(found)[1] if found else ""


def go_architecture(machine: str) -> str:
    return GO_ARCHITECTURES.get(machine, machine)


def address4_of(interface: str) -> str:
    """The first IPv4 address of `interface`, as `10.0.0.2/24`; empty where it has none."""
    request = struct.pack("256s", interface.encode()[:15])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        try:
            address, mask = (
                socket.inet_ntoa(fcntl.ioctl(channel.fileno(), code, request)[20:24])
                for code in (_SIOCGIFADDR, _SIOCGIFNETMASK)
            )
        except OSError:
            return ""
    return str(ipaddress.IPv4Interface(f"{address}/{mask}"))


def _read_real(path: str) -> bytes | None:
    try:
        with Path(path).open("rb") as source:
            return source.read(READ_BYTES_MAX)
    except OSError:
        return None


def _list_real(path: str) -> list[str]:
    try:
        return sorted(entry.name for entry in Path(path).iterdir())
    except OSError:
        return []

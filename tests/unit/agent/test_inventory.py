"""What `homeport-agent system-info` prints of a machine, from a /proc and a /sys of our own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from agent import inventory, sources, walking
from tests.fakes.clocked_world import ClockedWorld

CPUINFO = "\n\n".join(
    f"processor\t: {n}\nvendor_id\t: ACME\nmodel name\t: Tiny CPU\nflags\t\t: fpu sse\n"
    f"physical id\t: {n // 4}\ncore id\t\t: {n // 2}"
    for n in range(8)
)
ROUTE = """Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT
eth0 00000000 0102A8C0 0003 0 0 100 00000000 0 0 0
eth1 0002A8C0 00000000 0001 0 0 100 00FFFFFF 0 0 0
"""
FILES = {
    "/proc/sys/kernel/hostname": "pump-1.example\n",
    "/etc/os-release": 'NAME="Debian GNU/Linux"\nVERSION_ID="13"\nID=debian\n',
    "/etc/resolv.conf": "# by hand\nnameserver 192.168.2.1\nsearch example\nnameserver fd00::1\n",
    "/sys/class/dmi/id/product_sku": "S-1\n",
    "/sys/class/dmi/id/bios_date": "11/26/2026\n",
    "/proc/cpuinfo": CPUINFO,
    "/proc/meminfo": "MemTotal:  1000 kB\nMemFree: 100 kB\n",
    "/proc/net/route": ROUTE,
    "/proc/stat": "cpu 1 2 3 4 5 6 7 8\nbtime 1795651200\n",
    "/sys/class/net/eth0/address": "02:00:00:00:00:01\n",
    "/sys/class/net/eth0/mtu": "1500\n",
    "/sys/class/net/eth0/operstate": "up\n",
    "/sys/class/net/eth0/device/vendor": "0x1af4\n",
    "/sys/class/net/podman0/operstate": "down\n",
    "/sys/class/net/lo/mtu": "65536\n",
    "/sys/bus/pci/devices/0000:01:00.0/class": "0x030000\n",
    "/sys/bus/pci/devices/0000:01:00.0/vendor": "0x10de\n",
    "/sys/bus/pci/devices/0000:01:00.0/device": "0x1eb8\n",
}


def reported(where: ClockedWorld) -> dict[str, Any]:
    machine = sources.Machine(
        where,
        real=lambda path: None,
        address_of=lambda name: "192.168.2.7/24" if name == "eth0" else "",
        architecture="arm64",
    )
    return inventory.report(machine, {"k": "v"}, now="2026-11-23T00:00:00Z")


@pytest.fixture
def device(tmp_path: Path) -> ClockedWorld:
    where = ClockedWorld(tmp_path)
    for path, text in FILES.items():
        where.put(path, text)
    return where


def test_processors_are_told_by_socket(device: ClockedWorld) -> None:
    cpu = reported(device)["hardware"]["cpu"]
    assert (cpu["total_cores"], cpu["total_threads"], cpu["architecture"]) == (4, 8, "arm64")
    assert cpu["processors"][1] == {
        "id": 1,
        "numCores": 2,
        "numThreads": 4,
        "numThreadsPerCore": 2,
        "vendor": "ACME",
        "model": "Tiny CPU",
        "capabilities": ["fpu", "sse"],
    }


def test_name_servers_are_told_where_systemd_resolved_has_a_link_on_the_way(
    device: ClockedWorld,
) -> None:
    """Its folder is its own, so root, who follows no link there, asks for what the link means."""
    device._walk = walking.Walk(str(device.path("/")), os.geteuid())
    folder = "/run/systemd/resolve"
    device.put(f"{folder}/resolv.conf", "nameserver 192.168.2.9\n")
    device.path(folder).chmod(0o777)
    device.symlink(f"{folder}/stub-resolv.conf", "resolv.conf")
    device.symlink("/etc/resolv.conf", f"..{folder}/stub-resolv.conf")
    assert reported(device)["hardware"]["network"]["dnsServers"] == ["192.168.2.9"]


def test_the_network_is_told_without_the_loopback(device: ClockedWorld) -> None:
    network = reported(device)["hardware"]["network"]
    assert network["defaultRoute"] == {
        "interface": "eth0",
        "gateway": "192.168.2.1",
        "family": "ipv4",
    }
    assert network["dnsServers"] == ["192.168.2.1", "fd00::1"]
    assert network["fqdn"] == "pump-1.example"
    eth0, podman0 = network["interfaces"]
    assert eth0 == {
        "name": "eth0",
        "macAddress": "02:00:00:00:00:01",
        "isVirtual": False,
        "ipAddresses": ["192.168.2.7/24"],
        "mtu": 1500,
        "status": "up",
    }
    assert (podman0["name"], podman0["isVirtual"], podman0["mtu"]) == ("podman0", True, 0)


def test_hardware_distribution_boot_and_scripts_are_told(device: ClockedWorld) -> None:
    found = reported(device)
    assert found["distribution"]["version_id"] == "13"
    assert found["hardware"]["memory"] == {
        "totalKb": 1000,
        "details": {"MemTotal": 1000, "MemFree": 100},
    }
    assert found["hardware"]["gpu"] == [{"index": 0, "vendorId": "10de", "deviceId": "1eb8"}]
    assert found["hardware"]["bios"]["date"] == "11/26/2026"
    assert found["hardware"]["system"]["sku"] == "S-1"
    assert found["boot"]["bootTime"] == "2026-11-26T00:00:00Z"
    assert found["metadata"]["collector_type"] == "flightctl-agent"
    assert found["custom"] == {"k": "v"}


def test_a_machine_that_tells_nothing_has_empty_texts(tmp_path: Path) -> None:
    found = reported(ClockedWorld(tmp_path))
    assert found["hardware"]["cpu"]["processors"] == []
    assert found["hardware"]["network"]["defaultRoute"] is None
    assert found["boot"]["bootTime"] == ""

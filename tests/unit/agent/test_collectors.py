"""Facts about a device, read from a /proc and a /sys of our own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent import collectors, config, configfiles, sources, world
from tests.fakes.clocked_world import ClockedWorld

CPUINFO = "\n\n".join(
    f"processor\t: {n}\nmodel name\t: Tiny CPU\nphysical id\t: 0\ncore id\t\t: {n // 2}"
    for n in range(4)
)
ROUTE = """Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT
wlan0 00000000 0102A8C0 0003 0 0 600 00000000 0 0 0
eth0 00000000 0102A8C0 0003 0 0 100 00000000 0 0 0
eth1 0002A8C0 00000000 0001 0 0 100 00FFFFFF 0 0 0
down0 00000000 0102A8C0 0002 0 0 1 00000000 0 0 0
"""
FILES = {
    "/proc/sys/kernel/hostname": "pump-1\n",
    "/proc/sys/kernel/osrelease": "6.1.0-28-arm64\n",
    "/etc/os-release": '# c\nNAME="Debian GNU/Linux"\nVERSION="13 (trixie)"\nID=debian\n',
    "/sys/class/dmi/id/product_name": "Board\n",
    "/sys/class/dmi/id/product_uuid": "u-u-i-d\n",
    "/sys/class/dmi/id/bios_vendor": "ACME\n",
    "/proc/cpuinfo": CPUINFO,
    "/proc/meminfo": "MemTotal:  1000 kB\nMemFree: 100 kB\nHugePages_Total: 0\n",
    "/proc/net/route": ROUTE,
    "/sys/class/net/eth0/address": "02:00:00:00:00:01\n",
    "/sys/bus/pci/devices/0000:01:00.0/class": "0x030000\n",
    "/sys/bus/pci/devices/0000:01:00.0/vendor": "0x10de\n",
    "/sys/bus/pci/devices/0000:01:00.0/device": "0x1eb8\n",
    "/sys/bus/pci/devices/0000:02:00.0/class": "0x020000\n",
}


@pytest.fixture
def device(tmp_path: Path) -> ClockedWorld:
    device = ClockedWorld(tmp_path)
    for path, text in FILES.items():
        device.put(path, text)
    return device


def machine(device: ClockedWorld, address: str = "192.168.2.7/24") -> sources.Machine:
    def address_of(name: str) -> str:
        return address if name == "eth0" else ""

    return sources.Machine(
        device, real=lambda path: None, address_of=address_of, architecture="arm64"
    )


def info(device: ClockedWorld, **settings: Any) -> collectors.SystemInfo:
    import yaml

    device.put(config.CONFIG_FILE, yaml.safe_dump(settings))
    subject = collectors.SystemInfo(
        device,
        machine(device),
        runtime={"managementCertSerial": "a;b1"}.get,
        real_path=lambda path: str(device.path(path)),
    )
    subject.configure(configfiles.load(device))
    return subject


def test_the_default_keys_and_the_four_that_are_always_there(device: ClockedWorld) -> None:
    found = info(device).collect()
    assert found.pop("bootID")
    assert found.pop("agentVersion")
    assert found == {
        "architecture": "arm64",
        "operatingSystem": "linux",
        "hostname": "pump-1",
        "kernel": "6.1.0-28-arm64",
        "distroName": "Debian GNU/Linux",
        "distroVersion": "13 (trixie)",
        "distroId": "debian",
        "productName": "Board",
        "productUuid": "u-u-i-d",
        "productSerial": "",
        "netInterfaceDefault": "eth0",
        "netIpDefault": "192.168.2.7/24",
        "netMacDefault": "02:00:00:00:00:01",
        # Filtered, and what has no collector here (no TPM, no date) is left out.
        "managementCertSerial": "ab1",
    }


def test_only_the_named_keys_appear(device: ClockedWorld, caplog: pytest.LogCaptureFixture) -> None:
    keys = ["cpuCores", "cpuProcessors", "cpuModel", "memoryTotalKb", "biosVendor", "gpu", "wat"]
    found = info(device, **{"system-info": keys}).collect()
    assert found["cpuCores"] == "2"
    assert found["cpuProcessors"] == "1"
    assert found["cpuModel"] == "Tiny CPU"
    assert found["memoryTotalKb"] == "1000"
    assert found["biosVendor"] == "ACME"
    assert found["gpu"] == "10de:1eb8"
    assert "hostname" not in found
    assert "wat" not in found
    assert "wat" in caplog.text


def test_facts_follow_the_device(device: ClockedWorld) -> None:
    subject = info(device)
    subject.collect()
    device.put("/proc/sys/kernel/hostname", "pump-2\n")
    assert subject.collect()["hostname"] == "pump-2"


def test_a_machine_that_tells_nothing_is_still_a_device(tmp_path: Path) -> None:
    found = info(ClockedWorld(tmp_path)).collect()
    assert found["hostname"] == ""
    assert found["netInterfaceDefault"] == ""


def test_without_ipv4_the_default_route_of_ipv6_is_taken_and_a_global_address(
    device: ClockedWorld,
) -> None:
    device.put("/proc/net/route", ROUTE.splitlines()[0])
    zero = "0" * 32
    device.put(
        "/proc/net/ipv6_route",
        f"{zero} 00 {zero} 00 {zero} 00000400 1 0 00000003 eth5\n"
        f"{zero} 00 {zero} 00 {zero} ffffffff 1 0 00200200 lo\n"
        f"fe800000000000000000000000000000 40 {zero} 00 {zero} 00000100 1 0 1 eth5\n",
    )
    device.put(
        "/proc/net/if_inet6",
        "fe80000000000000000000000000beef 02 40 20 80 eth5\n"
        "20010db8000000000000000000000007 02 40 00 80 eth5\n",
    )
    found = info(device).collect()
    assert found["netInterfaceDefault"] == "eth5"
    assert found["netIpDefault"] == "2001:db8::7/64"


def test_custom_scripts_run_once_and_again_after_a_reload(device: ClockedWorld) -> None:
    folder = collectors.CUSTOM_DIR
    device.put(f"{folder}/10-siteName.sh", "not executable")
    device.put(f"{folder}/20-siteName.sh", "#!/bin/sh\necho ' Building 7 '\n", mode=0o755)
    device.put(f"{folder}/30-SITENAME", "#!/bin/sh\necho later\n", mode=0o755)
    device.put(f"{folder}/broken", "#!/bin/sh\necho half; exit 3\n", mode=0o755)
    settings = {"system-info-custom": ["siteName", "broken", "absent"]}
    subject = info(device, **settings)
    wanted = {"siteName": "Building 7", "broken": "", "absent": ""}
    assert subject.collect()["customInfo"] == wanted
    subject.collect()
    assert len(device.commands) == 2
    subject.configure(configfiles.load(device))
    subject.collect()
    assert len(device.commands) == 4


def test_custom_scripts_share_one_time_limit(device: ClockedWorld) -> None:
    for name in ("a", "b", "c"):
        device.put(f"{collectors.CUSTOM_DIR}/{name}", "", mode=0o755)

    def slow(argv: tuple[str, ...]) -> world.Completed:
        device.elapsed_s += 70
        return world.Completed(argv, 0, "x", "")

    device.answer = slow
    subject = info(device, **{"system-info-custom": ["a", "b", "c"]})
    assert subject.collect()["customInfo"] == {"a": "x", "b": "x", "c": ""}


@pytest.mark.parametrize(
    ("key", "name", "serves"),
    [
        ("siteName", "siteName", True),
        ("siteName", "20-sitename.py", True),
        ("siteName", "a-b-siteName.sh", True),
        ("siteName", "mysiteName", False),
        ("siteName", "siteName2.sh", False),
    ],
)
def test_scripts_are_found_by_name(key: str, name: str, serves: bool) -> None:
    assert (collectors.scripts_for(key, [name]) == [name]) is serves


@pytest.mark.parametrize(
    ("machine_name", "go"), [("x86_64", "amd64"), ("aarch64", "arm64"), ("mips", "mips")]
)
def test_architectures_are_named_as_go_names_them(machine_name: str, go: str) -> None:
    assert sources.go_architecture(machine_name) == go


def test_the_real_machine_can_be_read(tmp_path: Path) -> None:
    real = sources.Machine(ClockedWorld(tmp_path))
    assert real.hostname()
    assert real.cpu_times()[1] > 0
    assert real.memory()["MemTotal"] > 0
    assert sources.address4_of("lo") in ("127.0.0.1/8", "")
    assert sources.address4_of("no-such-device") == ""


REFERENCE = """
hostname kernel architecture distroName distroVersion distroId productName productUuid productSerial
biosVendor biosVersion cpuCores cpuProcessors cpuModel memoryTotalKb gpu
netInterfaceDefault netIpDefault netMacDefault
managementCertNotAfter managementCertSerial tpmVendorInfo
"""


def test_the_keys_are_the_references() -> None:
    assert {*collectors.BUILT_IN, *collectors.RUNTIME} == set(REFERENCE.split())

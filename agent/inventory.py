"""`homeport-agent system-info`: all that can be told about this machine, as one document.

The names are flightctl's. What the kernel does not say is empty, and what only its agent's library
knows (features of graphics cards, block devices) is left out.
"""

from __future__ import annotations

from typing import Any

from agent import collectors, sources, version
from resources import timestamps

Json = dict[str, Any]


def report(machine: sources.Machine, custom: Json, *, now: str) -> Json:
    release = machine.os_release()
    return {
        "hostname": machine.hostname(),
        "architecture": machine.architecture,
        "operatingSystem": collectors.OPERATING_SYSTEM,
        "kernel": machine.kernel(),
        "distribution": {
            "name": release.get("NAME", ""),
            "version": release.get("VERSION", ""),
            "id": release.get("ID", ""),
            "version_id": release.get("VERSION_ID", ""),
            "pretty_name": release.get("PRETTY_NAME", ""),
        },
        "hardware": {
            "cpu": _cpu(machine),
            "memory": {"totalKb": machine.memory().get("MemTotal", 0), "details": machine.memory()},
            "network": _network(machine),
            "gpu": [_gpu(index, name) for index, name in enumerate(machine.gpus())],
            "bios": {
                "vendor": machine.dmi("bios_vendor"),
                "version": machine.dmi("bios_version"),
                "date": machine.dmi("bios_date"),
            },
            "system": {
                "manufacturer": machine.dmi("sys_vendor"),
                "productName": machine.dmi("product_name"),
                "serialNumber": machine.dmi("product_serial"),
                "uuid": machine.dmi("product_uuid"),
                "version": machine.dmi("product_version"),
                "family": machine.dmi("product_family"),
                "sku": machine.dmi("product_sku"),
            },
        },
        "collectedAt": now,
        "metadata": {"collector_version": version.VERSION, "collector_type": "flightctl-agent"},
        "boot": {"bootID": machine.boot_id(), "bootTime": _moment(machine.boot_time())},
        "custom": custom,
    }


def _cpu(machine: sources.Machine) -> Json:
    threads = machine.processors()
    sockets: dict[str, list[dict[str, str]]] = {}
    for one in threads:
        sockets.setdefault(one.get("physical id", "0"), []).append(one)
    return {
        "total_cores": collectors.cores(threads),
        "total_threads": len(threads),
        "architecture": machine.architecture,
        "processors": [_processor(name, found) for name, found in sorted(sockets.items())],
    }


def _processor(name: str, threads: list[dict[str, str]]) -> Json:
    cores, first = collectors.cores(threads), threads[0]
    return {
        "id": int(name) if name.isdigit() else 0,
        "numCores": cores,
        "numThreads": len(threads),
        "numThreadsPerCore": len(threads) // max(cores, 1),
        "vendor": first.get("vendor_id", ""),
        "model": first.get("model name") or first.get("Model") or "",
        "capabilities": (first.get("flags") or first.get("Features") or "").split(),
    }


def _network(machine: sources.Machine) -> Json:
    interface = machine.default_interface()
    gateway = machine.gateway(interface) if interface else ""
    route = {
        "interface": interface,
        "gateway": gateway,
        "family": "ipv4" if gateway else "ipv6",
    }
    return {
        "interfaces": [_interface(machine, name) for name in machine.interfaces()],
        "defaultRoute": route if interface else None,
        "dnsServers": machine.name_servers(),
        "fqdn": machine.hostname() if "." in machine.hostname() else "",
    }


def _interface(machine: sources.Machine, name: str) -> Json:
    mtu = machine.text(f"/sys/class/net/{name}/mtu")
    return {
        "name": name,
        "macAddress": machine.hardware_address(name),
        "isVirtual": machine.is_virtual(name),
        "ipAddresses": machine.addresses(name),
        "mtu": int(mtu) if mtu.isdigit() else 0,
        "status": machine.text(f"/sys/class/net/{name}/operstate"),
    }


def _gpu(index: int, name: str) -> Json:
    vendor, _, device = name.partition(":")
    return {"index": index, "vendorId": vendor, "deviceId": device}


def _moment(seconds: int) -> str:
    return timestamps.of_seconds(seconds) if seconds else ""

"""A device's disk booted in QEMU: a kernel of its own, its reboot the machine's. [simulated] is the
boot loader, as for other devices; the CPU is emulated, so a boot takes a minute.

The disk is the folder that the device has, which the guest sees by virtiofs: so what has to be done
fast (downloads, staging) is done in the device, and what wants a kernel is done here. The initial
RAM disk does what ostree's would. The guest's loopback leads to the host's by its own systemd.

What is needed beside `make setup`: `tests/setup/qemu.sh`.
"""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.e2e import bootloader, processes, rootfs

VIRTIOFSD = ("/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd")
QEMU = "qemu-system-x86_64"
HOST = "10.0.2.2"  # as the guest sees it
SOCKET_S = 20.0
# They wait long for the host's disk, and say nothing of the agent.
MASKED = " ".join(
    f"systemd.mask={unit}.service" for unit in ("systemd-journal-flush", "systemd-random-seed")
)
MODULES = (
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci_modern_dev",
    "drivers/virtio/virtio_pci",
    "fs/fuse/fuse",
    "fs/fuse/virtiofs",
    "net/core/failover",
    "drivers/net/net_failover",
    "drivers/net/virtio_net",
    "fs/overlayfs/overlay",
)
INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc && mount -t sysfs sys /sys && mount -t devtmpfs dev /dev
for module in @MODULES@; do insmod /lib/$module.ko; done
mount -t virtiofs disk /sysroot || exec sh
link=$(sed 's/.*ostree=\\([^ ]*\\).*/\\1/' /proc/cmdline)
deployment=$(readlink -f /sysroot$link)
mount --bind $deployment /root
mount --bind /sysroot /root/sysroot
mount --bind /sysroot/ostree/deploy/default/var /root/var
mount --bind /sysroot/boot /root/boot
mount --bind $deployment/usr /root/usr && mount -o remount,ro,bind /root/usr
mount -t tmpfs -o mode=755 run /root/run && : >/root/run/ostree-booted
ip link set lo up && ip link set eth0 up
ip addr add 10.0.2.15/24 dev eth0 && ip route add default via 10.0.2.2
for folder in proc sys dev; do mount --move /$folder /root/$folder; done
exec switch_root /root /usr/lib/systemd/systemd
"""
# In a container the relay leads out; in a machine systemd does, by these.
SOCKET = """[Unit]
ConditionVirtualization=vm
[Socket]
ListenStream=127.0.0.1:{port}
[Install]
WantedBy=sockets.target
"""
PROXY = """[Service]
ExecStart=/usr/lib/systemd/systemd-socket-proxyd {host}:{port}
"""


def cache() -> Path:
    return rootfs.cache() / "kernel"


def cannot_run() -> str:
    """Why no machine can be run here; empty if one can."""
    if not shutil.which(QEMU) or _virtiofsd() is None:
        return "no QEMU with virtiofsd (tests/setup/qemu.sh)"
    if not (cache() / "vmlinuz").exists():
        return "no kernel for machines (tests/setup/qemu.sh)"
    return ""


def units(ports: Iterable[int]) -> dict[str, str]:
    """What a device's /etc needs for its loopback to lead to the host's in a machine."""
    found = {}
    for port in ports:
        folder = "/etc/systemd/system"
        found[f"{folder}/host-{port}.socket"] = SOCKET.format(port=port)
        found[f"{folder}/host-{port}.service"] = PROXY.format(host=HOST, port=port)
    return found


def initial_ram_disk(path: Path) -> None:
    """busybox, modules, and what mounts the deployment."""
    tree = path.with_suffix(".tree")
    for folder in ("bin", "lib", "proc", "sys", "dev", "sysroot", "root"):
        (tree / folder).mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "/bin/busybox", tree / "bin/busybox")
    names = [Path(module).name for module in MODULES]
    for module, name in zip(MODULES, names, strict=True):
        shutil.copy(cache() / "modules" / f"{module}.ko", tree / "lib" / f"{name}.ko")
    init = tree / "init"
    init.write_text(INIT.replace("@MODULES@", " ".join(names)))
    init.chmod(0o755)
    files = "\n".join(str(found.relative_to(tree)) for found in sorted(tree.rglob("*")))
    argv = ["busybox", "cpio", "-o", "-H", "newc"]
    done = subprocess.run(argv, cwd=tree, input=files.encode(), capture_output=True, check=True)
    path.write_bytes(gzip.compress(done.stdout, 1))
    shutil.rmtree(tree)


class Machine:
    """Boots a disk again and again, as its boot loader says, until it is switched off."""

    def __init__(self, disk: Path, folder: Path) -> None:
        self._disk = disk
        self._folder = folder
        folder.mkdir()
        self._is_wanted = True
        self._process: subprocess.Popen[bytes] | None = None
        # The deployments that were booted, in order, by their link.
        self.booted: list[str] = []
        initial_ram_disk(folder / "initrd")
        self._keeper = threading.Thread(target=self._keep, name="machine", daemon=True)

    def __enter__(self) -> Machine:
        self._keeper.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_wanted = False
        while self._keeper.is_alive():
            if self._process is not None and self._process.poll() is None:
                self._process.kill()
            self._keeper.join(0.2)

    def until(self, claim: Callable[[], object], what: str, timeout_s: float) -> None:
        def is_so() -> object:
            assert self._keeper.is_alive(), self.console()
            return claim()

        processes.until(is_so, what, timeout_s=timeout_s, every_s=1, state=self.console)

    def console(self) -> str:
        return f"booted: {self.booted}\n{processes.tail(self._folder / 'console.log')}"

    def _keep(self) -> None:
        while self._is_wanted:
            entry = bootloader.boot(self._disk)
            self.booted.append(entry.link)
            socket = self._folder / "disk.sock"
            socket.unlink(missing_ok=True)
            server = processes.start(self._server(socket), self._folder / "virtiofsd.log")
            try:
                deadline = time.monotonic() + SOCKET_S
                while not socket.exists() and time.monotonic() < deadline:
                    time.sleep(0.05)
                self._process = processes.start(
                    self._argv(socket, entry.options), self._folder / "console.log", mode="ab"
                )
                # It ends when the guest reboots.
                self._process.wait()
            finally:
                server.kill()
                server.wait()

    def _server(self, socket: Path) -> list[str]:
        options = ["-o", f"source={self._disk}", "-o", "cache=always", "-o", "xattr"]
        limit = ["-o", "sandbox=chroot", "--rlimit-nofile=16384"]
        return [str(_virtiofsd()), f"--socket-path={socket}", *options, *limit]

    def _argv(self, socket: Path, options: str) -> list[str]:
        kernel = ["-kernel", str(cache() / "vmlinuz"), "-initrd", str(self._folder / "initrd")]
        words = f"console=ttyS0 quiet panic=5 {MASKED} {options}"
        memory = "memory-backend-memfd,id=memory,size=1024M,share=on"
        return [
            *(QEMU, "-nographic", "-no-reboot", "-accel", "tcg,thread=multi", "-cpu", "max"),
            *(
                "-smp",
                "2",
                "-m",
                "1024",
                "-object",
                memory,
                "-machine",
                "q35,memory-backend=memory",
            ),
            *("-chardev", f"socket,id=disk,path={socket}"),
            *("-device", "vhost-user-fs-pci,chardev=disk,tag=disk"),
            *("-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net"),
            *(*kernel, "-append", words),
        ]


def _virtiofsd() -> str | None:
    return next((path for path in VIRTIOFSD if os.access(path, os.X_OK)), None)

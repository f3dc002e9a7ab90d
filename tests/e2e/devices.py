"""Devices for the tests: a Debian 13 with a systemd of its own, booted as a container.

Real: systemd, journal, D-Bus, podman with its own storage and networks, units, the reboot. Shared
with the host: the kernel. A device has a loopback and nothing else; a `Relay` leads named ports of
it to the host's loopback, where the service and the registry listen.

Nothing of a device outlives its test: it is one process tree, killed as a whole; its mounts live in
a mount namespace that goes with it; its control groups are removed. If the test run is killed, the
kernel kills the devices too, and the next run sweeps up the empty groups.

Where devices cannot be booted (no root), `tests.e2e.standins` has agents as plain processes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.e2e import processes
from tests.e2e.disks import UNIT, Disk
from tests.e2e.relay import Relay

# Set to `processes`, it makes stand-ins of devices even where they could be booted.
CHOICE = "HOMEPORT_DEVICES"
TOOLS = ("systemd-nspawn", "nsenter", "unshare", "setpriv", "mmdebstrap")
REBOOT_ASKED = 133
POWER_OFF_S = 60.0
CGROUPS = Path("/sys/fs/cgroup")
PREFIX = "homeport-"
# `bpf` for the device rules of containers, the keyring calls for their runtimes.
SYSTEM_CALLS = "bpf keyctl add_key request_key"

BOOT = """set -e
for group in $GROUPS_OF_DEVICE; do mkdir -p "$group"; echo $$ > "$group/cgroup.procs"; done
cd "$STATE"
eval "$PREPARE"
exec systemd-nspawn --machine="$MACHINE" --register=no --keep-unit --console=pipe \\
  --resolv-conf=off --timezone=off --private-network --capability=all \\
  --system-call-filter="$SYSTEM_CALLS" --bind=/dev/fuse "$@"
"""


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that was run in a device."""

    code: int
    out: str
    err: str


def cannot_boot() -> str:
    """Why this machine boots no devices; empty if it does."""
    if os.environ.get(CHOICE) == "processes":
        return f"{CHOICE}=processes"
    if os.geteuid():
        return "not root"
    if missing := [tool for tool in TOOLS if not shutil.which(tool)]:
        return f"missing: {', '.join(missing)} (make setup installs them)"
    if not os.access(_hierarchies()[0], os.W_OK):
        return "the control groups are read-only"
    return ""


class Device:
    """One device. `boot()` it, look into it with `exec` and `path`, and `destroy()` it.

    `ports`: those of its loopback that lead to ports of the host's.
    """

    is_simulated = False

    def __init__(self, name: str, disk: Disk, folder: Path, ports: Mapping[int, int]) -> None:
        self.name = name
        self.machine = f"{PREFIX}{os.getpid()}-{name}"
        self.boots = 0
        self._disk = disk
        self._state = folder
        self._relay = Relay(ports)
        self._is_up = threading.Event()
        self._is_wanted = False
        self._process: subprocess.Popen[bytes] | None = None
        self._init = 0
        self._keeper: threading.Thread | None = None
        disk.lay_out(folder)
        self._provision()

    # Life. ----------------------------------------------------------------------------------------

    def boot(self, timeout_s: float = 60) -> None:
        """Switch it on and wait until systemd has come up."""
        self.start()
        self.wait_up(timeout_s)

    def start(self) -> None:
        assert self._keeper is None or not self._keeper.is_alive(), "it is on"
        self._is_wanted = True
        self._is_up.clear()
        self._keeper = threading.Thread(target=self._keep, name=self.name, daemon=True)
        self._keeper.start()

    def wait_up(self, timeout_s: float = 60) -> None:
        if not self._is_up.wait(processes.at_most(timeout_s)):
            raise processes.Late(f"{self.name} does not start:\n{self.console()}")
        processes.until(
            lambda: (
                self.exec("systemctl", "is-system-running").out.strip() in ("running", "degraded")
            ),
            f"{self.name} comes up",
            timeout_s=timeout_s,
            state=self.console,
        )

    def reboot(self, timeout_s: float = 60) -> None:
        """Ask systemd for a reboot, as the agent would, and wait for the next boot."""
        before = self.boots
        self.exec("systemctl", "reboot")
        processes.until(
            lambda: self.boots > before, f"{self.name} reboots", timeout_s=timeout_s, every_s=0.05
        )
        self.wait_up(timeout_s)

    def boot_no_more(self) -> None:
        """After its next shutdown, by whomever, it stays off."""
        self._is_wanted = False

    def wait_off(self, timeout_s: float) -> None:
        keeper = self._keeper
        processes.until(
            lambda: keeper is None or not keeper.is_alive(),
            f"{self.name} is off",
            timeout_s=timeout_s,
            state=self.journal,
        )

    def power_off(self) -> None:
        """Pull the plug: nothing inside gets to say anything."""
        self._is_wanted = False
        # It may be between two boots just now: what it starts yet is killed too.
        deadline = time.monotonic() + POWER_OFF_S
        while self._keeper is not None and self._keeper.is_alive():
            if self._process is not None and self._process.poll() is None:
                self._process.kill()
            self._keeper.join(0.1)
            assert time.monotonic() < deadline, f"{self.name} cannot be switched off"

    def destroy(self) -> None:
        """End it and remove what it was made of."""
        self.power_off()
        self._relay.close()
        self._disk.remove()

    def cut(self) -> None:
        """Take its network away."""
        self._relay.cut()

    def mend(self) -> None:
        self._relay.mend()

    # Looking in. ----------------------------------------------------------------------------------

    def exec(self, *argv: str, timeout_s: float = 60, check: bool = False, stdin: str = "") -> Ran:
        """Run a command inside, as root, with a bare environment."""
        enter = ["nsenter", "--target", str(self._init), "--all", "env", "-i", "HOME=/root"]
        enter += ["LANG=C.UTF-8", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"]
        ran = _run([*enter, *argv], stdin, timeout_s)
        assert not check or ran.code == 0, f"{self.name}: {' '.join(argv)}: {ran}"
        return ran

    def path(self, inside: str) -> Path:
        """Where a file of the device is seen from here. Symbolic links inside are not followed."""
        if self._is_up.is_set():
            return Path(f"/proc/{self._init}/root{inside}")
        return self._disk.path(inside)

    def read(self, inside: str) -> str:
        """The file's text; empty if there is none."""
        try:
            return self.path(inside).read_text()
        except OSError:
            return ""

    def write(self, inside: str, text: str, mode: int = 0o644) -> None:
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def podman(self, *argv: str, check: bool = False) -> Ran:
        return self.exec("podman", *argv, check=check)

    def http(self, port: int, path: str = "/") -> str:
        """What its port answers to one of its own; empty if it does not."""
        url = f"http://127.0.0.1:{port}{path}"
        return self.exec("curl", "--silent", "--fail", "--max-time", "3", url).out

    def shell(self) -> str:
        """What a person types to look around in it."""
        return f"nsenter --target {self._init} --all bash"

    def console(self) -> str:
        return processes.tail(self._state / "console.log")

    # The agent. -----------------------------------------------------------------------------------

    def agent_pid(self) -> int:
        """Its process number inside; 0 when it does not run."""
        shown = self.exec("systemctl", "show", "--property=MainPID", "--value", UNIT).out.strip()
        return int(shown or 0)

    def kill_agent(self) -> None:
        """kill -9; systemd starts it again."""
        self.exec("systemctl", "kill", "--kill-whom=main", "--signal=KILL", UNIT, check=True)

    def start_agent(self) -> None:
        """Now, and not when systemd's patience after a crash has run out."""
        self.exec("systemctl", "restart", "--no-block", UNIT, check=True)

    def stop_agent(self) -> None:
        self.exec("systemctl", "stop", UNIT, check=True)

    @contextlib.contextmanager
    def agent_held(self) -> Iterator[None]:
        """It sees nothing meanwhile: what somebody does by hand in several steps it would otherwise
        put back in the middle."""
        signalled = ("systemctl", "kill", "--kill-whom=main", UNIT)
        self.exec(*signalled, "--signal=STOP", check=True)
        try:
            yield
        finally:
            self.exec(*signalled, "--signal=CONT", check=True)

    def journal(self, lines: int = 200) -> str:
        return self.exec(
            "journalctl", "--unit", UNIT, "--no-pager", "--output=cat", f"--lines={lines}"
        ).out

    # Inside. --------------------------------------------------------------------------------------

    def _provision(self) -> None:
        """What makes it this one: a name."""
        self.write("/etc/hostname", f"{self.name}\n")
        # One machine identity for each, as the first boot of an image would make it.
        self.write("/etc/machine-id", f"{os.urandom(16).hex()}\n")

    def _keep(self) -> None:
        """The power button: boots again after a reboot, and stays off after anything else."""
        while self._is_wanted:
            boot = self._disk.next_boot()
            argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", BOOT, "boot"]
            self._process = processes.start(
                [*argv, *boot.arguments],
                self._state / "console.log",
                mode="ab",
                env=os.environ | self._environment() | {"PREPARE": boot.prepare},
            )
            self._init = self._find_init(self._process)
            if self._init:
                self._relay.attach(self._init)
                self.boots += 1
                self._is_up.set()
            code = self._process.wait()
            self._is_up.clear()
            self._relay.detach()
            remove_groups(self.machine)
            if code != REBOOT_ASKED:
                return

    def _environment(self) -> dict[str, str]:
        groups = " ".join(str(at / self.machine) for at in _hierarchies())
        return {
            "GROUPS_OF_DEVICE": groups,
            "STATE": str(self._state),
            "MACHINE": self.machine,
            "SYSTEM_CALLS": SYSTEM_CALLS,
            "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
            # Published ports need to write to the device's own /proc/sys/net.
            "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "1",
        }

    def _find_init(self, process: subprocess.Popen[bytes]) -> int:
        """The device's process 1 as seen from here; 0 if the start failed."""
        while process.poll() is None:
            for child in _children(process.pid):
                if _is_init(child):
                    return child
            time.sleep(0.01)
        return 0


def _run(argv: Sequence[str], stdin: str, timeout_s: float) -> Ran:
    """Run it to its end, also if the device is shut down meanwhile.

    A shutdown stops all processes before it kills them, nsenter stops itself with its child, and
    then nobody would reap the child, without which the device's process 1 cannot end.
    """
    deadline = time.monotonic() + processes.at_most(timeout_s)
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        text: str | None = stdin
        while True:
            try:
                out, err = process.communicate(text, timeout=0.5)
                return Ran(process.returncode, out, err)
            except subprocess.TimeoutExpired:
                text = None
                process.send_signal(signal.SIGCONT)
                if time.monotonic() > deadline:
                    process.kill()
                    raise


def sweep() -> None:
    """Remove the control groups of runs that were killed."""
    for hierarchy in _hierarchies():
        for group in hierarchy.glob(f"{PREFIX}*-*"):
            pid = group.name.split("-")[1]
            if pid.isdigit() and not Path(f"/proc/{pid}").exists():
                remove_groups(group.name)


def remove_groups(machine: str, patience_s: float = 10) -> None:
    """Kill what is left in a device's control groups, and remove them."""
    deadline = time.monotonic() + patience_s
    for hierarchy in _hierarchies():
        top = hierarchy / machine
        while top.exists() and time.monotonic() < deadline:
            # Groups vanish while we look, with the processes in them; a walk does not mind.
            for group, _, _ in os.walk(top, topdown=False):
                _remove(Path(group))
            if top.exists():
                time.sleep(0.05)
    shutil.rmtree(Path("/run/systemd/nspawn/propagate") / machine, ignore_errors=True)


def _remove(group: Path) -> None:
    try:
        group.rmdir()
    except OSError:
        for pid in _members(group):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _members(group: Path) -> list[int]:
    try:
        return [int(pid) for pid in (group / "cgroup.procs").read_text().split()]
    except OSError:
        return []


def _hierarchies() -> Sequence[Path]:
    """Where a process tree needs a group of its own for a systemd to run in it."""
    if (CGROUPS / "cgroup.controllers").exists():
        return (CGROUPS,)
    return (CGROUPS / "unified", CGROUPS / "systemd")


def _children(pid: int) -> list[int]:
    try:
        return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _is_init(pid: int) -> bool:
    """It is process 1 of a namespace, and systemd already."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        name = Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return False
    inner = next((line for line in status.splitlines() if line.startswith("NSpid:")), "")
    return inner.split()[-1:] == ["1"] and name in ("systemd", "init")

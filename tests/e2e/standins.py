"""Stand-ins for devices where none can be booted: agents as plain processes.

Real: the agent, its files under a root of its own, its containers in a storage of its own.
[simulated]: there is no systemd, so this keeps the agent running; a reboot is a restart of the
agent; the network is the host's and cannot be taken away, and containers have none but loopback.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from tests.e2e import processes
from tests.e2e.checkout import CHECKOUT
from tests.e2e.devices import Ran

# As systemd has it in the agent's unit.
RESTART_S = 5.0

# What podman needs where there is no systemd and little may be had.
CONFINED_CONF = """[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
keyring = false
pids_limit = 0
netns = "none"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
CONTAINERS_CONF = (
    CONFINED_CONF
    + """\
tmp_dir = "{folder}/libpod"
static_dir = "{folder}/storage/libpod"
volume_path = "{folder}/storage/volumes"
"""
)
STORAGE_CONF = """[storage]
driver = "{driver}"
runroot = "{folder}/run"
graphroot = "{folder}/storage"
rootless_storage_path = "{folder}/storage"
"""
REGISTRIES_CONF = """[[registry]]
location = "{registry}"
insecure = true
"""


class StandIn:
    """An agent process that behaves towards a test as `tests.e2e.devices.Device` does."""

    is_simulated = True

    def __init__(self, name: str, folder: Path, registry: str) -> None:
        self.name = name
        self.boots = 0
        self._folder = folder
        self._log = folder / "agent.log"
        self._is_wanted = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._keeper: threading.Thread | None = None
        (folder / "root").mkdir(parents=True)
        # Rootless podman keeps a process for each of these; so it is ours to end.
        (folder / "user").mkdir(mode=0o700)
        # Overlays need root; copies of a small image cost nothing.
        driver = "vfs" if os.geteuid() else "overlay"
        for file, text in (
            ("containers.conf", CONTAINERS_CONF.format(folder=folder)),
            ("storage.conf", STORAGE_CONF.format(driver=driver, folder=folder)),
            ("registries.conf", REGISTRIES_CONF.format(registry=registry)),
            ("auth.json", "{}"),
        ):
            (folder / file).write_text(text)

    # Life. ----------------------------------------------------------------------------------------

    def boot(self, timeout_s: float = 60) -> None:
        self.start()
        self.wait_up(timeout_s)

    def start(self) -> None:
        self._is_wanted.set()
        self._keeper = threading.Thread(target=self._keep, name=self.name, daemon=True)
        self._keeper.start()

    def wait_up(self, timeout_s: float = 60) -> None:
        processes.until(self.agent_pid, f"{self.name} starts", timeout_s=timeout_s)

    def reboot(self, timeout_s: float = 60) -> None:
        before = self.boots
        self._end_agent(kill=False)
        processes.until(
            lambda: self.boots > before, f"{self.name} starts again", timeout_s=timeout_s
        )

    def power_off(self) -> None:
        self._is_wanted.clear()
        self._end_agent(kill=True)
        if self._keeper is not None:
            self._keeper.join(RESTART_S + 5)

    def destroy(self) -> None:
        self.power_off()
        self.podman("rm", "--all", "--force", "--time", "0")
        if os.geteuid():
            # Files of other users than ours in its namespace are others' here too.
            self.podman("unshare", "rm", "--recursive", "--force", str(self._folder / "storage"))
        self._end_pause()
        mounted = self._folder / "storage" / "overlay"
        subprocess.run(["umount", "--lazy", mounted], capture_output=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    # Looking in. ----------------------------------------------------------------------------------

    def exec(self, *argv: str, timeout_s: float = 60, check: bool = False, stdin: str = "") -> Ran:
        done = subprocess.run(
            argv,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=processes.at_most(timeout_s),
            env=self._env(),
        )
        ran = Ran(done.returncode, done.stdout, done.stderr)
        assert not check or ran.code == 0, f"{self.name}: {' '.join(argv)}: {ran}"
        return ran

    def path(self, inside: str) -> Path:
        return self._folder / "root" / inside.lstrip("/")

    def read(self, inside: str) -> str:
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
        """The page out of the container: no port of it leads here."""
        listed = self.podman("ps", "--quiet", "--filter", "status=running").out.split()
        if not listed:
            return ""
        return self.podman("exec", listed[0], "cat", f"/www{path}index.html").out

    def console(self) -> str:
        return processes.tail(self._log)

    # The agent. -----------------------------------------------------------------------------------

    def agent_pid(self) -> int:
        process = self._process
        return process.pid if process is not None and process.poll() is None else 0

    def kill_agent(self) -> None:
        self._end_agent(kill=True)

    def start_agent(self) -> None:
        self._end_agent(kill=False)

    def journal(self, lines: int = 200) -> str:
        return processes.tail(self._log, lines)

    # Inside. --------------------------------------------------------------------------------------

    def _keep(self) -> None:
        while self._is_wanted.is_set():
            root = self._folder / "root"
            argv: list[str | Path] = [sys.executable, "-m", "agent", "--root", root]
            argv += ["--config", root / "etc/flightctl/config.yaml"]
            self._process = processes.start(
                argv, self._log, mode="ab", env=self._env(), cwd=CHECKOUT
            )
            self.boots += 1
            self._process.wait()
            again = time.monotonic() + RESTART_S
            while self._is_wanted.is_set() and time.monotonic() < again:
                time.sleep(0.05)

    def _end_agent(self, *, kill: bool) -> None:
        process = self._process
        if process is None or process.poll() is not None:
            return
        if kill:
            process.kill()
            process.wait()
        else:
            processes.stop(process)

    def _end_pause(self) -> None:
        for file in self._folder.glob("**/pause.pid"):
            with contextlib.suppress(OSError, ValueError):
                os.kill(int(file.read_text()), signal.SIGKILL)

    def _env(self) -> dict[str, str]:
        return os.environ | {
            "HOME": str(self._folder / "user"),
            "XDG_RUNTIME_DIR": str(self._folder / "user"),
            "CONTAINERS_CONF": str(self._folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(self._folder / "storage.conf"),
            "CONTAINERS_REGISTRIES_CONF": str(self._folder / "registries.conf"),
            "REGISTRY_AUTH_FILE": str(self._folder / "auth.json"),
        }

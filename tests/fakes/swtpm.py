"""A software TPM that behaves as one of silicon does: swtpm, which others keep. [simulated]

Before it stands tpm2-abrmd, a resource manager, in the place of the kernel's `/dev/tpmrm0`: several
processes may use the TPM at once, each with as many keys as it likes. Its endorsement certificate
is from swtpm's own little CA. All of it lives in a folder, listens there and on loopback, and ends
with the block.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("swtpm", "swtpm_setup", "swtpm_localca", "tpm2-abrmd", "dbus-daemon", "tpm2_getrandom")
TCTI = "tabrmd:bus_type=session"
READY_S = 20.0


def missing() -> str:
    """Why there can be none here, or nothing."""
    gone = [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]
    if gone:
        return f"no {', '.join(gone)} on this machine: make setup installs them as root on Debian"
    if importlib.util.find_spec("tpm2_pytss") is None:
        return "tpm2-pytss is not installed: make setup does it where libtss2-dev is"
    if not list(Path("/usr/lib").glob("*/ossl-modules/tpm2.so")):
        return "OpenSSL has no tpm2 provider here: the package tpm2-openssl"
    return ""


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


@dataclass(frozen=True, slots=True)
class Maker:
    """A CA for TPMs."""

    directory: Path

    @property
    def certificates(self) -> Path:
        """A directory for `--tpm-ca`. Its certificates are there once a TPM was made."""
        return self.directory / "certificates"


@dataclass(frozen=True, slots=True)
class Tpm:
    """`environ` is what a process needs to find it by TCTI."""

    environ: dict[str, str]


@contextmanager
def made(directory: Path, maker: Maker) -> Iterator[Tpm]:
    """A new TPM of that maker."""
    directory.mkdir()
    _manufacture(directory, maker)
    with ExitStack() as stack:
        port = _free_ports()
        stack.enter_context(
            _running(
                directory,
                "swtpm",
                *("socket", "--tpm2", "--tpmstate", f"dir={directory}/state"),
                *("--server", f"type=tcp,port={port},bindaddr=127.0.0.1"),
                *("--ctrl", f"type=tcp,port={port + 1},bindaddr=127.0.0.1"),
                *("--flags", "not-need-init,startup-clear"),
            )
        )
        bus = f"unix:path={directory}/bus"
        stack.enter_context(
            _running(directory, "dbus-daemon", "--session", "--nofork", f"--address={bus}")
        )
        _wait(lambda: (directory / "bus").exists())
        _wait(lambda: _listens(port))
        environ = {"DBUS_SESSION_BUS_ADDRESS": bus}
        manager = ("--allow-root", "--session", f"--tcti=swtpm:host=127.0.0.1,port={port}")
        stack.enter_context(_running(directory, "tpm2-abrmd", *manager, environ=environ))
        _wait(lambda: _answers(environ))
        yield Tpm(environ)


def _manufacture(directory: Path, maker: Maker) -> None:
    authority = maker.directory / "ca"
    authority.mkdir(parents=True, exist_ok=True)
    local = maker.directory / "localca.conf"
    local.write_text(
        f"statedir = {authority}\nsigningkey = {authority}/signkey.pem\n"
        f"issuercert = {authority}/issuercert.pem\ncertserial = {authority}/certserial\n"
    )
    setup = maker.directory / "setup.conf"
    setup.write_text(
        f"create_certs_tool = {shutil.which('swtpm_localca')}\n"
        f"create_certs_tool_config = {local}\n"
        "create_certs_tool_options = /etc/swtpm-localca.options\nactive_pcr_banks = sha256\n"
    )
    state = directory / "state"
    state.mkdir()
    subprocess.run(
        [
            *("swtpm_setup", "--tpm2", "--tpmstate", str(state), "--config", str(setup)),
            "--create-ek-cert",
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    maker.certificates.mkdir(exist_ok=True)
    shutil.copy(authority / "issuercert.pem", maker.certificates / "issuer.pem")


@contextmanager
def _running(
    directory: Path, program: str, *arguments: str, environ: dict[str, str] | None = None
) -> Iterator[None]:
    found = shutil.which(program, path=_path())
    assert found is not None
    with (directory / f"{program}.log").open("w") as log:
        process = subprocess.Popen(
            [found, *arguments],
            stdout=log,
            stderr=log,
            env=os.environ | (environ or {}),
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)


def _free_ports() -> int:
    """The first of two that follow each other: the library takes the second for granted."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


def _listens(port: int) -> bool:
    # Not by connecting: swtpm serves one, and ends with it.
    wanted = f"0100007F:{port:04X}"
    return any(
        line.split()[1] == wanted and line.split()[3] == "0A"
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
    )


def _answers(environ: dict[str, str]) -> bool:
    asked = subprocess.run(
        ["tpm2_getrandom", "--hex", "4", "--tcti", TCTI],
        env=os.environ | environ,
        capture_output=True,
        timeout=20,
        check=False,
    )
    return asked.returncode == 0


def _wait(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + READY_S
    while not is_so():
        assert time.monotonic() < deadline, "the software TPM did not come up"
        time.sleep(0.05)

"""The git program, run once: bounded in time, told its credentials through memory, ended whole.

What git and ssh must know of a Remote is written into memory files (`memfd_create`) that they open
as `/proc/<our id>/fd/<n>`: never on a disk, in an argument or in an environment, readable by our
own user only, and gone with the call even if we are killed. Configuration of the machine and of the
user is not read, so one repository's settings can't reach another's, and no prompt can hang.

git starts others (git-remote-https, ssh, index-pack). All are in a session of their own, which is
ended as a whole: politely first, so that git takes its lock files along.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from controllers.giterrors import Unreachable, recognised
from controllers.gitremote import PROTOCOLS, Remote

# What git gets to clean up before it is killed.
GRACE_S = 2.0
CONNECT_S = 10
# A transfer slower than this for so long is dead, though its connection may live.
SLOW_BYTES_S, SLOW_S = 1000, 30
# Of what git says on standard error, progress apart.
SAID_BYTES_MAX = 64 * 1024
# Of what a command answers: the refs of a big repository.
OUT_BYTES_MAX = 64 << 20
# The name under which the configuration in memory holds the URL.
SOURCE = "source"
# From our own environment: how to get out of the house.
_PASSED_ON = (
    "PATH",
    "http_proxy", "https_proxy", "no_proxy", "all_proxy",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY",
    "SSL_CERT_FILE", "SSL_CERT_DIR",
)  # fmt: skip

# Keeps a text in memory until the call is over, and says under which path.
Kept = Callable[[str], str]


class Failed(Exception):
    """git ended with an error about something on this machine; `said` is its standard error."""

    def __init__(self, code: int, said: str) -> None:
        super().__init__(f"git ended with {code}: {said[:300]}")
        self.code = code
        self.said = said


class TooMuch(Exception):
    """git answered more than the caller was ready to hold."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"more than {limit_bytes} bytes")


@dataclass(frozen=True, slots=True)
class Git:
    """How git is run here. `known_hosts` is the service's; it need not exist."""

    known_hosts: Path
    protocols: Sequence[str] = PROTOCOLS

    async def outside(
        self, remote: Remote, *arguments: str, within_s: float, mirror: Path | None = None
    ) -> bytes:
        """A command that goes to the remote, which it knows as `SOURCE`. Raises GitError; Failed if
        the mirror is what is wrong."""
        where = ["--git-dir", str(mirror)] if mirror else []
        with _told(remote, self) as environment:
            try:
                code, out, said = await _run(["git", *where, *arguments], environment, within_s)
            except TimeoutError:
                raise Unreachable(
                    f"{remote.host} did not answer in time: {within_s:.0f} s"
                ) from None
            except TooMuch as problem:
                raise Unreachable(f"{remote.host} answers without end: {problem}") from None
        if code and mirror and _is_about_the_mirror(said, mirror):
            raise Failed(code, remote.scrub(said))
        if code:
            raise recognised(said, host=remote.host, url=remote.url, scrub=remote.scrub)
        return out

    def _environment(self, config: str) -> dict[str, str]:
        passed = {key: os.environ[key] for key in _PASSED_ON if key in os.environ}
        return passed | {
            "LC_ALL": "C",
            "HOME": "/nonexistent",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": config,
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ALLOW_PROTOCOL": ":".join(self.protocols),
            "GIT_LITERAL_PATHSPECS": "1",
            "GIT_NO_REPLACE_OBJECTS": "1",
        }


# --- what git and ssh are told -------------------------------------------------------------------


@contextmanager
def _told(remote: Remote, git: Git) -> Iterator[dict[str, str]]:
    """The environment of a command that goes to `remote`; it holds paths and no secret."""
    with ExitStack() as stack:

        def kept(text: str) -> str:
            return stack.enter_context(_in_memory(text))

        lines = [
            f'[remote "{SOURCE}"]', f"url = {_quoted(remote.url)}",
            # Each fetch leaves a pack. They are made one from time to time, but for the big ones.
            "[gc]", "autoDetach = false", "bigPackThreshold = 64m",
            # What came is there all at once, as a pack: of loose objects the commit is seen before
            # its trees and files, and is all that there ever is after a kill.
            "[fetch]", "recurseSubmodules = false", "unpackLimit = 1",
            "[http]", f"lowSpeedLimit = {SLOW_BYTES_S}", f"lowSpeedTime = {SLOW_S}",
        ]  # fmt: skip
        if remote.is_http:
            lines += _http(remote, kept)
        environment = git._environment(kept("\n".join(lines) + "\n"))
        if remote.is_ssh:
            environment["GIT_SSH_COMMAND"] = " ".join(_ssh(remote, git.known_hosts, kept))
            environment["GIT_SSH_VARIANT"] = "ssh"
        yield environment


@contextmanager
def _in_memory(text: str) -> Iterator[str]:
    """A path under which our children read `text`."""
    descriptor = os.memfd_create("homeport-git")
    try:
        # ssh takes no key that others could read.
        os.fchmod(descriptor, 0o600)
        with open(descriptor, "wb", closefd=False) as file:
            file.write(text.encode())
        yield f"/proc/{os.getpid()}/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _http(remote: Remote, kept: Kept) -> Iterator[str]:
    if remote.token:
        # Sent with every request, so it must not follow a redirection to another server.
        yield f"extraHeader = {_quoted(f'Authorization: Bearer {remote.token}')}"
        yield "followRedirects = false"
    if remote.authorities:
        yield f"sslCAInfo = {kept(remote.authorities)}"
    if remote.certificate:
        yield f"sslCert = {kept(remote.certificate)}"
        yield f"sslKey = {kept(remote.certificate_key)}"
    if not remote.verify:
        yield "sslVerify = false"
    if remote.username and not remote.token:
        answer = kept(f"username={remote.username}\npassword={remote.password}\n")
        scheme = remote.url.partition("://")[0]
        # For this host and no other: a redirection elsewhere finds no answer.
        yield f'[credential "{scheme}://{remote.host}"]'
        yield f'helper = "!f() {{ test \\"$1\\" = get && cat {answer}; }}; f"'


def _ssh(remote: Remote, known_hosts: Path, kept: Kept) -> Iterator[str]:
    if remote.known_hosts is not None:
        known = kept(remote.known_hosts.rstrip("\n") + "\n")
    else:
        known = str(known_hosts)
    options = {
        "BatchMode": "yes",
        "ConnectTimeout": str(CONNECT_S),
        "ServerAliveInterval": "15",
        "ServerAliveCountMax": "2",
        "GlobalKnownHostsFile": "/dev/null",
        "UserKnownHostsFile": known if remote.verify else "/dev/null",
        "StrictHostKeyChecking": "yes" if remote.verify else "no",
        "UpdateHostKeys": "no",
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "IdentityFile": kept(remote.private_key) if remote.private_key else "none",
        "PreferredAuthentications": "publickey",
        "LogLevel": "ERROR",
    }
    yield "ssh -F none"
    for name, value in options.items():
        yield f"-o {name}={_shell_quoted(value)}"


def _quoted(text: str) -> str:
    """As git's configuration wants it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _shell_quoted(text: str) -> str:
    # ssh's own quotes inside the shell's: both split at blanks.
    return shlex.quote(f'"{text}"') if any(c.isspace() for c in text) else shlex.quote(text)


# --- running it ----------------------------------------------------------------------------------


async def _run(
    command: Sequence[str],
    environment: dict[str, str],
    within_s: float,
) -> tuple[int, bytes, str]:
    """Exit code, standard output, standard error. Raises TimeoutError, TooMuch; whatever happens,
    nothing that was started is left."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(within_s):
            out, said = await _exchange(process)
            code = await process.wait()
    except BaseException:
        await _end(process)
        raise
    return code, out, said.decode(errors="replace")


async def _exchange(process: asyncio.subprocess.Process) -> tuple[bytes, bytes]:
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.TaskGroup() as group:
            out = group.create_task(_whole(process.stdout))
            said = group.create_task(_tail(process.stderr))
    except* TooMuch as problems:
        raise problems.exceptions[0] from None
    return out.result(), said.result()


async def _whole(pipe: asyncio.StreamReader) -> bytes:
    found = bytearray()
    while chunk := await pipe.read(1 << 16):
        found += chunk
        if len(found) > OUT_BYTES_MAX:
            raise TooMuch(OUT_BYTES_MAX)
    return bytes(found)


async def _tail(pipe: asyncio.StreamReader) -> bytes:
    found = b""
    while chunk := await pipe.read(1 << 16):
        found = (found + chunk)[-SAID_BYTES_MAX:]
    return found


async def _end(process: asyncio.subprocess.Process) -> None:
    """End what is left of the session that `process` leads. Being cancelled skips the grace."""
    try:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S):
                await process.wait()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def _is_about_the_mirror(said: str, mirror: Path) -> bool:
    """Whether git complains of its own files: a lock that a kill left, a damaged object."""
    words = ("unable to create", "not a git repository", "cannot lock ref", "bad object",
             "object file", "is corrupt", "packfile")  # fmt: skip
    lowered = said.lower()
    return str(mirror) in said or any(word in lowered for word in words)

"""A PostgreSQL cluster of the tests' own: real, on loopback, in a folder that goes with it.

Nothing of the machine's own PostgreSQL is touched. It refuses to run as root, so under root it runs
as the user `postgres` that its package made. Databases sort text by the rules of a language
(ICU en-US), as those of hosting companies do: what relies on the order of bytes must say so itself.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

from tests.fakes import ports

READY_S = 30.0
STOP_S = 30.0
OWNER = "homeport"
PASSWORD = "tests only"
LANGUAGE = "LOCALE_PROVIDER icu ICU_LOCALE 'en-US' LOCALE 'C.UTF-8'"

_NUMBERS = itertools.count(1)


def missing() -> str:
    """Why there can be no cluster here; empty when there can."""
    if _program("postgres") is None:
        return "PostgreSQL is not installed (Debian: apt-get install postgresql)"
    return ""


def _program(name: str) -> Path | None:
    """Debian keeps the server's programs off the PATH."""
    debian = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    if debian:
        return debian[-1]
    found = shutil.which(name)
    return None if found is None else Path(found)


def _identity() -> dict[str, Any]:
    """Arguments of subprocess that give up root."""
    if os.geteuid():
        return {}
    return {"user": "postgres", "group": "postgres", "extra_groups": []}


@dataclass(slots=True)
class Cluster:
    """A server that answers. `stop`, `kill` and `start` are for tests of what happens then."""

    directory: Path
    port: int
    fsync: bool = False
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def url(self, database: str, *, user: str = OWNER, password: str = PASSWORD) -> str:
        place = f"127.0.0.1:{self.port}/{database}"
        return f"postgresql://{user}:{quote(password)}@{place}"

    def create_database(self, options: str = LANGUAGE) -> str:
        """An empty one; its URL."""
        name = f"homeport_{next(_NUMBERS)}"
        self.execute(f"CREATE DATABASE {name} OWNER {OWNER} TEMPLATE template0 {options}")
        return self.url(name)

    def copy_database(self, url: str) -> str:
        """A copy of one that nobody uses; its URL."""
        name = f"homeport_{next(_NUMBERS)}"
        self.execute(f"CREATE DATABASE {name} OWNER {OWNER} TEMPLATE {url.rpartition('/')[2]}")
        return self.url(name)

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """As the superuser, through the socket; the rows of its answer, if those have columns."""
        with psycopg.connect(
            host=str(self.directory), port=self.port, user="postgres", dbname=database,
            autocommit=True,
        ) as connection:  # fmt: skip
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def processes(self) -> list[int]:
        """Ids of those that run, the first of which started the others."""
        first = int((self.directory / "data" / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{first}/task/{first}/children").read_text()
        return [first, *map(int, children.split())]

    def start(self) -> None:
        """It ends with the thread that starts it, however that ends."""
        setpriv = shutil.which("setpriv")
        log = (self.directory / "log").open("ab")
        with log:
            self._process = subprocess.Popen(
                [
                    *((setpriv, "--pdeathsig", "INT", "--") if setpriv else ()),
                    *(str(_program("postgres")), "-D", str(self.directory / "data")),
                    *("-k", str(self.directory), "-h", "127.0.0.1", "-p", str(self.port)),
                    *("-c", f"fsync={'on' if self.fsync else 'off'}"),
                ],
                stdout=log,
                stderr=log,
                **_identity(),
            )
        deadline = time.monotonic() + READY_S
        while True:
            try:
                self.execute("SELECT 1")
                return
            except psycopg.OperationalError:
                said = (self.directory / "log").read_text()[-2000:]
                assert self._process.poll() is None, f"PostgreSQL ended: {said}"
                assert time.monotonic() < deadline, f"PostgreSQL does not answer: {said}"
                time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT cuts connections and ends well; SIGQUIT is a crash, after which it recovers."""
        if self._process is None:
            return
        self._process.send_signal(how)
        self._process.wait(STOP_S)
        self._process = None


@contextmanager
def running(*, fsync: bool = False) -> Iterator[Cluster]:
    """A cluster until the end of the block, in about a second.

    Without `fsync` it does not wait for the disk: what survives a crash of the machine is
    PostgreSQL's to prove, and a crash of its own processes loses nothing of the kernel's.
    """
    with _cluster(fsync=fsync) as cluster:
        _initialise(cluster.directory)
        cluster.start()
        cluster.execute(f"CREATE ROLE {OWNER} LOGIN PASSWORD '{PASSWORD}'")
        yield cluster


@contextmanager
def standby_of(primary: Cluster) -> Iterator[Cluster]:
    """A server that follows `primary`, answers questions and takes no writes."""
    with _cluster() as cluster:
        subprocess.run(
            [
                *(str(_program("pg_basebackup")), "-D", str(cluster.directory / "data")),
                *("--write-recovery-conf", "--checkpoint=fast", "--no-sync"),
                *("-h", str(primary.directory), "-p", str(primary.port), "-U", "postgres"),
            ],
            check=True,
            capture_output=True,
            cwd=cluster.directory,
            **_identity(),
        )
        cluster.start()
        yield cluster


@contextmanager
def _cluster(*, fsync: bool = False) -> Iterator[Cluster]:
    """A folder and a port; whatever runs there at the end is stopped, and goes with the folder."""
    directory = Path(tempfile.mkdtemp(prefix="homeport-postgres-"))
    if not os.geteuid():
        shutil.chown(directory, "postgres", "postgres")
    cluster = Cluster(directory, ports.free_port(), fsync)
    try:
        yield cluster
    finally:
        # Nothing of it is needed again.
        cluster.stop(signal.SIGQUIT)
        shutil.rmtree(directory, ignore_errors=True)


def _initialise(directory: Path) -> None:
    """Passwords over TCP, trust through the socket, whose folder only its owner may enter."""
    subprocess.run(
        [
            *(str(_program("initdb")), "-D", str(directory / "data"), "--no-sync"),
            *("--username", "postgres", "--encoding", "UTF8", "--locale", "C.UTF-8"),
            *("--auth-local", "trust", "--auth-host", "scram-sha-256"),
        ],
        check=True,
        capture_output=True,
        cwd=directory,
        **_identity(),
    )

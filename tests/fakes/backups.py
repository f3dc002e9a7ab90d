"""Backups of a stopped service's database, as an operator takes them: a copy of the file, or
pg_dump and pg_restore of real PostgreSQL."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path


def take(directory: Path, database: str) -> Path:
    """A backup of the database at that URL, or of SQLite's in the directory."""
    copy = directory / "backup"
    if database:
        _run("pg_dump", "--format=custom", f"--file={copy}", database)
    else:
        shutil.copy(directory / "homeport.db", copy)
    return copy


def put_back(copy: Path, directory: Path, database: str) -> None:
    """The database becomes what it was then."""
    if database:
        _run("pg_restore", "--clean", "--if-exists", f"--dbname={database}", str(copy))
        return
    for kind in ("-wal", "-shm"):
        (directory / f"homeport.db{kind}").unlink(missing_ok=True)
    shutil.copy(copy, directory / "homeport.db")


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

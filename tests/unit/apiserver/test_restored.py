"""`python -m apiserver restored`: what a person sees. What it does, contract tests show."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from apiserver import __main__ as program
from apiserver.store import Store


def test_it_says_how_many_devices_are_awaited(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def made() -> None:
        await (await Store.open(data_dir=tmp_path)).close()

    asyncio.run(made())
    for _ in range(2):
        assert program.main(["restored", "--data", str(tmp_path)]) == 0
        assert capsys.readouterr().out.endswith("0 devices are awaited; start the service\n")


def test_it_makes_no_database_where_there_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main(["restored", "--data", str(tmp_path)]) == 1
    assert "there is no database in" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_it_refuses_while_a_server_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def beside_a_server() -> int:
        store = await Store.open(data_dir=tmp_path)
        try:
            words = ["restored", "--data", str(tmp_path)]
            return await asyncio.to_thread(program.main, words)
        finally:
            await store.close()

    assert asyncio.run(beside_a_server()) == 1
    assert "error:" in capsys.readouterr().err

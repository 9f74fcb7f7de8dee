"""What a running gateway says of a disk that fails, and of one that works again."""

import asyncio
import logging
from pathlib import Path

import pytest

from controller import app
from controller.app import Gateway
from controller.clock import SystemClock
from controller.commissioning import assemble
from controller.config import StateSection
from controller.loop import AlarmLog
from tests.shell.bench import PATIENCE_S
from tests.shell.site_text import site_file


async def test_a_checkpoint_that_cannot_be_saved_is_said_once_and_once_when_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(app, "CHECKPOINT_S", 0.01)
    monkeypatch.setattr(app, "UNCHANGED_CHECKPOINT_S", 0.0)
    in_the_way = tmp_path / "checkpoint.new"
    in_the_way.mkdir()
    file = site_file().model_copy(update={"state": StateSection(directory=tmp_path), "meter": ()})
    gateway = Gateway(assemble(file), SystemClock(assume_synchronised=True))
    tries: list[bool] = []
    tried = asyncio.Event()
    real = gateway._checkpoint.save

    async def observed(*arguments: object) -> None:
        tries.append(in_the_way.exists())
        if len(tries) % 5 == 0:
            tried.set()
        await real(*arguments)  # type: ignore[arg-type]  # handed on as they come

    monkeypatch.setattr(gateway._checkpoint, "save", observed)
    async with asyncio.timeout(PATIENCE_S):
        running = asyncio.create_task(gateway.run())
        await tried.wait()
        in_the_way.rmdir()
        for _ in range(2):
            tried.clear()
            await tried.wait()
        gateway.stop.set()
        await running
    assert tries.count(True) >= 5
    assert gateway.loop is not None
    assert any(isinstance(publisher, AlarmLog) for publisher in gateway.loop.publishers)
    assert caplog.text.count("checkpoint not saved: ") == 1
    assert caplog.text.count("checkpoint saved again") == 1
    assert caplog.text.index("not saved") < caplog.text.index("saved again")
    assert (tmp_path / "checkpoint.json").exists()

"""A control loop that writes a journal, for tests that replay it."""

import asyncio
import gzip
from pathlib import Path

from controller.board import Board
from controller.core.model import EvseState, Memory
from controller.journal import Journal
from controller.loop import ControlLoop
from controller.reconcile import Reconciler
from controller.supervisor import Supervisor
from tests.shell.bench import SITE, ManualClock, RecordingStation, online, reading, settle


class Control:
    """A control loop that writes a journal; every second something happens."""

    def __init__(self, folder: Path, allowance_mb: float = 64.0) -> None:
        self.clock = ManualClock()
        self.journal = Journal(folder, SITE, allowance_mb)
        self.board = Board(SITE, self.clock)
        self.alpha = RecordingStation("alpha", ["alpha"])
        self.memory = Memory()
        self.number = 0

    async def seconds(self, count: int) -> None:
        """Run so many cycles: a vehicle comes at the third, the base load changes all the time."""
        async with asyncio.TaskGroup() as group:
            supervisor = Supervisor(group)
            reconciler = Reconciler(self.board, self.clock, supervisor.start)
            loop = ControlLoop(self.board, self.clock, reconciler, memory=self.memory, recorder=self.journal.record)
            self.alpha.willing = True
            for _ in range(count):
                self._happen()
                loop.cycle()
                await settle()
                self.clock.advance(1.0)
            self.memory = loop.memory
            supervisor.stop()

    def _happen(self) -> None:
        self.number += 1
        base_a = 20.0 + (self.number * 7) % 60
        self.board.meter_read("grid", reading(base_a, at_s=self.clock.now_s(), import_wh=1000.0 + self.number))
        if self.number == 2:
            online(self.board, self.alpha)
            self.board.evse_state("alpha", EvseState.AVAILABLE)
        if self.number == 4:
            self.board.evse_state("alpha", EvseState.PREPARING)
            self.board.transaction_started("alpha", "tx")
            self.board.evse_state("alpha", EvseState.CHARGING)
        held_a = self.board.evidence("alpha").confirmed_a or 0.0
        self.board.evse_measured("alpha", (held_a, held_a, held_a))


def journal_in(folder: Path) -> Path:
    return folder / "journal.jsonl.gz"


def plain(path: Path) -> Path:
    """Unpack a journal beside it, as somebody does who wants to look at it or to change it."""
    unpacked = path.with_name("unpacked.jsonl")
    unpacked.write_bytes(gzip.decompress(path.read_bytes()))
    return unpacked

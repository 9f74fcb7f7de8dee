"""The composition root: the only module of the controller that knows the drivers.

The control path comes up first (stations, meters, loop); HTTP, metrics and MQTT are imported and started after it, and
nothing waits for them (invariant C7).
"""

import asyncio
import importlib
import logging
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Final

from controller.board import Board
from controller.commissioning import Commissioned, Directory
from controller.core.model import EvseEvidence
from controller.journal import Journal
from controller.loop import AlarmLog, ControlLoop
from controller.ports import Clock, Publisher
from controller.reconcile import Reconciler
from controller.store import CheckpointFile, TransactionFile
from controller.supervisor import Supervisor
from drivers.modbus.meter import ModbusMeter
from drivers.ocpp.server import OcppServer

CHECKPOINT_S: Final = 1.0
UNCHANGED_CHECKPOINT_S: Final = 15.0  # without a new setpoint, lease or transaction: flash wear

_log = logging.getLogger(__name__)


class Gateway:
    """One site's controller. `run` keeps it going until `stop` is set, then leaves every station its lease."""

    def __init__(self, commissioned: Commissioned, clock: Clock, publishers: Sequence[Publisher] = ()) -> None:
        self.commissioned, self.clock, self.stop = commissioned, clock, asyncio.Event()
        self.ready = asyncio.Event()
        file, directory = commissioned.file, commissioned.file.state.directory
        self._checkpoint = CheckpointFile(directory, clock)
        self._transactions = TransactionFile(directory)
        memory, evidence = self._checkpoint.load()
        self.board = Board(commissioned.site, clock, evidence)
        self._take_up_transactions()
        self._journal = Journal(directory, commissioned.site, file.state.journal_mb) if directory else None
        self.server = OcppServer(file.ocpp, Directory(commissioned), self.board, clock, self._transactions)
        self._memory, self._publishers = memory, [AlarmLog(), *publishers]
        self._unsaved = False
        self.loop: ControlLoop | None = None
        self.http_port: Callable[[], int | None] = lambda: None

    async def run(self) -> None:
        """Run until told to stop. Raises OSError when the OCPP port cannot be had."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.server)
            _log.info("stations connect to ws://%s:%d/<identity>", self.commissioned.file.ocpp.host, self.server.port)
            group = await stack.enter_async_context(asyncio.TaskGroup())
            supervisor = Supervisor(group)
            self.loop = self._control(supervisor)
            supervisor.start("show", self._show(supervisor, self.loop))
            self.ready.set()
            await self.stop.wait()
            _log.info("stopping: every station keeps its lease")
            await supervisor.end()
        await self._leave()

    def _control(self, supervisor: Supervisor) -> ControlLoop:
        """Start everything that control depends on."""
        reconciler = Reconciler(self.board, self.clock, supervisor.start)
        loop = ControlLoop(
            self.board,
            self.clock,
            reconciler,
            memory=self._memory,
            recorder=self._journal.record if self._journal else None,
            publishers=self._publishers,
        )
        for meter in self.commissioned.file.meter:
            supervisor.keep(f"meter {meter.id}", ModbusMeter(meter, self.board, self.clock).run)
        supervisor.keep("control loop", loop.run)
        if self.commissioned.file.state.directory is not None:
            supervisor.keep("checkpoint", self._checkpoints)
        if self._journal is not None:
            supervisor.keep("journal", self._journal.run)
        return loop

    async def _show(self, supervisor: Supervisor, loop: ControlLoop) -> None:
        """Bring up what only shows: late, and in a thread, because these imports take long on a small gateway."""
        file = self.commissioned.file
        parts = {}
        if file.mqtt is not None:
            mqtt = (await asyncio.to_thread(importlib.import_module, "drivers.mqtt")).MqttPublisher(
                file.mqtt, self.clock
            )
            parts["mqtt"] = mqtt.status
            loop.publishers.append(mqtt)
            supervisor.keep("mqtt", mqtt.run)
        if file.http is not None:
            web = await asyncio.to_thread(importlib.import_module, "controller.web")
            module = await asyncio.to_thread(importlib.import_module, "controller.metrics")
            metrics = module.Metrics(lambda: self.server.counters)
            server = web.WebServer(file.http, self.clock, metrics=metrics, parts=parts)
            loop.publishers += [metrics, server]
            self.http_port = lambda: server.port
            supervisor.keep("http", server.run)

    async def _checkpoints(self) -> None:
        """Save memory and evidence: soon after something was told to a station, else now and then."""
        saved: object = None
        saved_at_s = self.clock.now_s()
        while True:
            await asyncio.sleep(CHECKPOINT_S)
            evidence = self.board.remembered()
            told = {name: _told(known) for name, known in evidence.items()}
            now_s = self.clock.now_s()
            if told == saved and now_s - saved_at_s < UNCHANGED_CHECKPOINT_S:
                continue
            await self._save()
            saved, saved_at_s = told, now_s

    async def _save(self) -> None:
        if self.loop is None:
            return
        try:
            await self._checkpoint.save(self.loop.memory, self.board.remembered())
        except OSError as error:
            if not self._unsaved:
                _log.warning("checkpoint not saved: %s; trying on in silence", error)
            self._unsaved = True
        else:
            if self._unsaved:
                _log.info("checkpoint saved again")
            self._unsaved = False

    async def _leave(self) -> None:
        await self._save()
        if self._journal is not None:
            await self._journal.flush()

    def _take_up_transactions(self) -> None:
        """Bring the checkpoint up to the transaction record, which is written sooner."""
        running = {record.evse: record.transaction for record in self._transactions.open_transactions()}
        for evse in self.commissioned.site.evses:
            known = self.board.evidence(evse.id).transaction
            recorded = running.get(evse.id)
            if known is not None and recorded != known:
                self.board.transaction_ended(evse.id, known)
            if recorded is not None:
                self.board.transaction_started(evse.id, recorded)


def _told(evidence: EvseEvidence) -> tuple[object, ...]:
    return (evidence.transaction, evidence.sent_a, evidence.confirmed_a, evidence.lease_until_s, evidence.verified)

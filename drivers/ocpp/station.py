"""One session of a charging station: the `ChargingStation` port, whatever version it speaks.

Knows what a station's messages mean for the observer and the transaction log, and how a lease becomes a command. Does
not care how a version writes them (`dialects/`), nor how frames travel (`link`).

Every token is accepted for now: whose card may charge is decided by the operator's back-office, which comes later.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from pydantic import ValidationError

from controller.config import OcppSection
from controller.core.model import Evse
from controller.ports import (
    Capabilities,
    Clock,
    Lease,
    Observer,
    StationEntry,
    StationGone,
    StationRefused,
    TransactionLog,
    TransactionRecord,
)
from drivers.ocpp import metering, profiles, schemas
from drivers.ocpp.counters import Count, Counters
from drivers.ocpp.dialects.dialect import Dialect
from drivers.ocpp.events import (
    Booted,
    Command,
    Event,
    HeartbeatReceived,
    Metered,
    Reading,
    StatusReported,
    TokenPresented,
    TransactionStage,
    TransactionTold,
)
from drivers.ocpp.evse_status import EvseStatus
from drivers.ocpp.frames import Call, Fault
from drivers.ocpp.link import CallFault, Link, Reply, Socket
from drivers.ocpp.running import Running
from drivers.ocpp.settings import Settings, StationMemory
from drivers.ocpp.timestamps import OLD_S, StationClock, to_iso, to_unix_s
from drivers.ocpp.turns import Priority

_NEW_S: Final = 2.0
_SETTLE_S: Final = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long the server waits for what (docs: faults 2, 4 and 20). Tests shorten them."""

    boot_wait_s: float = 5.0
    setup_timeout_s: float = 5.0
    probe_s: float = 2.0
    open_timeout_s: float = 5.0
    ping_interval_s: float = 10.0
    ping_timeout_s: float = 5.0
    close_timeout_s: float = 1.0
    stall_s: float = 5.0
    hang_up_s: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What every session of a server shares."""

    config: OcppSection
    observer: Observer
    clock: Clock
    transactions: TransactionLog
    counters: Counters
    timing: Timing


class Station:
    """A connected charging station."""

    def __init__(
        self, entry: StationEntry, dialect: Dialect, socket: Socket, *, site: Site, memory: StationMemory
    ) -> None:
        self._entry = entry
        self._dialect = dialect
        self._site = site
        self._memory = memory
        self._link = Link(
            socket,
            self._on_call,
            codes=dialect.fault_codes.__getitem__,
            clock=site.clock,
            counters=site.counters,
        )
        self._numbers = {evse.id: number for number, evse in entry.evses.items()}
        self._status = {evse.id: EvseStatus() for evse in entry.evses.values()}
        self._running = Running()
        self._named_at_s: dict[str, float] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._boot_wait: asyncio.Task[None] | None = None
        self._setup_task: asyncio.Task[None] | None = None
        self._online = False
        self._live = True

    # ------------------------------------------------------------------------------------------------------- the port

    @property
    def id(self) -> str:
        """The station's identity."""
        return self._entry.id

    @property
    def evses(self) -> Sequence[str]:
        """The ids of its EVSEs."""
        return tuple(self._numbers)

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        return self._dialect.capabilities

    async def offer(self, evse: str, transaction: str, lease: Lease, *, timeout_s: float) -> None:
        """Give one EVSE a new lease for its running transaction. Raises a `StationError`."""
        number, wired = self._numbered(evse)
        station_unix_s = self._memory.clock.station_unix_s(self._site.clock.unix_s())
        profile = profiles.lease_profile(number, wired, transaction, lease, station_unix_s=station_unix_s)
        try:
            await self._send_profile(profile, timeout_s)
        except StationRefused:
            if not self._named_just_now(evse):
                raise
            await asyncio.sleep(_SETTLE_S)
            await self._send_profile(profile, timeout_s)

    async def install_fallback(self, evse: str, fallback_a: float, *, timeout_s: float) -> None:
        """Install what holds beneath every transaction. Raises a `StationError`."""
        number, wired = self._numbered(evse)
        await self._send_profile(profiles.fallback_profile(number, wired, fallback_a), timeout_s)

    async def disconnect(self, reason: str) -> None:
        """Drop the link; the station is told to be offline when the socket is closed."""
        self._link.stop(1000, reason)

    def _named_just_now(self, evse: str) -> bool:
        """Tell whether the station may not have taken in yet which id its transaction got: it says Rejected then."""
        named_at_s = self._named_at_s.get(evse)
        return named_at_s is not None and self._site.clock.now_s() - named_at_s < _NEW_S

    def _numbered(self, evse: str) -> tuple[int, Evse]:
        number = self._numbers.get(evse)
        if number is None:
            raise StationRefused(f"station {self.id!r} has no EVSE {evse!r}")
        return number, self._entry.evses[number]

    async def _send_profile(self, profile: profiles.Profile, timeout_s: float) -> None:
        try:
            command = self._dialect.set_profile(profile)
        except ValueError as wrong:
            raise StationRefused(f"transaction {profile.transaction!r} cannot be written: {wrong}") from wrong
        await self._command(command, timeout_s=timeout_s, priority=Priority.CONTROL)

    async def _command(self, command: Command, *, timeout_s: float, priority: Priority) -> None:
        if not (self._online and self._live):
            raise StationGone(f"station {self.id!r} is not online")
        try:
            schemas.check_call(self._dialect.version, command.action, command.payload)
        except schemas.NotSchemaValid as wrong:
            self._count(Count.CALLS_INVALID)
            raise StationRefused(str(wrong)) from wrong
        answer = await self._link.call(command.action, command.payload, timeout_s=timeout_s, priority=priority)
        self._memory.heard = True
        refusal = self._dialect.refusal(command, answer)
        if refusal is not None:
            self._count(Count.CALLS_REFUSED)
            raise StationRefused(refusal)

    # ----------------------------------------------------------------------------------------------------- the session

    async def run(self) -> None:
        """Serve the session until the link is gone."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            self._boot_wait = tasks.create_task(self._wait_for_boot())
            await self._link.run()
            for task in (self._boot_wait, self._setup_task):
                if task is not None:
                    task.cancel()

    def retire(self, code: int = 1000, reason: str = "") -> None:
        """End the session for good: it acts no more, and if it was online it is offline now (C6). Once is enough."""
        self._link.stop(code, reason)
        if self._live:
            self._live = False
            if self._online:
                self._site.observer.station_offline(self)

    async def _wait_for_boot(self) -> None:
        """Take a station that says nothing for one that reconnected: some never send BootNotification again."""
        await asyncio.sleep(self._site.timing.boot_wait_s)
        self._become_online(rebooted=False)

    def _heard(self) -> None:
        if not self._online:
            self._become_online(rebooted=False)

    def _become_online(self, *, rebooted: bool) -> None:
        if not self._live:
            return
        self._online = True
        for task in (self._boot_wait, self._setup_task):
            if task is not None and task is not asyncio.current_task():
                task.cancel()
        self._site.observer.station_online(self, self._memory.info, rebooted=rebooted)
        self._recall_transactions(tell=not rebooted)
        if self._tasks is not None:
            settings = Settings(
                dialect=self._dialect,
                memory=self._memory,
                evses=sorted(self._entry.evses),
                sample_interval_s=self._site.config.sample_interval_s,
                send=partial(self._command, timeout_s=self._site.timing.setup_timeout_s, priority=Priority.SETUP),
            )
            self._setup_task = self._tasks.create_task(settings.ask(rebooted=rebooted))

    def _recall_transactions(self, *, tell: bool) -> None:
        """Know again what ran before this session. After a reboot only the station can tell whether it still does."""
        for record in self._site.transactions.open_transactions():
            number = self._numbers.get(record.evse)
            if record.station == self.id and number is not None:
                evse = self._entry.evses[number]
                self._running.know(record.transaction, evse)
                if tell:
                    self._tell_running(evse, record.transaction)

    # --------------------------------------------------------------------------------------------- what a station says

    async def _on_call(self, call: Call) -> Reply:
        decode = self._dialect.decoders.get(call.action)
        if decode is None:
            self._heard()
            fixed = self._dialect.fixed_answers.get(call.action)
            if fixed is None:
                raise CallFault(Fault.NOT_IMPLEMENTED, "unknown action")
            self._memory.heard = True
            return Reply(dict(fixed))
        try:
            event = decode(call.payload)
        except ValidationError as wrong:
            raise _fault_of(wrong) from wrong
        self._memory.heard = True
        return await self._on_event(event)

    async def _on_event(self, event: Event) -> Reply:
        now = to_iso(self._site.clock.unix_s())
        if isinstance(event, Booted):
            return self._booted(event, now)
        self._heard()
        match event:
            case HeartbeatReceived():
                return Reply(self._dialect.answer_heartbeat(now))
            case TokenPresented():
                return Reply(self._dialect.answer_token())
            case StatusReported():
                self._status_reported(event)
            case Metered():
                self._learn_clock(event.readings[-1].at if event.readings else "")
                self._measured(self._evse(event.evse), event.readings)
            case TransactionTold():
                return await self._transaction_told(event)
        return Reply({})

    def _booted(self, event: Booted, now: str) -> Reply:
        self._memory.info = event.info
        if event.rebooted:
            # It takes our time from the answer.
            self._memory.clock = StationClock()
            self._running.forget()
        answer = self._dialect.answer_boot(now, self._site.config.heartbeat_interval_s)
        # Some stations reboot for ever when they are asked anything before this answer (lbbrhzn #1503).
        return Reply(answer, then=partial(self._become_online, rebooted=event.rebooted))

    def _status_reported(self, told: StatusReported) -> None:
        self._learn_clock(told.at)
        if told.evse == 0:
            return  # the station's own: its EVSEs say theirs
        evse = self._evse(told.evse)
        if evse is not None:
            self._status[evse.id].report(told)
            self._tell_state(evse)

    async def _transaction_told(self, told: TransactionTold) -> Reply:
        received_unix_s = self._site.clock.unix_s()
        if not told.offline:
            self._learn_clock(told.at)
        evse = self._place(told)
        transaction = told.transaction or self._unnamed(told, evse)
        record = TransactionRecord(
            station=self.id,
            evse=evse.id if evse else self._unplaced(told),
            event=told.stage.value,
            transaction=transaction,
            id_token=told.id_token,
            meter_wh=told.meter_wh,
            station_time=told.at,
            received_unix_s=received_unix_s,
        )
        transaction = await self._keep(record, told.stage)
        answer = self._dialect.answer_transaction(told, transaction)
        if evse is None or not self._live:
            return Reply(answer)
        tell = partial(self._tell_transaction, evse, transaction, told)
        if told.stage is TransactionStage.STARTED:
            # A command for it can only be understood once the station has learnt its id from this answer.
            return Reply(answer, then=tell)
        tell()
        return Reply(answer)

    async def _keep(self, record: TransactionRecord, stage: TransactionStage) -> str:
        """Keep a transaction message before it is acknowledged (C5); one that cannot be kept is left to be repeated."""
        try:
            if stage is TransactionStage.STARTED:
                given = await self._site.transactions.start(record)
                return record.transaction or given
            await self._site.transactions.append(record)
        except OSError as broken:
            raise CallFault(Fault.INTERNAL, "the message could not be kept") from broken
        return record.transaction

    def _place(self, told: TransactionTold) -> Evse | None:
        if told.evse is not None:
            return self._evse(told.evse)
        known = self._running.where(told.transaction) if told.transaction else None
        if known is None and len(self._entry.evses) == 1:
            return next(iter(self._entry.evses.values()))
        return known

    def _unnamed(self, told: TransactionTold, evse: Evse | None) -> str:
        """Return the id of a transaction that the station does not name: on its only EVSE it is the running one."""
        if told.stage is TransactionStage.STARTED or evse is None:
            return ""
        return self._running.on(evse) or ""

    def _unplaced(self, told: TransactionTold) -> str:
        return f"{self.id}/{told.evse}" if told.evse is not None else ""

    def _evse(self, number: int) -> Evse | None:
        evse = self._entry.evses.get(number)
        if evse is None and number != 0:
            self._count(Count.EVSES_UNKNOWN)
        return evse

    # ---------------------------------------------------------------------------------------------- what we tell of it

    def _tell_state(self, evse: Evse) -> None:
        state = self._status[evse.id].current()
        if state is not None and self._live:
            self._site.observer.evse_state(evse.id, state)

    def _tell_transaction(self, evse: Evse, transaction: str, told: TransactionTold) -> None:
        before = self._status[evse.id].current()
        if told.stage is TransactionStage.STARTED:
            self._named_at_s[evse.id] = self._site.clock.now_s()
        if not told.offline:
            self._status[evse.id].transaction(told)
        if told.stage is TransactionStage.ENDED:
            self._running.end(transaction, evse)
            self._named_at_s.pop(evse.id, None)
            self._site.observer.transaction_ended(evse.id, transaction)
        elif self._believed(transaction, told.stage):
            self._tell_running(evse, transaction)
        if self._status[evse.id].current() is not before:
            self._tell_state(evse)
        if told.stage is not TransactionStage.ENDED:
            self._measured(evse, told.readings, offline=told.offline)

    def _believed(self, transaction: str, stage: TransactionStage) -> bool:
        """Tell whether a message proves a running transaction: not one that ended, nor an id we never gave."""
        if self._running.ended(transaction):
            return False
        if stage is TransactionStage.STARTED:
            return True
        return self._dialect.capabilities.assigns_transaction_ids or self._running.where(transaction) is not None

    def _tell_running(self, evse: Evse, transaction: str) -> None:
        if self._running.begin(transaction, evse):
            self._site.observer.transaction_started(evse.id, transaction)

    def _measured(self, evse: Evse | None, readings: Sequence[Reading], *, offline: bool = False) -> None:
        reading = metering.newest(readings)
        if evse is None or reading is None:
            return
        current_a = metering.current_a(reading, evse)
        if current_a is None:
            return
        station_unix_s = to_unix_s(reading.at)
        age_s = 0.0
        if station_unix_s is not None:
            age_s = self._memory.clock.age_s(station_unix_s, self._site.clock.unix_s())
        if offline or age_s > OLD_S:
            self._count(Count.SAMPLES_OLD)
            return
        self._site.observer.evse_measured(evse.id, current_a, age_s=age_s)

    def _learn_clock(self, at: str) -> None:
        station_unix_s = to_unix_s(at)
        if station_unix_s is not None:
            self._memory.clock.observe(station_unix_s, self._site.clock.unix_s())

    def _count(self, name: Count) -> None:
        self._site.counters[name] += 1


def _fault_of(wrong: ValidationError) -> CallFault:
    """Return what a station is told about a payload that cannot be understood: the field, not its value."""
    first = wrong.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    match first["type"]:
        case "missing":
            fault = Fault.OCCURRENCE
        case "greater_than_equal" | "less_than_equal" | "string_too_long" | "string_too_short":
            fault = Fault.PROPERTY
        case _:
            fault = Fault.TYPE
    return CallFault(fault, f"{place}: {first['msg']}")

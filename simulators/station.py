"""Simulated charging stations: they speak real OCPP over real websockets to any central system, and obey it.

Knows what a station does: boot, report, ask, charge within its profiles, go on alone, queue what must not be lost, come
back. Does not care about wire words (station_v16, station_v201) or electricity (station_evse).
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from random import Random
from typing import Final

from controller.core.model import EvseState
from controller.ports import Clock
from drivers.ocpp.frames import Call, CallError, CallResult, Fault, Payload, Problem
from drivers.ocpp.schemas import NotSchemaValid, check_call
from simulators.profiles import WHOLE_STATION, Charge, Profile, ProfileRefused, ProfileStore
from simulators.station_evse import MEASURANDS, SimulatedEvse, Transaction, readings
from simulators.station_manners import EvseRating, Manners, StationStatistics
from simulators.station_messages import MAX_OUTBOX, Cause, Dialect, Identity, Outgoing, Request, Snapshot, Variable
from simulators.station_network import Outage, StationNetwork
from simulators.station_v16 import V16
from simulators.station_v201 import V201
from simulators.vehicle import Vehicle

DIALECTS: Final[Mapping[str, Dialect]] = {"1.6": V16(), "2.0.1": V201()}
_MAX_URGENT: Final = 32


class SimulatedStation:
    """A charging station. `url` ends with its identity: `ws://host:port/ocpp/CS-1`.

    `run` lives its life on the network until cancelled; the physics (or anyone who calls `step` of its EVSEs) moves its
    vehicles. Without either, the other half still works: an offline station charges, an unpowered plug still reports.
    """

    def __init__(
        self,
        url: str,
        *,
        ocpp: str = "1.6",
        evses: Sequence[EvseRating] = (EvseRating(),),
        clock: Clock,
        rng: Random,
        manners: Manners | None = None,
        about: Identity | None = None,
    ) -> None:
        self.url = url
        self.id = url.rstrip("/").rsplit("/", 1)[-1]
        self.dialect = DIALECTS[ocpp]
        self.manners = manners or Manners()
        self.about = about or Identity()
        self.statistics = StationStatistics()
        limits = self.manners.profiles
        # K01 of 2.x: a slot belongs to one id; 1.6 replaces whatever is there.
        strict = limits.refuse_duplicates or self.dialect.names_transactions
        self.store = ProfileStore(limits=replace(limits, refuse_duplicates=strict))
        self.clock = clock
        self.rng = rng
        self._network = StationNetwork(self)
        self.evses = tuple(self._evse(number, rating, len(evses)) for number, rating in enumerate(evses, start=1))
        self.variables: dict[str, Variable] = self.dialect.variables(self)
        self.boot_reason = Cause.POWER_LOSS
        self.operative = True
        self._told: dict[int, str] = {}
        self._outbox: deque[Outgoing] = deque()
        self._urgent: deque[Outgoing] = deque(maxlen=_MAX_URGENT)
        self._after_reply: list[Callable[[], None]] = []
        self._reset_when_idle = False

    # ------------------------------------------------------------------------------------------ what a scenario does

    def evse(self, number: int = 1) -> SimulatedEvse:
        """Return an EVSE by its number. Raises KeyError."""
        if not 1 <= number <= len(self.evses):
            raise KeyError(number)
        return self.evses[number - 1]

    def plug_in(self, vehicle: Vehicle, *, evse: int = 1, card: str | None = "TAG-1") -> None:
        """Plug a vehicle in and present a card (None: nobody does). Raises ValueError when the place is taken."""
        place = self.evse(evse)
        if place.vehicle is not None:
            raise ValueError(f"{place.id} has a vehicle already")
        place.plug(vehicle, card)
        self._network.wake()

    def unplug(self, *, evse: int = 1) -> None:
        """Take a vehicle away; a running transaction ends."""
        place = self.evse(evse)
        self.end(place, Cause.UNPLUGGED)
        place.unplug()
        self._network.wake()

    async def drop(self, for_s: float, *, silent: bool = True) -> None:
        """Lose the link for a while, without telling anybody, and come back; charging goes on.

        `silent`: as when the radio is gone, the other side is left with a connection on which nothing answers.
        Otherwise TCP is cut at once. Returns when the station may connect again; needs `run`.
        """
        self.statistics.drops += 1
        await self._network.go_dark(Outage(for_s=for_s, reboot=False, silent=silent))

    async def reboot(self, down_s: float | None = None) -> None:
        """Cycle the power: transactions end, TxProfiles are gone, persistent profiles stay. Needs `run`."""
        down_s = self.manners.reboot_s if down_s is None else down_s
        await self._network.go_dark(Outage(for_s=down_s, reboot=True, silent=False))

    async def run(self) -> None:
        """Live on the network until cancelled."""
        await self._network.run()

    @property
    def online(self) -> asyncio.Event:
        """Return the event that is set while the link is up and the boot was accepted."""
        return self._network.online

    def unix_s(self) -> float:
        """Return the station's own idea of UTC."""
        return self.clock.unix_s() + self.manners.skew_s

    def limit_a(self, place: SimulatedEvse) -> float:
        """Return what the installed profiles allow an EVSE now, in amperes per phase."""
        now_s, charge = self.unix_s(), self.charge(place.number)
        own_a = self.store.evse_limit_a(place.number, now_s, charge, phases=place.phases)
        return min(own_a, self._share_a(place, self.store.station_limit_a(now_s, phases=place.phases)))

    def charge(self, number: int) -> Charge | None:
        """Return the charge that profiles of an EVSE belong to, if one runs."""
        transaction = self.evse(number).transaction if number != WHOLE_STATION else None
        return transaction.charge if transaction is not None else None

    @property
    def queued(self) -> int:
        """Return how many messages about transactions wait to be delivered."""
        return len(self._outbox)

    # ------------------------------------------------------------------------------------------- the life of a charge

    def begin(self, place: SimulatedEvse) -> None:
        """Start a transaction on an EVSE with a vehicle and an accepted card."""
        if place.card is None or place.transaction is not None:
            return
        cause = Cause.PLUGGED if place.remote_start_id is None else Cause.REMOTE_START
        local_id = f"{self.rng.getrandbits(128):032x}"
        place.transaction = Transaction(
            local_id=local_id,
            id_token=place.card,
            started_unix_s=self.unix_s(),
            remote_id=local_id if self.dialect.names_transactions else None,
            remote_start_id=place.remote_start_id,
        )
        place.since_sample_s = 0.0
        self.statistics.transactions_started += 1
        self._install_brought(place, place.transaction)
        self._queue(place, self.dialect.started(place.transaction, cause, self.snapshot(place)), place.transaction)
        place.reported = place.state

    def _install_brought(self, place: SimulatedEvse, transaction: Transaction) -> None:
        """Install the profile that a remote start brought along, for the transaction that it asked for."""
        profile, place.profile_to_come = place.profile_to_come, None
        if profile is None:
            return
        try:
            self.install(replace(profile, evse=place.number, transaction=transaction.remote_id))
        except ProfileRefused:
            return  # counted; the transaction runs under what else is installed

    def end(self, place: SimulatedEvse, cause: Cause) -> None:
        """End the transaction of an EVSE, if one runs. It does not start again until the vehicle is plugged in anew."""
        transaction = place.transaction
        if transaction is None:
            return
        request = self.dialect.ended(transaction, cause, self.snapshot(place))
        place.transaction, place.remote_start_id = None, None
        if cause not in (Cause.POWER_LOSS, Cause.RESET):
            place.card = None
        self.store.end_transaction(place.number)
        self.statistics.transactions_ended += 1
        self._queue(place, request, transaction)
        place.refresh()
        if self._reset_when_idle and all(one.transaction is None for one in self.evses):
            self._reset_when_idle = False
            self._network.start_outage(self._restart())

    def snapshot(self, place: SimulatedEvse) -> Snapshot:
        """Return what messages about an EVSE say of this moment."""
        measurands = tuple(self.variables[self.dialect.measurands_key].value.split(","))
        shown = tuple(readings(place, measurands)) or tuple(readings(place, MEASURANDS))
        return Snapshot(evse=place, unix_s=self.unix_s(), readings=shown, offline=not self.online.is_set())

    def _live(self, place: SimulatedEvse, dt_s: float) -> None:
        """Do what is due after a step of an EVSE: begin, sample, report a new state."""
        if place.powered and place.card is not None and place.vehicle is not None and place.transaction is None:
            self._network.wake()
            if not self.online.is_set() and self._may_begin_alone() and self._available(place):
                self.begin(place)
        if place.transaction is not None:
            self._sample(place, place.transaction, dt_s)
        if self._told.get(place.number) != self.dialect.status_word(place.state):
            self._network.wake()

    def _sample(self, place: SimulatedEvse, transaction: Transaction, dt_s: float) -> None:
        place.since_sample_s += dt_s
        interval_s = int(self.variables[self.dialect.sample_key].value)
        if 0 < interval_s <= place.since_sample_s + 1e-9:  # ten tenths are not quite one
            place.since_sample_s = 0.0
            self.report(place, transaction, Cause.SAMPLE)
        if place.reported is not place.state:
            place.reported = place.state
            self.report(place, transaction, Cause.STATE)

    def report(self, place: SimulatedEvse, transaction: Transaction, cause: Cause) -> None:
        """Tell that a transaction goes on."""
        request = self.dialect.updated(transaction, cause, self.snapshot(place))
        if request is not None:
            self._queue(place, request, transaction, droppable=True)

    def _queue(
        self, place: SimulatedEvse, request: Request, transaction: Transaction, *, droppable: bool = False
    ) -> None:
        """Keep a message until it is delivered. When there are too many, the oldest sample makes room."""
        action, payload = request

        def settle(result: Payload | None) -> None:
            self._settle(place, transaction, action, result)

        if len(self._outbox) >= MAX_OUTBOX:
            victim = next((message for message in self._outbox if message.droppable), self._outbox[0])
            self._outbox.remove(victim)
            self.statistics.messages_lost += 1
        message = Outgoing(action, payload, settle, transaction=transaction, droppable=droppable)
        self._outbox.append(message)
        self._network.wake()

    def _settle(self, place: SimulatedEvse, transaction: Transaction, action: str, result: Payload | None) -> None:
        """Learn what the central system says of a transaction: its name, and whether its card may charge."""
        if result is None:
            self.statistics.messages_lost += 1
            return
        transaction.remote_id = self.dialect.named(action, result) or transaction.remote_id
        if place.transaction is transaction and not self.dialect.is_authorized(result):
            self.end(place, Cause.DEAUTHORISED)

    def _may_begin_alone(self) -> bool:
        return self.manners.charges_unauthorised_offline and (self._network.booted or self.manners.charges_unbooted)

    def _available(self, place: SimulatedEvse) -> bool:
        return self.operative and place.operative

    def _share_a(self, place: SimulatedEvse, station_a: float) -> float:
        """Divide a limit of the whole station over its charging EVSEs: equally, or the first that fit."""
        if station_a == math.inf:
            return station_a
        charging = [one for one in self.evses if one.transaction is not None]
        if place not in charging:
            return station_a
        served = charging[: max(1, min(len(charging), int(station_a / place.min_a)))]
        return station_a / len(served) if place in served else 0.0

    # ----------------------------------------------------------------------------------- what a central system can ask

    def install(self, profile: Profile) -> None:
        """Install a charging profile. Raises ProfileRefused."""
        try:
            self.store.install(profile, self.charge(profile.evse))
        except ProfileRefused:
            self.statistics.profiles_rejected += 1
            raise
        self.statistics.profiles_accepted += 1

    def places(self, number: int) -> tuple[SimulatedEvse, ...]:
        """Return the EVSE with a number, or all of them for 0. Raises KeyError."""
        return self.evses if number == WHOLE_STATION else (self.evse(number),)

    def hardware_max_a(self, number: int) -> float:
        """Return what an EVSE (0: the station) could offer at most."""
        return sum(place.max_a for place in self.places(number))

    def trigger_status(self, number: int) -> None:
        """Tell the state of an EVSE (0: the station) soon."""
        self.trigger(lambda: self.dialect.status(number, self._state_of(number), self.unix_s()))

    def trigger_sample(self, place: SimulatedEvse) -> None:
        """Tell an EVSE's readings soon, outside any transaction."""
        self.trigger(lambda: self.dialect.sample(self.snapshot(place)))

    def trigger_report(self, place: SimulatedEvse) -> None:
        """Tell soon how the transaction of an EVSE goes on."""

        def report() -> None:
            if place.transaction is not None:
                self.report(place, place.transaction, Cause.TRIGGERED)

        self._after_reply.append(report)

    def _state_of(self, number: int) -> EvseState:
        if number != WHOLE_STATION:
            return self.evse(number).state
        return EvseState.AVAILABLE if self.operative else EvseState.UNAVAILABLE

    def trigger(self, build: Callable[[], Request]) -> None:
        """Send a message soon, after the reply that promised it."""
        self._after_reply.append(lambda: self._send_soon(build()))

    def change_availability(self, number: int, *, operative: bool) -> bool:
        """Make an EVSE (0: the station) operative or not. False: only when the running transaction is over."""
        chosen = self.places(number)
        for place in chosen:
            place.operative = operative
            place.refresh()
        if number == WHOLE_STATION:
            self.operative = operative
        self._network.wake()
        return operative or all(place.transaction is None for place in chosen)

    def remote_start(
        self, number: int | None, card: str, remote_start_id: int | None, profile: Profile | None
    ) -> SimulatedEvse | None:
        """Take a card from afar; return the EVSE it is for, None when there is none to start on."""
        places = self.evses if number is None else (self.evse(number),)
        waiting = [place for place in places if self._available(place) and place.transaction is None]
        if not waiting:
            return None
        place = next((one for one in waiting if one.vehicle is not None), waiting[0])
        place.card, place.remote_start_id, place.profile_to_come = card, remote_start_id, profile
        place.refresh()
        if place.vehicle is not None:
            self._after_reply.append(lambda: self.begin(place))
        return place

    def remote_stop(self, transaction_id: str) -> bool:
        """Stop a transaction by the central system's name for it; False when it does not run here."""
        for place in self.evses:
            if place.transaction is not None and place.transaction.remote_id == transaction_id:
                self._after_reply.append(partial(self.end, place, Cause.REMOTE_STOP))
                return True
        return False

    def reset(self, *, when_idle: bool = False) -> None:
        """Restart after the reply has left, or once no transaction runs any more."""
        if when_idle:
            self._reset_when_idle = True
            return
        self._after_reply.append(lambda: self._network.start_outage(self._restart()))

    def _restart(self) -> Outage:
        return Outage(for_s=self.manners.reboot_s, reboot=True, silent=False, boot_reason=Cause.RESET)

    def set_variable(self, key: str, value: str) -> bool:
        """Change a configuration key; False when it cannot have that value. Raises KeyError."""
        variable = self.variables[key]
        if not variable.writable or not variable.check(value):
            return False
        variable.value = value
        self._network.wake()
        return True

    def answer(self, message: Call | Problem) -> CallResult | CallError | None:
        """Answer a CALL of the central system as a careful station does."""
        if isinstance(message, Problem):
            self.statistics.bad_frames += 1
            if message.call_id is None:
                return None
            return CallError(message.call_id, self.dialect.codes[message.fault], message.text)
        self.statistics.received[message.action] += 1
        handler = self.dialect.handlers.get(message.action)
        if handler is None:
            self.statistics.refused[message.action] += 1
            code = self.dialect.codes[Fault.NOT_IMPLEMENTED]
            return CallError(message.id, code, f"{message.action} is not implemented")
        try:
            check_call(self.dialect.version, message.action, message.payload)
            return CallResult(message.id, handler(self, message.payload))
        except (NotSchemaValid, KeyError, ValueError) as wrong:
            self.statistics.refused[message.action] += 1
            return CallError(message.id, self.dialect.codes[Fault.PROPERTY], str(wrong))

    def answered(self) -> None:
        """Do what was put off until the reply had left."""
        due, self._after_reply = self._after_reply, []
        for act in due:
            act()
        self._network.wake()

    def next_message(self) -> Outgoing | None:
        """Return what to say next: what was promised, states, cards, then the outbox in order."""
        if self._urgent:
            return self._urgent.popleft()
        return self._next_status() or self._next_card() or (self._outbox[0] if self._outbox else None)

    def _next_status(self) -> Outgoing | None:
        first = 1 if self.dialect.names_transactions else WHOLE_STATION  # in 2.x only connectors have a status
        for number in range(first, len(self.evses) + 1):
            state = self._state_of(number)
            word = self.dialect.status_word(state)
            if self._told.get(number) != word:
                # Only told once it has arrived: a status that was lost with the link is told again.
                settle = partial(self._note_told, number, word)
                return Outgoing(*self.dialect.status(number, state, self.unix_s()), settle)
        return None

    def _note_told(self, number: int, word: str, _: Payload | None) -> None:
        self._told[number] = word

    def _next_card(self) -> Outgoing | None:
        for place in self.evses:
            if place.card is None or place.vehicle is None or place.transaction is not None or not place.powered:
                continue
            if not self._available(place):
                continue
            return Outgoing(*self.dialect.authorize(place.card), self._card_settler(place, place.card))
        return None

    def _card_settler(self, place: SimulatedEvse, card: str) -> Callable[[Payload | None], None]:
        def settle(result: Payload | None) -> None:
            if place.card != card:
                return
            if result is not None and self.dialect.is_authorized(result):
                self.begin(place)
            else:
                place.card = None
                place.refresh()

        return settle

    def delivered(self, message: Outgoing) -> None:
        """Take a message off the outbox: it has been answered, or given up."""
        if self._outbox and self._outbox[0] is message:
            self._outbox.popleft()

    def forget_told(self) -> None:
        """Tell every state again."""
        self._told.clear()

    def lose_power(self, cause: Cause) -> None:
        """Go dark: transactions end, what is not persistent is gone."""
        self.statistics.reboots += 1
        self.boot_reason = cause
        for place in self.evses:
            self.end(place, cause)
            place.powered = False
        self.store.reboot()
        self._urgent.clear()

    def regain_power(self) -> None:
        """Have power again."""
        for place in self.evses:
            place.powered = True

    def _send_soon(self, request: Request) -> None:
        self._urgent.append(Outgoing(*request, lambda _: None))
        self._network.wake()

    def _evse(self, number: int, rating: EvseRating, count: int) -> SimulatedEvse:
        return SimulatedEvse(
            id=rating.id or (self.id if count == 1 else f"{self.id}-{number}"),
            number=number,
            limit_a=self.limit_a,
            changed=self._live,
            max_a=rating.max_a,
            min_a=rating.min_a,
            phases=rating.phases,
            pilot_hold_s=self.manners.pilot_hold_s,
        )

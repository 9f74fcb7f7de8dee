"""The grid meter: one plausible reading each period, or the reason why there is none.

Knows when to read and what cannot be true. Does not care what a reading is used for: it tells an `Observer`, and an
unreachable meter stops nothing.
"""

import asyncio
import math
import random
from collections.abc import Mapping
from typing import Final

from controller.config import ModbusTcpMeter
from controller.core.electrical import HIGHEST_V, Phases
from controller.core.model import MeterReading
from controller.ports import Clock, Observer
from drivers.modbus import regmap
from drivers.modbus.bus import BusError, Connection, Problem
from drivers.modbus.regmap import CURRENT_A, POWER_W, VOLTAGE_V, PhaseNames, PointName, RegisterMap

HIGHEST_CURRENT_A: Final = 10_000.0  # the largest current that a site file may name
LOWEST_VOLTAGE_V: Final = 150.0
HIGHEST_VOLTAGE_V: Final = 300.0
HIGHEST_POWER_W: Final = 3 * HIGHEST_VOLTAGE_V * HIGHEST_CURRENT_A
# Total and phases may come from two reads, between which a load can be switched; a wrong scale or order is far off.
POWER_MISMATCH_W: Final = 1_000.0
POWER_MISMATCH_RATIO: Final = 0.25

FIRST_RETRY_S: Final = 0.2
LONGEST_RETRY_S: Final = 5.0
_MOST_DOUBLINGS: Final = 8
_SLOT_TOLERANCE_RATIO: Final = 1e-6  # a timer may fire a hair early; that must not read the same slot twice

_USED: Final[tuple[PointName, ...]] = (*VOLTAGE_V, *CURRENT_A, *POWER_W, "power_w", "import_wh")


class RejectedError(Exception):
    """A reading that was received well and cannot be true; `problem` says why."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(problem.value)


class ModbusMeter:
    """Reads one meter over Modbus TCP and tells the observer. Raises `regmap.MapError` for an unknown map.

    `rng` spreads the reconnects of many meters behind one gateway; without it they are not spread.
    """

    def __init__(
        self, config: ModbusTcpMeter, observer: Observer, clock: Clock, *, rng: random.Random | None = None
    ) -> None:
        self._config = config
        self._observer = observer
        self._clock = clock
        self._rng = rng
        self._map = regmap.load(config.map)
        self._used = tuple(name for name in _USED if name in self._map.points)
        self._blocks = regmap.plan(self._map, self._used)
        self._connection: Connection | None = None
        self._failures = 0
        self._samples = 0

    async def run(self) -> None:
        """Read for ever, until cancelled.

        Reads start on a steady grid of `period_s`; slots that a slow read has missed are skipped, never made up for.
        After the connection was lost, the next attempt comes after a growing pause, on the grid or not.
        """
        start_s = self._clock.now_s()
        try:
            while True:
                await self._sample()
                await asyncio.sleep(self._pause_s(start_s))
        finally:
            self._disconnect()

    async def _sample(self) -> None:
        try:
            reading = await self._read()
        except BusError as error:
            self._disconnect()
            self._failures += 1
            self._observer.meter_failed(self._config.circuit, error.problem)
        except RejectedError as error:
            self._failures = 0
            self._observer.meter_failed(self._config.circuit, error.problem)
        else:
            self._failures = 0
            self._samples = reading.sample
            self._observer.meter_read(self._config.circuit, reading)

    def _pause_s(self, start_s: float) -> float:
        if self._failures:
            return retry_s(self._failures, self._rng)
        now_s = self._clock.now_s()
        return next_slot_s(start_s, self._config.period_s, now_s) - now_s

    async def _read(self) -> MeterReading:
        connection = await self._connected()
        # The careful stamp is the moment of asking: however late the answer, no value claims to be newer than it is.
        asked_at_s = self._clock.now_s()
        registers: dict[int, int] = {}
        try:
            async with asyncio.timeout(self._config.timeout_s):
                for block in self._blocks:
                    words = await connection.read(self._config.unit_id, self._map.function, block)
                    registers.update(enumerate(words, start=block.address))
        except TimeoutError as late:
            raise BusError(Problem.TIMEOUT if connection.alive else Problem.CONNECTION_LOST) from late
        try:
            values = regmap.decode(self._map, registers, self._used)
        except regmap.InvalidValueError as error:
            raise RejectedError(Problem.NO_VALUE) from error
        return interpret(
            self._map, values, sampled_at_s=asked_at_s, sample=self._samples + 1, period_s=self._config.period_s
        )

    async def _connected(self) -> Connection:
        if self._connection is not None and self._connection.alive:
            return self._connection
        self._disconnect()
        self._connection = Connection(self._config.host, self._config.port)
        try:
            async with asyncio.timeout(self._config.timeout_s):
                await self._connection.open()
        except TimeoutError as late:
            raise BusError(Problem.UNREACHABLE) from late
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def next_slot_s(start_s: float, period_s: float, now_s: float) -> float:
    """Return the first instant of the grid `start_s + n * period_s` after `now_s`."""
    slots = math.floor((now_s - start_s) / period_s + _SLOT_TOLERANCE_RATIO) + 1
    return start_s + slots * period_s


def retry_s(failures: int, rng: random.Random | None) -> float:
    """Return the pause before connecting again after so many failures in a row: 0.2 s, doubling up to 5 s.

    With `rng` it is shortened at random, by half at most.
    """
    pause_s = min(LONGEST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(failures - 1, _MOST_DOUBLINGS))
    return pause_s if rng is None else pause_s * (1.0 - 0.5 * rng.random())


def interpret(
    register_map: RegisterMap,
    values: Mapping[PointName, float],
    *,
    sampled_at_s: float,
    sample: int,
    period_s: float,
) -> MeterReading:
    """Return the reading that a meter's values make. Raises RejectedError when it cannot be true.

    The phase powers give the currents their sign (import positive), and an exported current counts only as far as it
    carries active power: charging does not lower a reactive current ampere for ampere, so that part is no room.
    """
    current_a, power_w = _phases(values, CURRENT_A), _phases(values, POWER_W)
    voltage_v = _phases(values, VOLTAGE_V)
    if current_a is None or not all(abs(phase_a) <= HIGHEST_CURRENT_A for phase_a in current_a):
        raise RejectedError(Problem.IMPLAUSIBLE_CURRENT)
    if voltage_v is not None and not all(LOWEST_VOLTAGE_V <= phase_v <= HIGHEST_VOLTAGE_V for phase_v in voltage_v):
        raise RejectedError(Problem.IMPLAUSIBLE_VOLTAGE)
    if power_w is not None:
        current_a = _directed(current_a, power_w, voltage_v or (HIGHEST_V, HIGHEST_V, HIGHEST_V))
    import_wh = values.get("import_wh")
    return MeterReading(
        sampled_at_s=sampled_at_s,
        sample=sample,
        period_s=period_s,
        current_a=current_a,
        power_w=_total_w(values.get("power_w"), power_w),
        voltage_v=voltage_v,
        import_wh=import_wh,
        import_step_wh=None if import_wh is None else regmap.import_step_wh(register_map, import_wh),
    )


def _phases(values: Mapping[PointName, float], names: PhaseNames) -> Phases | None:
    l1, l2, l3 = (values.get(name) for name in names)
    return None if l1 is None or l2 is None or l3 is None else (l1, l2, l3)


def _directed(current_a: Phases, power_w: Phases, voltage_v: Phases) -> Phases:
    l1, l2, l3 = (
        -min(abs(phase_a), -phase_w / phase_v) if phase_w < 0 else abs(phase_a)
        for phase_a, phase_w, phase_v in zip(current_a, power_w, voltage_v, strict=True)
    )
    return (l1, l2, l3)


def _total_w(total_w: float | None, power_w: Phases | None) -> float:
    if total_w is None:
        total_w = math.nan if power_w is None else sum(power_w)
    if not abs(total_w) <= HIGHEST_POWER_W:
        raise RejectedError(Problem.IMPLAUSIBLE_POWER)
    if power_w is not None:
        size_w = max(abs(total_w), sum(abs(phase_w) for phase_w in power_w))
        if not abs(sum(power_w) - total_w) <= max(POWER_MISMATCH_W, POWER_MISMATCH_RATIO * size_w):
            raise RejectedError(Problem.IMPLAUSIBLE_POWER)
    return total_w

"""Prometheus metrics of the control loop.

Knows names, units and labels. Does not care who scrapes. Labels are ids of the site file and enumerations, so that the
number of series is bounded by the configuration (reference: Prometheus naming: base units, `_total`, one unit a name).
A gauge whose value is unknown is NaN, because 0 would read as "nothing flows".

This module imports prometheus_client at its top and is therefore imported late: control starts first, then
`await asyncio.to_thread(importlib.import_module, "controller.metrics")`.
"""

import platform
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from threading import Lock
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from controller.core.electrical import Phases
from controller.core.explain import PHASE_NAMES
from controller.core.model import AlarmCode, ReasonCode
from controller.ports import CycleReport

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_PREFIX: Final = "laadplein"
_DURATION_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_MOST_REJECT_REASONS: Final = 32
_JOULES_PER_WH: Final = 3600.0
_NAN: Final = float("nan")
_UNKNOWN_A: Final[Phases] = (_NAN, _NAN, _NAN)

Row = tuple[Sequence[str], float]


class Metrics:
    """A `Publisher` that renders the latest cycle, and what happened in all cycles, as Prometheus text.

    `ocpp_events` returns what the side of the stations counted, by the names of a fixed set.
    A scrape costs at most one rendering a cycle, and a cycle without a scrape costs next to nothing. `render` may be
    called from another thread than `publish`.
    """

    def __init__(self, ocpp_events: Callable[[], Mapping[str, int]] | None = None) -> None:
        self._ocpp_events = ocpp_events
        self._report: CycleReport | None = None
        self._durations = _Durations()
        self._violations = _Violations()
        self._text: tuple[CycleReport | None, bytes] | None = None
        self._rendering = Lock()
        # An own registry: what other libraries register globally is not ours to show.
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Families(self._families))

    def publish(self, report: CycleReport) -> None:
        """Take note of a cycle."""
        self._durations.add(report.duration_s)
        self._violations.add(report)
        self._report = report

    def render(self) -> bytes:
        """Return the text of the latest cycle, of type `CONTENT_TYPE`."""
        with self._rendering:
            report = self._report
            if self._text is None or self._text[0] is not report:
                self._text = (report, generate_latest(self._registry))
            return self._text[1]

    def _families(self) -> Iterator[Metric]:
        yield _build_info()
        report = self._report
        if report is None:
            return
        yield self._durations.family()
        yield from _cycles(report)
        yield from _circuits(report, self._violations.total_s())
        yield from _contracts(report)
        yield from _evses(report)
        if self._ocpp_events is not None:
            events = [((name,), count) for name, count in dict(self._ocpp_events()).items()]
            yield _counter("ocpp_events", "Connections, messages and refusals of stations.", ("event",), events)


class _Families(Collector):
    """What the registry asks for metric families."""

    def __init__(self, families: Callable[[], Iterator[Metric]]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families()


# ------------------------------------------------------------------------------------------- counted over all cycles


class _Durations:
    """A histogram of cycle durations."""

    def __init__(self) -> None:
        self._counts = [0] * (len(_DURATION_BUCKETS_S) + 1)
        self._sum_s = 0.0

    def add(self, duration_s: float) -> None:
        self._counts[bisect_left(_DURATION_BUCKETS_S, duration_s)] += 1
        self._sum_s += duration_s

    def family(self) -> Metric:
        buckets: list[tuple[str, float]] = []
        below = 0
        for bound_s, count in zip((*_DURATION_BUCKETS_S, None), tuple(self._counts), strict=True):
            below += count
            buckets.append(("+Inf" if bound_s is None else str(bound_s), below))
        name = f"{_PREFIX}_cycle_duration_seconds"
        return HistogramMetricFamily(name, "Time one control cycle took.", buckets=buckets, sum_value=self._sum_s)


class _Violations:
    """Seconds of excursion beyond the reaction time, per circuit (C3: an excursion ends within `reaction_s`)."""

    def __init__(self) -> None:
        self._counted_s: Mapping[str, float] = {}
        self._running_s: dict[str, float] = {}
        self._total_s: dict[str, float] = {}

    def add(self, report: CycleReport) -> None:
        reaction_s = report.snapshot.site.policy.reaction_s
        ids = [circuit.id for circuit in report.snapshot.site.circuits]
        running_s = {name: self._running(name, report.excursion_s.get(name, 0.0)) for name in ids}
        for name in ids:
            before_s = max(self._running_s.get(name, 0.0), reaction_s)
            self._total_s[name] = self._total_s.get(name, 0.0) + max(0.0, running_s[name] - before_s)
        self._counted_s, self._running_s = report.excursion_s, running_s

    def _running(self, circuit: str, counted_s: float) -> float:
        """Return how long the present excursion lasts; 0 once a cycle passed without adding to it."""
        grown_s = counted_s - self._counted_s.get(circuit, 0.0)
        return self._running_s.get(circuit, 0.0) + grown_s if grown_s > 0 else 0.0

    def total_s(self) -> Mapping[str, float]:
        return dict(self._total_s)


# ------------------------------------------------------------------------------------------------ from the one report


def _build_info() -> Metric:
    try:
        release = version(_PREFIX)
    except PackageNotFoundError:  # run from a source tree that is not installed
        release = "unknown"
    values = {"version": release, "python": platform.python_version()}
    return InfoMetricFamily(f"{_PREFIX}_build", "What runs here.", value=values)


def _cycles(report: CycleReport) -> Iterator[Metric]:
    yield _counter("cycles", "Control cycles.", (), _one(report.number))
    yield _counter("cycle_overruns", "Control cycles that ended too late.", (), _one(report.overruns))
    yield _gauge("last_cycle_timestamp_seconds", "UTC of the last cycle.", (), _one(report.snapshot.unix_s))
    yield _gauge("feasible", "1 when everything fits, 0 when not.", (), _one(report.decision.feasible))
    yield _counter("setpoints_sent", "Setpoints sent to stations.", (), _one(report.setpoints_sent))
    yield _counter("setpoints_confirmed", "Setpoints that stations accepted.", (), _one(report.setpoints_confirmed))
    yield _counter("setpoints_failed", "Setpoints refused or unanswered.", (), _one(report.setpoints_failed))
    rejected = _bounded(report.readings_rejected)
    yield _counter("meter_readings_rejected", "Meter readings missing or not believed.", ("reason",), rejected)
    codes = [alarm.code for alarm in report.decision.alarms]
    standing = [((code.value,), codes.count(code)) for code in AlarmCode]
    yield _gauge("alarms", "Alarms that stand now.", ("code",), standing)


def _bounded(counts: Mapping[str, int]) -> Iterator[Row]:
    """Yield a row per reason; past a bound the rest counts as `other`."""
    names = sorted(counts)
    for name in names[:_MOST_REJECT_REASONS]:
        yield (name,), counts[name]
    if len(names) > _MOST_REJECT_REASONS:
        yield ("other",), sum(counts[name] for name in names[_MOST_REJECT_REASONS:])


def _circuits(report: CycleReport, violation_s: Mapping[str, float]) -> Iterator[Metric]:
    yield from _circuit_currents(report)
    ids = [circuit.id for circuit in report.snapshot.site.circuits]
    now_s, states = report.snapshot.now_s, report.decision.circuits
    age_s = {name: now_s - reading.sampled_at_s for name, reading in report.snapshot.meters.items()}
    yield _gauge("circuit_reading_age_seconds", "Age of the meter reading.", ("circuit",), _each(ids, age_s))
    overloaded = {name: state.overloaded for name, state in states.items()}
    yield _gauge("circuit_overloaded", "1 while the circuit is overloaded.", ("circuit",), _each(ids, overloaded))
    excursion_s = {name: report.excursion_s.get(name, 0.0) for name in ids}
    yield _counter("circuit_excursion_seconds", "Time above the limit.", ("circuit",), _each(ids, excursion_s))
    beyond = "Time above the limit beyond the reaction time that is promised."
    yield _counter("circuit_violation_seconds", beyond, ("circuit",), _each(ids, violation_s))


def _circuit_currents(report: CycleReport) -> Iterator[Metric]:
    ids = [circuit.id for circuit in report.snapshot.site.circuits]
    states, meters = report.decision.circuits.items(), report.snapshot.meters.items()
    values: tuple[tuple[str, str, Mapping[str, Phases]], ...] = (
        ("limit", "Limit in force.", {name: state.limit_a for name, state in states}),
        ("measured", "Measured current, import positive.", {name: reading.current_a for name, reading in meters}),
        ("base", "Uncontrolled load that is believed.", {name: state.base_a for name, state in states}),
        ("committed", "Worst-case draw of the EVSEs below.", {name: state.committed_a for name, state in states}),
        ("headroom", "What is left; negative when overloaded.", {name: state.headroom_a for name, state in states}),
    )
    for quantity, text, values_a in values:
        yield _gauge(f"circuit_{quantity}_amperes", text, ("circuit", "phase"), _each_phase(ids, values_a))


def _contracts(report: CycleReport) -> Iterator[Metric]:
    ids = [contract.id for contract in report.snapshot.site.contracts]
    states = report.decision.contracts.items()
    limit_w = {name: state.limit_w for name, state in states}
    yield _gauge("contract_limit_watts", "Contracted mean import.", ("contract",), _each(ids, limit_w))
    allowed_w = {name: state.allowed_w for name, state in states}
    yield _gauge("contract_allowed_watts", "Allowed until the interval ends.", ("contract",), _each(ids, allowed_w))
    used_j = {name: state.used_wh * _JOULES_PER_WH for name, state in states}
    yield _gauge("contract_used_joules", "Import so far in this interval.", ("contract",), _each(ids, used_j))


def _evses(report: CycleReport) -> Iterator[Metric]:
    ids = [evse.id for evse in report.snapshot.site.evses]
    setpoints, seen = report.decision.setpoints.items(), report.snapshot.evses.items()
    online = {name: evidence.online for name, evidence in seen}
    yield _gauge("evse_online", "1 while the station is connected.", ("evse",), _each(ids, online))
    setpoint_a = {name: setpoint.value_a for name, setpoint in setpoints}
    yield _gauge("evse_setpoint_amperes", "Setpoint per active phase.", ("evse",), _each(ids, setpoint_a))
    measured_a = {name: evidence.measured_a for name, evidence in seen if evidence.measured_a is not None}
    yield _gauge("evse_measured_amperes", "Measured current.", ("evse", "phase"), _each_phase(ids, measured_a))
    now_s = report.snapshot.now_s
    age_s = {name: now_s - evidence.measured_at_s for name, evidence in seen if evidence.measured_at_s is not None}
    yield _gauge("evse_reading_age_seconds", "Age of the measured current.", ("evse",), _each(ids, age_s))
    binding = {name: setpoint.reason.code for name, setpoint in setpoints}
    # A state set, as the text format has it: a gauge with one series per state.
    states = [((name, code.value), binding.get(name) is code) for name in ids for code in ReasonCode]
    yield _gauge("evse_limit_reason", "1 for the reason that binds the setpoint.", ("evse", "reason"), states)


# ------------------------------------------------------------------------------------------------------ rows, families


def _one(value: float) -> Iterable[Row]:
    return [((), value)]


def _each(ids: Iterable[str], values: Mapping[str, float]) -> Iterable[Row]:
    return [((name,), values.get(name, _NAN)) for name in ids]


def _each_phase(ids: Iterable[str], values_a: Mapping[str, Phases]) -> Iterable[Row]:
    return [
        ((name, phase), value_a)
        for name in ids
        for phase, value_a in zip(PHASE_NAMES, values_a.get(name, _UNKNOWN_A), strict=True)
    ]


def _gauge(name: str, text: str, labels: Sequence[str], rows: Iterable[Row]) -> Metric:
    family = GaugeMetricFamily(f"{_PREFIX}_{name}", text, labels=labels)
    for values, value in rows:
        family.add_metric(values, float(value))
    return family


def _counter(name: str, text: str, labels: Sequence[str], rows: Iterable[Row]) -> Metric:
    family = CounterMetricFamily(f"{_PREFIX}_{name}", text, labels=labels)
    for values, value in rows:
        family.add_metric(values, float(value))
    return family

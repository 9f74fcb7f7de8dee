"""Commissioning: from a site file to the site that the core decides on, and the checks that belong to it.

Knows how the parts of the file become circuits, EVSEs and contracts, deals the fallbacks, and refuses a site whose
worst case does not fit. Does not care how the file was read or who connects later.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from controller.config import (
    PHASE_INDEX,
    AcceptUnknown,
    CircuitSection,
    EvseSection,
    Location,
    Problem,
    SiteFile,
    SiteFileError,
    StationSection,
    evse_id,
    guest_ids,
    load,
)
from controller.core.electrical import Phases
from controller.core.model import Circuit, Contract, Evse, Limit, Policy, Site, Trust
from controller.core.worst_case import WorstCase, deal_fallbacks, worst_cases
from controller.ports import StationEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class Commissioned:
    """A site file that may be run: the file, the core's site, and its worst case."""

    file: SiteFile
    site: Site
    worst: tuple[WorstCase, ...]
    numbers: dict[str, int]


def commission(path: Path, drivers: Callable[[SiteFile], Iterable[Problem]] = lambda _: ()) -> Commissioned:
    """Read a site file and make a site of it. Raises SiteFileError with every problem; opens nothing.

    `drivers` finds what only the drivers can know to be wrong; no signature excuses that.
    """
    file = load(path)
    ready = assemble(file)
    problems = list(drivers(file))
    if file.exception is None:
        problems += _worst_case_problems(ready)
    if problems:
        raise SiteFileError(path, path.read_text(encoding="utf-8"), problems)
    return ready


def assemble(file: SiteFile) -> Commissioned:
    """Make a site of a valid site file and deal the fallbacks."""
    metered = {meter.circuit for meter in file.meter}
    circuits = tuple(_circuit(section, metered=section.id in metered) for section in _parents_first(file.circuit))
    undealt, numbers = [], {}
    for station in file.station:
        for section in station.evse:
            evse = _evse(station, section)
            undealt.append(evse)
            numbers[evse.id] = section.number
    for evse in _guests(file.ocpp.accept_unknown):
        undealt.append(evse)
        numbers[evse.id] = 1
    site = Site(
        circuits=circuits,
        evses=deal_fallbacks(circuits, undealt),
        contracts=tuple(
            Contract(
                id=section.id,
                circuit=section.circuit,
                import_w=section.import_kw * 1000.0,
                settlement_interval_s=section.settlement_interval_s,
                margin_ratio=section.margin_ratio,
            )
            for section in file.contract
        ),
        policy=Policy(**file.policy.model_dump(), sample_interval_s=float(file.ocpp.sample_interval_s)),
    )
    return Commissioned(file=file, site=site, worst=worst_cases(site), numbers=numbers)


class Directory:
    """Who may connect: the stations of the site file, and as many guests as it accepts.

    A guest takes a free slot by its identity and keeps it until it is released, or as long as the gateway runs.
    """

    def __init__(self, commissioned: Commissioned) -> None:
        self._entries: dict[str, StationEntry] = {}
        self._free: list[StationEntry] = []
        self._taken: dict[str, StationEntry] = {}
        by_station: dict[str, dict[int, Evse]] = {}
        for evse in commissioned.site.evses:
            by_station.setdefault(evse.station, {})[commissioned.numbers[evse.id]] = evse
        known = {station.id for station in commissioned.file.station}
        for station, evses in by_station.items():
            entry = StationEntry(id=station, evses=evses)
            if station in known:
                self._entries[station] = entry
            else:
                self._free.append(entry)

    def entry(self, identity: str) -> StationEntry | None:
        """Return the station with this identity, giving a guest a free slot, or None: refuse it."""
        if identity not in self._entries and self._free:
            slot = self._free.pop(0)
            self._taken[identity] = slot
            self._entries[identity] = StationEntry(id=identity, evses=slot.evses)
        return self._entries.get(identity)

    def release(self, identity: str) -> bool:
        """Take back a guest's slot and return whether it had one; the next guest gets it."""
        slot = self._taken.pop(identity, None)
        if slot is None:
            return False
        del self._entries[identity]
        self._free.insert(0, slot)
        return True


# ----------------------------------------------------------------------------------------------------------- the parts


def _parents_first(sections: tuple[CircuitSection, ...]) -> list[CircuitSection]:
    """Order circuits so that a parent comes before its children (the file has no cycle: it was checked)."""
    parents = {section.id: section.parent for section in sections}

    def depth(name: str) -> int:
        parent = parents[name]
        return 0 if parent is None else 1 + depth(parent)

    return sorted(sections, key=lambda section: depth(section.id))


def _phases(value_a: float | Phases) -> Phases:
    return value_a if isinstance(value_a, tuple) else (value_a, value_a, value_a)


def _circuit(section: CircuitSection, *, metered: bool) -> Circuit:
    limits = []
    if section.limit_a is not None:
        limits.append(Limit(source=f"{section.id} fuse", value_a=_phases(section.limit_a)))
    if section.limit_kw is not None:
        limits.append(Limit(source=f"{section.id} power", value_w=section.limit_kw * 1000.0))
    return Circuit(
        id=section.id,
        parent=section.parent,
        limits=tuple(limits),
        continuous_factor=section.continuous_factor,
        nominal_v=section.nominal_v,
        metered=metered,
        base_worst_a=_phases(section.base_worst_a or 0.0),
    )


def _evse(station: StationSection, section: EvseSection) -> Evse:
    # What the installer has set in the station holds whatever we ask for, and also when nobody asks.
    rated_a = section.max_a if section.installer_max_a is None else section.installer_max_a
    return Evse(
        id=evse_id(station, section),
        station=station.id,
        circuit=section.circuit,
        phases=tuple(PHASE_INDEX[name] for name in section.phases),
        min_a=section.min_a,
        max_a=min(section.max_a, rated_a),
        rated_a=rated_a,
        trust=station.trust,
        weight=section.weight,
        priority=section.priority,
        never_zero=section.never_zero,
    )


def _guests(accept: AcceptUnknown | None) -> Iterator[Evse]:
    """Slots for stations outside the file: class C, so their rated maximum is reckoned with from the start."""
    if accept is None:
        return
    for name in guest_ids(accept):
        yield Evse(
            id=name,
            station=name,
            circuit=accept.circuit,
            max_a=accept.installer_max_a,
            rated_a=accept.installer_max_a,
            trust=Trust.NONE,
        )


def _worst_case_problems(ready: Commissioned) -> Iterator[Problem]:
    positions = {section.id: index for index, section in enumerate(ready.file.circuit)}
    for case in ready.worst:
        if case.fits:
            continue
        location: Location = ("circuit", positions[case.circuit], "limit_a")
        phase = max(range(3), key=lambda p: case.base_a[p] + case.outcome_a[p] - case.limit_a[p])
        base_a, outcome_a, limit_a = case.base_a[phase], case.outcome_a[phase], case.limit_a[phase]
        text = (
            f"with the gateway dead, circuit {case.circuit!r} could carry {base_a + outcome_a:.1f} A "
            f"of {limit_a:.1f} A on L{phase + 1}: base load {base_a:.1f} A, "
            f"fallbacks (class C: rated maximum) {outcome_a:.1f} A"
        )
        remedy = 'lower installer_max_a or base_worst_a, prove a lease (trust = "B"), or sign an [exception]'
        yield Problem(location=location, text=text, remedy=remedy)

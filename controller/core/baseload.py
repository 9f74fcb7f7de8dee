"""Base load: the uncontrolled load of each circuit, told from raw meters and from EVSE samples of another age.

A circuit's meter contains its vehicles, and their samples are seconds to a minute old. So:

- the residual (meter less the vehicles' last known draw) rises into the base load at once, except for what a raise of
  ours, up to 15 s ago, explains (docs/control.md, "Base load");
- it falls only when every drawing EVSE has been sampled since: until then a vehicle may be what fell. But it is never
  more than the meter shows, less what vehicles were sampled to draw at that time (within 2 s and half its period);
- one meter sample alone does not count while the overload is at most 1.3 times the limit (motor starts).

Nothing that a vehicle may still take is ever counted as free, and nothing is counted twice for long.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Final

from controller.core.commit import Commitment
from controller.core.electrical import (
    HIGHEST_V,
    NO_LOAD,
    WATTS,
    ZERO,
    Load,
    Phases,
    higher,
    load_of,
    lower,
    minus,
    plus,
    total,
)
from controller.core.limits import Bound
from controller.core.model import Circuit, CircuitMemory, EvseEvidence, EvseMemory, MeterQuality, MeterReading, Snapshot
from controller.core.tree import Tree

ATTRIBUTION_S: Final = 15.0
DEBOUNCE_RATIO: Final = 1.3
FREEZE_S: Final = 3.0
FREEZE_PERIODS: Final = 2.5
STALE_S: Final = 10.0
LOST_S: Final = 60.0
RECOVER_S: Final = 30.0
ALIGNED_S: Final = 2.0
PEAK_FADE_S: Final = 900.0
RISE_WINDOW_S: Final = 15.0
RISE_HISTORY_S: Final = 900.0
RISE_FADE_RATIO: Final = 0.98  # per window: a rise is forgotten over some ten minutes without another


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """The uncontrolled load of a circuit and all below it.

    `load` is what setpoints must fit beside; `rise` is not smaller and is what raises must fit beside. `surge_w` is how
    much the total may soon rise again, going by the past quarter of an hour. `measured` is the meter's own reading, if
    it has one to be believed.
    """

    load: Load
    rise: Load
    surge_w: float
    quality: MeterQuality
    measured: Load | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """The base load of every circuit, and what must be remembered for the next."""

    bases: tuple[Base, ...]
    circuits: Mapping[str, CircuitMemory]
    credits_a: Sequence[Phases]


def quality_of(reading: MeterReading | None, memory: CircuitMemory, now_s: float) -> MeterQuality:
    """Return how far a meter is believed: by its age, and after a loss by how long it has been good again."""
    if reading is None:
        return MeterQuality.LOST
    age_s = now_s - reading.sampled_at_s
    freeze_s = max(FREEZE_S, FREEZE_PERIODS * reading.period_s)
    if age_s >= LOST_S:
        return MeterQuality.LOST
    if age_s > max(STALE_S, freeze_s):
        return MeterQuality.STALE
    if age_s > freeze_s:
        return MeterQuality.FROZEN
    recovering = memory.recovering_since_s is not None and now_s - memory.recovering_since_s < RECOVER_S
    return MeterQuality.FROZEN if recovering else MeterQuality.FRESH


def estimate(
    snapshot: Snapshot,
    tree: Tree,
    bounds: Sequence[Bound],
    commitments: Sequence[Commitment],
    evse_memories: Sequence[EvseMemory],
    memories: Mapping[str, CircuitMemory],
) -> Estimate:
    """Estimate every circuit's base load, from the leaves of the tree to its roots."""
    circuits = snapshot.site.circuits
    credits_a = [
        _carried_credit(snapshot, index, memory, commitments[index]) for index, memory in enumerate(evse_memories)
    ]
    results: list[Base | None] = [None] * len(circuits)
    kept: dict[str, CircuitMemory] = {}
    settled: set[int] = set()  # EVSEs whose raise a meter nearer to them has explained already
    for index in reversed(range(len(circuits))):
        circuit = circuits[index]
        if not circuit.metered:
            children = [results[child] for child, parent in enumerate(tree.parents) if parent == index]
            results[index] = _unmetered(circuit, [child for child in children if child is not None])
            continue
        meter = _Meter(snapshot, tree, index, bounds[index], commitments, memories.get(circuit.id, CircuitMemory()))
        results[index], kept[circuit.id] = meter.judge(credits_a, settled)
        settled.update(evse for evse in tree.below[index] if meter.has_seen(evse))
    return Estimate(bases=tuple(result for result in results if result is not None), circuits=kept, credits_a=credits_a)


def _carried_credit(snapshot: Snapshot, index: int, memory: EvseMemory, commitment: Commitment) -> Phases:
    """Keep a credit until a newer sample says what is drawn, as far as the EVSE may draw it."""
    evidence = snapshot.evses.get(snapshot.site.evses[index].id)
    if evidence is None or evidence.measured_at_s != memory.credited_sample_at_s:
        return ZERO
    if commitment.deaf and commitment.known_a == ZERO:
        return ZERO
    # Never more than it is reckoned with: what the meter shows beyond the setpoints is base load.
    most_a, known_a, credit_a = commitment.committed_a, commitment.known_a, memory.credit_a
    l1, l2, l3 = (max(0.0, min(credit_a[phase], most_a - known_a[phase])) for phase in range(3))
    return (l1, l2, l3)


def _changed_at_s(evidence: EvseEvidence, snapshot: Snapshot) -> float:
    """When a change of ours last began to show: a new setpoint, the start of a transaction, or our own restart.

    After a restart no sample is fresh, and what the meter shows is the setpoints that were adopted (invariant C10).
    """
    return max(evidence.sent_at_s or -inf, evidence.transaction_since_s or -inf, snapshot.started_at_s)


def worst_load(circuit: Circuit) -> Load:
    """Return the configured worst base load, with the power it carries at the highest voltage."""
    return load_of(circuit.base_worst_a, (HIGHEST_V, HIGHEST_V, HIGHEST_V))


def _unmetered(circuit: Circuit, children: Sequence[Base]) -> Base:
    """A circuit without a meter carries its configured worst load, or what its children carry if that is more."""
    frozen = any(child.quality not in (MeterQuality.FRESH, MeterQuality.UNMETERED) for child in children)
    return Base(
        load=higher(worst_load(circuit), total(child.load for child in children)),
        rise=higher(worst_load(circuit), total(child.rise for child in children)),
        surge_w=sum(child.surge_w for child in children),
        quality=MeterQuality.FROZEN if frozen else MeterQuality.UNMETERED,
        measured=None,
    )


class _Meter:
    """The work on one metered circuit within one decision."""

    def __init__(
        self,
        snapshot: Snapshot,
        tree: Tree,
        index: int,
        bound: Bound,
        commitments: Sequence[Commitment],
        memory: CircuitMemory,
    ) -> None:
        self.snapshot, self.commitments, self.memory = snapshot, commitments, memory
        self.circuit = snapshot.site.circuits[index]
        self.below = tree.below[index]
        self.bound: Load = (*bound.value_a, bound.value_w)
        self.reading = snapshot.meters.get(self.circuit.id)

    def judge(self, credits_a: list[Phases], settled: set[int]) -> tuple[Base, CircuitMemory]:
        now_s = self.snapshot.now_s
        quality = quality_of(self.reading, self.memory, now_s)
        if self.reading is None:
            worst = worst_load(self.circuit)
            return Base(load=worst, rise=worst, surge_w=0.0, quality=quality, measured=None), self.memory
        if self.reading.sample != self.memory.sample:
            memory = self._take(self.reading, credits_a, settled)
        else:
            memory = self.memory
        memory = _watch(memory, quality, self.reading, now_s)
        base = memory.base or NO_LOAD
        rise = higher(base, memory.residual or base)
        if quality in (MeterQuality.STALE, MeterQuality.LOST):
            base = rise = self._aged(base, memory, quality)
        measured = _measured(self.reading) if quality in (MeterQuality.FRESH, MeterQuality.FROZEN) else None
        surge_w = max(0.0, min(memory.rise[WATTS], (memory.peak_w or 0.0) - base[WATTS]))
        return Base(load=base, rise=rise, surge_w=surge_w, quality=quality, measured=measured), memory

    def has_seen(self, index: int) -> bool:
        """Tell whether the last change of an EVSE can show in this meter's reading already."""
        evidence = self.snapshot.evses.get(self.snapshot.site.evses[index].id)
        if self.reading is None or evidence is None:
            return False
        return self.reading.sampled_at_s > _changed_at_s(evidence, self.snapshot)

    def _take(self, reading: MeterReading, credits_a: list[Phases], settled: set[int]) -> CircuitMemory:
        """Fold a new sample into the estimate."""
        voltage_v = reading.voltage_v or (HIGHEST_V, HIGHEST_V, HIGHEST_V)
        measured = _measured(reading)
        residual = minus(measured, self._known(credits_a, voltage_v))
        held = self.memory.base
        if held is not None:
            self._attribute(residual, held, measured, credits_a, settled)
            residual = minus(measured, self._known(credits_a, voltage_v))
        steady = residual if self.memory.residual is None else self._debounced(residual, measured)
        aligned = minus(measured, self._known(None, voltage_v))
        ceiling = aligned if self.memory.ceiling is None else higher(aligned, self.memory.ceiling)
        base = steady if held is None else lower(higher(held, steady), higher(ceiling, steady))
        base_next = steady if self.memory.base_next is None else higher(self.memory.base_next, steady)
        base_next = lower(base_next, higher(ceiling, steady))
        epoch_since_s = self.memory.epoch_since_s
        if epoch_since_s is None or self._sampled_since(epoch_since_s, credits_a):
            # What a new sample of a vehicle gives back to the residual is no rise, and waits for no second sample.
            base = higher(base_next, lower(base, residual))
            base_next, epoch_since_s = steady, reading.sampled_at_s
        return replace(
            self.memory,
            sample=reading.sample,
            sampled_at_s=reading.sampled_at_s,
            base=base,
            base_next=base_next,
            epoch_since_s=epoch_since_s,
            residual=residual,
            ceiling=aligned,
        )

    def _known(self, credits_a: Sequence[Phases] | None, voltage_v: Phases) -> Load:
        """What the vehicles draw at least, as far as is known.

        Without credits: only what was sampled at the time of the meter's own sample.
        """
        l1 = l2 = l3 = 0.0
        for evse in self.below:
            draw = self.commitments[evse].known_a
            if credits_a is None and not self._aligned(evse):
                draw = ZERO
            credit = ZERO if credits_a is None else credits_a[evse]
            l1 += draw[0] + credit[0]
            l2 += draw[1] + credit[1]
            l3 += draw[2] + credit[2]
        return load_of((l1, l2, l3), voltage_v)

    def _aligned(self, index: int) -> bool:
        evidence = self.snapshot.evses.get(self.snapshot.site.evses[index].id)
        if self.reading is None or evidence is None or evidence.measured_at_s is None:
            return False
        # One vehicle sample must not stand beside two meter samples: it says nothing of the time between them.
        apart_s = abs(evidence.measured_at_s - self.reading.sampled_at_s)
        return apart_s <= min(ALIGNED_S, 0.5 * self.reading.period_s)

    def _attribute(
        self, residual: Load, held: Load, measured: Load, credits_a: list[Phases], settled: set[int]
    ) -> None:
        """Credit a rise of the residual to our own recent raises, phase by phase, up to what they can explain."""
        pending = {evse: self._pending_a(evse, credits_a[evse]) for evse in self.below if evse not in settled}
        for phase in range(3):
            rise_a = residual[phase] - held[phase]
            expected_a = sum(waiting[phase] for waiting in pending.values())
            if rise_a <= 0.0 or expected_a <= 0.0 or measured[phase] > self.bound[phase]:
                continue
            share = min(1.0, rise_a / expected_a)
            for evse, waiting in pending.items():
                credit = list(credits_a[evse])
                credit[phase] += waiting[phase] * share
                credits_a[evse] = (credit[0], credit[1], credit[2])

    def _pending_a(self, index: int, credit_a: Phases) -> Phases:
        """What a raise of the last 15 s, or the start of a transaction, may still add to the last sample."""
        evse = self.snapshot.site.evses[index]
        evidence = self.snapshot.evses.get(evse.id)
        if evidence is None or evidence.transaction is None:
            return ZERO
        if self.snapshot.now_s - _changed_at_s(evidence, self.snapshot) > ATTRIBUTION_S:
            return ZERO
        told_a = evse.fallback_a if evidence.sent_a is None else evidence.sent_a
        draw = self.commitments[index].known_a
        pending = [0.0, 0.0, 0.0]
        for phase in evse.phases:
            pending[phase] = max(0.0, told_a - draw[phase] - credit_a[phase])
        return (pending[0], pending[1], pending[2])

    def _debounced(self, residual: Load, measured: Load) -> Load:
        before = self.memory.residual or residual
        calm = lower(residual, before)
        return (
            residual[0] if measured[0] > DEBOUNCE_RATIO * self.bound[0] else calm[0],
            residual[1] if measured[1] > DEBOUNCE_RATIO * self.bound[1] else calm[1],
            residual[2] if measured[2] > DEBOUNCE_RATIO * self.bound[2] else calm[2],
            residual[3] if measured[3] > DEBOUNCE_RATIO * self.bound[3] else calm[3],
        )

    def _sampled_since(self, since_s: float, credits_a: Sequence[Phases]) -> bool:
        """Tell whether every EVSE that draws, as far as we know, has said what since then."""
        for index in self.below:
            if max(self.commitments[index].known_a) <= 0.0 and max(credits_a[index]) <= 0.0:
                continue
            evidence = self.snapshot.evses[self.snapshot.site.evses[index].id]
            if evidence.measured_at_s is None or evidence.measured_at_s < since_s:
                return False
        return True

    def _aged(self, base: Load, memory: CircuitMemory, quality: MeterQuality) -> Load:
        """Return the last value plus what it may have risen since; the worst load when that is not known."""
        worst = higher(worst_load(self.circuit), base)
        started_at_s, sampled_at_s = memory.history_since_s, memory.sampled_at_s
        if quality is MeterQuality.LOST or started_at_s is None or sampled_at_s is None:
            return worst
        if sampled_at_s - started_at_s < RISE_HISTORY_S:
            return worst
        windows = 1 + int((self.snapshot.now_s - sampled_at_s) // RISE_WINDOW_S)
        risen = base
        for _ in range(windows):
            risen = plus(risen, memory.rise)
        return lower(worst, risen)


def _measured(reading: MeterReading) -> Load:
    return (*reading.current_a, reading.power_w)


def _watch(memory: CircuitMemory, quality: MeterQuality, reading: MeterReading, now_s: float) -> CircuitMemory:
    """Keep the history: rises and peaks of the base load, and since when the meter has been good again."""
    recovering_since_s = memory.recovering_since_s
    if quality in (MeterQuality.STALE, MeterQuality.LOST):
        recovering_since_s = now_s
    elif recovering_since_s is not None and now_s - recovering_since_s >= RECOVER_S:
        recovering_since_s = None
    memory = replace(memory, recovering_since_s=recovering_since_s)
    base = memory.base or NO_LOAD
    if memory.trough is None or memory.watched_at_s is None or memory.peak_w is None:
        return replace(
            memory,
            peak_w=base[WATTS],
            trough=base,
            trough_since_s=now_s,
            watched_at_s=now_s,
            history_since_s=reading.sampled_at_s,
        )
    faded = min(1.0, (now_s - memory.watched_at_s) / PEAK_FADE_S)
    rise = higher(memory.rise, minus(base, memory.trough))
    trough, trough_since_s = lower(memory.trough, base), memory.trough_since_s
    if trough_since_s is None or now_s - trough_since_s >= RISE_WINDOW_S:
        rise = (
            RISE_FADE_RATIO * rise[0],
            RISE_FADE_RATIO * rise[1],
            RISE_FADE_RATIO * rise[2],
            RISE_FADE_RATIO * rise[3],
        )
        trough, trough_since_s = base, now_s
    return replace(
        memory,
        peak_w=max(base[WATTS], memory.peak_w - faded * (memory.peak_w - base[WATTS])),
        rise=rise,
        trough=trough,
        trough_since_s=trough_since_s,
        watched_at_s=now_s,
    )

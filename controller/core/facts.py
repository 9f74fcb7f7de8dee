"""Facts: what one decision has to work with, gathered once: limits, commitments, base loads and budgets.

The electrical constraints are numbered: circuit `i` has `4 * i` to `4 * i + 2` for L1, L2, L3 in amperes and
`4 * i + 3` for its total power in watts (equipment or contract, whichever is tighter).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite
from typing import Final

from controller.core.allocate import Use
from controller.core.baseload import Base, estimate
from controller.core.commit import Commitment, commit_all
from controller.core.contract import Budget, budgets
from controller.core.electrical import HIGHEST_V, WATTS, Load, Phases
from controller.core.limits import Bound, bounds_of
from controller.core.model import (
    CircuitMemory,
    ContractMemory,
    Evse,
    EvseEvidence,
    EvseMemory,
    Memory,
    MeterQuality,
    Snapshot,
)
from controller.core.tree import Tree

CHANNELS: Final = 4
BELIEVED: Final = frozenset({MeterQuality.FRESH, MeterQuality.UNMETERED})
LANDING_S: Final = 3.0
NOTHING_KNOWN: Final = EvseEvidence()


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything the steps of one decision share. Sequences are in the site's order of EVSEs, circuits, contracts."""

    snapshot: Snapshot
    tree: Tree
    bounds: tuple[Bound, ...]
    commitments: tuple[Commitment, ...]
    bases: tuple[Base, ...]
    budgets: tuple[Budget, ...]
    uses: tuple[tuple[Use, ...], ...]
    evse_memories: tuple[EvseMemory, ...]
    circuit_memories: Mapping[str, CircuitMemory]
    contract_memories: Mapping[str, ContractMemory]

    @property
    def evses(self) -> tuple[Evse, ...]:
        """The EVSEs of the site."""
        return self.snapshot.site.evses

    @property
    def now_s(self) -> float:
        """The monotonic time of the decision."""
        return self.snapshot.now_s

    def evidence(self, index: int) -> EvseEvidence:
        """Return what is known of one EVSE."""
        return self.snapshot.evses.get(self.evses[index].id, NOTHING_KNOWN)

    def limit(self, circuit: int) -> Load:
        """Return what a circuit may carry: amperes per phase, and watts by equipment or contract."""
        bound = self.bounds[circuit]
        return (*bound.value_a, min(bound.value_w, self.contract_w(circuit)))

    def contract_w(self, circuit: int) -> float:
        """Return what the contracts on a circuit still allow on average; infinite without one."""
        name = self.snapshot.site.circuits[circuit].id
        return min((b.state.allowed_w for b in self.budgets if b.state.circuit == name), default=inf)

    def committed(self, indices: Sequence[int], *, landing: bool = False) -> list[float]:
        """Return, per constraint, the worst-case draw of some EVSEs together.

        With `landing`, a decrease that left a moment ago counts as arrived: nobody else need be shed in its place yet.
        """
        load = [0.0] * (CHANNELS * len(self.bounds))
        for index in indices:
            value_a = self.commitments[index].committed_a
            if landing and self._is_landing(index):
                value_a = self.commitments[index].setpoint_a
            for constraint, share in self.uses[index]:
                load[constraint] += share * value_a
        return load

    def _is_landing(self, index: int) -> bool:
        evidence = self.evidence(index)
        if not evidence.in_flight or evidence.sent_a is None or evidence.confirmed_a is None:
            return False
        recent = evidence.sent_at_s is not None and self.now_s - evidence.sent_at_s <= LANDING_S
        return recent and evidence.sent_a < evidence.confirmed_a and evidence.may_hold_a == evidence.sent_a

    def controllable(self) -> list[int]:
        """Return the EVSEs that a setpoint can be sent to now."""
        return [index for index, commitment in enumerate(self.commitments) if commitment.controllable]

    def uncontrollable(self) -> list[int]:
        """Return the EVSEs that are what they are."""
        return [index for index, commitment in enumerate(self.commitments) if not commitment.controllable]


def gather(snapshot: Snapshot, memory: Memory) -> Facts:
    """Judge the evidence of one snapshot."""
    tree = Tree.of(snapshot.site)
    bounds = bounds_of(snapshot.site.circuits, snapshot.now_s)
    judged = commit_all(snapshot, memory.evses)
    commitments = tuple(commitment for commitment, _ in judged)
    evse_memories = tuple(kept for _, kept in judged)
    estimated = estimate(snapshot, tree, bounds, commitments, evse_memories, memory.circuits)
    surges_w = {circuit.id: base.surge_w for circuit, base in zip(snapshot.site.circuits, estimated.bases, strict=True)}
    contract_budgets, contract_memories = budgets(snapshot, memory.contracts, surges_w)
    return Facts(
        snapshot=snapshot,
        tree=tree,
        bounds=bounds,
        commitments=commitments,
        bases=estimated.bases,
        budgets=tuple(contract_budgets),
        uses=_uses(snapshot, tree),
        evse_memories=tuple(
            replace(kept, credit_a=credit, credited_sample_at_s=_sampled_at_s(snapshot, evse))
            for kept, credit, evse in zip(evse_memories, estimated.credits_a, snapshot.site.evses, strict=True)
        ),
        circuit_memories=estimated.circuits,
        contract_memories=contract_memories,
    )


def _sampled_at_s(snapshot: Snapshot, evse: Evse) -> float | None:
    return snapshot.evses.get(evse.id, NOTHING_KNOWN).measured_at_s


def _uses(snapshot: Snapshot, tree: Tree) -> tuple[tuple[Use, ...], ...]:
    """Return what one ampere of each EVSE takes of every constraint on its path."""
    voltages = [voltage_v(snapshot, circuit.id) for circuit in snapshot.site.circuits]
    limited_w = {contract.circuit for contract in snapshot.site.contracts} | {
        circuit.id for circuit in snapshot.site.circuits if any(limit.value_w is not None for limit in circuit.limits)
    }
    watts_limited = [circuit.id in limited_w for circuit in snapshot.site.circuits]
    result = []
    for evse, path, root in zip(snapshot.site.evses, tree.paths, tree.roots_of_evses, strict=True):
        watts = sum(voltages[root][phase] for phase in evse.phases)
        uses = [(CHANNELS * circuit + phase, 1.0) for circuit in path for phase in evse.phases]
        uses += [(CHANNELS * circuit + WATTS, watts) for circuit in path if watts_limited[circuit]]
        result.append(tuple(uses))
    return tuple(result)


def voltage_v(snapshot: Snapshot, circuit: str) -> Phases:
    """Return the measured voltage, or the highest credible one: it makes the most watts of an ampere."""
    reading = snapshot.meters.get(circuit)
    if reading is None or reading.voltage_v is None:
        return (HIGHEST_V, HIGHEST_V, HIGHEST_V)
    return reading.voltage_v


def room(facts: Facts, *, for_raises: bool) -> list[float]:
    """Return, per constraint, what the controllable EVSEs may take together; negative when nothing fits.

    For raises the base load includes what was seen once only, and a circuit whose meter is not fresh, or whose contract
    is near the end of its interval, has no more than is committed already (invariant C4; control rules, energy budget).
    """
    fixed = facts.committed(facts.uncontrollable(), landing=not for_raises)
    mine = facts.committed(facts.controllable()) if for_raises else []
    frozen_contracts = {budget.state.circuit for budget in facts.budgets if budget.frozen}
    result = []
    for index, base in enumerate(facts.bases):
        limit, beside = facts.limit(index), base.rise if for_raises else base.load
        stale = base.quality not in BELIEVED
        for channel in range(CHANNELS):
            constraint = CHANNELS * index + channel
            left = limit[channel] - beside[channel] - fixed[constraint]
            frozen = stale or (channel == WATTS and facts.snapshot.site.circuits[index].id in frozen_contracts)
            if for_raises and frozen:
                left = min(left, mine[constraint])
            result.append(left)
    return result


def margins(facts: Facts) -> list[float]:
    """Return, per constraint, the room that raises leave free so that noise does not ask for a decrease at once."""
    policy = facts.snapshot.site.policy
    result = []
    for index in range(len(facts.bounds)):
        for channel, limit in enumerate(facts.limit(index)):
            share = policy.hysteresis_ratio * limit if isfinite(limit) else 0.0
            result.append(share if channel == WATTS else max(share, policy.dead_band_a))
    return result

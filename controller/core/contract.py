"""Contract: the energy budget of a clock-aligned settlement interval.

A contract limits the mean over the interval, so what was not used early may be used later; equipment limits are
another matter (`limits`). Import only: export earlier in the interval gives no credit. The numbers are in
docs/control.md, "Energy budget"; the quarter-hour is Netcode's programme time unit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from controller.core.model import Contract, ContractMemory, ContractState, MeterReading, Snapshot

HOUR_S: Final = 3600.0
FREEZE_SHARE: Final = 1.0 / 30.0  # no contract-driven raise in this last part of an interval
REGISTER_STEP_RATIO: Final = 0.002  # a register coarser than this share of the interval's energy is not used
GAP_PERIODS: Final = 5.0  # a longer silence of the meter counts as contract power
SHORTEST_LEFT_S: Final = 1.0
CLOCK_STEP_S: Final = 5.0  # a clock within this is synchronised


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a contract allows from now to the end of its interval. `frozen`: it must not be the cause of a raise."""

    state: ContractState
    frozen: bool


def account(
    contract: Contract, memory: ContractMemory, reading: MeterReading | None, snapshot: Snapshot
) -> ContractMemory:
    """Bring the interval's account up to the last meter sample."""
    length_s = contract.settlement_interval_s
    if reading is None or reading.sampled_at_s == memory.counted_at_s:
        return _roll(contract, memory, snapshot, int(snapshot.unix_s // length_s))
    sample_unix_s = snapshot.unix_s - (snapshot.now_s - reading.sampled_at_s)
    interval = int(sample_unix_s // length_s)
    into_s = sample_unix_s - interval * length_s
    since_s = 0.0 if memory.counted_at_s is None else reading.sampled_at_s - memory.counted_at_s
    # Boundaries follow from a clock that may be set: what does not follow from the sample before is unknown.
    rolled = interval == memory.interval + 1 and into_s <= since_s
    if since_s <= 0.0 or not (rolled or interval == memory.interval):
        counted_wh = _unknown_wh(contract, into_s)
    elif rolled:
        counted_wh = _energy_wh(contract, memory, reading, since_s) * into_s / since_s
    else:
        skipped_s = sample_unix_s - (memory.counted_unix_s or sample_unix_s) - since_s
        # A clock set ahead within the interval: nobody watched the time that it skipped.
        counted_wh = memory.counted_wh + _unknown_wh(contract, skipped_s if skipped_s > CLOCK_STEP_S else 0.0)
        counted_wh += _energy_wh(contract, memory, reading, since_s)
    return ContractMemory(
        interval=interval,
        counted_wh=counted_wh,
        counted_at_s=reading.sampled_at_s,
        counted_unix_s=sample_unix_s,
        register_wh=reading.import_wh,
        power_w=reading.power_w,
    )


def budget(contract: Contract, memory: ContractMemory, surge_w: float, snapshot: Snapshot) -> Budget:
    """Return the mean power that is still allowed.

    `surge_w` is the base-load rise to be prepared for: its energy during the reaction time is kept in reserve, unless
    the contract's margin is larger already. Without a disciplined clock the boundaries are unknown, and the contract
    power less the margin holds at every instant.
    """
    length_s = float(contract.settlement_interval_s)
    start_unix_s = snapshot.unix_s // length_s * length_s
    left_s = start_unix_s + length_s - snapshot.unix_s
    used_wh = _used_wh(contract, memory, snapshot)
    margin_w = contract.margin_ratio * contract.import_w
    if snapshot.clock_synchronised:
        reaction_s = min(snapshot.site.policy.reaction_s, left_s)
        reserve_wh = max(margin_w * length_s, surge_w * reaction_s) / HOUR_S
        rest_wh = contract.import_w * length_s / HOUR_S - reserve_wh - used_wh
        allowed_w = max(0.0, rest_wh * HOUR_S / max(left_s, SHORTEST_LEFT_S))
    else:
        allowed_w = contract.import_w - margin_w
    state = ContractState(
        id=contract.id,
        circuit=contract.circuit,
        limit_w=contract.import_w,
        allowed_w=allowed_w,
        used_wh=used_wh,
        interval_start_unix_s=start_unix_s,
        remaining_s=left_s,
    )
    return Budget(state=state, frozen=left_s < FREEZE_SHARE * length_s)


def budgets(
    snapshot: Snapshot, memories: Mapping[str, ContractMemory], surges_w: Mapping[str, float]
) -> tuple[Sequence[Budget], dict[str, ContractMemory]]:
    """Account for and budget every contract of the site."""
    results, kept = [], {}
    for contract in snapshot.site.contracts:
        reading = snapshot.meters.get(contract.circuit)
        memory = account(contract, memories.get(contract.id, ContractMemory()), reading, snapshot)
        kept[contract.id] = memory
        results.append(budget(contract, memory, surges_w[contract.circuit], snapshot))
    return results, kept


def _unknown_wh(contract: Contract, seconds: float) -> float:
    """Time that nobody watched counts as contract power."""
    return contract.import_w * seconds / HOUR_S


def _energy_wh(contract: Contract, memory: ContractMemory, reading: MeterReading, since_s: float) -> float:
    """Return the import since the last sample: from the register where it is fine enough, else from the power."""
    step_wh, full_wh = reading.import_step_wh, contract.import_w * contract.settlement_interval_s / HOUR_S
    if reading.import_wh is not None and memory.register_wh is not None and step_wh is not None:
        energy_wh = reading.import_wh - memory.register_wh
        # A register that went back was reset or replaced: it says nothing about this step.
        if step_wh <= REGISTER_STEP_RATIO * full_wh and energy_wh >= 0.0:
            return energy_wh
    if since_s > GAP_PERIODS * reading.period_s:
        return max(_unknown_wh(contract, since_s), max(0.0, reading.power_w) * since_s / HOUR_S)
    before_w = reading.power_w if memory.power_w is None else memory.power_w
    return (max(0.0, before_w) + max(0.0, reading.power_w)) / 2.0 * since_s / HOUR_S


def _roll(contract: Contract, memory: ContractMemory, snapshot: Snapshot, interval: int) -> ContractMemory:
    """Without a new sample nothing is added; without any, a new interval starts at what nobody watched."""
    if memory.counted_at_s is not None or memory.interval == interval:
        return memory
    into_s = snapshot.unix_s - interval * contract.settlement_interval_s
    return replace(memory, interval=interval, counted_wh=_unknown_wh(contract, into_s))


def _used_wh(contract: Contract, memory: ContractMemory, snapshot: Snapshot) -> float:
    """Return the interval's energy up to now: the account, and an estimate for the time since its last sample."""
    length_s = contract.settlement_interval_s
    interval = int(snapshot.unix_s // length_s)
    into_s = snapshot.unix_s - interval * length_s
    if memory.counted_at_s is None:
        return _unknown_wh(contract, into_s)
    reading = snapshot.meters.get(contract.circuit)
    silent_s = snapshot.now_s - memory.counted_at_s
    power_w = max(0.0, memory.power_w or 0.0)
    if reading is None or silent_s > GAP_PERIODS * reading.period_s:
        power_w = max(power_w, contract.import_w)
    if memory.interval == interval:
        return memory.counted_wh + power_w * silent_s / HOUR_S
    if memory.interval < interval and into_s <= silent_s:
        return power_w * into_s / HOUR_S
    return _unknown_wh(contract, into_s)

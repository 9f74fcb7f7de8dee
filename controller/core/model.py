"""The vocabulary of the decision: what is known about a site, and what is decided.

Knows the field's words, their units and their signs. Does not care where an observation came from, or how a setpoint
reaches a station. Everything is frozen and JSON-serialisable, so that any decision can be written down and replayed.

Times ending in `_s` that name an instant (`now_s`, `..._at_s`, `..._since_s`, `..._until_s`, `..._latest_s`) are on the
gateway's monotonic clock; `unix_s` is UTC. `None` means unknown, and unknown is never zero.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from controller.core.electrical import NO_LOAD, NOMINAL_V, ZERO, Load, Phases

MEMORY_VERSION: Final = 1


class Trust(StrEnum):
    """What a deaf station may be expected to do (docs/control.md, leases)."""

    NATIVE = "A"
    """Its own offline limit was seen to work: it falls to its fallback."""
    LEASE = "B"
    """Its lease was seen to work: it keeps its last setpoint until the lease ends, then falls to its fallback."""
    NONE = "C"
    """Nothing is proven: it may draw its rated maximum."""


class EvseState(StrEnum):
    """The state of an EVSE as the station tells it, in OCPP 1.6's finer words (2.x's `Occupied` is split by us)."""

    UNKNOWN = "unknown"
    AVAILABLE = "available"
    PREPARING = "preparing"
    CHARGING = "charging"
    SUSPENDED_EV = "suspended_ev"
    SUSPENDED_EVSE = "suspended_evse"
    FINISHING = "finishing"
    RESERVED = "reserved"
    UNAVAILABLE = "unavailable"
    FAULTED = "faulted"


VACANT: Final = frozenset({EvseState.AVAILABLE, EvseState.RESERVED, EvseState.UNAVAILABLE})
"""States in which no vehicle can draw."""


# ---------------------------------------------------------------------------------------------------------- the site


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """An upper bound on what one circuit may import: either amperes per phase or watts in total.

    Past `valid_until_s` (None: for ever) the fallback holds, which is never wider than the value: a lapsed limit must
    not widen a right (Netcode art. 7.1).
    """

    source: str
    value_a: Phases | None = None
    value_w: float | None = None
    fallback_a: Phases | None = None
    fallback_w: float | None = None
    valid_until_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Circuit:
    """A node of the circuit tree: grid connection, feeder or group. A grid connection has no parent.

    `base_worst_a` is the highest credible uncontrolled load, including that of the circuits below (gross: no credit for
    generation). It is what holds when the meter is lost, and always on a circuit without a meter.
    """

    id: str
    parent: str | None = None
    limits: tuple[Limit, ...] = ()
    continuous_factor: float = 1.0
    nominal_v: float = NOMINAL_V
    metered: bool = False
    base_worst_a: Phases = ZERO


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """A contracted mean import power on a grid connection, settled per clock-aligned interval (GTV)."""

    id: str
    circuit: str
    import_w: float
    settlement_interval_s: int = 900
    margin_ratio: float = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Evse:
    """One EVSE: where it hangs, what it can do, and what was dealt to it for when the gateway is dead.

    `phases` lists the site phases (0, 1, 2 for L1, L2, L3) that it is wired to, in the order of its own terminals.
    All currents are per active phase.
    """

    id: str
    station: str
    circuit: str
    phases: tuple[int, ...] = (0, 1, 2)
    min_a: float = 6.0
    max_a: float = 32.0
    rated_a: float = 32.0
    step_a: float = 0.1
    fallback_a: float = 0.0
    trust: Trust = Trust.NONE
    weight: float = 1.0
    priority: int = 0
    never_zero: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The numbers of the control rules that a site may set (docs/control.md gives each its reason)."""

    lease_s: float = 600.0
    raise_interval_s: float = 10.0
    dead_band_a: float = 0.5
    hysteresis_ratio: float = 0.01
    min_on_s: float = 1800.0
    min_off_s: float = 600.0
    rotation_s: float = 900.0
    reaction_s: float = 15.0
    sample_interval_s: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The static part of a snapshot: parents come before their children, ids are unique."""

    circuits: tuple[Circuit, ...]
    evses: tuple[Evse, ...]
    contracts: tuple[Contract, ...] = ()
    policy: Policy = field(default_factory=Policy)


# ----------------------------------------------------------------------------------------------------- observations


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterReading:
    """One plausible sample of a circuit's meter: import positive, export negative.

    `sample` counts the meter's samples, so that two decisions on one sample are told apart from two samples.
    `import_wh` is the import register; `import_step_wh` its resolution (None: no usable register).
    """

    sampled_at_s: float
    sample: int
    period_s: float
    current_a: Phases
    power_w: float
    voltage_v: Phases | None = None
    import_wh: float | None = None
    import_step_wh: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EvseEvidence:
    """What is known of one EVSE. "Accepted" is `confirmed_a`, not proof; `measured_a` is.

    `online` means a live session that has booted and answers. `transaction` is set while a transaction runs: only then
    can a setpoint be sent. `sent_*` and `confirmed_*` are None when it is not known what the station holds (after its
    reboot, or on the first start of a gateway). `verified` means that its fallback is known to be installed.
    `in_flight` marks a station with a command that has not been answered yet, `refused` one that was refused a moment
    ago. `may_hold_a` is the most that commands without an answer may have installed since the last answer, and
    `lease_latest_s` the end of the longest lease that may hold (`lease_until_s`: that is known to hold).
    """

    online: bool = False
    verified: bool = False
    state: EvseState = EvseState.UNKNOWN
    transaction: str | None = None
    transaction_since_s: float | None = None
    sent_a: float | None = None
    sent_at_s: float | None = None
    confirmed_a: float | None = None
    confirmed_at_s: float | None = None
    may_hold_a: float | None = None
    lease_until_s: float | None = None
    lease_latest_s: float | None = None
    in_flight: bool = False
    refused: bool = False
    measured_a: Phases | None = None
    measured_at_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything one decision depends on, besides the memory of the decisions before it."""

    now_s: float
    unix_s: float
    clock_synchronised: bool
    started_at_s: float
    site: Site
    meters: Mapping[str, MeterReading]
    evses: Mapping[str, EvseEvidence]


# --------------------------------------------------------------------------------------------------------- decision


class ReasonCode(StrEnum):
    """Why an EVSE gets what it gets. One enumeration for code, API, MQTT, metric labels and translations."""

    EVSE_MAX = "evse_max"
    VEHICLE = "vehicle"
    CIRCUIT = "circuit"
    CONTRACT = "contract"
    FAIRNESS = "fairness"
    MIN_CURRENT_PAUSE = "min_current_pause"
    MIN_OFF = "min_off"
    RAMP = "ramp"
    AWAITING_ROOM = "awaiting_room"
    METER_STALE = "meter_stale"
    NO_VEHICLE = "no_vehicle"
    AWAITING_TRANSACTION = "awaiting_transaction"
    COMMS_FAILSAFE = "comms_failsafe"
    COMMAND_PENDING = "command_pending"
    CHARGER_REFUSED = "charger_refused"
    DISOBEDIENT = "disobedient"
    INFEASIBLE = "infeasible"
    GUARD = "guard"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """A reason with its object and number: `CIRCUIT, "hall-a", 32.0, "A", phase 1` reads "hall-a L2, 32 A"."""

    code: ReasonCode
    source: str = ""
    value: float | None = None
    unit: str = "A"
    phase: int | None = None
    until_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Setpoint:
    """What one EVSE may draw per active phase, as a lease: past `lease_s` the station falls to `fallback_a` itself.

    `value_a` is 0 (paused) or at least the EVSE's minimum. `committed_a` is what must be reckoned with until evidence
    says less. `ladder` holds every bound that was considered, lowest first; `reason` is the binding one.
    """

    evse: str
    value_a: float
    fallback_a: float
    lease_s: float
    committed_a: float
    controllable: bool
    reason: Reason
    ladder: tuple[Reason, ...] = ()


class MeterQuality(StrEnum):
    """How far a circuit's base load is believed (docs/control.md, stale meters)."""

    FRESH = "fresh"
    FROZEN = "frozen"
    STALE = "stale"
    LOST = "lost"
    UNMETERED = "unmetered"


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitState:
    """What a circuit carries and may carry. `headroom_a` and `headroom_w` are negative when it is overloaded.

    `base_a` is the uncontrolled load believed now, `committed_a` the worst-case draw of all EVSEs below.
    """

    id: str
    limit_a: Phases
    limit_source: str
    base_a: Phases
    committed_a: Phases
    headroom_a: Phases
    limit_w: float | None
    base_w: float
    committed_w: float
    headroom_w: float | None
    quality: MeterQuality
    overloaded: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractState:
    """Where a contract stands in its running interval."""

    id: str
    circuit: str
    limit_w: float
    allowed_w: float
    used_wh: float
    interval_start_unix_s: float
    remaining_s: float


class AlarmCode(StrEnum):
    """What a person must look at."""

    INFEASIBLE = "infeasible"
    EXCURSION = "excursion"
    CONTRACT_AT_RISK = "contract_at_risk"
    METER_LOST = "meter_lost"
    STATION_DEAF = "station_deaf"
    DISOBEDIENT = "disobedient"
    CHARGER_REFUSED = "charger_refused"
    CLOCK_UNSYNCHRONISED = "clock_unsynchronised"
    GUARD = "guard"
    DECIDE_FAILED = "decide_failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """Something wrong, and with what."""

    code: AlarmCode
    subject: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The answer for one cycle: safe to carry out in any order, best carried out decreases first."""

    decided_at_s: float
    setpoints: Mapping[str, Setpoint]
    circuits: Mapping[str, CircuitState]
    contracts: Mapping[str, ContractState]
    alarms: tuple[Alarm, ...] = ()
    feasible: bool = True


# ----------------------------------------------------------------------------------------------------------- memory


@dataclass(frozen=True, slots=True, kw_only=True)
class EvseMemory:
    """What the next decision must remember of one EVSE.

    `held_a` is the commitment that evidence has not released yet. `credit_a` is the part of a recent raise that the
    grid meter has shown already, on top of the last sample taken at `credited_sample_at_s`. `told_high_a` is the most
    that it was allowed of late.
    `served_as` counts ampere-seconds per active phase since the transaction began: who has had least goes first.
    """

    held_a: float = 0.0
    on_since_s: float | None = None
    off_since_s: float | None = None
    raised_at_s: float | None = None
    overdrawn_since_s: float | None = None
    told_high_a: float = 0.0
    told_high_at_s: float | None = None
    reclaimed: bool = False
    credit_a: Phases = ZERO
    credited_sample_at_s: float | None = None
    served_as: float = 0.0
    transaction: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitMemory:
    """What the next decision must remember of a metered circuit: L1, L2, L3 in amperes, then the total in watts.

    `base` is the uncontrolled load in force; `base_next` the highest residual since `epoch_since_s`, which takes its
    place once every drawing EVSE has been sampled since. `residual` belongs to meter sample `sample`, and so does
    `ceiling`, which the base load cannot exceed. `rise` is the largest rise of the base load within a short window,
    `trough` its lowest value in the running window, `peak_w` its highest power of late.
    `recovering_since_s` is set while a meter that was lost must still prove itself.
    """

    sample: int = -1
    sampled_at_s: float | None = None
    base: Load | None = None
    base_next: Load | None = None
    epoch_since_s: float | None = None
    residual: Load | None = None
    ceiling: Load | None = None
    peak_w: float | None = None
    rise: Load = NO_LOAD
    trough: Load | None = None
    trough_since_s: float | None = None
    watched_at_s: float | None = None
    history_since_s: float | None = None
    recovering_since_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractMemory:
    """The running interval's account: `counted_wh` up to `counted_at_s`, when the register stood at `register_wh`."""

    interval: int = -1
    counted_wh: float = 0.0
    counted_at_s: float | None = None
    counted_unix_s: float | None = None
    register_wh: float | None = None
    power_w: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """All that one decision hands to the next. Missing or of another version: safe defaults."""

    version: int = MEMORY_VERSION
    decided_at_s: float | None = None
    evses: Mapping[str, EvseMemory] = field(default_factory=dict)
    circuits: Mapping[str, CircuitMemory] = field(default_factory=dict)
    contracts: Mapping[str, ContractMemory] = field(default_factory=dict)

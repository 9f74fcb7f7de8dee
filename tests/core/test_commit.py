"""Commitment: from evidence to the current that must be reckoned with (control rules, 1 and 4)."""

from dataclasses import replace

import pytest

from controller.core.commit import Commitment, commit, commit_all
from controller.core.model import Evse, EvseEvidence, EvseMemory, EvseState, Policy, Trust
from tests.core.plaza import charging, evse, site, snapshot, vacant

A, B, C = Trust.NATIVE, Trust.LEASE, Trust.NONE
LEASE_S = 600.0
NOW_S = 10_000.0  # long after the gateway's start
RATED_A = 40.0


def judged(
    evidence: EvseEvidence,
    *,
    trust: Trust = B,
    memory: EvseMemory | None = None,
    now_s: float = NOW_S,
    fallback_a: float = 6.0,
) -> tuple[Commitment, EvseMemory]:
    unit = station(trust, fallback_a)
    remembered = EvseMemory(transaction="tx") if memory is None else memory
    return commit(unit, evidence, remembered, snapshot(site([unit]), {unit.id: evidence}, now_s=now_s))


def station(trust: Trust = B, fallback_a: float = 6.0) -> Evse:
    return evse("e1", trust=trust, fallback_a=fallback_a, rated_a=RATED_A)


def told(sent_a: float, confirmed_a: float, drawn_a: float, **options: object) -> EvseEvidence:
    defaults: dict[str, object] = {"sent_at_s": NOW_S - 100, "confirmed_at_s": NOW_S - 100, "measured_at_s": NOW_S}
    return replace(charging(sent_a, drawn_a, **{"confirmed_a": confirmed_a, **defaults}), **options)  # type: ignore[arg-type]  # options know no types


def forgotten(sent_a: float | None, confirmed_a: float | None, *, online: bool) -> EvseEvidence:
    """A station after its reboot."""
    return replace(told(0, 0, 0), sent_a=sent_a, confirmed_a=confirmed_a, confirmed_at_s=None, online=online)


@pytest.mark.parametrize(
    ("sent_a", "confirmed_a", "measured_a", "committed_a"),
    [
        (16, 16, 16, 16),
        (16, 16, 10, 16),  # it may take up its setpoint at any moment
        (16, 16, 0, 16),
        (20, 16, 16, 20),  # a raise that may have arrived
        (6, 16, 16, 16),  # a decrease that may not have
        (16, 16, 16.9, 16.9),  # a little above its setpoint
        (0, 0, 0, 0),
        (0, 0, 3, 3),
    ],
)
def test_a_commanded_evse_commits_the_most_of_sent_confirmed_and_measured(
    sent_a: float, confirmed_a: float, measured_a: float, committed_a: float
) -> None:
    commitment, memory = judged(told(sent_a, confirmed_a, measured_a))
    assert commitment.committed_a == committed_a
    assert commitment.setpoint_a == sent_a
    assert commitment.controllable
    assert not commitment.deaf
    assert memory.held_a == committed_a


def test_the_highest_phase_counts() -> None:
    commitment, _ = judged(told(6, 6, 0, measured_a=(2.0, 14.0, 3.0)))
    assert commitment.committed_a == 14
    assert commitment.draw_a == (2, 14, 3)


@pytest.mark.parametrize(
    ("trust", "lease_ends_in_s", "committed_a"),
    [
        (A, 300, 6),  # proven: it falls to its own offline limit
        (A, -300, 6),
        (B, 300, 20),  # it keeps its last setpoint until the lease ends
        (B, 0, 20),
        (B, -10, 20),  # its clock may be late
        (B, -11, 6),  # after that its fallback
        (B, None, 20),  # a setpoint without an end
        (C, 300, 40),  # nothing is proven: its rated maximum
        (C, -300, 40),
    ],
)
@pytest.mark.parametrize("loss", [{"online": False}, {"verified": False}], ids=["silent", "unverified"])
def test_a_deaf_station_commits_what_its_trust_class_lets_expect(
    trust: Trust, lease_ends_in_s: float | None, committed_a: float, loss: dict[str, object]
) -> None:
    until_s = None if lease_ends_in_s is None else NOW_S + lease_ends_in_s
    lost = told(20, 20, 20, lease_until_s=until_s, measured_at_s=NOW_S - 120, **loss)
    commitment, _ = judged(lost, trust=trust)
    assert commitment.committed_a == committed_a
    assert commitment.deaf
    assert not commitment.controllable


@pytest.mark.parametrize(
    ("sent_a", "confirmed_a", "fallback_a", "committed_a"),
    [
        (20, 10, 6, 20),  # the last raise may have arrived
        (6, 20, 6, 20),  # the last decrease may not have
        (0, 0, 6, 6),  # below its fallback: it decays upward when the lease ends
        (0, 0, 0, 0),
    ],
)
def test_a_deaf_lease_station_holds_the_most_it_may_have_been_told(
    sent_a: float, confirmed_a: float, fallback_a: float, committed_a: float
) -> None:
    lost = told(sent_a, confirmed_a, 0, lease_until_s=NOW_S + 60, online=False)
    assert judged(lost, fallback_a=fallback_a)[0].committed_a == committed_a


def test_a_deaf_station_that_is_seen_to_draw_more_commits_that() -> None:
    assert judged(told(6, 6, 25, online=False), trust=A)[0].committed_a == 25


@pytest.mark.parametrize(
    ("trust", "uptime_s", "committed_a"),
    [
        (A, 0, 6),
        (B, 0, 40),  # it may hold the lease of a gateway before this one
        (B, LEASE_S + 10, 40),
        (B, LEASE_S + 11, 6),  # any lease of that one has ended
        (C, LEASE_S + 11, 40),
    ],
)
@pytest.mark.parametrize("online", [True, False])
def test_when_it_is_not_known_what_a_station_holds_its_deaf_outcome_counts(
    *, trust: Trust, uptime_s: float, committed_a: float, online: bool
) -> None:
    evidence = forgotten(None, None, online=online)
    commitment, _ = judged(evidence, trust=trust, now_s=uptime_s)
    # One that answers is told anew within a second; until then it may have forgotten every profile.
    assert commitment.committed_a == (40 if online and trust is B else committed_a)
    assert commitment.controllable == online


def test_without_a_word_from_a_station_everything_is_unknown() -> None:
    plan = site([station(C), evse("e2", trust=A, fallback_a=6.0)])
    judgements = [commitment for commitment, _ in commit_all(snapshot(plan, {}), {})]
    assert [(commitment.committed_a, commitment.deaf) for commitment in judgements] == [(40, True), (6, True)]


@pytest.mark.parametrize(
    ("sent_a", "confirmed_a", "committed_a"), [(16, None, 16), (None, 16, 16), (None, None, 6), (0, None, 6)]
)
@pytest.mark.parametrize("online", [True, False])
def test_the_first_setpoint_after_a_reboot_counts_before_it_is_confirmed(
    *, sent_a: float | None, confirmed_a: float | None, committed_a: float, online: bool
) -> None:
    evidence = forgotten(sent_a, confirmed_a, online=online)
    assert judged(evidence, memory=EvseMemory())[0].committed_a == (40 if online else committed_a)


def test_a_raise_without_an_answer_may_have_begun_a_lease_of_its_own() -> None:
    """The lease in evidence is that of the last accepted command; the one that was not answered ends later."""
    leases = {"lease_until_s": NOW_S - 100, "lease_latest_s": NOW_S + 300}
    lost = told(20, 10, 0, sent_at_s=NOW_S - 300, may_hold_a=20.0, online=False, **leases)
    assert judged(lost)[0].committed_a == 20
    assert judged(lost, now_s=NOW_S + 310)[0].committed_a == 20
    assert judged(lost, now_s=NOW_S + 311)[0].committed_a == 6


# ------------------------------------------------------------------------------------------------ without transaction


@pytest.mark.parametrize("state", [EvseState.AVAILABLE, EvseState.RESERVED, EvseState.UNAVAILABLE])
@pytest.mark.parametrize("trust", [A, B, C])
def test_no_vehicle_no_commitment(state: EvseState, trust: Trust) -> None:
    commitment, memory = judged(vacant(state=state), trust=trust, memory=EvseMemory(held_a=32.0))
    assert (commitment.committed_a, memory.held_a) == (0, 0)
    assert commitment.draw_a == (0, 0, 0)


def test_a_vacant_station_that_went_silent_is_not_vacant_for_sure() -> None:
    assert judged(vacant(online=False), trust=C)[0].committed_a == 40


@pytest.mark.parametrize("state", [EvseState.PREPARING, EvseState.FINISHING, EvseState.FAULTED])
@pytest.mark.parametrize(("measured_a", "committed_a"), [(None, 6), (4, 6), (9, 9)])
def test_before_a_transaction_a_vehicle_starts_under_the_fallback(
    state: EvseState, measured_a: float | None, committed_a: float
) -> None:
    drawn = {} if measured_a is None else {"measured_a": (measured_a, 0.0, 0.0), "measured_at_s": NOW_S}
    commitment, _ = judged(vacant(state=state, **drawn), trust=C, memory=EvseMemory())
    assert commitment.committed_a == committed_a
    assert not commitment.controllable


@pytest.mark.parametrize(
    "state", [EvseState.UNKNOWN, EvseState.CHARGING, EvseState.SUSPENDED_EV, EvseState.SUSPENDED_EVSE]
)
@pytest.mark.parametrize(("trust", "committed_a"), [(A, 6), (B, 6), (C, 40)])
def test_a_vehicle_that_charges_without_a_transaction_we_know_may_be_under_any_profile(
    state: EvseState, trust: Trust, committed_a: float
) -> None:
    assert judged(vacant(state=state), trust=trust, memory=EvseMemory())[0].committed_a == committed_a


# --------------------------------------------------------------------------------------------------- room after a drop


@pytest.mark.parametrize(
    ("trust", "measured_a", "confirmed_for_s", "committed_a"),
    [
        (B, 8.0, 3, 6),  # 80 % of the drop from 16 to 6 A is measured
        (C, 8.0, 3, 6),
        (B, 8.1, 3, 16),  # not yet
        (B, 12.0, 9, 16),
        (B, 12.0, 10, 6),  # proven, and it had its time; what it draws still counts
        (A, 6.0, 10, 6),
        (C, 8.1, 10, 16),  # of class C nothing is believed without a measurement
        (C, 8.1, 3600, 16),
    ],
)
def test_the_room_of_a_decrease_is_free_on_evidence_only(
    trust: Trust, measured_a: float, confirmed_for_s: float, committed_a: float
) -> None:
    evidence = told(6, 6, measured_a, confirmed_at_s=NOW_S - confirmed_for_s)
    commitment, memory = judged(evidence, trust=trust, memory=EvseMemory(transaction="tx", held_a=16.0))
    assert commitment.committed_a == max(committed_a, measured_a)
    assert memory.held_a == commitment.committed_a


def test_a_sample_from_before_the_decrease_proves_nothing() -> None:
    held = EvseMemory(transaction="tx", held_a=16.0)
    before = told(6, 6, 0, confirmed_at_s=NOW_S - 3, measured_at_s=NOW_S - 4)
    assert judged(before, memory=held)[0].committed_a == 16
    assert judged(replace(before, measured_at_s=NOW_S - 3), memory=held)[0].committed_a == 6


def test_a_sample_from_before_the_decrease_is_no_disobedience_either() -> None:
    before = told(6, 6, 16, confirmed_at_s=NOW_S - 11, measured_at_s=NOW_S - 12)
    commitment, memory = judged(before, memory=EvseMemory(transaction="tx", held_a=16.0))
    assert commitment.committed_a == 6  # proven, and it had its 10 s
    assert memory.overdrawn_since_s is None


@pytest.mark.parametrize(
    "pending",
    [{"in_flight": True}, {"confirmed_at_s": None}],
    ids=["another command is on its way", "never confirmed"],
)
def test_a_drop_is_not_believed_while_the_station_has_not_answered(pending: dict[str, object]) -> None:
    evidence = told(6, 6, 0, **pending)
    assert judged(evidence, memory=EvseMemory(transaction="tx", held_a=16.0))[0].committed_a == 16


def test_no_sample_at_all_releases_a_proven_station_by_time_and_an_unproven_one_never() -> None:
    silent = told(6, 6, 0, measured_a=None, measured_at_s=None)
    held = EvseMemory(transaction="tx", held_a=16.0)
    assert judged(silent, trust=B, memory=held)[0].committed_a == 6
    assert judged(silent, trust=C, memory=held)[0].committed_a == 16


@pytest.mark.parametrize(("flag", "controllable"), [("in_flight", False), ("refused", False), ("online", True)])
def test_a_station_with_an_unanswered_or_a_refused_command_is_left_alone(*, flag: str, controllable: bool) -> None:
    assert judged(told(10, 10, 10, **{flag: True}))[0].controllable == controllable


def test_a_new_transaction_forgets_the_old_ones_timers_but_not_what_is_held() -> None:
    old = EvseMemory(transaction="before", held_a=16.0, on_since_s=1.0, served_as=9.0, overdrawn_since_s=1.0)
    commitment, memory = judged(told(6, 6, 6, confirmed_at_s=NOW_S - 1, measured_at_s=NOW_S - 2), memory=old)
    assert commitment.committed_a == 16
    assert memory == EvseMemory(transaction="tx", held_a=16.0, told_high_a=6.0, told_high_at_s=NOW_S)


# -------------------------------------------------------------------------------------------------------- obedience


@pytest.mark.parametrize(
    ("setpoint_a", "measured_a", "overdraws"),
    [
        (10, 11.0, False),  # 1 A is tolerated
        (10, 11.1, True),
        (32, 33.6, False),  # 5 % is
        (32, 33.7, True),
        (0, 1.0, False),
        (0, 6.0, True),
    ],
)
def test_an_overdraw_is_more_than_1_a_and_more_than_5_percent(
    *, setpoint_a: float, measured_a: float, overdraws: bool
) -> None:
    _, memory = judged(told(setpoint_a, setpoint_a, measured_a))
    assert memory.overdrawn_since_s == (NOW_S if overdraws else None)


def test_an_overdraw_of_15_s_is_fenced_and_released_when_it_ends() -> None:
    memory = EvseMemory(transaction="tx")
    fenced = []
    for second in range(30):
        at_s = NOW_S + second
        drawn_a = 20.0 if second < 25 else 10.0
        commitment, memory = judged(told(10, 10, drawn_a, measured_at_s=at_s), memory=memory, now_s=at_s)
        fenced.append(commitment.disobedient)
        assert commitment.controllable != commitment.disobedient
        assert commitment.committed_a == drawn_a
    assert fenced == [False] * 15 + [True] * 10 + [False] * 5


def test_a_vehicle_has_10_s_to_follow_before_it_is_called_disobedient() -> None:
    memory = EvseMemory(transaction="tx", held_a=20.0, told_high_a=20.0, told_high_at_s=NOW_S)
    for second in range(24):
        at_s = NOW_S + second
        evidence = told(10, 10, 20, confirmed_at_s=NOW_S, measured_at_s=at_s)
        commitment, memory = judged(evidence, memory=memory, now_s=at_s)
        assert not commitment.disobedient
    assert memory.overdrawn_since_s == NOW_S + 11


def test_a_setpoint_that_keeps_moving_does_not_hide_a_vehicle_that_ignores_it() -> None:
    memory, fenced = EvseMemory(transaction="tx", held_a=32.0), []
    for second in range(60):
        at_s = NOW_S + second
        setpoint_a = 8.0 if second % 8 < 4 else 12.0  # it changes every 4 s
        sampled_at_s = NOW_S + second // 10 * 10
        evidence = told(setpoint_a, setpoint_a, 32, confirmed_at_s=NOW_S + second // 4 * 4, measured_at_s=sampled_at_s)
        commitment, memory = judged(evidence, memory=memory, now_s=at_s)
        memory = replace(memory, credited_sample_at_s=sampled_at_s)
        fenced.append(commitment.disobedient)
    assert fenced.index(True) <= 26
    assert all(fenced[26:])
    assert commitment.committed_a == 32


def test_a_sample_from_before_a_decrease_hides_no_base_load() -> None:
    """Once a station has had 5 s to follow, its older sample counts at most as what it was told."""
    for waited_s, draw_a in [(4.0, 32), (5.0, 10)]:
        evidence = told(10, 10, 32, confirmed_at_s=NOW_S - waited_s, measured_at_s=NOW_S - 20)
        assert judged(evidence)[0].draw_a == (draw_a, draw_a, draw_a)


def test_a_fenced_station_that_stops_sending_samples_stays_fenced() -> None:
    """Unknown is never zero: only a sample that shows obedience opens the fence."""
    memory = EvseMemory(transaction="tx", held_a=20.0, overdrawn_since_s=NOW_S - 60)
    for age_s in (0, 31, 300, 3600):
        evidence = told(10, 10, 20, measured_at_s=NOW_S)
        commitment, memory = judged(evidence, memory=memory, now_s=NOW_S + age_s)
        assert commitment.disobedient
        assert commitment.committed_a == 20
    obedient = told(10, 10, 10, measured_at_s=NOW_S + 3600)
    assert judged(obedient, memory=memory, now_s=NOW_S + 3600)[0].committed_a == 10


def test_a_sample_older_than_two_intervals_and_10_s_is_no_sample() -> None:
    oldest_s = 2 * Policy().sample_interval_s + 10
    assert judged(told(10, 10, 9, measured_at_s=NOW_S - oldest_s))[0].draw_a == (9, 9, 9)
    assert judged(told(10, 10, 9, measured_at_s=NOW_S - oldest_s - 0.1))[0].draw_a is None


def test_a_lease_that_nobody_renewed_may_end_in_its_fallback() -> None:
    paused = told(0, 0, 0, lease_until_s=NOW_S + 11)
    assert judged(paused, memory=EvseMemory(transaction="tx"))[0].committed_a == 0
    assert judged(paused, memory=EvseMemory(transaction="tx"), now_s=NOW_S + 2)[0].committed_a == 6

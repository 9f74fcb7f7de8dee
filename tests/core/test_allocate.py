"""Allocation: who is let in, and what each gets of what there is."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.core.allocate import Ask, Filled, admit, fill

L1, L2, L3, POWER = range(4)
THREE_PHASES = ((L1, 1.0), (L2, 1.0), (L3, 1.0))


def ask(
    upper_a: float, *, lower_a: float = 6.0, weight: float = 1.0, uses: Sequence[tuple[int, float]] = ((0, 1.0),)
) -> Ask:
    return Ask(lower_a=lower_a, upper_a=upper_a, weight=weight, uses=tuple(uses))


def shared(asks: Sequence[Ask], capacity: Sequence[float]) -> list[float]:
    """Let in by the order given, then fill: amperes for each, 0 for who is not in."""
    isin, _ = admit(asks, range(len(asks)), capacity, [None] * len(asks))
    nobody = Ask(lower_a=0.0, upper_a=0.0, weight=1.0, uses=())
    filled = fill([a if admitted else nobody for a, admitted in zip(asks, isin, strict=True)], capacity)
    return [round(value_a, 6) for value_a in filled.values_a]


@pytest.mark.parametrize(
    ("limit_a", "wants_a", "gets_a"),
    [
        (32, [32, 32], [16, 16]),  # equal weights share equally
        (32, [10, 32], [10, 22]),  # what one leaves, the other gets
        (32, [7, 10, 32], [7, 10, 15]),
        (60, [16, 16, 16], [16, 16, 16]),  # enough for all: everybody at its own maximum
        (11, [32, 32], [11, 0]),  # 2 x 6 A do not fit: one charges, the other waits its turn
        (12, [32, 32], [6, 6]),
        (13, [32, 32], [6.5, 6.5]),
        (5.9, [32], [0]),  # less than the lowest current a vehicle can charge at
        (0, [32, 32], [0, 0]),
        (-20, [32], [0]),  # the base load alone is too much
    ],
)
def test_vehicles_share_one_circuit(limit_a: float, wants_a: list[float], gets_a: list[float]) -> None:
    assert shared([ask(want_a) for want_a in wants_a], [limit_a]) == gets_a


@pytest.mark.parametrize(
    ("limit_a", "weights", "gets_a"),
    [
        (30, [1, 2], [10, 20]),
        (33, [1, 2, 8], [6, 6, 21]),  # nobody is pushed below its minimum by another's weight
        (40, [1, 4], [8, 32]),
        (50, [1, 4], [18, 32]),  # the heavy one is at its maximum, the rest flows to the other
    ],
)
def test_weights_divide_what_is_above_the_minimums(limit_a: float, weights: list[float], gets_a: list[float]) -> None:
    assert shared([ask(32, weight=weight) for weight in weights], [limit_a]) == gets_a


def test_a_full_feeder_leaves_the_rest_of_the_grid_connection_to_the_other_feeder() -> None:
    grid, hall_a, hall_b = range(3)
    in_a = ask(32, uses=((hall_a, 1.0), (grid, 1.0)))
    in_b = ask(32, uses=((hall_b, 1.0), (grid, 1.0)))
    assert shared([in_a, in_a, in_b], [60, 20, 100]) == [10, 10, 32]
    assert shared([in_a, in_a, in_b], [40, 20, 100]) == [10, 10, 20]
    assert shared([in_a, in_a, in_b], [24, 20, 100]) == [8, 8, 8]


@pytest.mark.parametrize(
    ("limits_a", "cars", "gets_a"),
    [
        # Single-phase cars count only where they draw: one on each phase is no more than one three-phase car.
        ((16, 16, 16), [((L1, 1),), ((L2, 1),), ((L3, 1),)], [16, 16, 16]),
        ((16, 16, 16), [((L1, 1),), ((L1, 1),), ((L2, 1),)], [8, 8, 16]),
        # A three-phase car beside a single-phase one on L2 shares L2, and holds L1 and L3 no higher than that.
        ((20, 20, 20), [THREE_PHASES, ((L2, 1),)], [10, 10]),
        ((32, 14, 32), [THREE_PHASES, ((L2, 1),), ((L1, 1),)], [7, 7, 25]),
        ((20, 20, 20), [((L1, 1), (L2, 1)), ((L2, 1), (L3, 1)), ((L1, 1), (L3, 1))], [10, 10, 10]),
        ((20, 5, 20), [THREE_PHASES, ((L1, 1),)], [0, 20]),  # no room on L2: the three-phase car waits
    ],
)
def test_phases_are_shared_where_they_are_used(
    limits_a: tuple[float, ...], cars: list[tuple[tuple[int, float], ...]], gets_a: list[float]
) -> None:
    assert shared([ask(32, uses=uses) for uses in cars], limits_a) == gets_a


@pytest.mark.parametrize(
    ("limit_w", "gets_a"),
    [
        (22_080, [16, 16]),  # 22.08 kW is 2 x 16 A on 3 x 230 V: as tight as the fuse
        (13_800, [10, 10]),  # the power limit binds
        (30_000, [16, 16]),  # the fuse binds
        (8_280, [6, 6]),
        (8_279, [11.9985507, 0]),  # 1 W less than two minimums need
    ],
)
def test_a_power_limit_stands_beside_the_current_limits(limit_w: float, gets_a: list[float]) -> None:
    car = ask(32, uses=(*THREE_PHASES, (POWER, 690.0)))
    assert shared([car, car], [32, 32, 32, limit_w]) == pytest.approx(gets_a, abs=1e-5)


def test_who_stops_whom_is_told() -> None:
    filled = fill([ask(10), ask(32), ask(32, uses=((0, 1.0), (1, 1.0)))], [45, 12])
    assert [round(value_a, 6) for value_a in filled.values_a] == [10, 23, 12]
    assert list(filled.bounds) == [None, 0, 1]  # its own maximum, the first circuit, the second
    assert list(filled.left) == [0, 0]


def test_who_is_at_its_upper_bound_from_the_start_takes_part_in_nothing() -> None:
    filled = fill([ask(6), ask(32)], [20])
    assert list(filled.values_a) == [6, 14]
    assert list(filled.bounds) == [None, 0]


def test_minimums_that_do_not_fit_let_nobody_rise_and_push_nobody_down() -> None:
    filled = fill([ask(32), ask(32), ask(32, lower_a=0.0)], [10])
    assert list(filled.values_a) == [6, 6, 0]
    assert list(filled.bounds) == [0, 0, 0]


def test_a_newcomer_is_not_let_in_on_the_last_ampere() -> None:
    both = [ask(32), ask(32)]
    assert admit(both, [0, 1], [12.3], [None, None])[0] == [True, True]
    assert admit(both, [0, 1], [12.3], [None, [0.5]]) == ([True, False], [None, 0])
    assert admit(both, [0, 1], [12.5], [None, [0.5]])[0] == [True, True]


def test_the_order_decides_who_is_let_in() -> None:
    three = [ask(32), ask(32), ask(32)]
    assert admit(three, [2, 0, 1], [13.0], [None] * 3) == ([True, False, True], [None, 0, None])


def test_who_is_not_in_the_order_is_not_let_in_and_not_blocked() -> None:
    assert admit([ask(32), ask(32)], [1], [100.0], [None] * 2) == ([False, True], [None, None])


# ------------------------------------------------------------------------------------------------------------ for all

SHARES = (1.0, 230.0)


@st.composite
def asks_and_capacity(draw: st.DrawFn) -> tuple[list[Ask], list[float]]:
    count = draw(st.integers(1, 5))
    shares = [draw(st.sampled_from(SHARES)) for _ in range(count)]
    asks = []
    for _ in range(draw(st.integers(1, 8))):
        on = draw(st.sets(st.integers(0, count - 1), min_size=1))
        lower_a = draw(st.sampled_from([0.0, 6.0, 8.0]))
        asks.append(
            ask(
                lower_a + draw(st.sampled_from([0.0, 4.0, 10.0, 26.0]) | st.floats(0.0, 30.0)),
                lower_a=lower_a,
                weight=draw(st.sampled_from([0.1, 0.5, 1.0, 2.0, 10.0])),
                uses=[(constraint, shares[constraint]) for constraint in sorted(on)],
            )
        )
    room_a = st.sampled_from([-10.0, 0.0, 6.0, 12.0, 32.0]) | st.floats(0.0, 120.0)
    return asks, [share * draw(room_a) for share in shares]


def loads(asks: Sequence[Ask], values_a: Sequence[float], count: int) -> list[float]:
    result = [0.0] * count
    for asker, value_a in zip(asks, values_a, strict=True):
        for constraint, share in asker.uses:
            result[constraint] += share * value_a
    return result


def full_constraints(asks: Sequence[Ask], filled: Filled, capacity: Sequence[float]) -> set[int]:
    taken = loads(asks, filled.values_a, len(capacity))
    return {c for c, room in enumerate(capacity) if taken[c] >= room - 1e-5}


@settings(max_examples=80, deadline=None)
@given(asks_and_capacity())
def test_no_constraint_is_filled_beyond_its_capacity(case: tuple[list[Ask], list[float]]) -> None:
    asks, capacity = case
    filled = fill(asks, capacity)
    least = loads(asks, [asker.lower_a for asker in asks], len(capacity))
    taken = loads(asks, filled.values_a, len(capacity))
    for constraint, room in enumerate(capacity):
        assert taken[constraint] <= max(room, least[constraint]) + 1e-5
        assert filled.left[constraint] == pytest.approx(room - taken[constraint], abs=1e-5)
    for asker, value_a in zip(asks, filled.values_a, strict=True):
        assert asker.lower_a <= value_a <= asker.upper_a


@settings(max_examples=80, deadline=None)
@given(asks_and_capacity())
def test_nothing_is_left_that_somebody_could_use(case: tuple[list[Ask], list[float]]) -> None:
    asks, capacity = case
    filled = fill(asks, capacity)
    full = full_constraints(asks, filled, capacity)
    for asker, value_a, bound in zip(asks, filled.values_a, filled.bounds, strict=True):
        if bound is None:
            assert value_a == pytest.approx(asker.upper_a, abs=1e-6)
        else:
            assert bound in full & {constraint for constraint, _ in asker.uses}


@settings(max_examples=80, deadline=None)
@given(asks_and_capacity())
def test_nobody_could_have_more_without_taking_from_somebody_who_has_less(case: tuple[list[Ask], list[float]]) -> None:
    """The bottleneck certificate of weighted max-min fairness (Bertsekas and Gallager, "Data Networks")."""
    asks, capacity = case
    filled = fill(asks, capacity)
    level = [value_a / asker.weight for asker, value_a in zip(asks, filled.values_a, strict=True)]
    for index, bound in enumerate(filled.bounds):
        if bound is None:
            continue
        for other, asker in enumerate(asks):
            above_minimum = filled.values_a[other] > asker.lower_a + 1e-6
            if above_minimum and bound in {constraint for constraint, _ in asker.uses}:
                assert level[other] <= level[index] + 1e-5


@settings(max_examples=80, deadline=None)
@given(asks_and_capacity(), st.permutations(range(8)))
def test_the_order_of_asking_does_not_matter(case: tuple[list[Ask], list[float]], ranked: list[int]) -> None:
    asks, capacity = case
    order = [index for index in ranked if index < len(asks)]
    straight, shuffled = fill(asks, capacity), fill([asks[index] for index in order], capacity)
    for position, index in enumerate(order):
        assert shuffled.values_a[position] == pytest.approx(straight.values_a[index], abs=1e-6)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([0.0, 6.0]), st.floats(0.0, 26.0), st.floats(0.1, 10.0)), min_size=1),
    st.floats(0.0, 200.0),
    st.floats(0.0, 50.0),
)
def test_more_room_on_one_circuit_is_less_for_nobody(
    vehicles: list[tuple[float, float, float]], limit_a: float, more_a: float
) -> None:
    asks = [ask(lower_a + span_a, lower_a=lower_a, weight=weight) for lower_a, span_a, weight in vehicles]
    narrow, wide = fill(asks, [limit_a]), fill(asks, [limit_a + more_a])
    for before_a, after_a in zip(narrow.values_a, wide.values_a, strict=True):
        assert after_a >= before_a - 1e-6


@settings(max_examples=80, deadline=None)
@given(asks_and_capacity(), st.permutations(range(8)), st.sampled_from([0.0, 0.5]))
def test_whoever_is_not_let_in_found_no_room_left_by_those_before(
    case: tuple[list[Ask], list[float]], ranked: list[int], keep_a: float
) -> None:
    asks, capacity = case
    order = [index for index in ranked if index < len(asks)]
    spare = [[keep_a] * len(capacity)] * len(asks)
    isin, blockers = admit(asks, order, capacity, spare)
    before: list[int] = []
    for index in order:
        taken = loads([asks[i] for i in before], [asks[i].lower_a for i in before], len(capacity))
        room = [c - t - keep_a for c, t in zip(capacity, taken, strict=True)]
        fits = [room[c] >= share * asks[index].lower_a - 1e-6 for c, share in asks[index].uses]
        blocker = blockers[index]
        assert isin[index] == (blocker is None)
        if isin[index]:
            assert all(fits)
            before.append(index)
        else:
            assert not fits[[c for c, _ in asks[index].uses].index(-1 if blocker is None else blocker)]

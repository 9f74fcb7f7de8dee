"""Limits of one circuit, folded: the tightest counts and keeps its name."""

from math import inf

import pytest

from controller.core.limits import bound_of
from controller.core.model import Limit
from tests.core.plaza import circuit, phases

NOW_S = 1000.0


def test_the_tightest_limit_of_each_phase_counts_and_is_named() -> None:
    bound = bound_of(
        circuit(limits=(Limit(source="fuse", value_a=phases(63)), Limit(source="cable", value_a=(80.0, 50.0, 80.0)))),
        NOW_S,
    )
    assert (bound.value_a, bound.sources_a, bound.source) == ((63, 50, 63), ("fuse", "cable", "fuse"), "cable")


def test_amperes_and_watts_stand_beside_each_other() -> None:
    limits = (
        Limit(source="fuse", value_a=phases(63)),
        Limit(source="transformer", value_w=40_000),
        Limit(source="signal", value_w=30_000),
    )
    bound = bound_of(circuit(limits=limits), NOW_S)
    assert (bound.value_a, bound.value_w, bound.source_w) == ((63, 63, 63), 30_000, "signal")


def test_a_circuit_without_limits_is_unlimited() -> None:
    bound = bound_of(circuit(limits=()), NOW_S)
    assert (bound.value_a, bound.value_w) == ((inf, inf, inf), inf)


def test_continuous_load_derates_the_amperes() -> None:
    assert bound_of(circuit(limit_a=100.0, continuous_factor=0.8), NOW_S).value_a == (80, 80, 80)


@pytest.mark.parametrize(
    ("limit", "valid_a", "lapsed_a"),
    [
        (Limit(source="signal", value_a=phases(50), fallback_a=phases(20), valid_until_s=NOW_S), 50, 20),
        (Limit(source="signal", value_a=phases(50), valid_until_s=NOW_S), 50, 0),  # fails closed
        (Limit(source="signal", value_a=phases(50)), 50, 50),  # for ever
    ],
)
def test_a_lapsed_limit_never_widens_a_right(limit: Limit, valid_a: float, lapsed_a: float) -> None:
    node = circuit(limits=(Limit(source="fuse", value_a=phases(63)), limit))
    assert bound_of(node, NOW_S).value_a == phases(valid_a)
    assert bound_of(node, NOW_S + 0.1).value_a == phases(lapsed_a)


@pytest.mark.parametrize(("fallback_w", "lapsed_w"), [(5_000, 5_000), (None, 0)])
def test_a_lapsed_power_limit_never_widens_a_right(fallback_w: float | None, lapsed_w: float) -> None:
    limit = Limit(source="signal", value_w=20_000, fallback_w=fallback_w, valid_until_s=NOW_S)
    node = circuit(limits=(Limit(source="fuse", value_a=phases(63)), limit))
    assert bound_of(node, NOW_S).value_w == 20_000
    lapsed = bound_of(node, NOW_S + 1)
    assert lapsed.value_w == lapsed_w
    assert lapsed.value_a == phases(63)  # the quantity it does not limit stays out of it

"""Contract: the energy budget of a clock-aligned interval (control rules, 5)."""

from dataclasses import dataclass, field

import pytest

from controller.core.contract import Budget, budgets
from controller.core.model import Contract, ContractMemory, MeterReading
from tests.core.plaza import QUARTER_UNIX_S, START_S, circuit, reading, site, snapshot

CONTRACT_W = 100_000.0
QUARTER_WH = CONTRACT_W / 4  # 25 kWh
MARGIN_WH = 0.02 * QUARTER_WH


@dataclass
class Account:
    """One contract, shown one moment after another. `clock_offset_s` puts UTC off the monotonic clock."""

    interval_s: int = 900
    memory: ContractMemory = field(default_factory=ContractMemory)
    clock_offset_s: float = 0.0
    surge_w: float = 0.0
    synchronised: bool = True

    def at(self, second: float, meter: MeterReading | None) -> Budget:
        """Return the budget `second` seconds into the first interval."""
        contract = Contract(id="gtv", circuit="grid", import_w=CONTRACT_W, settlement_interval_s=self.interval_s)
        moment = snapshot(
            site([], circuit(), contracts=(contract,)),
            {},
            {} if meter is None else {"grid": meter},
            now_s=START_S + second,
            unix_s=QUARTER_UNIX_S + second + self.clock_offset_s,
            synchronised=self.synchronised,
        )
        (budget,), memories = budgets(moment, {"gtv": self.memory}, {"grid": self.surge_w})
        self.memory = memories["gtv"]
        return budget

    def run(self, first: int, last: int, power_w: float) -> Budget:
        """Show a meter without register every second from `first` to `last`."""
        for second in range(first, last):
            self.at(second, meter(second, power_w))
        return self.at(last, meter(last, power_w))


def meter(
    second: float,
    power_w: float,
    import_wh: float | None = None,
    *,
    step_wh: float | None = 1.0,
    period_s: float = 1.0,
) -> MeterReading:
    at_s = START_S + second
    return reading(0.0, at_s, power_w=power_w, import_wh=import_wh, import_step_wh=step_wh, period_s=period_s)


def started() -> Account:
    """An account that knows its interval from the first second."""
    account = Account()
    account.run(-10, 0, 0.0)
    return account


def test_power_is_integrated_where_the_meter_has_no_register() -> None:
    budget = started().run(1, 360, 50_000.0)
    assert budget.state.used_wh == pytest.approx(5000, abs=10)
    assert budget.state.remaining_s == 540
    # 25 kWh less 0.5 kWh of margin less 5 kWh in 540 s
    assert budget.state.allowed_w == pytest.approx((QUARTER_WH - MARGIN_WH - 5000) * 3600 / 540, rel=1e-3)


def test_a_register_is_taken_before_the_power() -> None:
    account = started()
    counted_wh = account.at(1, meter(1, 0, 7000)).state.used_wh
    assert account.at(61, meter(61, 50_000, 7600)).state.used_wh == pytest.approx(counted_wh + 600)


@pytest.mark.parametrize(
    ("step_wh", "used_wh"),
    [
        (50, 600),  # 0.2 % of the interval's 25 kWh
        (100, 36_000 / 60),  # coarser: the power counts
        (None, 36_000 / 60),  # its resolution is not known
    ],
)
def test_a_coarse_register_is_not_used(step_wh: float | None, used_wh: float) -> None:
    account = started()
    register_wh = 7000.0
    account.at(0, meter(0, 36_000, register_wh, step_wh=step_wh))
    for second in range(1, 61):
        shown_wh = register_wh + 10 * second if step_wh == 50 else register_wh
        budget = account.at(second, meter(second, 36_000, shown_wh, step_wh=step_wh))
    assert budget.state.used_wh == pytest.approx(used_wh, rel=0.02)


def test_a_register_that_went_back_says_nothing_about_this_step() -> None:
    account = started()
    account.at(1, meter(1, 0, 7000))
    account.at(2, meter(2, 36_000, 7010))
    assert account.at(3, meter(3, 36_000, 3)).state.used_wh == pytest.approx(20)  # 10 Wh counted, 10 Wh from power
    assert account.at(4, meter(4, 36_000, 13)).state.used_wh == pytest.approx(30)


def test_a_new_interval_starts_inside_a_sample() -> None:
    account = started()
    for second in range(1, 891):
        account.at(second, meter(second, 72_000, 20.0 * second))
    over = account.at(903, meter(903, 72_000, 20.0 * 893))  # 60 Wh over 13 s, 3 s of them in the new interval
    assert over.state.interval_start_unix_s == QUARTER_UNIX_S + 900
    assert over.state.used_wh == pytest.approx(60 * 3 / 13)


def test_a_start_without_history_counts_unknown_time_as_contract_power() -> None:
    budget = Account().at(300, meter(300, 10_000))
    assert budget.state.used_wh == pytest.approx(CONTRACT_W * 300 / 3600)
    assert budget.state.allowed_w == pytest.approx(CONTRACT_W - MARGIN_WH * 3600 / 600)


def test_without_any_meter_all_time_counts_as_contract_power() -> None:
    account = Account()
    for second in (100, 600, 899):
        assert account.at(second, None).state.used_wh == pytest.approx(CONTRACT_W * second / 3600)
    assert account.at(1000, None).state.used_wh == pytest.approx(CONTRACT_W * 100 / 3600)
    assert account.at(1100, meter(1100, 0)).state.used_wh == pytest.approx(CONTRACT_W * 200 / 3600)


def test_an_account_that_is_remembered_over_a_restart_is_carried_on() -> None:
    account = started()
    account.run(1, 600, 30_000)
    again = Account(memory=account.memory)
    assert again.at(603, meter(603, 30_000)).state.used_wh == pytest.approx(30_000 * 603 / 3600, rel=0.01)


def test_a_remembered_account_with_a_register_knows_the_gap_exactly() -> None:
    account = started()
    account.at(1, meter(1, 0, 1000))
    again = Account(memory=account.memory)
    assert again.at(401, meter(401, 90_000, 1500)).state.used_wh == pytest.approx(500)


def test_a_gap_counts_as_contract_power_or_as_what_is_drawn_if_that_is_more() -> None:
    low, high = started(), started()
    assert low.at(100, meter(100, 10_000)).state.used_wh == pytest.approx(CONTRACT_W * 100 / 3600)
    assert high.at(100, meter(100, 150_000)).state.used_wh == pytest.approx(150_000 * 100 / 3600)


def test_a_gap_over_a_whole_interval_is_unknown_time() -> None:
    account = started()
    assert account.at(2000, meter(2000, 0)).state.used_wh == pytest.approx(CONTRACT_W * 200 / 3600)


def test_while_the_meter_is_silent_its_last_power_counts_then_the_contract() -> None:
    account = started()
    account.run(1, 100, 36_000)
    used_wh = account.memory.counted_wh
    silent = meter(100, 36_000)
    assert account.at(105, silent).state.used_wh == pytest.approx(used_wh + 50)
    assert account.at(110, silent).state.used_wh == pytest.approx(used_wh + CONTRACT_W * 10 / 3600)
    assert account.at(905, silent).state.used_wh == pytest.approx(CONTRACT_W * 5 / 3600)


def test_between_two_samples_a_new_interval_begins_at_the_last_power() -> None:
    account = started()
    account.run(1, 899, 36_000)
    assert account.at(902, meter(899, 36_000)).state.used_wh == pytest.approx(20)


def test_a_remembered_account_without_a_meter_goes_on_at_contract_power() -> None:
    account = started()
    account.run(1, 100, 36_000)
    used_wh = account.memory.counted_wh
    assert account.at(103, None).state.used_wh == pytest.approx(used_wh + CONTRACT_W * 3 / 3600)


def test_a_meter_of_10_s_is_not_silent_between_its_samples() -> None:
    """A P1 port's budget must not sway within each of its periods, least of all near the end of an interval."""
    account = started()
    for second in range(0, 841, 10):
        account.at(second, meter(second, 36_000, period_s=10.0))
    allowed_w = [account.at(840 + s, meter(840, 36_000, period_s=10.0)).state.allowed_w for s in range(10)]
    # As long as less is drawn than is allowed, what remains to be used only grows.
    assert allowed_w == sorted(allowed_w)


def test_export_gives_no_credit() -> None:
    account = started()
    account.run(1, 300, -80_000)
    budget = account.run(301, 600, 36_000)
    assert budget.state.used_wh == pytest.approx(3000, rel=0.02)


def test_without_a_disciplined_clock_the_contract_holds_at_every_instant() -> None:
    account = started()
    account.run(1, 450, 0)
    account.synchronised = False
    assert account.at(451, meter(451, 0)).state.allowed_w == pytest.approx(0.98 * CONTRACT_W)


@pytest.mark.parametrize(
    ("step_s", "into_s"),
    [
        (-700, 801),  # back into the interval before
        (400, 101),  # ahead into the next one
        (500, 201),
        (2_000, 801),
    ],
)
@pytest.mark.parametrize("sampled", [True, False], ids=["with a new sample", "between two samples"])
def test_a_clock_that_is_set_makes_the_elapsed_time_unknown(*, step_s: float, into_s: float, sampled: bool) -> None:
    account = started()
    account.run(1, 600, 0)
    account.clock_offset_s = step_s
    budget = account.at(601, meter(601 if sampled else 600, 0))
    assert budget.state.used_wh == pytest.approx(CONTRACT_W * into_s / 3600)


def test_a_clock_set_ahead_within_an_interval_leaves_the_time_it_skipped_unknown() -> None:
    account = started()
    account.run(1, 100, 0)
    account.clock_offset_s = 700.0
    assert account.at(101, meter(101, 0)).state.used_wh == pytest.approx(CONTRACT_W * 700 / 3600)


@pytest.mark.parametrize(
    ("interval_s", "left_s", "frozen"),
    [(900, 31, False), (900, 30, False), (900, 29, True), (900, 1, True), (60, 3, False), (60, 1, True)],
)
def test_the_last_thirtieth_of_an_interval_raises_nothing(*, interval_s: int, left_s: float, frozen: bool) -> None:
    account = Account(interval_s=interval_s)
    assert account.at(interval_s - left_s, meter(interval_s - left_s, 0)).frozen == frozen


def test_what_is_not_used_early_may_be_used_late() -> None:
    budget = started().run(1, 450, 0)
    assert budget.state.allowed_w == pytest.approx(2 * CONTRACT_W - 2 * 0.02 * CONTRACT_W)


def test_what_was_used_too_much_is_paid_back() -> None:
    budget = started().run(1, 450, 150_000)
    assert budget.state.allowed_w == pytest.approx(50_000 - 4000, abs=500)


def test_an_interval_that_is_used_up_allows_nothing() -> None:
    assert started().run(1, 800, 200_000).state.allowed_w == 0


@pytest.mark.parametrize(
    ("surge_w", "reserve_wh"),
    [
        (0, 500),  # the margin of 2 %
        (100_000, 500),  # 417 Wh over the 15 s of reaction: the margin covers it
        (300_000, 1250),
    ],
)
def test_energy_is_kept_for_the_surges_that_were_seen_before(surge_w: float, reserve_wh: float) -> None:
    account = started()
    account.surge_w = surge_w
    budget = account.run(1, 450, 0)
    assert budget.state.allowed_w == pytest.approx((QUARTER_WH - reserve_wh) * 3600 / 450)


def test_near_the_end_the_reserve_shrinks_with_the_time_that_a_surge_can_last() -> None:
    account = started()
    account.surge_w = 300_000
    budget = account.run(1, 890, 0)
    assert budget.state.allowed_w == pytest.approx((QUARTER_WH - 300_000 * 10 / 3600) * 3600 / 10)

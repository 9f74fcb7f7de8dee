import asyncio
from dataclasses import dataclass

import pytest

from controller.clock import SystemClock
from controller.core.electrical import Phases
from simulators.physics import Moment, PhysicalCircuit, PlacedEvse, SitePhysics, rotate

FUSE_A = (80.0, 80.0, 80.0)


@dataclass
class FixedPlug:
    id: str
    current_a: Phases

    def step(self, dt_s: float, voltage_v: float) -> None:
        """A fixed load does not change."""

    def draw_a(self) -> Phases:
        return self.current_a

    def offered_a(self) -> float:
        return 16.0

    def setpoint_a(self) -> float | None:
        return None


@pytest.mark.parametrize(
    ("phases", "expected_a"),
    [((0, 1, 2), (1.0, 2.0, 3.0)), ((1, 2, 0), (3.0, 1.0, 2.0)), ((2, 0, 1), (2.0, 3.0, 1.0)), ((1,), (0.0, 1.0, 0.0))],
)
def test_terminals_are_rotated_onto_the_phases_they_are_wired_to(phases: tuple[int, ...], expected_a: Phases) -> None:
    assert rotate((1.0, 2.0, 3.0), phases) == expected_a


def test_every_circuit_carries_its_own_load_and_all_that_hangs_below() -> None:
    site = SitePhysics(
        circuits=(
            PhysicalCircuit(
                id="grid", limit_a=FUSE_A, load_a=lambda _: (10.0, 11.0, 12.0), generation_a=lambda _: (5.0, 5.0, 5.0)
            ),
            PhysicalCircuit(id="hall", limit_a=FUSE_A, parent="grid", fed_a=lambda: (0.5, 0.0, 0.0)),
            PhysicalCircuit(id="yard", limit_a=FUSE_A, parent="grid"),
        ),
        evses=(
            PlacedEvse(plug=FixedPlug("a", (16.0, 0.0, 0.0)), circuit="hall"),
            PlacedEvse(plug=FixedPlug("b", (16.0, 0.0, 0.0)), circuit="hall", phases=(1, 2, 0)),
            PlacedEvse(plug=FixedPlug("c", (8.0, 8.0, 8.0)), circuit="yard"),
        ),
    )
    site.step(0.1)
    assert site.flow("hall").current_a == (16.5, 16.0, 0.0)
    assert site.flow("hall").base_a == (0.0, 0.0, 0.0)
    assert site.flow("yard").current_a == (8.0, 8.0, 8.0)
    assert site.flow("grid").current_a == (29.5, 30.0, 15.0)
    assert site.flow("grid").base_a == (5.0, 6.0, 7.0)
    assert site.flow("grid").vehicles_a == (24.5, 24.0, 8.0)
    assert site.meter_values("grid").power_w == pytest.approx((29.5 * 230, 30 * 230, 15 * 230))


def test_phases_are_netted_instant_by_instant() -> None:
    loads_a = iter([(10.0, -30.0, 10.0)] * 10 + [(10.0, -10.0, 10.0)] * 10)
    site = SitePhysics(
        circuits=(PhysicalCircuit(id="grid", limit_a=FUSE_A, load_a=lambda _: next(loads_a)),), source_ohm=0.0
    )
    site.step(1.0)
    values = site.meter_values("grid")
    assert (values.import_wh, values.export_wh) == pytest.approx((0.0, 10 * 230 / 3600))
    site.step(1.0)
    values = site.meter_values("grid")
    assert (values.import_wh, values.export_wh) == pytest.approx((10 * 230 / 3600, 10 * 230 / 3600))


def test_what_vehicles_took_is_counted_apart_from_the_building() -> None:
    site = SitePhysics(
        circuits=(PhysicalCircuit(id="grid", limit_a=FUSE_A, load_a=lambda _: (50.0, 50.0, 50.0)),),
        evses=(PlacedEvse(plug=FixedPlug("a", (10.0, 10.0, 10.0)), circuit="grid"),),
        source_ohm=0.0,
    )
    site.step(360.0)
    assert site.delivered_kwh == pytest.approx(10 * 230 * 3 / 10 / 1000)


def test_the_voltage_sags_with_the_current_of_its_phase() -> None:
    site = SitePhysics(
        circuits=(PhysicalCircuit(id="grid", limit_a=FUSE_A, load_a=lambda _: (100.0, 0.0, -100.0)),), source_ohm=0.02
    )
    site.step(0.2)
    assert site.meter_values("grid").voltage_v == (228.0, 230.0, 232.0)


def test_no_step_is_longer_than_a_tenth_of_a_second() -> None:
    seen: list[Moment] = []
    site = SitePhysics(circuits=(PhysicalCircuit(id="grid", limit_a=FUSE_A),), watchers=[seen.append], unix_s=100.0)
    site.step(0.25)
    assert [moment.dt_s for moment in seen] == pytest.approx([0.1, 0.1, 0.05])
    assert [moment.unix_s for moment in seen] == pytest.approx([100.1, 100.2, 100.25])


@pytest.mark.parametrize(
    ("parents", "complaint"),
    [({"a": "b", "b": "a"}, "ancestor"), ({"a": "a"}, "ancestor"), ({"a": "missing"}, "does not exist")],
)
def test_a_tree_that_is_none_is_refused(parents: dict[str, str], complaint: str) -> None:
    circuits = tuple(PhysicalCircuit(id=name, limit_a=FUSE_A, parent=parent) for name, parent in parents.items())
    with pytest.raises(ValueError, match=complaint):
        SitePhysics(circuits=circuits)


def test_an_evse_at_no_circuit_is_refused() -> None:
    with pytest.raises(ValueError, match="does not exist"):
        SitePhysics(circuits=(), evses=(PlacedEvse(plug=FixedPlug("a", (0.0, 0.0, 0.0)), circuit="nowhere"),))


class LeapingClock(SystemClock):
    """A clock that has leapt ahead whenever it is looked at, as after a long stall."""

    def __init__(self) -> None:
        super().__init__(assume_synchronised=True)
        self.leaps_s = [0.0, 30.0]

    def now_s(self) -> float:
        return self.leaps_s.pop(0) if len(self.leaps_s) > 1 else self.leaps_s[0]

    def unix_s(self) -> float:
        return 1_000.0


async def test_time_that_was_missed_is_made_up_for_step_by_step() -> None:
    seen: list[Moment] = []
    caught_up = asyncio.Event()

    def watch(moment: Moment) -> None:
        seen.append(moment)
        if len(seen) == 300:
            caught_up.set()

    site = SitePhysics(circuits=(PhysicalCircuit(id="grid", limit_a=FUSE_A),), watchers=[watch])
    task = asyncio.create_task(site.run(LeapingClock()))
    async with asyncio.timeout(10):
        await caught_up.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert {moment.dt_s for moment in seen} == {0.1}
    assert seen[-1].unix_s == pytest.approx(1_030.0)

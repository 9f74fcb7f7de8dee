from itertools import pairwise
from random import Random

import pytest

from simulators.building import Building, LoadStep, random_steps, steady
from simulators.pv import PvPlant


def seeded() -> Random:
    return Random(1)  # noqa: S311 - nothing here is secret


TWO_STEPS = (
    LoadStep(duration_s=10.0, load_a=(10.0, 11.0, 12.0)),
    LoadStep(duration_s=20.0, load_a=(30.0, 31.0, 32.0)),
)


@pytest.mark.parametrize(
    ("at_s", "l1_a"), [(0.0, 10.0), (9.9, 10.0), (10.0, 30.0), (29.9, 30.0), (30.0, 10.0), (41.0, 30.0)]
)
def test_a_building_walks_through_its_steps_and_begins_again(at_s: float, l1_a: float) -> None:
    assert Building(steps=TWO_STEPS).load_a(at_s) == (l1_a, l1_a + 1, l1_a + 2)


def test_noise_is_bounded_never_exports_and_depends_on_time_and_seed_only() -> None:
    building = Building(steps=TWO_STEPS, noise_a=2.0, seed=3)
    loads_a = [building.load_a(float(second)) for second in range(10)]
    assert loads_a == [Building(steps=TWO_STEPS, noise_a=2.0, seed=3).load_a(float(second)) for second in range(10)]
    assert loads_a != [Building(steps=TWO_STEPS, noise_a=2.0, seed=4).load_a(float(second)) for second in range(10)]
    assert all(8.0 <= load_a[0] <= 12.0 for load_a in loads_a)
    assert len({load_a[0] for load_a in loads_a}) == 10
    assert min(Building(steps=steady().steps, noise_a=5.0).load_a(7.0)) >= 0.0


def test_random_steps_are_repeatable_and_each_is_felt() -> None:
    steps = random_steps(seeded(), count=20, duration_s=(5.0, 30.0), load_a=(10.0, 50.0))
    assert steps == random_steps(seeded(), count=20, duration_s=(5.0, 30.0), load_a=(10.0, 50.0))
    assert all(5.0 <= step.duration_s <= 30.0 and 10.0 <= step.load_a[0] <= 50.0 for step in steps)
    assert all(abs(a.load_a[0] - b.load_a[0]) >= 20.0 - 1e-9 for a, b in pairwise(steps))


@pytest.mark.parametrize("steps", [(), (LoadStep(duration_s=0.0, load_a=(1.0, 1.0, 1.0)),)])
def test_a_building_without_time_is_refused(steps: tuple[LoadStep, ...]) -> None:
    with pytest.raises(ValueError, match="step"):
        Building(steps=steps)


def test_the_sun_rises_peaks_at_noon_and_sets() -> None:
    plant = PvPlant(peak_a=20.0)
    assert plant.generation_a(0.0) == plant.generation_a(86_400.0 - 1) == (0.0, 0.0, 0.0)
    assert plant.generation_a(43_200.0) == pytest.approx((20.0, 20.0, 20.0))
    assert 0.0 < plant.generation_a(30_000.0)[0] < plant.generation_a(40_000.0)[0]


def test_clouds_pass_smoothly_and_take_no_more_than_their_share() -> None:
    clear, cloudy = PvPlant(peak_a=20.0), PvPlant(peak_a=20.0, cloud_ratio=0.5, seed=5)
    seen_a = [cloudy.generation_a(40_000.0 + second)[0] for second in range(600)]
    assert max(abs(a - b) for a, b in pairwise(seen_a)) < 0.5
    assert all(clear.generation_a(40_000.0 + s)[0] * 0.5 - 1e-9 <= seen_a[s] for s in range(600))
    assert max(seen_a) - min(seen_a) > 1.0

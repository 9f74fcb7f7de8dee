"""Buildings: the uncontrolled load of a site, as a repeatable function of time and seed.

Knows steps (ovens, compressors, lifts) and the flutter on top of them. Does not care who measures it.
"""

import zlib
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Final

from controller.core.electrical import ZERO, Phases

_HASH_RANGE: Final = 2**32
_MANY_STEPS: Final = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadStep:
    """A constant load per phase, held for some seconds."""

    duration_s: float
    load_a: Phases


@dataclass(frozen=True, slots=True, kw_only=True)
class Building:
    """A load that walks through `steps` and begins again, with up to `noise_a` of flutter on each phase.

    The flutter changes every `noise_interval_s` and depends on nothing but seed, phase and time. A load never exports.
    """

    steps: tuple[LoadStep, ...]
    noise_a: float = 0.0
    noise_interval_s: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.steps or any(step.duration_s <= 0 for step in self.steps):
            raise ValueError("a building needs at least one step, and every step some time")

    def load_a(self, at_s: float) -> Phases:
        """Return the load per phase at `at_s` seconds after the start of the first step."""
        level_a = self._level_a(at_s)
        if self.noise_a == 0:
            return level_a
        bucket = int(at_s // self.noise_interval_s)
        one, two, three = (max(0.0, level_a[p] + self.noise_a * flutter(self.seed, p, bucket)) for p in range(3))
        return (one, two, three)

    def _level_a(self, at_s: float) -> Phases:
        left_s = at_s % sum(step.duration_s for step in self.steps)
        for step in self.steps:
            if left_s < step.duration_s:
                return step.load_a
            left_s -= step.duration_s
        return self.steps[-1].load_a  # a rounding error past the last one


def steady(load_a: Phases = ZERO) -> Building:
    """Return a building whose load never changes."""
    return Building(steps=(LoadStep(duration_s=3600.0, load_a=load_a),))


def random_steps(
    rng: Random, *, count: int, duration_s: tuple[float, float], load_a: tuple[float, float], skew_a: float = 0.0
) -> tuple[LoadStep, ...]:
    """Return `count` steps between two durations and two loads; each phase differs by up to `skew_a`.

    Consecutive steps lie at least half the range apart, so that each is felt.
    """
    if not 0 < count <= _MANY_STEPS:
        raise ValueError(f"count {count} is not between 1 and {_MANY_STEPS}")
    low_a, high_a = load_a
    middle_a = (low_a + high_a) / 2.0
    levels_a = [rng.uniform(middle_a, high_a) if n % 2 else rng.uniform(low_a, middle_a) for n in range(count)]
    for n, (before_a, after_a) in enumerate(pairwise(levels_a), start=1):
        missing_a = (high_a - low_a) / 2.0 - abs(after_a - before_a)
        if missing_a > 0:
            levels_a[n] = min(high_a, after_a + missing_a) if n % 2 else max(low_a, after_a - missing_a)
    return tuple(
        LoadStep(duration_s=rng.uniform(*duration_s), load_a=_skewed(rng, level_a, skew_a)) for level_a in levels_a
    )


def flutter(seed: int, channel: int, bucket: int) -> float:
    """Return a number between -1 and 1 that depends on the arguments only; small ones are likelier than large ones."""
    total = sum(zlib.crc32(f"{seed}/{channel}/{bucket}/{n}".encode()) / _HASH_RANGE for n in range(3))
    return total * 2.0 / 3.0 - 1.0


def _skewed(rng: Random, level_a: float, skew_a: float) -> Phases:
    one, two, three = (max(0.0, level_a + rng.uniform(-skew_a, skew_a)) for _ in range(3))
    return (one, two, three)

"""Solar generation: a smooth day with passing clouds, as a repeatable function of time and seed."""

import math
from dataclasses import dataclass
from typing import Final

from controller.core.electrical import ZERO, Phases
from simulators.building import flutter

DAY_S: Final = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PvPlant:
    """A three-phase plant: `peak_a` per phase at noon of a clear day.

    A day lasts `day_s` (a demonstration may shorten it); the sun shines over its middle `sun_ratio`. Clouds take up to
    `cloud_ratio` away and pass smoothly, one thought every `cloud_s`.
    """

    peak_a: float
    day_s: float = DAY_S
    sun_ratio: float = 0.6
    cloud_ratio: float = 0.0
    cloud_s: float = 60.0
    seed: int = 0

    def generation_a(self, at_s: float) -> Phases:
        """Return the generated current per phase (a positive number), `at_s` seconds after midnight."""
        height_ratio = self._sun(at_s)
        if height_ratio == 0:
            return ZERO
        value_a = self.peak_a * height_ratio * (1.0 - self.cloud_ratio * self._cloud(at_s))
        return (value_a, value_a, value_a)

    def _sun(self, at_s: float) -> float:
        position = ((at_s % self.day_s) / self.day_s - 0.5) / self.sun_ratio + 0.5
        return math.sin(math.pi * position) ** 2 if 0 < position < 1 else 0.0

    def _cloud(self, at_s: float) -> float:
        """Return the cover between 0 and 1, eased from one value to the next."""
        bucket, within = divmod(at_s / self.cloud_s, 1.0)
        here, there = (0.5 + 0.5 * flutter(self.seed, 3, int(bucket) + n) for n in (0, 1))
        return here + (there - here) * (1.0 - math.cos(math.pi * within)) / 2.0

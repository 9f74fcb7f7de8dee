"""The circuit tree, indexed: who hangs below whom. Knows positions only, no limits or loads."""

from dataclasses import dataclass
from typing import Self

from controller.core.model import Site


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """Positions instead of names: `circuits[i]` has parent `parents[i]` (-1 for a grid connection).

    `paths[e]` lists the circuits of EVSE `e` from its own up to the grid connection; `below[i]` the EVSEs under `i`.
    """

    parents: tuple[int, ...]
    roots_of_evses: tuple[int, ...]
    paths: tuple[tuple[int, ...], ...]
    below: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, site: Site) -> Self:
        """Index a site. Raises KeyError when a parent or a circuit is unknown (a site file is checked before)."""
        position = {circuit.id: index for index, circuit in enumerate(site.circuits)}
        parents = tuple(-1 if circuit.parent is None else position[circuit.parent] for circuit in site.circuits)
        to_root = [_climb(index, parents) for index in range(len(parents))]
        paths = tuple(to_root[position[evse.circuit]] for evse in site.evses)
        below: list[list[int]] = [[] for _ in parents]
        for evse, path in enumerate(paths):
            for circuit in path:
                below[circuit].append(evse)
        return cls(
            parents=parents,
            roots_of_evses=tuple(path[-1] for path in paths),
            paths=paths,
            below=tuple(tuple(evses) for evses in below),
        )


def _climb(start: int, parents: tuple[int, ...]) -> tuple[int, ...]:
    path, here = [], start
    while here >= 0:
        path.append(here)
        here = parents[here]
    return tuple(path)

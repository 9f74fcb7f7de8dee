"""The rule that numbers carry their unit in their name (docs/architecture.md, code style).

Two parts. A single number (`float`, `float | None`, `Phases`) that is a parameter, a field or an annotated or constant
variable ends in a unit, whatever it is called. Anything that holds numbers, mappings and sequences and integers
included, ends in a unit when its name speaks of a physical quantity (`limit`, `age`, ...); so does a function that
returns numbers.
"""

import ast
from collections.abc import Iterator
from typing import NamedTuple

from tests.house.source import Module

UNITS = {"a", "as", "hz", "kw", "kwh", "mb", "ms", "ohm", "ratio", "s", "us", "v", "w", "wh"}

QUANTITIES = {
    "age", "current", "delay", "duration", "energy", "frequency", "headroom", "interval", "latency", "limit", "offset",
    "period", "power", "timeout", "voltage",
}  # fmt: skip

FREE = {
    "amperes": "is a unit",
    "epsilon": "a tolerance for rounding, the same in every unit",
    "factor": "has no dimension",
    "l1": "one element of a per-phase value whose name has the unit",
    "l2": "one element of a per-phase value whose name has the unit",
    "l3": "one element of a per-phase value whose name has the unit",
    "left": "operand of per-phase arithmetic, which is the same in every unit",
    "level": "how far a filling has come, in amperes or watts per weight, as its constraint is",
    "periods": "counts periods",
    "right": "operand of per-phase arithmetic, which is the same in every unit",
    "scale": "from a raw number to the unit that the point's name has",
    "seconds": "is a unit",
    "share": "has no dimension",
    "watts": "is a unit",
    "weight": "has no dimension",
    "zero": "is zero in every unit",
}
"""Last words of a name that need no unit, and why."""

SAYS_THE_UNIT = {"unit", "quantity"}
"""Names that, standing beside a number, tell its unit at run time."""

EXCEPTIONS: dict[tuple[str, str], str] = {
    ("controller/core/contract.py", "interval"): "the number of a settlement interval, counted from 1970",
    ("controller/core/model.py", "interval"): "the number of a settlement interval, counted from 1970",
    ("controller/metrics.py", "value"): "the metric family that it goes into names the unit",
    ("controller/state.py", "value"): "rounding is the same in every unit",
    ("simulators/profiles.py", "limit"): "the profile's own `unit` says it, as in OCPP",
}
"""(file, name) that the rule does not hold for, and why."""

SINGLE = {"float", "Phases", "Amperes"}
NUMBERS = SINGLE | {"int", "PerPhase"}


class Named(NamedTuple):
    """A name, what it is annotated with, and the names that stand beside it."""

    node: ast.AST
    name: str
    annotation: ast.expr | None
    beside: frozenset[str] = frozenset()
    is_function: bool = False


def numbers_carry_their_unit(module: Module) -> Iterator[str]:
    """A number whose unit has to be guessed is banned: end its name in its unit."""
    for named in _named(module.tree):
        *_, last = words = named.name.lower().strip("_").split("_")
        single = _is_single(named.annotation) and not named.is_function
        quantity = _holds(named.annotation, NUMBERS) and bool(QUANTITIES & set(words))
        if last in UNITS or last in FREE or "per" in words or not (single or quantity):
            continue
        if SAYS_THE_UNIT & named.beside or (module.path, named.name) in EXCEPTIONS:
            continue
        yield module.at(
            named.node, f"a number named {named.name!r} is banned, use one that ends in its unit ({_choices()})"
        )


def _choices() -> str:
    return ", ".join(f"_{unit}" for unit in sorted(UNITS))


def _named(tree: ast.Module) -> Iterator[Named]:
    fields = {
        field: _field_names(owner)
        for owner in ast.walk(tree)
        if isinstance(owner, ast.ClassDef)
        for field in owner.body
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            beside = frozenset(argument.arg for argument in arguments)
            yield from (Named(argument, argument.arg, argument.annotation, beside) for argument in arguments)
            yield Named(node, node.name, node.returns, is_function=True)
        elif isinstance(node, ast.AnnAssign | ast.Assign):
            yield from _variable(node, fields.get(node, frozenset()))


def _field_names(owner: ast.ClassDef) -> frozenset[str]:
    targets = [field.target for field in owner.body if isinstance(field, ast.AnnAssign)]
    return frozenset(target.id for target in targets if isinstance(target, ast.Name))


def _variable(node: ast.AnnAssign | ast.Assign, beside: frozenset[str]) -> Iterator[Named]:
    constant = isinstance(node.value, ast.Constant) and isinstance(node.value.value, float)
    annotation = ast.Name("float") if constant else node.annotation if isinstance(node, ast.AnnAssign) else None
    for target in [node.target] if isinstance(node, ast.AnnAssign) else node.targets:
        if isinstance(target, ast.Name):
            yield Named(node, target.id, annotation, beside)
        elif isinstance(target, ast.Attribute):
            yield Named(node, target.attr, annotation, beside)


def _is_single(annotation: ast.expr | None) -> bool:
    """Tell whether it is one number or one per-phase value, perhaps with None or in Annotated or Final."""
    match annotation:
        case ast.Name(id=name):
            return name in SINGLE
        case ast.BinOp(left=left, op=ast.BitOr(), right=ast.Constant(value=None)):
            return _is_single(left)
        case ast.Subscript(value=ast.Name(id="Annotated"), slice=ast.Tuple(elts=[inner, *_])):
            return _is_single(inner)
        case ast.Subscript(value=ast.Name(id="Final"), slice=inner):
            return _is_single(inner)
    return False


def _holds(annotation: ast.expr | None, names: set[str]) -> bool:
    return annotation is not None and any(isinstance(n, ast.Name) and n.id in names for n in ast.walk(annotation))

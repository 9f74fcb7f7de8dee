"""Register maps: what a meter's registers mean, as data that the driver and the simulator share.

Knows addresses, number types, word order, scale and the values that mean "no value". Does not care how registers
travel, nor what their values are used for. A map is a TOML file in `maps/`.
"""

import difflib
import math
import struct
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

NumberType = Literal["i16", "u16", "i32", "u32", "i64", "u64", "f32", "f64"]
PointName = Literal[
    "voltage_l1_v",
    "voltage_l2_v",
    "voltage_l3_v",
    "current_l1_a",
    "current_l2_a",
    "current_l3_a",
    "power_l1_w",
    "power_l2_w",
    "power_l3_w",
    "power_w",
    "frequency_hz",
    "import_wh",
    "export_wh",
]
PhaseNames = tuple[PointName, PointName, PointName]

VOLTAGE_V: Final[PhaseNames] = ("voltage_l1_v", "voltage_l2_v", "voltage_l3_v")
CURRENT_A: Final[PhaseNames] = ("current_l1_a", "current_l2_a", "current_l3_a")
POWER_W: Final[PhaseNames] = ("power_l1_w", "power_l2_w", "power_l3_w")

REGISTERS: Final = 65_536
_FORMATS: Final[Mapping[NumberType, str]] = {
    "i16": ">h",
    "u16": ">H",
    "i32": ">i",
    "u32": ">I",
    "i64": ">q",
    "u64": ">Q",
    "f32": ">f",
    "f64": ">d",
}
_F32_MANTISSA_BITS: Final = 24


class MapError(Exception):
    """A register map does not exist or cannot be used; the text says why and what to do."""


class InvalidValueError(ValueError):
    """The meter says that it has no value for a point (NaN, infinity, or the map's sentinel)."""

    def __init__(self, point: PointName) -> None:
        self.point = point
        super().__init__(f"{point}: no value")


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Point(_Table):
    """One number of a meter: its value is the raw number x `scale`; `address` is zero-based, as on the wire."""

    address: Annotated[int, Field(ge=0, lt=REGISTERS)]
    type: NumberType
    scale: float = 1.0

    @property
    def words(self) -> int:
        """How many registers it takes."""
        return struct.calcsize(_FORMATS[self.type]) // 2

    @property
    def end(self) -> int:
        """The first address after it."""
        return self.address + self.words


class RegisterMap(_Table):
    """The registers of one family of meters.

    `invalid` lists, by number type, the bit patterns that mean "no value" (NaN and infinity always do).
    `current_signed` tells whether currents show their direction; where not, the phase powers do.
    `import_step_wh` is the finest step of the import register.
    """

    name: str
    models: Annotated[tuple[str, ...], Field(min_length=1)]
    source: Annotated[tuple[str, ...], Field(min_length=1)]
    confidence: Literal["A", "B", "C"]
    function: Literal[3, 4]
    word_order: Literal["big", "little"]
    max_registers_per_read: Annotated[int, Field(ge=4, le=125)]
    even_reads: bool = False
    current_signed: bool
    import_step_wh: Annotated[float, Field(gt=0)] | None = None
    invalid: Mapping[NumberType, tuple[int, ...]] = {}
    points: Mapping[PointName, Point]

    @model_validator(mode="after")
    def _hangs_together(self) -> "RegisterMap":
        problems = list(_problems(self))
        if problems:
            raise ValueError("; ".join(problems))
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A contiguous read of `count` registers from `address`."""

    address: int
    count: int


# ------------------------------------------------------------------------------------------------------- finding one


def available() -> tuple[str, ...]:
    """Return the names of all maps."""
    files = (resources.files(__package__) / "maps").iterdir()
    return tuple(sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml")))


def load(name: str) -> RegisterMap:
    """Return the map with this name. Raises MapError, naming those that exist."""
    names = available()
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise MapError(f"there is no register map {name!r}{hint}; available: {', '.join(names)}")
    return parse(name, (resources.files(__package__) / "maps" / f"{name}.toml").read_text(encoding="utf-8"))


def parse(name: str, text: str) -> RegisterMap:
    """Return the map that a TOML text describes. Raises MapError with every problem found, a line each."""
    try:
        return RegisterMap.model_validate({**tomllib.loads(text), "name": name})
    except tomllib.TOMLDecodeError as error:
        raise MapError(f"register map {name!r}: not valid TOML: {error}") from error
    except ValidationError as error:
        lines = (
            f"register map {name!r}: {'.'.join(str(part) for part in detail['loc']) or 'map'}: {detail['msg']}"
            for detail in error.errors()
        )
        raise MapError("\n".join(lines)) from error


def _problems(register_map: RegisterMap) -> Iterator[str]:
    points = register_map.points
    for group in (CURRENT_A, VOLTAGE_V, POWER_W):
        missing = [name for name in group if name not in points]
        if missing and (group is CURRENT_A or len(missing) < len(group)):
            yield f"points {', '.join(missing)} are missing"
    if not register_map.current_signed and POWER_W[0] not in points:
        yield "current_signed = false needs power_l1_w, power_l2_w and power_l3_w, which tell the direction"
    if "power_w" not in points and POWER_W[0] not in points:
        yield "power_w is missing, and there are no phase powers to add up"
    if ("import_wh" in points) != (register_map.import_step_wh is not None):
        yield "import_wh and import_step_wh go together"
    yield from _point_problems(register_map)


def _point_problems(register_map: RegisterMap) -> Iterator[str]:
    before: tuple[str, int] = ("", 0)
    for name, point in sorted(register_map.points.items(), key=lambda item: item[1].address):
        if point.scale == 0:
            yield f"point {name}: scale is 0"
        if point.end > REGISTERS:
            yield f"point {name} ends beyond register {REGISTERS - 1}"
        if point.address < before[1]:
            yield f"points {before[0]} and {name} overlap at address {point.address:#06x}"
        if _span(point.address, point.end, even=register_map.even_reads).count > register_map.max_registers_per_read:
            yield f"point {name} takes more than max_registers_per_read"
        before = (name, point.end)
    for kind, patterns in register_map.invalid.items():
        if any(not 0 <= pattern < 1 << 8 * struct.calcsize(_FORMATS[kind]) for pattern in patterns):
            yield f"invalid.{kind}: not a bit pattern of that type"


# ---------------------------------------------------------------------------------------------------------- planning


def plan(register_map: RegisterMap, names: Iterable[PointName] | None = None) -> tuple[Block, ...]:
    """Return the fewest reads that cover the points (all by default) within the map's limits.

    Each read starts at the lowest point that is still open and reaches as far as it may, which no other choice can
    beat. It bridges registers that nobody asked for: a longer read costs a millisecond, another read a round trip, and
    only the values of one read belong to one instant.
    """
    wanted = register_map.points if names is None else names
    spans = sorted((register_map.points[name].address, register_map.points[name].end) for name in wanted)
    blocks: list[Block] = []
    even, longest = register_map.even_reads, register_map.max_registers_per_read
    while spans:
        start = spans[0][0]
        covered = [end for _, end in spans if _span(start, end, even=even).count <= longest]
        blocks.append(_span(start, max(covered), even=even))
        spans = spans[len(covered) :]
    return tuple(blocks)


def _span(start: int, end: int, *, even: bool) -> Block:
    if even:
        start, end = start - start % 2, end + end % 2
    return Block(address=start, count=end - start)


# ------------------------------------------------------------------------------------------------- numbers and words


def decode(
    register_map: RegisterMap, registers: Mapping[int, int], names: Iterable[PointName] | None = None
) -> dict[PointName, float]:
    """Return the values of the points (all by default) in their units, from registers by address.

    Raises InvalidValueError for the first point of which the meter says that it has no value.
    """
    wanted = register_map.points if names is None else names
    return {name: _decode_point(register_map, name, registers) for name in wanted}


def _decode_point(register_map: RegisterMap, name: PointName, registers: Mapping[int, int]) -> float:
    point = register_map.points[name]
    words = _ordered(register_map, [registers[address] for address in range(point.address, point.end)])
    raw = struct.pack(f">{len(words)}H", *words)
    if int.from_bytes(raw, "big") in register_map.invalid.get(point.type, ()):
        raise InvalidValueError(name)
    (number,) = struct.unpack(_FORMATS[point.type], raw)
    value = float(number) * point.scale
    if not math.isfinite(value):
        raise InvalidValueError(name)
    return value


def encode(register_map: RegisterMap, values: Mapping[PointName, float]) -> dict[int, int]:
    """Return the registers, by address, with which a meter says these values.

    Raises ValueError for a value that is not finite or does not fit its number type.
    """
    registers: dict[int, int] = {}
    for name, value in values.items():
        point = register_map.points[name]
        number = value / point.scale
        if not math.isfinite(number):
            raise ValueError(f"{name}: {value!r} is not a number that a meter shows")
        try:
            raw = struct.pack(_FORMATS[point.type], number if point.type in ("f32", "f64") else round(number))
        except (struct.error, OverflowError) as error:
            raise ValueError(f"{name}: {value!r} does not fit {point.type} x {point.scale:g}") from error
        registers |= _at(register_map, point, raw)
    return registers


def encode_invalid(register_map: RegisterMap) -> dict[int, int]:
    """Return the registers with which a meter says that it has no values; points that cannot say so are left out."""
    registers: dict[int, int] = {}
    for point in register_map.points.values():
        if point.type in ("f32", "f64"):
            registers |= _at(register_map, point, struct.pack(_FORMATS[point.type], math.nan))
        elif point.type in register_map.invalid:
            pattern = register_map.invalid[point.type][0]
            registers |= _at(register_map, point, pattern.to_bytes(2 * point.words, "big"))
    return registers


def _at(register_map: RegisterMap, point: Point, raw: bytes) -> dict[int, int]:
    words = _ordered(register_map, list(struct.unpack(f">{point.words}H", raw)))
    return dict(enumerate(words, start=point.address))


def _ordered(register_map: RegisterMap, words: list[int]) -> list[int]:
    return words if register_map.word_order == "big" else words[::-1]


def import_step_wh(register_map: RegisterMap, import_wh: float) -> float | None:
    """Return the resolution of the import register when it stands at `import_wh`; None without such a register.

    The declared step, or that of the number type where it is coarser: a 32-bit float of kWh that stands at 1 GWh moves
    in steps of 62.5 Wh.
    """
    if register_map.import_step_wh is None:
        return None
    point = register_map.points["import_wh"]
    if point.type == "f32":
        _, exponent = math.frexp(import_wh / point.scale)
        native_wh = abs(point.scale) * 2.0 ** (exponent - _F32_MANTISSA_BITS)
    else:
        native_wh = abs(point.scale) if point.type != "f64" else 0.0
    return max(register_map.import_step_wh, native_wh)

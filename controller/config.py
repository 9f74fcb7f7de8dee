"""The site file: `site.toml` as data, or a list of problems that name file, line, key and remedy.

Knows the shape of the file and what must hold between its parts. Does not care what the parts are used for.
"""

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError
from pydantic.fields import FieldInfo

from controller.core.model import Trust

Location = tuple[str | int, ...]
PhaseName = Literal["L1", "L2", "L3"]
PHASE_INDEX: Mapping[str, int] = {"L1": 0, "L2": 1, "L3": 2}

MINIMUM_AC_A = 6.0  # IEC 61851-1: a control pilot offers 0 or at least 6 A
_UNITS = ("_a", "_w", "_kw", "_v", "_s", "_mb", "_ratio")


class Section(BaseModel):
    """A table of the site file: unknown keys are errors, values never change.

    Strict: `"32"` and `true` are no numbers. TOML's lists and strings become tuples, paths and enumerations where a
    field says so.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


def _known_timezone(name: str) -> str:
    if name not in available_timezones():
        raise ValueError(f"{name!r} is not a time zone; use an IANA name such as 'Europe/Amsterdam'")
    return name


Identifier = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,47}$", description="letters, digits, '.', '_' or '-', at most 48")
]
Port = Annotated[int, Field(ge=0, le=65535)]
Amperes = Annotated[float, Field(ge=0, le=10_000)]
PerPhase = Annotated[tuple[Amperes, Amperes, Amperes], Field(description="[L1, L2, L3]", strict=False)]
_ONE, _THREE = "one-number", "three-numbers"
EachPhase = Annotated[
    Annotated[Amperes, Tag(_ONE)] | Annotated[PerPhase, Tag(_THREE)],
    Discriminator(lambda given: _THREE if isinstance(given, list | tuple) else _ONE),
    Field(description="amperes: one number for all phases, or [L1, L2, L3]"),
]
SitePath = Annotated[Path, Field(strict=False)]


class SiteSection(Section):
    """`[site]`."""

    name: str
    timezone: Annotated[str, AfterValidator(_known_timezone)] = "Europe/Amsterdam"
    clock: Literal["kernel", "assumed"] = "kernel"

    @property
    def zone(self) -> ZoneInfo:
        """The site's time zone."""
        return ZoneInfo(self.timezone)


class AcceptUnknown(Section):
    """`[ocpp.accept_unknown]`: how many stations outside the file may connect, and what they may draw at most."""

    circuit: Identifier
    max_stations: Annotated[int, Field(ge=1, le=64)]
    installer_max_a: Annotated[float, Field(ge=MINIMUM_AC_A, le=1000)] = 32.0


class OcppSection(Section):
    """`[ocpp]`: the port that stations connect to."""

    host: str = "127.0.0.1"
    port: Port = 9000
    heartbeat_interval_s: Annotated[int, Field(ge=10, le=86_400)] = 60
    sample_interval_s: Annotated[int, Field(ge=1, le=900)] = 10
    max_connections: Annotated[int, Field(ge=1, le=10_000)] = 512
    accept_unknown: AcceptUnknown | None = None


class HttpSection(Section):
    """`[http]`: read-only state, health and metrics; loopback unless told otherwise."""

    host: str = "127.0.0.1"
    port: Port = 8080


class MqttSection(Section):
    """`[mqtt]`: publish the state to a broker."""

    host: str
    port: Port = 1883
    topic: Annotated[str, Field(pattern=r"^[^#+$\s][^#+\s]{0,99}$")] = "laadplein"
    username: str | None = None
    password_file: SitePath | None = None


class StateSection(Section):
    """`[state]`: where memory, journal and transactions are kept. Without a directory nothing survives a restart."""

    directory: SitePath | None = None
    journal_mb: Annotated[float, Field(ge=1, le=100_000)] = 64.0


class PolicySection(Section):
    """`[policy]`: the control rules' numbers (docs/control.md)."""

    lease_s: Annotated[float, Field(ge=10, le=900)] = 600.0
    raise_interval_s: Annotated[float, Field(ge=0, le=600)] = 10.0
    dead_band_a: Annotated[float, Field(ge=0, le=6)] = 0.5
    hysteresis_ratio: Annotated[float, Field(ge=0, le=0.2)] = 0.01
    min_on_s: Annotated[float, Field(ge=0, le=86_400)] = 1800.0
    min_off_s: Annotated[float, Field(ge=0, le=86_400)] = 600.0
    rotation_s: Annotated[float, Field(ge=10, le=86_400)] = 900.0


class CircuitSection(Section):
    """`[[circuit]]`: a grid connection (no parent), feeder or group."""

    id: Identifier
    parent: Identifier | None = None
    limit_a: EachPhase | None = None
    limit_kw: Annotated[float, Field(gt=0, le=100_000)] | None = None
    continuous_factor: Annotated[float, Field(gt=0, le=1)] = 1.0
    nominal_v: Annotated[float, Field(ge=100, le=480)] = 230.0
    base_worst_a: EachPhase | None = None


class ModbusTcpMeter(Section):
    """`[[meter]]` with `kind = "modbus_tcp"`."""

    kind: Literal["modbus_tcp"]
    id: Identifier
    circuit: Identifier
    map: str
    host: str
    port: Port = 502
    unit_id: Annotated[int, Field(ge=0, le=255)] = 1
    period_s: Annotated[float, Field(ge=0.2, le=60)] = 1.0
    timeout_s: Annotated[float, Field(ge=0.1, le=10)] = 1.0


class GtvContract(Section):
    """`[[contract]]` with `kind = "gtv"`: a contracted mean import power (gecontracteerd transportvermogen)."""

    kind: Literal["gtv"]
    id: Identifier
    circuit: Identifier
    import_kw: Annotated[float, Field(gt=0, le=1_000_000)]
    settlement_interval_s: Literal[60, 900, 1800, 3600] = 900
    margin_ratio: Annotated[float, Field(ge=0, le=0.5)] = 0.02


class EvseSection(Section):
    """`[[station.evse]]`: one EVSE of a station, numbered as OCPP does, from 1."""

    number: Annotated[int, Field(ge=1, le=64)] = 1
    id: Identifier | None = None
    circuit: Identifier
    phases: Annotated[tuple[PhaseName, ...], Field(min_length=1, max_length=3, strict=False)] = ("L1", "L2", "L3")
    min_a: Annotated[float, Field(ge=MINIMUM_AC_A, le=1000)] = MINIMUM_AC_A
    max_a: Annotated[float, Field(ge=MINIMUM_AC_A, le=1000)]
    installer_max_a: Annotated[float, Field(ge=MINIMUM_AC_A, le=1000)] | None = None
    weight: Annotated[float, Field(ge=0.01, le=1000)] = 1.0
    priority: Annotated[int, Field(ge=-9, le=9)] = 0
    never_zero: bool = False


class StationSection(Section):
    """`[[station]]`: a charging station that may connect under this identity."""

    id: Identifier
    trust: Annotated[Trust, Field(strict=False)] = Trust.NONE
    evse: Annotated[tuple[EvseSection, ...], Field(min_length=1, strict=False)]


class ExceptionSection(Section):
    """`[exception]`: somebody's signature under a worst case that does not fit."""

    signed_by: Annotated[str, Field(min_length=2)]
    reason: Annotated[str, Field(min_length=10)]


class SiteFile(Section):
    """The whole site file."""

    site: SiteSection
    ocpp: OcppSection = OcppSection()
    http: HttpSection | None = HttpSection()
    mqtt: MqttSection | None = None
    state: StateSection = StateSection()
    policy: PolicySection = PolicySection()
    exception: ExceptionSection | None = None
    circuit: Annotated[tuple[CircuitSection, ...], Field(min_length=1, strict=False)]
    meter: Annotated[tuple[ModbusTcpMeter, ...], Field(strict=False)] = ()
    contract: Annotated[tuple[GtvContract, ...], Field(strict=False)] = ()
    station: Annotated[tuple[StationSection, ...], Field(strict=False)] = ()


class Problem(BaseModel):
    """One thing wrong with a site file."""

    model_config = ConfigDict(frozen=True)

    location: Location
    text: str
    remedy: str
    line: int | None = None

    def describe(self, path: Path, source: str) -> str:
        """Return one line: file, line, key, what is wrong, what to do."""
        line = self.line or line_of(source, self.location)
        place = f"{path}:{line}" if line else str(path)
        return f"{place}: {key_of(self.location)}: {self.text}; {self.remedy}"


class SiteFileError(Exception):
    """A site file cannot be used. `problems` says why, a line each; nothing was changed."""

    def __init__(self, path: Path, source: str, problems: Iterable[Problem]) -> None:
        self.path = path
        self.problems = tuple(problems)
        super().__init__("\n".join(problem.describe(path, source) for problem in self.problems))


def load(path: Path) -> SiteFile:
    """Read and validate a site file. Raises SiteFileError with every problem found."""
    try:
        source = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        remedy = "give the path of a readable UTF-8 file"
        raise SiteFileError(path, "", [Problem(location=(), text=str(error), remedy=remedy)]) from error
    return parse(path, source)


def parse(path: Path, source: str) -> SiteFile:
    """Validate the text of a site file; `path` is only named in errors. Raises SiteFileError."""
    try:
        table = tomllib.loads(source)
    except tomllib.TOMLDecodeError as error:
        raise SiteFileError(path, source, [_syntax_problem(error, source)]) from error
    try:
        file = SiteFile.model_validate(table)
    except ValidationError as error:
        raise SiteFileError(path, source, _problems(error)) from error
    problems = list(_cross_checks(file))
    if problems:
        raise SiteFileError(path, source, problems)
    return file


# ------------------------------------------------------------------------------------------- what pydantic has to say


def _syntax_problem(error: tomllib.TOMLDecodeError, source: str) -> Problem:
    place = re.search(r"at line (\d+)", str(error))
    line = int(place[1]) if place else max(1, len(source.splitlines()))  # "at end of document"
    return Problem(location=(), text=f"not valid TOML: {error}", remedy="mend the syntax there", line=line)


def _problems(error: ValidationError) -> Iterator[Problem]:
    details = error.errors()
    inside = {detail["loc"][:length] for detail in details for length in range(len(detail["loc"]))}
    for detail in details:
        # A list is also called too short when all there is in it is wrong.
        if detail["type"] != "too_short" or detail["loc"] not in inside:
            yield _problem(detail)


def _problem(detail: Any) -> Problem:  # noqa: ANN401 - pydantic's ErrorDetails, a TypedDict of a private module
    location = _table_path(detail["loc"])
    if detail["type"] == "extra_forbidden":
        return Problem(location=location, text="unknown key", remedy=_remedy_for_unknown(location))
    if detail["type"] == "missing":
        return Problem(
            location=location, text="missing", remedy=f"add it ({_hint(location) or 'see docs/configuration.md'})"
        )
    given = "" if isinstance(detail["input"], dict) else f" (got {detail['input']!r})"
    return Problem(
        location=location, text=f"{detail['msg']}{given}", remedy=_hint(location) or "see docs/configuration.md"
    )


def _table_path(location: Location) -> Location:
    """Drop what pydantic adds for the members of a union: keys and indices only."""
    return tuple(part for part in location if part not in (_ONE, _THREE))


def _section_for(location: Location) -> type[BaseModel] | None:
    """Return the model of the table that holds the key at `location`."""
    section: type[BaseModel] = SiteFile
    for part in location[:-1]:
        if isinstance(part, int):
            continue
        field = section.model_fields.get(part)
        inner = next(iter(_models_in(field.annotation)), None) if field else None
        if inner is None:
            return None
        section = inner
    return section


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        return
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _remedy_for_unknown(location: Location) -> str:
    section, key = _section_for(location), str(location[-1])
    known = list(section.model_fields) if section else []
    with_unit = [name for name in known if any(name == key + unit for unit in _UNITS)]
    if with_unit:
        return f"write it with its unit: {' or '.join(with_unit)}"
    close = difflib.get_close_matches(key, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"remove it, or use one of: {', '.join(known)}"


def _hint(location: Location) -> str:
    section = _section_for(location)
    field = section.model_fields.get(str(location[-1])) if section and location else None
    if field is None:
        return ""
    of_parts = (meta for part in get_args(field.annotation) for meta in getattr(part, "__metadata__", ()))
    described = (meta.description for meta in of_parts if isinstance(meta, FieldInfo))
    return next((text for text in (field.description, *described) if text), "")


# -------------------------------------------------------------------------------------------------- between the parts


def _cross_checks(file: SiteFile) -> Iterator[Problem]:
    yield from _duplicates(file)
    yield from _circuit_problems(file)
    yield from _reference_problems(file)
    yield from _evse_problems(file)


def evse_id(station: StationSection, evse: EvseSection) -> str:
    """Return the id of an EVSE: its own, or the station's (with the number when there are several)."""
    if evse.id is not None:
        return evse.id
    return station.id if len(station.evse) == 1 else f"{station.id}-{evse.number}"


def guest_ids(accept: AcceptUnknown | None) -> list[str]:
    """Return the ids, of station and EVSE alike, under which stations outside the file are known."""
    return [] if accept is None else [f"guest-{number}" for number in range(1, accept.max_stations + 1)]


def _duplicates(file: SiteFile) -> Iterator[Problem]:
    evses: list[tuple[Location, str]] = [
        (("station", i, "evse", j, "id"), evse_id(s, e))
        for i, s in enumerate(file.station)
        for j, e in enumerate(s.evse)
    ]
    stations: list[tuple[Location, str]] = [
        (("station", i, "id"), station.id) for i, station in enumerate(file.station)
    ]
    numbers: list[list[tuple[Location, str]]] = [
        [(("station", i, "evse", j, "number"), str(evse.number)) for j, evse in enumerate(station.evse)]
        for i, station in enumerate(file.station)
    ]
    groups: list[list[tuple[Location, str]]] = [
        [(("circuit", i, "id"), circuit.id) for i, circuit in enumerate(file.circuit)],
        [(("meter", i, "id"), meter.id) for i, meter in enumerate(file.meter)],
        [(("meter", i, "circuit"), meter.circuit) for i, meter in enumerate(file.meter)],
        [(("contract", i, "id"), contract.id) for i, contract in enumerate(file.contract)],
        stations,
        *numbers,
        evses,
    ]
    for group in groups:
        seen: set[str] = set()
        for location, name in group:
            if name in seen:
                yield Problem(location=location, text=f"{name!r} is there twice", remedy="give each its own")
            seen.add(name)
    kept = set(guest_ids(file.ocpp.accept_unknown))
    for location, name in stations + evses:
        if name in kept:
            text = f"{name!r} is kept for a station that [ocpp.accept_unknown] lets in"
            yield Problem(location=location, text=text, remedy="choose another id")


def _circuit_problems(file: SiteFile) -> Iterator[Problem]:
    parents = {circuit.id: circuit.parent for circuit in file.circuit}
    metered = {meter.circuit for meter in file.meter}
    for index, circuit in enumerate(file.circuit):
        here: Location = ("circuit", index)
        if circuit.parent is not None and circuit.parent not in parents:
            text = f"circuit {circuit.id!r}: parent {circuit.parent!r} does not exist"
            yield Problem(location=(*here, "parent"), text=text, remedy=did_you_mean(circuit.parent, parents))
        elif _in_cycle(circuit.id, parents):
            text = f"circuit {circuit.id!r} is its own ancestor"
            yield Problem(location=(*here, "parent"), text=text, remedy="one circuit of the ring must lose its parent")
        if circuit.limit_a is None:
            yield Problem(
                location=(*here, "limit_a"),
                text=f"circuit {circuit.id!r} has no limit in amperes",
                remedy="add limit_a: the fuse or cable rating per phase",
            )
        if circuit.parent is None and circuit.base_worst_a is None:
            hint = "the highest credible building load per phase; it holds when the meter is lost"
            if circuit.id not in metered:
                hint += ", and always while the circuit has no meter"
            yield Problem(
                location=(*here, "base_worst_a"),
                text=f"grid connection {circuit.id!r} has no worst-case base load",
                remedy=f"add base_worst_a: {hint}",
            )


def _in_cycle(start: str, parents: Mapping[str, str | None]) -> bool:
    here = parents.get(start)
    for _ in parents:
        if here is None or here == start:
            break
        here = parents.get(here)
    return here == start


def _reference_problems(file: SiteFile) -> Iterator[Problem]:
    circuits = {circuit.id: circuit for circuit in file.circuit}
    metered = {meter.circuit for meter in file.meter}
    references: list[tuple[Location, str]] = [
        (("meter", i, "circuit"), meter.circuit) for i, meter in enumerate(file.meter)
    ]
    references += [(("contract", i, "circuit"), contract.circuit) for i, contract in enumerate(file.contract)]
    for i, station in enumerate(file.station):
        references += [(("station", i, "evse", j, "circuit"), evse.circuit) for j, evse in enumerate(station.evse)]
    if file.ocpp.accept_unknown:
        references.append((("ocpp", "accept_unknown", "circuit"), file.ocpp.accept_unknown.circuit))
    for location, name in references:
        if name not in circuits:
            yield Problem(
                location=location, text=f"circuit {name!r} does not exist", remedy=did_you_mean(name, circuits)
            )
    for i, contract in enumerate(file.contract):
        if contract.circuit in circuits and contract.circuit not in metered:
            text = f"contract {contract.id!r} cannot be kept: circuit {contract.circuit!r} has no meter"
            remedy = f'add a [[meter]] with circuit = "{contract.circuit}"'
            yield Problem(location=("contract", i, "circuit"), text=text, remedy=remedy)


def _evse_problems(file: SiteFile) -> Iterator[Problem]:
    for i, station in enumerate(file.station):
        for j, evse in enumerate(station.evse):
            here: Location = ("station", i, "evse", j)
            if len(set(evse.phases)) != len(evse.phases):
                yield Problem(location=(*here, "phases"), text="a phase is named twice", remedy="name each phase once")
            for key, told_a in (("min_a", evse.min_a), ("max_a", evse.max_a)):
                if round(told_a, 1) != told_a:
                    text = f"{told_a:g} A cannot be told to a station"
                    yield Problem(location=(*here, key), text=text, remedy="give it in steps of 0.1 A")
            for name, value_a in (("max_a", evse.max_a), ("installer_max_a", evse.installer_max_a)):
                if value_a is not None and value_a < evse.min_a:
                    text = f"{name} {value_a:g} is below min_a {evse.min_a:g}"
                    yield Problem(location=(*here, name), text=text, remedy=f"raise {name}, or lower min_a")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the remedy for a name that does not exist: the one that was probably meant, or all there are."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"use one of: {', '.join(names)}"


# ------------------------------------------------------------------------------------------------- finding the place


def key_of(location: Location) -> str:
    """Return a location as people write it: `circuit[1].limit_a`."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "file"


def line_of(source: str, location: Location) -> int | None:
    """Return the line (from 1) of a key, or of the table that should hold it; None when it cannot be told."""
    places = _places(source)
    for length in range(len(location), 0, -1):
        if location[:length] in places:
            return places[location[:length]]
    return None


_HEADER = re.compile(r"(?P<open>\[\[?)\s*(?P<name>[^\[\]]+?)\s*\]\]?")
_KEY = re.compile(r"""(?P<name>[\w\s."'-]+?)\s*=\s*(?P<value>.*)""")


def _places(source: str) -> dict[Location, int]:
    """Return the line of every table and key, by its location: what `tomllib` does not tell."""
    places: dict[Location, int] = {}
    tables: dict[Location, int] = {}  # how many there are so far of every `[[name]]`
    here: Location = ()
    inside: Location | None = None  # the list over several lines that the line is in
    items = 0
    for number, line in enumerate(source.splitlines(), start=1):
        code = line.partition("#")[0].strip()
        if inside is not None:
            items = _note_items(places, inside, items, code, number)
            inside = None if code.endswith("]") else inside
        elif header := _HEADER.fullmatch(code):
            here = _table(header["name"], tables, repeated=header["open"] == "[[")
            _note(places, here, number)
        elif key := _KEY.fullmatch(code):
            location, value = (*here, *_parts(key["name"])), key["value"]
            _note(places, location, number)
            items = _note_items(places, location, 0, value, number)
            inside = location if value.startswith("[") and not value.endswith("]") else None
    return places


def _table(name: str, tables: dict[Location, int], *, repeated: bool) -> Location:
    """Return the location that a header opens; of a `[[name]]` above it the last one is meant."""
    location: Location = ()
    parts = _parts(name)
    for position, part in enumerate(parts, start=1):
        location = (*location, part)
        if repeated and position == len(parts):
            tables[location] = tables.get(location, 0) + 1
        if location in tables:
            location = (*location, tables[location] - 1)
    return location


def _parts(name: str) -> list[str]:
    return [part.strip().strip("\"'") for part in name.split(".")]


def _note(places: dict[Location, int], location: Location, number: int) -> None:
    """Note where something is, and where the tables around it first appear."""
    for length in range(1, len(location) + 1):
        places.setdefault(location[:length], number)


def _note_items(places: dict[Location, int], location: Location, items: int, code: str, number: int) -> int:
    """Note where the tables of a list are written in braces; return how many there are so far."""
    for _ in range(code.count("{")):
        places[*location, items] = number
        items += 1
    return items

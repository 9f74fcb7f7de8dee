import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.modbus import regmap
from drivers.modbus.regmap import Block, InvalidValueError, MapError, PointName

MAPS = ("cg_em300_em500", "eastron_sdm630")

SMALL = """
models = ["Test"]
source = ["made up"]
confidence = "C"
function = 3
word_order = "big"
max_registers_per_read = 10
current_signed = true

[points]
current_l1_a = { address = 0, type = "i16" }
current_l2_a = { address = 1, type = "i16" }
current_l3_a = { address = 2, type = "i16" }
power_w = { address = 4, type = "i32" }
"""


def test_every_shipped_map_loads_and_names_its_source() -> None:
    assert regmap.available() == MAPS
    for name in MAPS:
        loaded = regmap.load(name)
        assert loaded.name == name
        assert loaded.source
        assert set(loaded.points) >= {*regmap.CURRENT_A, *regmap.VOLTAGE_V, *regmap.POWER_W, "power_w", "import_wh"}


def test_an_unknown_map_is_refused_with_the_nearest_name_and_all_others() -> None:
    with pytest.raises(MapError) as refused:
        regmap.load("eastron_sdm360")
    assert str(refused.value) == (
        "there is no register map 'eastron_sdm360' (did you mean 'eastron_sdm630'?); "
        "available: cg_em300_em500, eastron_sdm630"
    )
    with pytest.raises(MapError, match=r"no register map '\.\./regmap'"):
        regmap.load("../regmap")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("function = 3", "function = 6"), "function: Input should be 3 or 4"),
        (("function = 3", "function = "), "not valid TOML"),
        (('confidence = "C"', 'confidence = "C"\ncolour = "red"'), "colour: Extra inputs are not permitted"),
        (("power_w", "power_kw"), "points.power_kw"),
        (("current_l2_a = { address = 1", "current_l2_a = { address = 70000"), "points.current_l2_a.address"),
        (('address = 4, type = "i32"', 'address = 65535, type = "i32"'), "power_w ends beyond register 65535"),
        (('address = 4, type = "i32"', 'address = 4, type = "i32", scale = 0'), "power_w: scale is 0"),
        (("address = 4", "address = 2"), "current_l3_a and power_w overlap at address 0x0002"),
        (("power_w = { address = 4", "import_wh = { address = 4"), "power_w is missing, and there are no phase powers"),
        (("power_w = { address = 4", "import_wh = { address = 4"), "import_wh and import_step_wh go together"),
        (("power_w = { address = 4", "voltage_l1_v = { address = 4"), "voltage_l2_v, voltage_l3_v are missing"),
        (("current_l3_a", "export_wh"), "points current_l3_a are missing"),
        (("current_signed = true", "current_signed = false"), "current_signed = false needs power_l1_w"),
        (("[points]", "[invalid]\ni16 = [65536]\n[points]"), "invalid.i16: not a bit pattern of that type"),
    ],
)
def test_a_bad_map_says_what_is_wrong_with_it(change: tuple[str, str], problem: str) -> None:
    with pytest.raises(MapError) as refused:
        regmap.parse("mine", SMALL.replace(*change))
    assert "register map 'mine': " in str(refused.value)
    assert problem in str(refused.value)


def test_a_point_must_fit_in_one_read() -> None:
    text = SMALL.replace("max_registers_per_read = 10", "max_registers_per_read = 4\neven_reads = true")
    regmap.parse("mine", text)
    with pytest.raises(MapError, match="power_w takes more than max_registers_per_read"):
        regmap.parse("mine", text.replace('address = 4, type = "i32"', 'address = 5, type = "i64"'))


@pytest.mark.parametrize(
    ("longest", "even", "points", "blocks"),
    [
        (10, False, {"power_w": (4, "i32")}, [(0, 6)]),  # near enough: one read, over the gap
        (10, False, {"power_w": (8, "i32")}, [(0, 10)]),  # just fits
        (10, False, {"power_w": (9, "i32")}, [(0, 3), (9, 2)]),  # one register too far
        (10, True, {"power_w": (8, "i16")}, [(0, 10)]),  # rounded up to an even length
        (10, True, {"power_w": (9, "i32")}, [(0, 4), (8, 4)]),  # from an even address, an even length
        (5, False, {"power_w": (4, "i16"), "frequency_hz": (5, "i16")}, [(0, 5), (5, 1)]),
        (4, False, {"power_w": (40, "i64"), "import_wh": (60000, "i64")}, [(0, 3), (40, 4), (60000, 4)]),
    ],
)
def test_points_are_read_in_few_reads_within_the_meters_limits(
    *, longest: int, even: bool, points: dict[str, tuple[int, str]], blocks: list[tuple[int, int]]
) -> None:
    text = SMALL.replace("max_registers_per_read = 10", f"max_registers_per_read = {longest}")
    text = text.replace("current_signed", f"even_reads = {str(even).lower()}\ncurrent_signed")
    if "import_wh" in points:
        text = text.replace("current_signed", "import_step_wh = 1\ncurrent_signed")
    text = text.replace('power_w = { address = 4, type = "i32" }\n', "")
    text += "".join(f'{name} = {{ address = {at}, type = "{kind}" }}\n' for name, (at, kind) in points.items())
    assert regmap.plan(regmap.parse("mine", text)) == tuple(Block(address=at, count=count) for at, count in blocks)


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("eastron_sdm630", [(0x00, 54), (0x46, 6)]),  # at most 60
        ("cg_em300_em500", [(0x00, 42), (0x33, 29)]),  # at most 50
    ],
)
def test_the_shipped_meters_take_two_reads_with_all_power_and_current_in_the_first(
    name: str, blocks: list[tuple[int, int]]
) -> None:
    assert [(block.address, block.count) for block in regmap.plan(regmap.load(name))] == blocks


@given(
    addresses=st.lists(st.integers(0, 12), min_size=4, max_size=6, unique=True),
    longest=st.integers(4, 8),
    even=st.booleans(),
)
def test_no_choice_of_reads_is_fewer_than_the_planned_one(*, addresses: list[int], longest: int, even: bool) -> None:
    names = ("current_l1_a", "current_l2_a", "current_l3_a", "power_w", "frequency_hz", "export_wh")
    text = SMALL[: SMALL.index("[points]")].replace("read = 10", f"read = {longest}\neven_reads = {str(even).lower()}")
    text += "[points]\n"
    text += "".join(f'{n} = {{ address = {a}, type = "i16" }}\n' for n, a in zip(names, addresses, strict=False))
    blocks = regmap.plan(regmap.parse("mine", text))

    for block in blocks:
        assert block.count <= longest
        assert not even or (block.address % 2, block.count % 2) == (0, 0)
    assert all(any(b.address <= a < b.address + b.count for b in blocks) for a in addresses)

    reach = longest - longest % 2 if even else longest
    starts = range(0, 13, 2 if even else 1)
    fewer = itertools.combinations(starts, len(blocks) - 1)
    assert not any(all(any(s <= a < s + reach for s in chosen) for a in addresses) for chosen in fewer)


@pytest.mark.parametrize(
    ("name", "point", "value", "registers"),
    [
        ("eastron_sdm630", "voltage_l1_v", 230.0, {0x0000: 0x4366, 0x0001: 0x0000}),  # high word first
        ("eastron_sdm630", "power_l2_w", -2300.0, {0x000E: 0xC50F, 0x000F: 0xC000}),
        ("eastron_sdm630", "import_wh", 1_500_000.0, {0x0048: 0x44BB, 0x0049: 0x8000}),  # 1500 kWh
        ("cg_em300_em500", "voltage_l1_v", 230.4, {0x00: 2304, 0x01: 0}),  # low word first, 0.1 V
        ("cg_em300_em500", "current_l1_a", -16.0, {0x0C: 0xC180, 0x0D: 0xFFFF}),  # -16000 mA
        ("cg_em300_em500", "power_w", 100_000.0, {0x28: 0x4240, 0x29: 0x000F}),  # 1 000 000 x 0.1 W
        ("cg_em300_em500", "frequency_hz", 50.0, {0x33: 500}),
        ("cg_em300_em500", "export_wh", 1_000.0, {0x4E: 10, 0x4F: 0}),  # 0.1 kWh
    ],
)
def test_words_on_the_wire(name: str, point: PointName, value: float, registers: dict[int, int]) -> None:
    register_map = regmap.load(name)
    assert regmap.encode(register_map, {point: value}) == registers
    assert regmap.decode(register_map, registers, [point]) == {point: pytest.approx(value)}


@pytest.mark.parametrize(
    ("kind", "words", "value"),
    [
        ("i16", [0xFFFF], -1.0),
        ("u16", [0xFFFF], 65535.0),
        ("i32", [0xFFFF, 0xFFFE], -2.0),
        ("u32", [0x0001, 0x0000], 65536.0),
        ("i64", [0xFFFF, 0xFFFF, 0xFFFF, 0xFFFD], -3.0),
        ("u64", [0x0000, 0x0001, 0x0000, 0x0000], 4294967296.0),
        ("f32", [0x3FC0, 0x0000], 1.5),
        ("f64", [0xC004, 0x0000, 0x0000, 0x0000], -2.5),
    ],
)
@pytest.mark.parametrize("order", ["big", "little"])
def test_number_types_and_word_orders(kind: str, words: list[int], value: float, order: str) -> None:
    text = SMALL.replace('word_order = "big"', f'word_order = "{order}"').replace(
        '4, type = "i32"', f'4, type = "{kind}"'
    )
    register_map = regmap.parse("mine", text)
    registers = dict(enumerate(words if order == "big" else words[::-1], start=4))
    assert regmap.decode(register_map, registers, ["power_w"]) == {"power_w": value}
    assert regmap.encode(register_map, {"power_w": value}) == registers


@pytest.mark.parametrize(
    ("name", "registers"),
    [
        ("eastron_sdm630", {0x34: 0x7FC0, 0x35: 0x0000}),  # NaN
        ("eastron_sdm630", {0x34: 0xFF80, 0x35: 0x0000}),  # minus infinity
        ("cg_em300_em500", {0x28: 0xFFFF, 0x29: 0x7FFF}),  # EEE
    ],
)
def test_a_meters_way_to_say_no_value_is_never_a_number(name: str, registers: dict[int, int]) -> None:
    with pytest.raises(InvalidValueError) as refused:
        regmap.decode(regmap.load(name), registers, ["power_w"])
    assert refused.value.point == "power_w"


def test_one_below_the_overflow_mark_is_a_number() -> None:
    decoded = regmap.decode(regmap.load("cg_em300_em500"), {0x28: 0xFFFE, 0x29: 0x7FFF}, ["power_w"])
    assert decoded == {"power_w": pytest.approx(214_748_364.6)}


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e12, -1e12])
def test_a_value_that_the_meter_cannot_show_is_not_encoded(value: float) -> None:
    with pytest.raises(ValueError, match="power_w"):
        regmap.encode(regmap.load("cg_em300_em500"), {"power_w": value})


@pytest.mark.parametrize("name", MAPS)
@given(data=st.data())
def test_what_is_encoded_is_decoded_again(name: str, data: st.DataObject) -> None:
    register_map = regmap.load(name)
    raws = {
        point: data.draw(
            st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-(2.0**100), max_value=2.0**100)
        )
        if register_map.points[point].type == "f32"
        else data.draw(st.integers(-(2**15), 2**15 - 1))
        for point in register_map.points
    }
    values: dict[PointName, float] = {point: raw * register_map.points[point].scale for point, raw in raws.items()}
    registers = regmap.encode(register_map, values)
    assert all(0 <= word <= 0xFFFF for word in registers.values())
    assert regmap.decode(register_map, registers) == pytest.approx(values, rel=1e-6, abs=1e-30)


@pytest.mark.parametrize(
    ("name", "import_wh", "step_wh"),
    [
        ("cg_em300_em500", 5_000_000.0, 100.0),  # 0.1 kWh for ever
        ("eastron_sdm630", 0.0, 10.0),  # 0.01 kWh
        ("eastron_sdm630", 131_000_000.0, 10.0),  # 131 MWh
        ("eastron_sdm630", 132_000_000.0, 15.625),  # the float grows coarse
        ("eastron_sdm630", 1_000_000_000.0, 62.5),  # 1 GWh
    ],
)
def test_the_step_of_the_import_register(name: str, import_wh: float, step_wh: float) -> None:
    assert regmap.import_step_wh(regmap.load(name), import_wh) == step_wh


def test_a_meter_without_an_import_register_has_no_step() -> None:
    assert regmap.import_step_wh(regmap.parse("mine", SMALL), 0.0) is None

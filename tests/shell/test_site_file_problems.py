"""Every way to get a site file wrong ends in a line with file, line, key and remedy."""

from pathlib import Path

import pytest

from controller.config import SiteFileError, load, parse
from tests.shell.site_text import PATH, SITE, complaints, marked_line, spoilt

ALPHA = '[[station]]\nid = "alpha"\n'
METER = 'kind = "modbus_tcp"\nmap = "eastron_sdm630"\nhost = "h"\n'
GTV = 'kind = "gtv"\ncircuit = "grid"\nimport_kw = 50'
GUESTS = '[ocpp.accept_unknown]\ncircuit = "hall-a"\nmax_stations = 2\n'


def test_the_unspoilt_site_is_valid() -> None:
    assert parse(PATH, SITE).site.name == "Test park"


@pytest.mark.parametrize(
    ("old", "new", "key", "says"),
    [
        # Keys that are not there.
        ("limit_a = 63.0", "limit = 63.0 # here", "circuit[1].limit", "write it with its unit: limit_a or limit_kw"),
        ("lease_s = 600", "lease = 600 # here", "policy.lease", "write it with its unit: lease_s"),
        ("max_a = 32.0", "max_a = 32.0\nmax = 16 # here", "station[0].evse[0].max", "write it with its unit: max_a"),
        ("port = 0", "prot = 0 # here", "ocpp.prot", "did you mean 'port'?"),
        ('name = "Test park"', 'name = "Test park"\nName = "x" # here', "site.Name", "did you mean 'name'?"),
        ("port = 0", "port = 0\nqwerty-1 = 0 # here", "ocpp.qwerty-1", "remove it, or use one of: host, port, "),
        ("[policy]", "[polcy] # here", "polcy", "did you mean 'policy'?"),
        ("[policy]", "[[zzz.evse]] # here\n[policy]", "zzz", "remove it, or use one of: site, ocpp"),
        ("number = 2", "nummer = 2 # here", "station[1].evse[1].nummer", "did you mean 'number'?"),
        # Types and bounds.
        ("limit_a = 63.0", 'limit_a = "63" # here', "circuit[1].limit_a", "number (got '63'); amperes: one number"),
        ("limit_a = 63.0", "limit_a = true # here", "circuit[1].limit_a", "number (got True); amperes: one number"),
        ("limit_a = 63.0", "limit_a = -5 # here", "circuit[1].limit_a", "greater than or equal to 0 (got -5)"),
        ("limit_a = 63.0", "limit_a = nan # here", "circuit[1].limit_a", "finite number (got nan)"),
        ("limit_a = 63.0", "limit_a = inf # here", "circuit[1].limit_a", "finite number (got inf)"),
        ("limit_a = 63.0", "limit_a = [1, 2] # here", "circuit[1].limit_a[2]", "missing"),
        ("limit_a = 63.0", "limit_a = [1, 2, -3] # here", "circuit[1].limit_a[2]", "equal to 0 (got -3)"),
        ("limit_a = 63.0", "limit_a = [1, 2, 3, 4] # here", "circuit[1].limit_a", "at most 3 items"),
        ("base_worst_a = 40", "base_worst_a = -1 # here", "circuit[0].base_worst_a", "equal to 0 (got -1)"),
        ("import_kw = 40.0", "import_kw = -40.0 # here", "contract[0].import_kw", "greater than 0 (got -40.0)"),
        ("import_kw = 40.0", "import_kw = nan # here", "contract[0].import_kw", "finite number (got nan)"),
        ("lease_s = 600", "lease_s = 3600 # here", "policy.lease_s", "less than or equal to 900 (got 3600)"),
        ("port = 0", "port = 65536 # here", "ocpp.port", "less than or equal to 65535"),
        ("port = 0", 'port = "9000" # here', "ocpp.port", "valid integer (got '9000')"),
        ("max_a = 32.0", "max_a = 5.9 # here", "station[0].evse[0].max_a", "greater than or equal to 6"),
        ('phases = ["L2"]', 'phases = ["L4"] # here', "station[1].evse[1].phases[0]", "'L1', 'L2' or 'L3'"),
        ('phases = ["L2"]', "phases = [] # here", "station[1].evse[1].phases", "at least 1 item"),
        ('name = "Test park"', "name = 7 # here", "site.name", "valid string (got 7)"),
        ('id = "hall-b"', 'id = "hall b" # here', "circuit[2].id", "letters, digits, '.', '_' or '-', at most 48"),
        (f'{ALPHA}trust = "B"', f'{ALPHA}trust = "D" # here', "station[0].trust", "'A', 'B' or 'C' (got 'D')"),
        ("[policy]\nlease_s = 600", "[[policy]] # here\nlease_s = 600", "policy", "valid dictionary"),
        # Names that are not known.
        (
            'timezone = "Europe/Amsterdam"',
            'timezone = "Europe/Amsterdm" # here',
            "site.timezone",
            "'Europe/Amsterdm' is not a time zone; use an IANA name such as 'Europe/Amsterdam'",
        ),
        ('kind = "modbus_tcp"', 'kind = "modbus_udp" # here', "meter[0].kind", "'modbus_tcp' (got 'modbus_udp')"),
        ('kind = "gtv"', 'kind = "peak" # here', "contract[0].kind", "'gtv' (got 'peak')"),
    ],
)  # fmt: skip
def test_a_key_that_is_wrong_is_named_with_its_line_and_a_remedy(old: str, new: str, key: str, says: str) -> None:
    source = spoilt((old, new))
    (line,) = complaints(source)
    assert line.startswith(f"site.toml:{marked_line(source)}: {key}: ")
    assert says in line
    remedy = line.rpartition("; ")[2]
    assert remedy.strip()


@pytest.mark.parametrize(
    ("table", "line", "key", "says"),
    [
        ("[site]", 'name = "Test park"', "site.name", "missing; add it"),
        ('[[circuit]]\nid = "hall-a"', 'id = "hall-a"', "circuit[1].id", "missing; add it (letters, digits"),
        ("[[meter]]", 'map = "eastron_sdm630"', "meter[0].map", "missing; add it"),
        ("[[contract]]", "import_kw = 40.0", "contract[0].import_kw", "missing; add it"),
        ('[[station]]\nid = "bravo"', 'id = "bravo"', "station[1].id", "missing; add it (letters, digits"),
        ('[[station.evse]]\ncircuit = "hall-a"\nmax_a = 32.0', "max_a = 32.0", "station[0].evse[0].max_a", "missing"),
        ("[[station.evse]]\nnumber = 2", 'circuit = "hall-b"', "station[1].evse[1].circuit", "missing; add it"),
        ('[[circuit]]\nid = "grid"', "base_worst_a = 40", "circuit[0].base_worst_a", "grid connection 'grid'"),
    ],
)  # fmt: skip
def test_a_key_that_is_missing_is_named_with_the_line_of_its_table(table: str, line: str, key: str, says: str) -> None:
    source = spoilt((table, table.replace("]", "] # here", 1).replace("] # here]", "]] # here")))
    assert source.count(line) == 1
    source = source.replace(f"{line}\n", "")
    (complaint,) = complaints(source)
    assert complaint.startswith(f"site.toml:{marked_line(source)}: {key}: {says}")


@pytest.mark.parametrize(
    ("changes", "key", "says"),
    [
        # Circuits.
        (
            [('id = "hall-b"\nparent = "grid"', 'id = "hall-b"\nparent = "gird" # here')],
            "circuit[2].parent",
            "circuit 'hall-b': parent 'gird' does not exist; did you mean 'grid'?",
        ),
        (
            [('id = "hall-b"\nparent = "grid"', 'id = "hall-b"\nparent = "xyz" # here')],
            "circuit[2].parent",
            "circuit 'hall-b': parent 'xyz' does not exist; use one of: grid, hall-a, hall-b",
        ),
        (
            [('id = "hall-b"\nparent = "grid"', 'id = "hall-b"\nparent = "hall-b" # here')],
            "circuit[2].parent",
            "circuit 'hall-b' is its own ancestor; one circuit of the ring must lose its parent",
        ),
        (
            [("limit_a = 63.0\n", ""), ('[[circuit]]\nid = "hall-a"', '[[circuit]] # here\nid = "hall-a"')],
            "circuit[1].limit_a",
            "circuit 'hall-a' has no limit in amperes; add limit_a: the fuse or cable rating per phase",
        ),
        (
            [("limit_a = 63.0", "limit_kw = 40"), ('[[circuit]]\nid = "hall-a"', '[[circuit]] # here\nid = "hall-a"')],
            "circuit[1].limit_a",
            "circuit 'hall-a' has no limit in amperes; add limit_a",
        ),
        (
            [("base_worst_a = 40\n", ""), ('[[circuit]]\nid = "grid"', '[[circuit]] # here\nid = "grid"')],
            "circuit[0].base_worst_a",
            "grid connection 'grid' has no worst-case base load; add base_worst_a: ",
        ),
        # References.
        (
            [('circuit = "hall-b"', 'circuit = "hallb" # here')],
            "station[1].evse[1].circuit",
            "circuit 'hallb' does not exist; did you mean 'hall-b'?",
        ),
        (
            [("[policy]", '[ocpp.accept_unknown]\ncircuit = "yard" # here\nmax_stations = 1\n[policy]')],
            "ocpp.accept_unknown.circuit",
            "circuit 'yard' does not exist; use one of: grid, hall-a, hall-b",
        ),
        (
            [('kind = "gtv"\ncircuit = "grid"', 'kind = "gtv"\ncircuit = "hall-a" # here')],
            "contract[0].circuit",
            "contract 'gtv' cannot be kept: circuit 'hall-a' has no meter; add a [[meter]] with circuit = \"hall-a\"",
        ),
        # EVSEs.
        (
            [('phases = ["L2"]\nmax_a = 16', 'phases = ["L2"]\nmin_a = 20\nmax_a = 16 # here')],
            "station[1].evse[1].max_a",
            "max_a 16 is below min_a 20; raise max_a, or lower min_a",
        ),
        (
            [("max_a = 32.0", "max_a = 32.0\nmin_a = 10.0\ninstaller_max_a = 8.0 # here")],
            "station[0].evse[0].installer_max_a",
            "installer_max_a 8 is below min_a 10; raise installer_max_a, or lower min_a",
        ),
        (
            [('phases = ["L2"]', 'phases = ["L2", "L2"] # here')],
            "station[1].evse[1].phases",
            "a phase is named twice; name each phase once",
        ),
        # Ids.
        ([('id = "hall-b"', 'id = "hall-a" # here')], "circuit[2].id", "'hall-a' is there twice; give each its own"),
        (
            [("[[contract]]", f'[[meter]]\nid = "main" # here\ncircuit = "hall-a"\n{METER}\n[[contract]]')],
            "meter[1].id",
            "'main' is there twice",
        ),
        (
            [("[[contract]]", f'[[meter]]\nid = "second"\ncircuit = "grid" # here\n{METER}\n[[contract]]')],
            "meter[1].circuit",
            "'grid' is there twice",
        ),
        (
            [('id = "gtv"', 'id = "gtv" # here'), ("[[contract]]", f'[[contract]]\nid = "gtv"\n{GTV}\n[[contract]]')],
            "contract[1].id",
            "'gtv' is there twice",
        ),
        ([("number = 2", "number = 1 # here")], "station[1].evse[1].number", "'1' is there twice"),
        ([("number = 2", 'number = 2\nid = "alpha" # here')], "station[1].evse[1].id", "'alpha' is there twice"),
        (
            [("[policy]", f"{GUESTS}[policy]"), ('id = "alpha"', 'id = "guest-2" # here')],
            "station[0].id",
            "'guest-2' is kept for a station that [ocpp.accept_unknown] lets in; choose another id",
        ),
        (
            [("[policy]", f"{GUESTS}[policy]"), ("number = 2", 'number = 2\nid = "guest-1" # here')],
            "station[1].evse[1].id",
            "'guest-1' is kept for a station",
        ),
    ],
)  # fmt: skip
def test_parts_that_do_not_go_together_are_named(changes: list[tuple[str, str]], key: str, says: str) -> None:
    source = spoilt(*changes)
    line = complaints(source)[0]
    assert line.startswith(f"site.toml:{marked_line(source)}: {key}: {says}")


def test_every_circuit_of_a_ring_is_named_and_none_behind_it() -> None:
    ring = spoilt(
        ('id = "hall-a"\nparent = "grid"', 'id = "hall-a"\nparent = "hall-b"'),
        ('id = "hall-b"\nparent = "grid"', 'id = "hall-b"\nparent = "hall-a"'),
        ("[[meter]]", '[[circuit]]\nid = "behind"\nparent = "hall-a"\nlimit_a = 20\n\n[[meter]]'),
    )
    lines = complaints(ring)
    assert [line.split(": ")[1] for line in lines] == ["circuit[1].parent", "circuit[2].parent"]


def test_a_station_id_given_twice_is_said_once_of_the_station() -> None:
    lines = complaints(spoilt(('id = "bravo"', 'id = "alpha"')))
    assert [line.split(": ", 2)[1:] for line in lines] == [
        ["station[1].id", "'alpha' is there twice; give each its own"]
    ]


def test_ids_that_are_implied_may_clash_too() -> None:
    source = spoilt(('id = "alpha"', 'id = "bravo-2"'))
    (line,) = complaints(source)
    assert ": station[1].evse[1].id: 'bravo-2' is there twice" in line


def test_a_guest_that_could_draw_less_than_the_lowest_current_is_refused() -> None:
    source = spoilt(("[policy]", f"{GUESTS}installer_max_a = 5 # here\n[policy]"))
    (line,) = complaints(source)
    assert line.startswith(f"site.toml:{marked_line(source)}: ocpp.accept_unknown.installer_max_a: ")


def test_a_station_without_an_evse_is_refused() -> None:
    source = spoilt(('[[station]]\nid = "bravo"', '[[station]] # here\nid = "empty"\n\n[[station]]\nid = "bravo"'))
    (line,) = complaints(source)
    assert line.startswith(f"site.toml:{marked_line(source)}: station[1].evse: missing; add it")


def test_all_problems_of_the_keys_are_told_at_once() -> None:
    lines = complaints(
        spoilt(("port = 0", "prot = 0"), ("limit_a = 63.0", "limit = 63.0"), ("max_a = 32.0", "max_a = -1"))
    )
    assert [line.split(": ")[1] for line in lines] == ["ocpp.prot", "circuit[1].limit", "station[0].evse[0].max_a"]


def test_all_problems_between_the_parts_are_told_at_once() -> None:
    lines = complaints(
        spoilt(
            ("base_worst_a = 40\n", ""),
            ("limit_a = 63.0\n", ""),
            ('id = "hall-b"\nparent = "grid"', 'id = "hall-b"\nparent = "gird"'),
            ('circuit = "hall-b"', 'circuit = "hall-c"'),
            ('phases = ["L2"]', 'phases = ["L2", "L2"]'),
        )
    )
    assert {line.split(": ")[1] for line in lines} == {
        "circuit[0].base_worst_a",
        "circuit[1].limit_a",
        "circuit[2].parent",
        "station[1].evse[1].circuit",
        "station[1].evse[1].phases",
    }


def test_a_file_that_is_empty_says_what_a_site_needs() -> None:
    assert complaints("") == [
        "site.toml: site: missing; add it (see docs/configuration.md)",
        "site.toml: circuit: missing; add it (see docs/configuration.md)",
    ]


def test_a_file_without_circuits_is_refused() -> None:
    (line,) = complaints('circuit = []\n[site]\nname = "x"\n')
    assert line.startswith("site.toml:1: circuit: Tuple should have at least 1 item")


def test_toml_that_is_broken_is_named_with_its_line() -> None:
    source = spoilt(("limit_a = 63.0", "limit_a 63.0 # here"))
    (line,) = complaints(source)
    assert line.startswith(f"site.toml:{marked_line(source)}: file: not valid TOML: ")
    assert line.endswith("; mend the syntax there")


def test_toml_that_breaks_off_is_named_with_its_last_line() -> None:
    (line,) = complaints('[site]\nname = "x"\nlimits = [1,\n2,')
    assert line.startswith("site.toml:4: file: not valid TOML: ")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SiteFileError, match="No such file") as refused:
        load(tmp_path / "none.toml")
    assert str(refused.value).startswith(f"{tmp_path / 'none.toml'}: file: ")
    assert str(refused.value).endswith("; give the path of a readable UTF-8 file")


def test_a_folder_is_no_site_file(tmp_path: Path) -> None:
    with pytest.raises(SiteFileError, match="directory"):
        load(tmp_path)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_bytes(b'[site]\nname = "\xff\xfe"\n')
    with pytest.raises(SiteFileError, match="utf-8"):
        load(path)


def test_values_become_what_the_controller_uses() -> None:
    file = parse(PATH, spoilt(("[policy]", '[state]\ndirectory = "/var/lib/x"\n[policy]')))
    assert file.state.directory == Path("/var/lib/x")
    assert file.circuit[0].limit_a == 100.0
    assert file.circuit[2].limit_a == (32.0, 32.0, 25.0)
    assert file.station[1].evse[1].phases == ("L2",)
    assert file.site.zone.key == "Europe/Amsterdam"

"""`laadplein check`, and what `run` says of the same broken files: before anything is opened."""

import json
from pathlib import Path

import pytest

from tests.cli.command import laadplein, taken_port
from tests.shell.site_text import SITE, marked_line, spoilt

DEPLOY, DEMO = "deploy/site.toml", "simulators/demo.toml"
EXCEPTION = '[exception]\nsigned_by = "A. Installer [north]"\nreason = "the fuse is replaced in May"\n\n[policy]'


def written(folder: Path, text: str) -> Path:
    path = folder / "site.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_example_site_is_valid_and_shown_with_what_it_implies() -> None:
    ended = laadplein("check", DEPLOY)
    assert (ended.code, ended.stderr) == (0, "")
    for piece in (
        "deploy/site.toml: Example business park, valid",
        "grid: 3 x 250 A, metered, contract gtv 100 kW per 900 s",
        "── yard: 3 x 80 A",
        "── EVSE offices-1: 6..13 A on L1 L2 L3, class C, fallback 6 A",
        "── EVSE offices-2: 6..13 A on L2 L3 L1, class C, fallback 6 A",
        "── EVSE yard-4-2: 6..16 A on L2, class B, fallback 6 A",
        "Worst case, gateway dead (A on L1 / L2 / L3)",
        "│ offices │ 0 / 0 / 0       │ 52 / 52 / 52          │ 63 / 63 / 63    │ yes  │",
        "meter main: an overload of grid ends within 15 s (period 1 s)",
        "implied defaults:",
        "  contract[0].settlement_interval_s = 900",
        "  station[7].evse[1].min_a = 6.0",
    ):
        assert piece in ended.stdout


@pytest.mark.parametrize(("path", "stations", "circuits"), [(DEPLOY, 8, 3), (DEMO, 12, 3)])
def test_a_valid_site_is_one_json_object(path: str, stations: int, circuits: int) -> None:
    ended = laadplein("check", path, "--json")
    assert (ended.code, ended.stderr) == (0, "")
    document = json.loads(ended.stdout)
    assert set(document) == {
        "site", "stations", "circuits", "fallbacks_a", "defaults", "signed_exception", "reaction_s",
    }  # fmt: skip
    assert document["stations"] == stations
    assert len(document["circuits"]) == circuits
    for circuit in document["circuits"]:
        assert set(circuit) == {"id", "limit_a", "base_worst_a", "fallbacks_a", "fits"}
        assert circuit["fits"] is True
    assert document["reaction_s"] == {"grid": 15.0}
    assert document["signed_exception"] is False
    assert document["defaults"]["contract[0].margin_ratio"] == 0.02


def test_a_signed_exception_is_shown_with_the_circuit_that_does_not_fit(tmp_path: Path) -> None:
    path = written(tmp_path, spoilt(("base_worst_a = 40", "base_worst_a = 110"), ("[policy]", EXCEPTION)))
    ended = laadplein("check", str(path))
    assert ended.code == 0
    assert "│ NO   │" in ended.stdout
    assert "signed exception to the worst case: A. Installer [north]: the fuse is replaced in May" in ended.stdout
    document = json.loads(laadplein("check", str(path), "--json").stdout)
    assert document["signed_exception"] is True
    assert [circuit["fits"] for circuit in document["circuits"]] == [False, True, True]


def test_names_are_shown_as_they_are(tmp_path: Path) -> None:
    path = written(tmp_path, spoilt(('name = "Test park"', 'name = "Park [/b] :car: [red]"')))
    assert "Park [/b] :car: [red], valid" in laadplein("check", str(path)).stdout


def test_a_slow_meter_is_promised_no_more_than_it_can(tmp_path: Path) -> None:
    path = written(tmp_path, spoilt(('map = "eastron_sdm630"', 'map = "eastron_sdm630"\nperiod_s = 10')))
    assert "an overload of grid ends within 23 s (period 10 s)" in laadplein("check", str(path)).stdout


@pytest.mark.parametrize("command", ["check", "run"])
@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("limit_a = 63.0", "limit = 63.0 # here", "circuit[1].limit: unknown key; write it with its unit: limit_a"),
        ("limit_a = 63.0", "limit_a = # here", "file: not valid TOML: "),
        ('parent = "grid"\nlimit_a = 63.0', 'parent = "gird" # here\nlimit_a = 63.0', "did you mean 'grid'?"),
        (
            "limit_a = 63.0",
            "limit_a = 5.0 # here",
            "circuit[1].limit_a: with the gateway dead, circuit 'hall-a' could carry 38.0 A of 5.0 A on L1",
        ),
        (
            'map = "eastron_sdm630"',
            'map = "eastron_sdm360" # here',
            "meter[0].map: there is no register map 'eastron_sdm360'; did you mean 'eastron_sdm630'?",
        ),
    ],
)  # fmt: skip
def test_a_broken_site_is_refused_with_file_line_and_remedy_and_opens_no_port(
    tmp_path: Path, command: str, old: str, new: str, says: str
) -> None:
    # Whoever tried to open the port would meet that it is taken, and say so instead.
    with taken_port() as port:
        unproven = ('id = "alpha"\ntrust = "B"', 'id = "alpha"')
        source = spoilt(("port = 0", f"port = {port}"), unproven, (old, new))
        if "5.0 # here" in new:
            source = source.replace(
                "max_a = 16\n[[station.evse]]", "max_a = 16\nnever_zero = true\n[[station.evse]]", 1
            )
        path = written(tmp_path, source)
        ended = laadplein(command, str(path))
    assert (ended.code, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"{path}:{marked_line(source)}: ")
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "cannot listen" not in ended.stderr


def test_every_problem_has_its_line(tmp_path: Path) -> None:
    path = written(tmp_path, spoilt(("port = 0", "prot = 0"), ("limit_a = 63.0", "limit = 63.0")))
    ended = laadplein("check", str(path), "--json")
    assert (ended.code, ended.stdout) == (2, "")
    assert [line.split(": ")[1] for line in ended.stderr.splitlines()] == ["ocpp.prot", "circuit[1].limit"]


def test_what_drivers_do_not_know_is_told_beside_a_worst_case_that_does_not_fit(tmp_path: Path) -> None:
    path = written(tmp_path, spoilt(("base_worst_a = 40", "base_worst_a = 110"), ("eastron_sdm630", "abacus")))
    ended = laadplein("check", str(path))
    assert ended.code == 2
    assert [line.split(": ")[1] for line in ended.stderr.splitlines()] == ["meter[0].map", "circuit[0].limit_a"]
    assert "use one of: " in ended.stderr


@pytest.mark.parametrize("command", ["check", "run"])
def test_a_file_that_is_not_there_is_named(tmp_path: Path, command: str) -> None:
    ended = laadplein(command, str(tmp_path / "none.toml"))
    assert (ended.code, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"{tmp_path / 'none.toml'}: file: ")
    assert ended.stderr.endswith("; give the path of a readable UTF-8 file\n")


def test_check_opens_no_port(tmp_path: Path) -> None:
    with taken_port() as port:
        path = written(tmp_path, SITE.replace("port = 0", f"port = {port}"))
        assert laadplein("check", str(path)).code == 0

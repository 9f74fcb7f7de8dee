"""A valid site file becomes a site; one whose worst case does not fit is refused with its numbers."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.commissioning import Commissioned, Directory, assemble, commission
from controller.config import Problem, SiteFile, SiteFileError
from controller.core.model import Trust
from tests.shell.site_text import marked_line, site_file, spoilt

EXCEPTION = '[exception]\nsigned_by = "A. Installer"\nreason = "the old fuse is replaced in May"\n\n[policy]'


def commissioned(tmp_path: Path, *changes: tuple[str, str]) -> Commissioned:
    path = tmp_path / "site.toml"
    path.write_text(spoilt(*changes), encoding="utf-8")
    return commission(path)


def refusal(tmp_path: Path, *changes: tuple[str, str]) -> list[str]:
    with pytest.raises(SiteFileError) as refused:
        commissioned(tmp_path, *changes)
    return str(refused.value).splitlines()


def fallbacks_a(ready: Commissioned) -> dict[str, float]:
    return {evse.id: evse.fallback_a for evse in ready.site.evses}


def test_the_parts_of_the_file_become_the_site(tmp_path: Path) -> None:
    site = commissioned(tmp_path).site
    assert [circuit.id for circuit in site.circuits] == ["grid", "hall-a", "hall-b"]
    assert [circuit.metered for circuit in site.circuits] == [True, False, False]
    assert site.circuits[0].limits[0].value_a == (100.0, 100.0, 100.0)
    assert site.circuits[0].base_worst_a == (40.0, 40.0, 40.0)
    assert site.circuits[2].limits[0].value_a == (32.0, 32.0, 25.0)
    assert [evse.id for evse in site.evses] == ["alpha", "bravo-1", "bravo-2"]
    assert site.evses[2].phases == (1,)
    assert site.contracts[0].import_w == 40_000.0
    assert site.policy.lease_s == 600.0


def test_parents_come_before_their_children_however_the_file_is_ordered() -> None:
    turned = site_file(
        ('id = "hall-a"\nparent = "grid"', 'id = "hall-a"\nparent = "hall-b"'),
        ('id = "grid"\nlimit_a = 100\nbase_worst_a = 40', 'id = "roof"\nlimit_a = 10\nparent = "hall-a"'),
        ('id = "hall-b"\nparent = "grid"', 'id = "hall-b"\nbase_worst_a = 0'),
        ('kind = "modbus_tcp"\ncircuit = "grid"', 'kind = "modbus_tcp"\ncircuit = "hall-b"'),
        ('kind = "gtv"\ncircuit = "grid"', 'kind = "gtv"\ncircuit = "hall-b"'),
    )  # fmt: skip
    assert [circuit.id for circuit in assemble(turned).site.circuits] == ["hall-b", "hall-a", "roof"]


def test_a_fallback_is_dealt_to_every_station_that_it_fits_for(tmp_path: Path) -> None:
    assert fallbacks_a(commissioned(tmp_path)) == {"alpha": 6.0, "bravo-1": 6.0, "bravo-2": 6.0}


def test_who_comes_first_gets_the_fallback_where_not_all_fit(tmp_path: Path) -> None:
    tight = ("limit_a = 63.0", "limit_a = 11.9")
    assert fallbacks_a(commissioned(tmp_path, tight)) == {"alpha": 6.0, "bravo-1": 0.0, "bravo-2": 6.0}
    important = ("max_a = 16\n[[station.evse]]", "max_a = 16\npriority = 1\n[[station.evse]]")
    assert fallbacks_a(commissioned(tmp_path, tight, important)) == {"alpha": 0.0, "bravo-1": 6.0, "bravo-2": 6.0}


def test_a_worst_case_that_does_not_fit_is_refused_with_its_numbers(tmp_path: Path) -> None:
    unproven = ('id = "alpha"\ntrust = "B"', 'id = "alpha"\ntrust = "C"')
    tight = ("limit_a = 63.0", "limit_a = 30.0 # here")
    (line,) = refusal(tmp_path, unproven, tight)
    assert line == (
        f"{tmp_path / 'site.toml'}:{marked_line(spoilt(unproven, tight))}: circuit[1].limit_a: with the gateway dead, "
        "circuit 'hall-a' could carry 32.0 A of 30.0 A on L1: base load 0.0 A, "
        "fallbacks (class C: rated maximum) 32.0 A; "
        'lower installer_max_a or base_worst_a, prove a lease (trust = "B"), or sign an [exception]'
    )


def test_the_phase_that_is_worst_is_the_one_that_is_named(tmp_path: Path) -> None:
    (line,) = refusal(tmp_path, ("base_worst_a = 40", "base_worst_a = [40, 99, 101.5]"))
    assert "circuit 'grid' could carry 101.5 A of 100.0 A on L3: base load 101.5 A" in line
    assert ": circuit[0].limit_a: " in line


def test_every_circuit_that_does_not_fit_is_told(tmp_path: Path) -> None:
    unproven = ('id = "bravo"\ntrust = "B"', 'id = "bravo"')
    lines = refusal(tmp_path, unproven, ("limit_a = 63.0", "limit_a = 12"), ("[32, 32.0, 25]", "10"))
    assert [line.split(": ")[1] for line in lines] == ["circuit[1].limit_a", "circuit[2].limit_a"]
    assert "could carry 16.0 A of 12.0 A" in lines[0]
    assert "could carry 16.0 A of 10.0 A on L2" in lines[1]


def test_stations_that_must_never_get_zero_do_not_fit_silently(tmp_path: Path) -> None:
    never = ("max_a = 32.0", "max_a = 32.0\nnever_zero = true")
    always = ("max_a = 16\n[[station.evse]]", "max_a = 16\nnever_zero = true\n[[station.evse]]")
    (line,) = refusal(tmp_path, never, always, ("limit_a = 63.0", "limit_a = 11.0"))
    assert "circuit 'hall-a' could carry 12.0 A of 11.0 A on L1: base load 0.0 A" in line


def test_what_the_installer_has_set_bounds_an_unproven_station(tmp_path: Path) -> None:
    unproven = ('id = "alpha"\ntrust = "B"', 'id = "alpha"')
    tight = ("limit_a = 63.0", "limit_a = 20.0")
    assert "could carry 32.0 A" in refusal(tmp_path, unproven, tight)[0]
    lowered = ("max_a = 32.0", "max_a = 32.0\ninstaller_max_a = 13.0")
    alpha = commissioned(tmp_path, unproven, tight, lowered).site.evses[0]
    assert (alpha.rated_a, alpha.max_a, alpha.trust) == (13.0, 13.0, Trust.NONE)


def test_hardware_that_could_draw_more_than_it_may_is_reckoned_with(tmp_path: Path) -> None:
    raised = ("max_a = 32.0", "max_a = 16.0\ninstaller_max_a = 32.0")
    alpha = commissioned(tmp_path, raised).site.evses[0]
    assert (alpha.rated_a, alpha.max_a) == (32.0, 16.0)


def test_a_signature_lets_a_worst_case_pass_and_says_so(tmp_path: Path) -> None:
    ready = commissioned(tmp_path, ("base_worst_a = 40", "base_worst_a = 110"), ("[policy]", EXCEPTION))
    assert [case.fits for case in ready.worst] == [False, True, True]
    assert ready.file.exception is not None


@pytest.mark.parametrize("excused", [False, True])
def test_what_only_drivers_know_is_told_too_and_no_signature_excuses_it(tmp_path: Path, *, excused: bool) -> None:
    def unknown(file: SiteFile) -> Iterator[Problem]:
        yield Problem(location=("meter", 0, "map"), text=f"no map {file.meter[0].map}", remedy="choose another")

    path = tmp_path / "site.toml"
    changes = [("base_worst_a = 40", "base_worst_a = 110"), *([("[policy]", EXCEPTION)] if excused else [])]
    path.write_text(spoilt(*changes), encoding="utf-8")
    with pytest.raises(SiteFileError) as refused:
        commission(path, unknown)
    lines = str(refused.value).splitlines()
    assert "meter[0].map: no map eastron_sdm630; choose another" in lines[0]
    assert len(lines) == (1 if excused else 2)


# -------------------------------------------------------------------------------------------------------------- guests

GUESTS = ("[policy]", '[ocpp.accept_unknown]\ncircuit = "hall-a"\nmax_stations = 2\ninstaller_max_a = 13\n\n[policy]')


def test_guests_are_reckoned_with_at_what_the_installer_has_set(tmp_path: Path) -> None:
    guests = [evse for evse in commissioned(tmp_path, GUESTS).site.evses if evse.id.startswith("guest-")]
    assert [(evse.id, evse.circuit, evse.rated_a, evse.max_a, evse.trust) for evse in guests] == [
        ("guest-1", "hall-a", 13.0, 13.0, Trust.NONE),
        ("guest-2", "hall-a", 13.0, 13.0, Trust.NONE),
    ]
    (line,) = refusal(tmp_path, GUESTS, ("limit_a = 63.0", "limit_a = 25"))
    assert "could carry 26.0 A of 25.0 A" in line


def test_a_guest_gets_a_place_keeps_it_and_the_next_is_refused_when_all_are_taken(tmp_path: Path) -> None:
    directory = Directory(commissioned(tmp_path, GUESTS))
    first, second = directory.entry("stranger"), directory.entry("passer-by")
    assert first is not None
    assert second is not None
    assert (first.id, first.evses[1].id) == ("stranger", "guest-1")
    assert (second.id, second.evses[1].id) == ("passer-by", "guest-2")
    assert directory.entry("third") is None
    assert directory.entry("stranger") == first
    assert directory.entry("third") is None


def test_a_place_that_a_guest_gave_back_is_the_next_guests(tmp_path: Path) -> None:
    directory = Directory(commissioned(tmp_path, GUESTS))
    assert directory.entry("stranger") is not None
    assert directory.entry("passer-by") is not None
    assert directory.release("stranger")
    assert not directory.release("stranger")
    third = directory.entry("third")
    assert third is not None
    assert (third.id, third.evses[1].id) == ("third", "guest-1")
    assert directory.entry("stranger") is None


def test_a_station_of_the_site_file_cannot_lose_its_place(tmp_path: Path) -> None:
    directory = Directory(commissioned(tmp_path, GUESTS))
    assert not directory.release("bravo")
    assert not directory.release("nobody")
    assert directory.entry("bravo") is not None


def test_a_known_station_takes_no_guests_place(tmp_path: Path) -> None:
    directory = Directory(commissioned(tmp_path, GUESTS))
    bravo = directory.entry("bravo")
    assert bravo is not None
    assert {number: evse.id for number, evse in bravo.evses.items()} == {1: "bravo-1", 2: "bravo-2"}
    assert directory.entry("stranger") is not None
    assert directory.entry("passer-by") is not None


def test_without_places_for_guests_a_stranger_is_refused(tmp_path: Path) -> None:
    directory = Directory(commissioned(tmp_path))
    assert directory.entry("stranger") is None
    assert directory.entry("") is None
    assert directory.entry("alpha") is not None

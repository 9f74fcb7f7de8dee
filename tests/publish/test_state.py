import json
from dataclasses import replace

from controller import state
from tests.publish.small_site import NOW_S, REPORT, later


def test_the_site_tells_its_time_its_cycle_and_what_is_wrong() -> None:
    assert state.site(REPORT, now_s=NOW_S + 0.25) == {
        "time": "2026-11-21T10:00:00Z",
        "cycle": 600,
        "cycle_age_s": 0.25,
        "clock_synchronised": True,
        "feasible": True,
        "alarms": [{"code": "excursion", "subject": "hall-a", "text": "hall-a L2 is 1.5 A over its limit"}],
    }


def test_a_circuit_tells_its_limit_load_and_headroom_per_phase() -> None:
    assert state.circuits(REPORT)["grid"] == {
        "id": "grid",
        "parent": None,
        "measured_a": [41.23, 50.0, -3.01],
        "reading_age_s": 0.4,
        "limit_a": [80.0, 80.0, 80.0],
        "limit_source": "fuse",
        "quality": "fresh",
        "base_a": [25.0, 34.0, -3.0],
        "committed_a": [22.0, 22.0, 22.0],
        "headroom_a": [33.0, 24.0, 61.0],
        "limit_w": 55_200,
        "headroom_w": 27_020,
        "overloaded": False,
        "excursion_s": 0.0,
    }


def test_what_is_unknown_of_a_circuit_is_null_and_not_zero() -> None:
    hall = state.circuits(REPORT)["hall-a"]
    assert (hall["measured_a"], hall["reading_age_s"]) == (None, None)  # it has no meter
    assert (hall["limit_w"], hall["headroom_w"]) == (None, None)  # it has no power limit
    assert (hall["headroom_a"], hall["excursion_s"]) == ([10.0, -1.5, 10.0], 12.0)


def test_a_contract_tells_its_interval() -> None:
    assert state.document(REPORT, now_s=NOW_S)["contracts"] == [
        {
            "id": "gtv",
            "circuit": "grid",
            "limit_kw": 55.0,
            "allowed_kw": 61.23,
            "used_kwh": 4.568,
            "remaining_s": 600.0,
            "interval_start": "2026-11-21T09:55:00Z",
        }
    ]


def test_an_evse_tells_what_it_gets_and_why() -> None:
    bound = {
        "code": "circuit",
        "source": "hall-a",
        "value": 32.0,
        "unit": "A",
        "phase": "L2",
        "until_unix_s": None,
    }
    assert state.evses(REPORT)["e1"] == {
        "id": "e1",
        "station": "station-e1",
        "circuit": "hall-a",
        "state": "charging",
        "online": True,
        "transaction": "t-1",
        "setpoint_a": 16.0,
        "confirmed_a": 16.0,
        "measured_a": [15.91, 15.87, 0.0],
        "measured_age_s": 2.5,
        "lease_remaining_s": 123.4,
        "fallback_a": 6.0,
        "reason": bound,
        "ladder": [bound, {**bound, "code": "evse_max", "source": None, "phase": None}],
        "why": "Circuit hall-a has no more room on phase L2; its limit is 32 A.",
    }


def test_what_is_unknown_of_an_evse_is_null_and_not_zero() -> None:
    silent = state.evses(REPORT)["e3"]
    unknown = ("transaction", "confirmed_a", "measured_a", "measured_age_s", "lease_remaining_s")
    assert [silent[name] for name in unknown] == [None] * 5
    assert (silent["state"], silent["online"]) == ("unknown", False)


def test_an_undecided_cycle_still_shows_what_is_known() -> None:
    undecided = replace(REPORT, decision=replace(REPORT.decision, setpoints={}, circuits={}, contracts={}))
    document = state.document(undecided, now_s=NOW_S)
    grid, evse = document["circuits"][0], document["evses"][0]
    assert (grid["measured_a"], grid["limit_a"], grid["headroom_a"]) == ([41.23, 50.0, -3.01], None, None)
    assert (evse["state"], evse["setpoint_a"], evse["reason"], evse["why"]) == ("charging", None, None, None)
    assert list(grid) == list(state.circuits(REPORT)["grid"])  # the same members in the same order


def test_an_instant_is_told_in_utc() -> None:
    reason = state.evses(REPORT)["e2"]["reason"]
    assert (reason["code"], reason["until_unix_s"]) == ("min_off", 1_795_255_200 + 540)
    assert (reason["value"], reason["unit"]) == (None, None)


def test_the_sentences_can_be_dutch() -> None:
    document = state.document(REPORT, now_s=NOW_S, language="nl")
    assert document["evses"][0]["why"] == "Groep hall-a heeft geen ruimte meer op fase L2; de grens is 32 A."


def test_numbers_without_bound_become_null_so_that_the_document_is_json() -> None:
    boundless = replace(REPORT.decision.circuits["grid"], limit_a=(float("inf"), 80.0, float("nan")))
    odd = replace(REPORT, decision=replace(REPORT.decision, circuits={"grid": boundless}))
    document = json.loads(state.encode(state.document(odd, now_s=NOW_S)))
    assert document["circuits"][0]["limit_a"] == [None, 80.0, None]


def test_text_that_utf8_cannot_hold_does_not_break_the_document() -> None:
    strange = later(0, transaction="t-\ud800")
    assert json.loads(state.encode(state.evses(strange)["e1"]))["transaction"] == "t-\ud800"


def test_negative_zero_reads_as_zero() -> None:
    tiny = later(0, measured_a=(-0.001, 0.0, 0.0))
    assert state.encode(state.evses(tiny)["e1"]).count(b'"measured_a":[0.0,0.0,0.0]') == 1


def test_only_what_ages_differs_between_two_cycles_in_which_nothing_happened() -> None:
    first, second = state.evses(later(1)), state.evses(later(3))
    assert first["e1"] != second["e1"]
    assert state.settled(first["e1"]) == state.settled(second["e1"])
    changed = state.evses(later(3, confirmed_a=10.0))
    assert state.settled(first["e1"]) != state.settled(changed["e1"])

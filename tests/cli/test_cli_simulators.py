"""`demo`, `meter` and `station` say where they are, end by themselves or when told to, and print what was asked."""

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

from tests.cli.command import laadplein, started, taken_port
from tests.shell.site_text import spoilt

SUMMARY = {
    "stations", "sessions_started", "energy_delivered_kwh", "circuits", "contract", "setpoints_sent",
    "setpoints_confirmed", "cycle_ms", "violations",
}  # fmt: skip
CIRCUIT = {"id", "limit_a", "peak_measured_a", "over_limit_s", "excursions"}
CONTRACT = {
    "limit_kw", "interval_s", "intervals_completed", "worst_interval_kw", "used_ratio", "breaches",
}  # fmt: skip
STATIONS = {"stations", "online", "energy_delivered_kwh", "offered_a", "connects"}


def the_one_object(stdout: str) -> dict[str, Any]:
    """Return the one JSON object that is on stdout, and nothing else is there."""
    assert stdout.count("\n") == 1
    document: dict[str, Any] = json.loads(stdout)
    return document


def test_the_demo_prints_one_json_object_and_nothing_else() -> None:
    ended = laadplein("demo", "--seconds", "3", "--json")
    summary = the_one_object(ended.stdout)
    assert set(summary) == SUMMARY
    assert summary["stations"] == 12
    assert 1 <= summary["sessions_started"] <= 12
    assert [circuit["id"] for circuit in summary["circuits"]] == ["grid", "hall-a", "hall-b"]
    for circuit in summary["circuits"]:
        assert set(circuit) == CIRCUIT
        assert len(circuit["limit_a"]) == len(circuit["peak_measured_a"]) == 3
    assert set(summary["contract"]) == CONTRACT
    assert (summary["contract"]["limit_kw"], summary["contract"]["interval_s"]) == (40.0, 60)
    assert set(summary["cycle_ms"]) == {"p50", "p99"}
    assert 0.0 < summary["cycle_ms"]["p50"] <= summary["cycle_ms"]["p99"]
    assert summary["setpoints_confirmed"] <= summary["setpoints_sent"]
    assert summary["violations"]
    assert all(count == 0 for count in summary["violations"].values())
    assert ended.code == 0
    assert [line for line in ended.stderr.splitlines() if not line.startswith("state at http://127.0.0.1:")] == []


async def test_the_demo_ends_when_it_is_told_to_and_still_sums_up() -> None:
    async with started("demo", "--json") as demo:
        await demo.says(r"state at http://127\.0\.0\.1:\d+/api/v1/state")
        ended = await demo.ended(signal.SIGTERM)
    assert set(the_one_object(ended.stdout)) == SUMMARY
    assert ended.code == 0


def test_a_port_that_was_asked_for_and_is_taken_is_said_before_the_demo_starts() -> None:
    with taken_port() as port:
        ended = laadplein("demo", "--seconds", "1", "--port", str(port))
    assert (ended.code, ended.stdout) == (2, "")
    assert "the demo could not start: " in ended.stderr
    assert "; choose another --port" in ended.stderr


def test_the_demo_sums_up_in_words_too() -> None:
    ended = laadplein("demo", "--seconds", "1")
    assert ended.code == 0
    sessions, *circuits, contract, broken = ended.stdout.splitlines()
    assert sessions.endswith("kWh delivered")
    assert [line.partition(":")[0] for line in circuits] == ["grid", "hall-a", "hall-b"]
    assert contract.startswith("contract: 0 intervals of 60 s")
    assert broken == "invariants broken: none"


async def test_a_meter_says_where_it_is_and_ends_by_itself() -> None:
    async with started("meter", "--map", "eastron_sdm630", "--unit-id", "3", "--seconds", "1") as meter:
        found = await meter.says(r"eastron_sdm630 at 127\.0\.0\.1:(\d+), unit 3")
        _, writer = await asyncio.open_connection("127.0.0.1", int(found[1]))
        writer.close()
        ended = await meter.ended()
    assert (ended.code, ended.stdout) == (0, "")


async def test_a_meter_ends_when_it_is_told_to() -> None:
    async with started("meter", "--map", "eastron_sdm630", "--feed-port", "0") as meter:
        await meter.says(r"adding what stations send to UDP port \d+")
        await meter.says("eastron_sdm630 at ")
        ended = await meter.ended(signal.SIGTERM)
    assert ended.code == 0
    assert "Traceback" not in ended.stderr


def test_a_meter_on_a_port_that_is_taken_says_so() -> None:
    with taken_port() as port:
        ended = laadplein("meter", "--map", "eastron_sdm630", "--port", str(port))
    assert (ended.code, ended.stdout) == (2, "")
    assert "; choose another --port or --feed-port" in ended.stderr
    assert "Traceback" not in ended.stderr


async def test_stations_connect_to_a_service_tell_so_and_sum_up(tmp_path: Path) -> None:
    site = tmp_path / "site.toml"
    guests = (
        '[ocpp.accept_unknown]\ncircuit = "hall-a"\nmax_stations = 2\ninstaller_max_a = 13\n[http]\nport = 0\n[policy]'
    )
    site.write_text(
        spoilt(("[policy]", guests), ('host = "127.0.0.1"', 'host = "127.0.0.1"\nport = 1')), encoding="utf-8"
    )
    async with started("run", str(site)) as service:
        port = (await service.says(r"ws://127\.0\.0\.1:(\d+)/"))[1]
        for ocpp in ("1.6", "2.0.1"):
            url = f"ws://127.0.0.1:{port}/guest"
            async with started("station", "--url", url, "--count", "2", "--ocpp", ocpp, "--json") as stations:
                seen: set[str] = set()
                while len(seen) < 2:
                    seen.add((await stations.says(r" s (guest-[12]): online, "))[1])
                ended = await stations.ended(signal.SIGTERM)
            summary = the_one_object(ended.stdout)
            assert set(summary) == STATIONS
            assert (summary["stations"], summary["online"]) == (2, 2)
            assert set(summary["offered_a"]) == {"guest-1", "guest-2"}
            assert ended.code == 0
        assert (await service.ended(signal.SIGTERM)).code == 0


def test_stations_that_nobody_answers_end_by_themselves() -> None:
    ended = laadplein("station", "--url", "ws://127.0.0.1:1/x", "--seconds", "1", "--json")
    assert ended.code == 0
    summary = the_one_object(ended.stdout)
    assert (summary["stations"], summary["online"], summary["energy_delivered_kwh"]) == (1, 0, 0.0)
    assert "x: OFFLINE" in ended.stderr
    assert "Traceback" not in ended.stderr

import math
from dataclasses import replace

from prometheus_client.parser import text_string_to_metric_families

from controller.core.model import ReasonCode
from controller.metrics import Metrics
from controller.ports import CycleReport
from tests.publish.small_site import REPORT, later

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def series_of(metrics: Metrics) -> Series:
    """Parse the text as Prometheus does."""
    return {
        (sample.name.removeprefix("laadplein_"), tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }


def scrape(*reports: CycleReport) -> Series:
    metrics = Metrics()
    for report in reports or (REPORT,):
        metrics.publish(report)
    return series_of(metrics)


def on(name: str, **labels: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    return name, tuple(sorted(labels.items()))


def test_a_circuit_shows_limit_measurement_base_and_headroom_per_phase() -> None:
    series = scrape()
    assert series[on("circuit_limit_amperes", circuit="hall-a", phase="L2")] == 32.0
    assert series[on("circuit_measured_amperes", circuit="grid", phase="L3")] == -3.006
    assert series[on("circuit_base_amperes", circuit="grid", phase="L1")] == 25.0
    assert series[on("circuit_committed_amperes", circuit="grid", phase="L1")] == 22.0
    assert series[on("circuit_headroom_amperes", circuit="hall-a", phase="L2")] == -1.5
    assert math.isclose(series[on("circuit_reading_age_seconds", circuit="grid")], 0.4, abs_tol=1e-6)
    assert series[on("circuit_overloaded", circuit="hall-a")] == 1.0


def test_an_evse_shows_its_setpoint_its_draw_and_the_binding_reason() -> None:
    series = scrape()
    assert series[on("evse_setpoint_amperes", evse="e1")] == 16.0
    assert series[on("evse_measured_amperes", evse="e1", phase="L1")] == 15.91
    assert series[on("evse_reading_age_seconds", evse="e1")] == 2.5
    assert series[on("evse_online", evse="e1")] == 1.0
    binding = {code: series[on("evse_limit_reason", evse="e1", reason=code.value)] for code in ReasonCode}
    assert [code for code, value in binding.items() if value] == [ReasonCode.CIRCUIT]


def test_what_is_unknown_is_nan_and_not_zero() -> None:
    series = scrape()
    assert math.isnan(series[on("circuit_measured_amperes", circuit="hall-a", phase="L1")])
    assert math.isnan(series[on("evse_measured_amperes", evse="e3", phase="L1")])
    assert math.isnan(series[on("evse_online", evse="e3")])


def test_a_contract_shows_where_its_interval_stands_in_base_units() -> None:
    series = scrape()
    assert series[on("contract_limit_watts", contract="gtv")] == 55_000
    assert series[on("contract_allowed_watts", contract="gtv")] == 61_234.5
    assert math.isclose(series[on("contract_used_joules", contract="gtv")], 4567.8 * 3600)


def test_counters_are_those_of_the_gateway() -> None:
    series = scrape()
    assert series[on("cycles_total")] == 600
    assert series[on("cycle_overruns_total")] == 2
    assert series[on("setpoints_sent_total")] == 40
    assert series[on("setpoints_confirmed_total")] == 38
    assert series[on("setpoints_failed_total")] == 1
    assert series[on("meter_readings_rejected_total", reason="timeout")] == 3
    assert series[on("circuit_excursion_seconds_total", circuit="hall-a")] == 12
    assert series[on("circuit_excursion_seconds_total", circuit="grid")] == 0
    assert series[on("feasible")] == 1
    assert series[on("last_cycle_timestamp_seconds")] == 1_795_255_200


def test_alarms_are_counted_by_code() -> None:
    series = scrape()
    assert series[on("alarms", code="excursion")] == 1
    assert series[on("alarms", code="meter_lost")] == 0


def test_every_cycle_counts_in_the_duration_histogram_whether_scraped_or_not() -> None:
    durations_s = (0.004, 0.005, 0.3, 60.0)
    series = scrape(*(replace(REPORT, duration_s=duration_s) for duration_s in durations_s))
    assert series[on("cycle_duration_seconds_bucket", le="0.005")] == 2
    assert series[on("cycle_duration_seconds_bucket", le="0.5")] == 3
    assert series[on("cycle_duration_seconds_bucket", le="+Inf")] == 4
    assert series[on("cycle_duration_seconds_count")] == 4
    assert math.isclose(series[on("cycle_duration_seconds_sum")], sum(durations_s))


def test_an_excursion_becomes_a_violation_past_the_reaction_time() -> None:
    # 15 s is the reaction time. An excursion of 20 s, a second without, then one of 14 s: 5 s beyond.
    counted_s = [*range(1, 21), 20, *range(21, 35)]
    reports = [replace(REPORT, excursion_s={"hall-a": float(total_s)}) for total_s in counted_s]
    series = scrape(replace(REPORT, excursion_s={}), *reports)
    assert series[on("circuit_violation_seconds_total", circuit="hall-a")] == 5
    assert series[on("circuit_violation_seconds_total", circuit="grid")] == 0


def test_only_what_is_configured_gets_a_label() -> None:
    stray = {f"ghost-{number}": REPORT.snapshot.evses["e1"] for number in range(1000)}
    evses = {**REPORT.snapshot.evses, **stray}
    problems = {f"problem {number:03}": 1 for number in range(100)}
    crowded = replace(REPORT, snapshot=replace(REPORT.snapshot, evses=evses), readings_rejected=problems)
    series = scrape(crowded)
    labels = {value for _, pairs in series for name, value in pairs if name == "evse"}
    assert labels == {"e1", "e2", "e3"}
    rejected = {key: value for key, value in series.items() if key[0] == "meter_readings_rejected_total"}
    assert len(rejected) == 33
    assert rejected[on("meter_readings_rejected_total", reason="other")] == 68


def test_the_text_is_rendered_once_a_cycle() -> None:
    metrics = Metrics()
    metrics.publish(REPORT)
    first = metrics.render()
    assert metrics.render() is first
    metrics.publish(later(1))
    assert metrics.render() is not first


def test_before_the_first_cycle_only_the_build_is_known() -> None:
    series = series_of(Metrics())
    assert [name for name, _ in series] == ["build_info"]


def test_two_gateways_in_one_process_do_not_mix() -> None:
    one, other = Metrics(), Metrics()
    one.publish(REPORT)
    other.publish(replace(REPORT, setpoints_sent=7))
    assert series_of(one)[on("setpoints_sent_total")] == 40
    assert series_of(other)[on("setpoints_sent_total")] == 7


def test_what_the_side_of_the_stations_counts_is_shown_by_its_name() -> None:
    counters = {"connections": 3, "frames_malformed": 0}
    metrics = Metrics(lambda: counters)
    metrics.publish(REPORT)
    assert series_of(metrics)[on("ocpp_events_total", event="connections")] == 3.0
    assert series_of(metrics)[on("ocpp_events_total", event="frames_malformed")] == 0.0
    counters["frames_malformed"] += 2
    metrics.publish(replace(REPORT, number=REPORT.number + 1))
    assert series_of(metrics)[on("ocpp_events_total", event="frames_malformed")] == 2.0

import pytest

from drivers.ocpp.timestamps import StationClock, to_iso, to_unix_s

NOON = 1_767_268_800.0


@pytest.mark.parametrize(
    ("text", "unix_s"),
    [
        ("2026-01-01T12:00:00Z", NOON),
        (" 2026-01-01T13:00:00.000+01:00 ", NOON),
        ("2026-01-01T12:00:00.123456789Z", NOON + 0.123456),
        ("1970-01-01T00:00:05Z", 5.0),
        ("2026-01-01T12:00:00", None),  # whose time?
        ("yesterday", None),
        ("", None),
        ("2026-13-01T12:00:00Z", None),
    ],
)
def test_timestamps_as_stations_write_them(text: str, unix_s: float | None) -> None:
    assert to_unix_s(text) == unix_s


@pytest.mark.parametrize(
    ("unix_s", "text"),
    [(NOON + 0.9, "2026-01-01T12:00:00Z"), (-5.0, "1970-01-01T00:00:00Z"), (1e12, "9999-12-31T23:59:59Z")],
)
def test_timestamps_as_we_write_them(unix_s: float, text: str) -> None:
    assert to_iso(unix_s) == text


def test_a_small_skew_is_the_smallest_seen() -> None:
    clock = StationClock()
    for sent_s, received_s in [(0, 3), (10, 12), (20, 25)]:
        clock.observe(NOON + sent_s, NOON + received_s)
    assert clock.skew_s == 2
    assert clock.age_s(NOON + 20, NOON + 25) == 3
    assert clock.station_unix_s(NOON) == NOON - 2


@pytest.mark.parametrize("behind_s", [7200.0, -7200.0, NOON])
def test_a_clock_that_is_far_off_is_learned_from_a_steady_stream(behind_s: float) -> None:
    clock = StationClock()
    for second in (0, 10):
        clock.observe(NOON + second - behind_s, NOON + second)
        assert clock.skew_s == 0
    clock.observe(NOON + 20 - behind_s, NOON + 20)
    assert clock.skew_s == behind_s
    assert clock.age_s(NOON + 30 - behind_s, NOON + 31) == 1


def test_a_queue_that_is_emptied_teaches_nothing() -> None:
    clock = StationClock()
    for number in range(100):
        clock.observe(NOON - 7200 + 60 * number, NOON + number)
    assert clock.skew_s == 0
    assert clock.age_s(NOON - 7200, NOON) == 7200


def test_a_clock_that_is_set_right_is_noticed() -> None:
    clock = StationClock()
    for second in (0, 10, 20):
        clock.observe(NOON + second - 7200, NOON + second)
    for second in (30, 40, 50):
        clock.observe(NOON + second, NOON + second)
    assert clock.skew_s == 0


def test_a_message_from_the_future_is_not_old() -> None:
    assert StationClock().age_s(NOON + 60, NOON) == 0

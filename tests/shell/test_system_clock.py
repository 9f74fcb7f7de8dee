from controller.clock import SystemClock


def test_monotonic_time_never_goes_back() -> None:
    clock = SystemClock()
    readings_s = [clock.now_s() for _ in range(100)]
    assert readings_s == sorted(readings_s)


def test_utc_is_counted_in_seconds_since_1970() -> None:
    assert 1_700_000_000 < SystemClock().unix_s() < 5_000_000_000


def test_a_clock_that_is_assumed_to_be_right_is_not_asked_for() -> None:
    assert SystemClock(assume_synchronised=True).synchronised() is True


def test_the_kernel_can_be_asked_again_and_again() -> None:
    clock = SystemClock()
    assert len({clock.synchronised() for _ in range(10)}) == 1

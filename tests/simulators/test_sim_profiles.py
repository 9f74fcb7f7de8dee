import math
from dataclasses import replace

import pytest

from simulators.profiles import (
    Charge,
    Kind,
    Period,
    Profile,
    ProfileRefused,
    ProfileStore,
    Purpose,
    StoreLimits,
)

NOON_S = 1_800_014_400.0
CHARGE = Charge(transaction="7", started_unix_s=NOON_S - 100.0)
TX = Profile(
    id=1, evse=1, stack_level=0, purpose=Purpose.TX, kind=Kind.ABSOLUTE, periods=(Period(start_s=0, limit=16.0),),
    start_unix_s=NOON_S - 60.0,
)  # fmt: skip
DEFAULT = replace(TX, id=2, purpose=Purpose.TX_DEFAULT, kind=Kind.RELATIVE, start_unix_s=None, periods=(Period(start_s=0, limit=8.0),))  # fmt: skip  # noqa: E501 - one line a profile
STATION = replace(TX, id=3, evse=0, purpose=Purpose.STATION_MAX, periods=(Period(start_s=0, limit=20.0),))


def limited(profile: Profile, limit: float, **changes: object) -> Profile:
    return replace(profile, periods=(Period(start_s=0, limit=limit),), **changes)  # type: ignore[arg-type]  # of several types


def store_of(*profiles: Profile, limits: StoreLimits | None = None) -> ProfileStore:
    store = ProfileStore(limits=limits or StoreLimits())
    for profile in profiles:
        store.install(profile, CHARGE)
    return store


@pytest.mark.parametrize(
    ("installed", "limit_a"),
    [
        ((), math.inf),  # 1.6 §3.13.6: without a profile, as if no constraints apply
        ((DEFAULT,), 8.0),
        ((DEFAULT, TX), 16.0),  # TxProfile overrules TxDefaultProfile, upwards too
        ((DEFAULT, TX, STATION), 16.0),
        ((DEFAULT, TX, limited(STATION, 10.0)), 10.0),  # the minimum over purposes
        ((TX, limited(TX, 12.0, id=9, stack_level=1)), 12.0),  # the highest stack level leads
        ((TX, limited(TX, 25.0, id=9, stack_level=1)), 25.0),  # even when it allows more
        ((TX, limited(TX, 25.0, id=9, stack_level=1, valid_to_unix_s=NOON_S)), 16.0),  # where it is valid
        ((TX, limited(TX, 25.0, id=9, stack_level=1, valid_from_unix_s=NOON_S + 1)), 16.0),
        ((TX, limited(TX, 25.0, id=9, stack_level=1, start_unix_s=NOON_S + 1)), 16.0),  # not yet begun
        ((TX, limited(TX, 25.0, id=9, stack_level=1, duration_s=60.0)), 16.0),  # just over
        ((limited(TX, 25.0, duration_s=60.0), DEFAULT), 8.0),  # 2.0.1 K02.FR.08: expired, so the default rules again
        ((limited(DEFAULT, 9.0, id=8, evse=0),), 9.0),  # for all EVSEs
        ((limited(DEFAULT, 9.0, id=8, evse=0, stack_level=5), DEFAULT), 8.0),  # an own default stands before it
        ((limited(DEFAULT, 9.0, id=8, evse=2),), math.inf),  # another EVSE's
        ((limited(TX, 11040.0, unit="W"),), 16.0),
        ((replace(TX, unit="W", periods=(Period(start_s=0, limit=3680.0, phases=1),)),), 16.0),
    ],
)
def test_what_the_profiles_allow(installed: tuple[Profile, ...], limit_a: float) -> None:
    assert store_of(*installed).limit_a(1, NOON_S, CHARGE) == pytest.approx(limit_a)


@pytest.mark.parametrize(
    ("after_s", "limit_a"), [(-61.0, 8.0), (-60.0, 16.0), (-41.0, 16.0), (-40.0, 6.0), (9999.0, 6.0)]
)
def test_a_lease_of_two_periods_decays_by_itself(after_s: float, limit_a: float) -> None:
    lease = replace(TX, periods=(Period(start_s=0, limit=16.0), Period(start_s=20, limit=6.0)))
    assert store_of(DEFAULT, lease).limit_a(1, NOON_S + after_s, CHARGE) == limit_a


@pytest.mark.parametrize(
    ("kind", "start_unix_s", "charge", "limit_a"),
    [
        (Kind.RELATIVE, None, CHARGE, 8.0),  # 100 s into the transaction, in its second period
        (Kind.RELATIVE, None, replace(CHARGE, started_unix_s=NOON_S - 10), 16.0),
        (Kind.RELATIVE, None, None, math.inf),  # nothing to be relative to
        (Kind.ABSOLUTE, None, CHARGE, 8.0),  # 1.6: without a start, relative to the start of charging
        (Kind.RECURRING, NOON_S - 3 * 86_400.0 - 10, CHARGE, 16.0),  # every day, 10 s ago
        (Kind.RECURRING, NOON_S - 3 * 86_400.0 - 90, CHARGE, 8.0),
        (Kind.RECURRING, NOON_S + 86_400.0 - 10, CHARGE, 16.0),
    ],
)
def test_what_a_schedule_is_counted_from(
    kind: Kind, start_unix_s: float | None, charge: Charge | None, limit_a: float
) -> None:
    periods = (Period(start_s=0, limit=16.0), Period(start_s=60, limit=8.0))
    profile = replace(DEFAULT, kind=kind, start_unix_s=start_unix_s, periods=periods, recurrence="Daily")
    assert store_of(profile).limit_a(1, NOON_S, charge) == limit_a


@pytest.mark.parametrize(
    ("profile", "charge", "reason"),
    [
        (TX, None, "TxNotFound"),
        (replace(TX, transaction="8"), CHARGE, "TxNotFound"),
        (replace(TX, evse=0), CHARGE, "InvalidProfile"),
        (replace(STATION, evse=1), CHARGE, "InvalidProfile"),
        (replace(STATION, kind=Kind.RELATIVE), CHARGE, "InvalidProfile"),
        (replace(TX, kind=Kind.RECURRING), CHARGE, "InvalidProfile"),
        (replace(TX, periods=()), CHARGE, "InvalidSchedule"),
        (replace(TX, periods=(Period(start_s=1, limit=6.0),)), CHARGE, "InvalidSchedule"),
        (replace(TX, periods=(Period(start_s=0, limit=6.0), Period(start_s=0, limit=7.0))), CHARGE, "InvalidSchedule"),
        (limited(TX, -1.0), CHARGE, "InvalidSchedule"),
        (replace(TX, stack_level=9), CHARGE, "InvalidStackLevel"),
        (replace(TX, periods=tuple(Period(start_s=n, limit=6.0) for n in range(25))), CHARGE, "TooManyPeriods"),
    ],
)
def test_what_a_station_refuses(profile: Profile, charge: Charge | None, reason: str) -> None:
    store = ProfileStore()
    with pytest.raises(ProfileRefused) as refused:
        store.install(profile, charge)
    assert refused.value.reason == reason
    assert len(store) == 0


def test_a_profile_replaces_its_own_id_and_its_own_slot() -> None:
    same_id = limited(TX, 10.0)
    same_slot = limited(TX, 11.0, id=50)
    assert store_of(TX, same_id).limit_a(1, NOON_S, CHARGE) == 10.0
    store = store_of(TX, same_slot)
    assert (len(store), store.limit_a(1, NOON_S, CHARGE)) == (1, 11.0)
    assert len(store_of(TX, replace(TX, id=51, stack_level=1))) == 2
    assert len(store_of(DEFAULT, replace(DEFAULT, id=52, evse=2))) == 2


def test_a_station_of_2x_refuses_another_id_in_an_occupied_slot() -> None:
    store = store_of(TX, limits=StoreLimits(refuse_duplicates=True))
    with pytest.raises(ProfileRefused, match="DuplicateProfile"):
        store.install(limited(TX, 10.0, id=50), CHARGE)
    assert store.limit_a(1, NOON_S, CHARGE) == 16.0


def test_a_full_station_takes_no_more_but_still_replaces() -> None:
    store = store_of(TX, DEFAULT, limits=StoreLimits(profiles=2))
    with pytest.raises(ProfileRefused, match="TooManyProfiles"):
        store.install(STATION, CHARGE)
    store.install(limited(TX, 10.0), CHARGE)
    assert store.limit_a(1, NOON_S, CHARGE) == 10.0


def test_persistent_purposes_survive_a_reboot_and_tx_profiles_end_with_their_transaction() -> None:
    store = store_of(TX, DEFAULT, STATION)
    store.reboot()
    assert {profile.purpose for profile in store} == {Purpose.TX_DEFAULT, Purpose.STATION_MAX}
    store = store_of(TX, DEFAULT, STATION)
    store.end_transaction(2)
    assert len(store) == 3
    store.end_transaction(1)
    assert {profile.purpose for profile in store} == {Purpose.TX_DEFAULT, Purpose.STATION_MAX}


@pytest.mark.parametrize(
    ("criteria", "left"),
    [
        ({}, set()),
        ({"profile_id": 1}, {2, 3}),
        ({"profile_id": 99}, {1, 2, 3}),
        ({"purpose": Purpose.TX_DEFAULT}, {1, 3}),
        ({"evse": 1}, {3}),
        ({"evse": 1, "stack_level": 4}, {1, 2, 3}),
    ],
)
def test_clearing(criteria: dict[str, object], left: set[int]) -> None:
    store = store_of(TX, DEFAULT, STATION)
    assert store.clear(**criteria) is (left != {1, 2, 3})  # type: ignore[arg-type]  # of several types
    assert {profile.id for profile in store} == left


def test_the_composite_schedule_tells_every_change_once() -> None:
    lease = replace(TX, periods=(Period(start_s=0, limit=16.0), Period(start_s=80, limit=6.0)))
    station = replace(
        STATION, periods=(Period(start_s=0, limit=20.0), Period(start_s=70, limit=10.0)), duration_s=100.0
    )
    assert store_of(lease, station, DEFAULT).composite(1, NOON_S, 600, CHARGE) == [(0, 16.0), (10, 10.0), (20, 6.0)]
    assert ProfileStore().composite(1, NOON_S, 600, None) == [(0, math.inf)]

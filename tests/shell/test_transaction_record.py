"""A transaction message is on disk before it is acknowledged (C5); no acknowledged one is lost or given twice."""

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest

from controller import store
from controller.ports import TransactionRecord
from controller.store import TransactionFile
from tests.shell.bench import files_in

START = TransactionRecord(
    station="alpha",
    evse="alpha",
    event="started",
    transaction="",
    id_token="tag-1",  # noqa: S106 - a card, no password
    meter_wh=1000,
    station_time="2026-11-21T10:00:00Z",
    received_unix_s=1_795_255_200.25,
)


def start_of(number: int) -> TransactionRecord:
    return replace(START, station_time=f"2026-11-21T10:{number // 60:02}:{number % 60:02}Z")


def start_elsewhere(number: int) -> TransactionRecord:
    return replace(start_of(number), evse=f"evse-{number}")


def end_of(transaction: str) -> TransactionRecord:
    return replace(START, event="ended", transaction=transaction, meter_wh=9000, station_time="2026-11-21T12:00:00Z")


def record_in(folder: Path) -> Path:
    return folder / "transactions.jsonl"


async def test_ids_are_whole_numbers_that_only_grow() -> None:
    log = TransactionFile(None)
    given = [int(await log.start(start_of(number))) for number in range(50)]
    assert given[0] == 1_795_255_200
    assert given == sorted(set(given))


async def test_ids_grow_across_a_restart_even_when_utc_went_back(tmp_path: Path) -> None:
    first = int(await TransactionFile(tmp_path).start(START))
    earlier = replace(start_of(1), received_unix_s=START.received_unix_s - 3600.0)
    assert int(await TransactionFile(tmp_path).start(earlier)) == first + 1


async def test_ids_are_not_given_again_where_the_record_was_lost(tmp_path: Path) -> None:
    before = int(await TransactionFile(tmp_path).start(START))
    record_in(tmp_path).unlink()
    later = replace(start_of(1), received_unix_s=START.received_unix_s + 60.0)
    assert int(await TransactionFile(tmp_path).start(later)) > before


async def test_starts_that_come_at_once_get_different_ids(tmp_path: Path) -> None:
    log = TransactionFile(tmp_path)
    given = await asyncio.gather(*(log.start(start_elsewhere(number)) for number in range(20)))
    assert len(set(given)) == 20
    assert len(record_in(tmp_path).read_bytes().splitlines()) == 20


async def test_a_station_that_names_its_transactions_is_taken_at_its_word() -> None:
    log = TransactionFile(None)
    assert await log.start(replace(START, transaction="a1b2-c3")) == "a1b2-c3"
    assert int(await log.start(start_of(1))) == 1_795_255_200


async def test_a_start_that_is_told_again_gets_the_first_answer_and_no_second_line(tmp_path: Path) -> None:
    log = TransactionFile(tmp_path)
    first = await log.start(START)
    assert await log.start(replace(START, received_unix_s=START.received_unix_s + 30.0)) == first
    assert await TransactionFile(tmp_path).start(START) == first  # the gateway restarted before it could answer
    assert len(record_in(tmp_path).read_bytes().splitlines()) == 1


async def test_a_start_that_differs_in_anything_the_station_says_is_another() -> None:
    log = TransactionFile(None)
    given = [
        await log.start(record)
        for record in (
            START,
            replace(START, station="bravo"),
            replace(START, evse="other"),
            replace(START, id_token="tag-2"),  # noqa: S106
            replace(START, meter_wh=1001),
            replace(START, station_time="2026-11-21T10:00:01Z"),
        )
    ]
    assert len(set(given)) == 6


async def test_a_transaction_is_open_until_its_end_and_a_restart_knows_it(tmp_path: Path) -> None:
    log = TransactionFile(tmp_path)
    one, two = await log.start(START), await log.start(replace(start_of(1), evse="other"))
    await log.append(replace(START, event="updated", transaction=one, meter_wh=1500))
    assert [record.transaction for record in TransactionFile(tmp_path).open_transactions()] == [one, two]
    await log.append(end_of(one))
    for taken_up in (log, TransactionFile(tmp_path)):
        assert [(record.evse, record.transaction) for record in taken_up.open_transactions()] == [("other", two)]


async def test_an_end_without_a_start_is_kept_and_opens_nothing(tmp_path: Path) -> None:
    log = TransactionFile(tmp_path)
    await log.append(end_of("from-yesterday"))
    assert log.open_transactions() == ()
    assert b"from-yesterday" in record_in(tmp_path).read_bytes()


# ------------------------------------------------------------------------------------------------------ on disk, first


async def test_a_line_is_synced_to_disk_before_the_start_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[bytes] = []
    real = os.fsync

    def observed(number: int) -> None:
        if record_in(tmp_path).samefile(f"/proc/self/fd/{number}"):
            synced.append(record_in(tmp_path).read_bytes())
        real(number)

    monkeypatch.setattr(os, "fsync", observed)
    log = TransactionFile(tmp_path)
    given = await log.start(START)
    assert len(synced) == 1
    assert given.encode() in synced[0]
    assert synced[0].endswith(b"\n")
    await log.append(end_of(given))
    assert len(synced) == 2
    assert b'"ended"' in synced[1]
    assert record_in(tmp_path).read_bytes() == synced[1]


async def test_the_name_of_a_new_file_is_synced_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders: list[bool] = []
    real = os.fsync

    def observed(number: int) -> None:
        target = Path(f"/proc/self/fd/{number}").readlink()
        folders.extend([target.samefile(tmp_path)] if target.is_dir() else [])
        real(number)

    monkeypatch.setattr(os, "fsync", observed)
    log = TransactionFile(tmp_path)
    await log.start(START)
    await log.start(start_of(1))
    assert folders == [True]


async def test_what_cannot_be_written_is_neither_answered_nor_remembered(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.write_text("in the way", encoding="utf-8")
    log = TransactionFile(folder)
    with pytest.raises(OSError, match="state"):
        await log.start(START)
    assert log.open_transactions() == ()
    folder.unlink()
    given = await log.start(START)
    assert [record.transaction for record in TransactionFile(folder).open_transactions()] == [given]


# ------------------------------------------------------------------------------------------------------- power was cut


@pytest.mark.parametrize("kept", [1, 20, -1])
async def test_half_a_line_was_never_acknowledged_and_spoils_nothing(tmp_path: Path, kept: int) -> None:
    log = TransactionFile(tmp_path)
    first = await log.start(START)
    whole = record_in(tmp_path).read_bytes()
    await log.start(start_elsewhere(1))
    record_in(tmp_path).write_bytes(whole + record_in(tmp_path).read_bytes()[len(whole) :][:kept])
    again = TransactionFile(tmp_path)
    assert [record.transaction for record in again.open_transactions()] == [first]
    second = await again.start(start_elsewhere(1))
    third = await again.start(start_elsewhere(2))
    assert [record.transaction for record in TransactionFile(tmp_path).open_transactions()] == [first, second, third]


async def test_half_a_line_as_the_only_one_is_cut_off(tmp_path: Path) -> None:
    record_in(tmp_path).write_bytes(b'{"station": "al')
    given = await TransactionFile(tmp_path).start(START)
    assert [record.transaction for record in TransactionFile(tmp_path).open_transactions()] == [given]


async def test_a_line_that_cannot_be_read_is_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = TransactionFile(tmp_path)
    one, two = await log.start(START), await log.start(start_elsewhere(1))
    lines = record_in(tmp_path).read_bytes().splitlines(keepends=True)
    record_in(tmp_path).write_bytes(lines[0] + b"#!?\n" + lines[1])
    assert [record.transaction for record in TransactionFile(tmp_path).open_transactions()] == [one, two]
    assert "a line is not readable and is left out" in caplog.text


def test_a_record_that_cannot_be_read_at_all_does_not_stop_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record_in(tmp_path).mkdir()
    assert TransactionFile(tmp_path).open_transactions() == ()
    assert "is not readable" in caplog.text


# ------------------------------------------------------------------------------------------------------------- bounded


async def test_the_record_is_bounded_and_what_runs_outlives_every_rotation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "LARGEST_LOG_BYTES", 2_000)
    log = TransactionFile(tmp_path)
    running = await log.start(replace(START, evse="never-ends"))
    last = ""
    for number in range(60):
        last = await log.start(start_of(number))
        await log.append(end_of(last))
    assert set(files_in(tmp_path)) == {"transactions.1.jsonl", "transactions.jsonl"}
    assert max(files_in(tmp_path).values()) < 3_000
    again = TransactionFile(tmp_path)
    assert [record.transaction for record in again.open_transactions()] == [running]
    assert await again.start(replace(START, evse="never-ends")) == running
    assert int(await again.start(start_of(100))) > int(last)


async def test_only_so_many_starts_without_an_end_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MOST_OPEN", 3)
    log = TransactionFile(None)
    given = [await log.start(replace(start_of(number), evse="")) for number in range(5)]
    assert [record.transaction for record in log.open_transactions()] == given[2:]
    assert len(log._starts) == 3
    assert await log.start(replace(start_of(4), evse="")) == given[4]


# ------------------------------------------------------------------------------------------- what stations call theirs


@pytest.mark.parametrize("name", ["\u00b2", "\u0663", "9" * 30, "9" * 5000, str(2**31 - 1), "-1", "1e9", "007"])
async def test_what_a_station_calls_its_transaction_changes_nobodys_id_and_no_restart(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert await TransactionFile(tmp_path).start(replace(START, transaction=name)) == name
    log = TransactionFile(tmp_path)
    assert [record.transaction for record in log.open_transactions()] == [name]
    assert int(await log.start(start_of(1))) == 1_795_255_200
    assert caplog.text == ""


async def test_an_id_fits_in_32_bits_whatever_the_clock_says(tmp_path: Path) -> None:
    seconds = (2.0**31 - 1.0, 2.0**31, 9e12, START.received_unix_s)
    starts = [replace(start_elsewhere(n), received_unix_s=unix_s) for n, unix_s in enumerate(seconds)]
    given = [int(await TransactionFile(tmp_path).start(start)) for start in starts]
    assert len(set(given)) == 4
    assert all(0 < number < 2**31 for number in given)


async def test_a_clock_far_ahead_for_one_start_leaves_the_ids_where_they_are() -> None:
    log = TransactionFile(None)
    first = int(await log.start(START))
    assert int(await log.start(replace(start_of(1), received_unix_s=9e12))) == first + 1
    assert int(await log.start(start_of(2))) == first + 2


async def test_a_line_that_claims_an_id_of_ours_that_is_none_is_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = await TransactionFile(tmp_path).start(START)
    spoilt = record_in(tmp_path).read_bytes().replace(given.encode(), b"\xc2\xb2")
    with record_in(tmp_path).open("ab") as file:
        file.write(spoilt)
    assert [record.transaction for record in TransactionFile(tmp_path).open_transactions()] == [given]
    assert caplog.text.count("a line is not readable and is left out") == 1


async def test_two_transactions_that_a_station_names_are_both_kept_though_all_else_is_equal(tmp_path: Path) -> None:
    log = TransactionFile(tmp_path)
    for name in ("one", "two"):
        assert await log.start(replace(START, evse="", transaction=name)) == name
    assert [record.transaction for record in TransactionFile(tmp_path).open_transactions()] == ["one", "two"]


async def test_a_station_whose_clock_stands_still_gets_a_new_id_once_its_transaction_has_ended(tmp_path: Path) -> None:
    log = TransactionFile(tmp_path)
    given = [await log.start(START)]
    await log.append(end_of(given[0]))
    later = replace(START, received_unix_s=START.received_unix_s + 700)
    given.append(await log.start(later))
    await log.append(replace(end_of(given[1]), received_unix_s=later.received_unix_s))
    latest = replace(later, received_unix_s=later.received_unix_s + 700)
    given.append(await TransactionFile(tmp_path).start(latest))  # the restarted gateway knows it too
    assert len(set(given)) == 3


async def test_a_start_repeated_soon_after_its_end_is_the_same(tmp_path: Path) -> None:
    log = TransactionFile(tmp_path)
    given = await log.start(START)
    await log.append(end_of(given))
    assert await log.start(replace(START, received_unix_s=START.received_unix_s + 60)) == given


# -------------------------------------------------------------------------------------------------- an end that is lost


async def test_a_start_on_an_evse_ends_what_was_open_there_and_nowhere_else(tmp_path: Path) -> None:
    log = TransactionFile(tmp_path)
    await log.start(START)
    elsewhere = [
        await log.start(replace(start_of(1), evse="other")),
        await log.start(replace(start_of(2), station="bravo")),
        await log.start(replace(start_of(3), evse="")),
    ]
    last = await log.start(replace(start_of(4), station_time="1970-01-01T00:00:09Z"))
    for taken_up in (log, TransactionFile(tmp_path)):
        assert [record.transaction for record in taken_up.open_transactions()] == [*elsewhere, last]
    assert await log.start(replace(start_of(5), evse="")) not in {*elsewhere, last}
    assert len(log.open_transactions()) == 5  # whatever names no EVSE ends nothing


async def test_ends_that_are_always_lost_do_not_pile_up(tmp_path: Path) -> None:
    log = TransactionFile(tmp_path)
    for number in range(30):
        last = await log.start(start_of(number))
    assert [record.transaction for record in log.open_transactions()] == [last]
    assert len(log._starts) == 1


async def test_without_a_directory_the_record_is_kept_in_memory_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    log = TransactionFile(None)
    given = await log.start(START)
    assert [record.transaction for record in log.open_transactions()] == [given]
    assert files_in(tmp_path) == {}

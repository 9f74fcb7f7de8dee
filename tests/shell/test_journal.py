"""The journal keeps every cycle so that it can be decided again, stays within its bound, and never stops a cycle."""

import asyncio
import gzip
import io
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.core.decide import decide
from controller.core.model import Contract, Decision, Memory, Snapshot
from controller.journal import BATCH_S, KEYFRAME_CYCLES, QUEUED, Journal, JournalError, replay
from tests.shell.bench import PATIENCE_S, SITE, START_S, ManualClock, files_in, in_virtual_time
from tests.shell.recorded import Control, journal_in, plain


def lines_in(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def outcomes(path: Path) -> Iterator[bool]:
    """Tell of every cycle that can be replayed whether it is decided the same."""
    return (difference is None for difference in replay(path))


def cycle(at_s: float) -> tuple[Snapshot, Memory, Decision]:
    snapshot = Snapshot(
        now_s=at_s, unix_s=0.0, clock_synchronised=True, started_at_s=0.0, site=SITE, meters={}, evses={}
    )
    decision, _ = decide(snapshot, Memory())
    return snapshot, Memory(), decision


# ----------------------------------------------------------------------------------------------------------- replaying


async def test_every_recorded_cycle_is_decided_the_same_again(tmp_path: Path) -> None:
    control = Control(tmp_path)
    await control.seconds(150)
    await control.journal.flush()
    assert list(outcomes(journal_in(tmp_path))) == [True] * 150
    setpoints = [line["decision"]["setpoints"]["alpha"]["value_a"] for line in lines_in(journal_in(tmp_path))[1:]]
    assert len(set(setpoints)) >= 3  # there was something to decide
    assert control.journal.lost == 0


async def test_the_memory_is_written_now_and_then_only(tmp_path: Path) -> None:
    control = Control(tmp_path)
    await control.seconds(2 * KEYFRAME_CYCLES + 1)
    await control.journal.flush()
    header, *cycles = lines_in(journal_in(tmp_path))
    assert set(header) == {"site"}
    assert [number for number, line in enumerate(cycles) if line["memory"] is not None] == [
        0,
        KEYFRAME_CYCLES,
        2 * KEYFRAME_CYCLES,
    ]


async def test_a_decision_that_was_changed_by_hand_is_found_at_its_line(tmp_path: Path) -> None:
    control = Control(tmp_path)
    await control.seconds(10)
    await control.journal.flush()
    lines = lines_in(journal_in(tmp_path))
    lines[6]["decision"]["setpoints"]["alpha"]["value_a"] += 1.0
    changed = plain(journal_in(tmp_path))
    changed.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    differences = [difference for difference in replay(changed) if difference is not None]
    assert [difference.line for difference in differences] == [7]
    assert differences[0].recorded != differences[0].decided


async def test_an_observation_that_was_changed_by_hand_shows_in_the_decisions(tmp_path: Path) -> None:
    control = Control(tmp_path)
    await control.seconds(10)
    await control.journal.flush()
    lines = lines_in(journal_in(tmp_path))
    lines[8]["meters"]["grid"]["current_a"] = [140.0, 99.0, 99.0]
    changed = plain(journal_in(tmp_path))
    changed.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert list(outcomes(changed))[:8] == [True] * 7 + [False]


async def test_a_cycle_whose_decision_failed_is_replayed_too(tmp_path: Path) -> None:
    control = Control(tmp_path)
    contract = Contract(id="lost", circuit="nowhere", import_w=1000.0)
    control.journal = Journal(tmp_path, replace(SITE, contracts=(contract,)), 64.0)
    control.board.site = replace(SITE, contracts=(contract,))
    await control.seconds(3)
    await control.journal.flush()
    codes = [line["decision"]["alarms"][0]["code"] for line in lines_in(journal_in(tmp_path))[1:]]
    assert codes == ["decide_failed"] * 3
    assert list(outcomes(journal_in(tmp_path))) == [True] * 3


async def test_a_restart_goes_on_in_the_same_file_and_both_parts_replay(tmp_path: Path) -> None:
    for _ in range(2):
        control = Control(tmp_path)
        await control.seconds(7)
        await control.journal.flush()
    assert ["site" in line for line in lines_in(journal_in(tmp_path))] == [True] + [False] * 7 + [True] + [False] * 7
    assert list(outcomes(journal_in(tmp_path))) == [True] * 14


# --------------------------------------------------------------------------------------------------------- power is cut


async def batches(folder: Path, *seconds: int) -> Control:
    """Record so many batches of so many cycles."""
    control = Control(folder)
    for count in seconds:
        await control.seconds(count)
        await control.journal.flush()
    return control


@pytest.mark.parametrize("lost_bytes", [1, 4, 8, 100, -1])
async def test_a_last_batch_that_is_cut_off_is_left_out_and_said(
    tmp_path: Path, lost_bytes: int, caplog: pytest.LogCaptureFixture
) -> None:
    control = await batches(tmp_path, 5)
    whole = len(journal_in(tmp_path).read_bytes())
    await control.seconds(4)
    await control.journal.flush()
    both = journal_in(tmp_path).read_bytes()
    journal_in(tmp_path).write_bytes(both[: whole + 1] if lost_bytes == -1 else both[:-lost_bytes])
    assert list(outcomes(journal_in(tmp_path))) == [True] * 5
    assert caplog.text.count("are no whole batch of cycles and are left out") == 1


@pytest.mark.parametrize("tail", [b"\0" * 4096, b"nonsense", b"\x1f\x8b\x08"])
async def test_what_is_no_batch_at_the_end_is_left_out_and_a_restart_cuts_it_off(tmp_path: Path, tail: bytes) -> None:
    await batches(tmp_path, 5)
    with journal_in(tmp_path).open("ab") as file:
        file.write(tail)
    assert list(outcomes(journal_in(tmp_path))) == [True] * 5
    await batches(tmp_path, 6)
    assert list(outcomes(journal_in(tmp_path))) == [True] * 11
    assert len(lines_in(journal_in(tmp_path))) == 1 + 5 + 1 + 6


async def test_a_restart_after_a_power_cut_does_not_write_behind_half_a_batch(tmp_path: Path) -> None:
    await batches(tmp_path, 4, 5)
    journal_in(tmp_path).write_bytes(journal_in(tmp_path).read_bytes()[:-100])
    await batches(tmp_path, 6)
    assert list(outcomes(journal_in(tmp_path))) == [True] * 10


async def test_an_unpacked_journal_replays_too_and_half_its_last_line_is_left_out(tmp_path: Path) -> None:
    await batches(tmp_path, 5)
    unpacked = plain(journal_in(tmp_path))
    assert list(outcomes(unpacked)) == [True] * 5
    unpacked.write_bytes(unpacked.read_bytes()[:-100])
    assert list(outcomes(unpacked)) == [True] * 4


@pytest.mark.parametrize("text", ["nonsense\n", "{}\n", '{"site": 5}\n', "[]\n", '{"site"}\n'])
@pytest.mark.parametrize("packed", [False, True])
def test_what_is_no_journal_is_refused_with_its_line(tmp_path: Path, text: str, *, packed: bool) -> None:
    journal_in(tmp_path).write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    with pytest.raises(JournalError, match=r"journal\.jsonl\.gz:1: not a journal line of this version"):
        list(replay(journal_in(tmp_path)))


def test_a_journal_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match=r"none\.jsonl: .*; give the path of a journal\.jsonl\.gz"):
        list(replay(tmp_path / "none.jsonl"))


# -------------------------------------------------------------------------------------------------------------- bounded


async def test_the_two_files_stay_within_the_allowance(tmp_path: Path) -> None:
    control = Control(tmp_path, allowance_mb=0.03)
    largest = 0
    for _ in range(60):
        await control.seconds(4)
        await control.journal.flush()
        largest = max(largest, sum(files_in(tmp_path).values()))
    names = files_in(tmp_path)
    assert set(names) == {"journal.1.jsonl.gz", "journal.jsonl.gz"}
    batch_bytes = 3_000
    assert 15_000 < largest <= 30_000 + 2 * batch_bytes
    for name in names:
        assert "site" in lines_in(tmp_path / name)[0]
        assert all(outcomes(tmp_path / name))


async def test_a_journal_is_a_fraction_of_what_it_says(tmp_path: Path) -> None:
    await batches(tmp_path, *[10] * 6)
    packed = journal_in(tmp_path).read_bytes()
    assert len(gzip.decompress(packed)) > 6 * len(packed)


async def test_a_file_that_is_taken_away_is_begun_anew_with_its_header(tmp_path: Path) -> None:
    control = await batches(tmp_path, KEYFRAME_CYCLES)
    journal_in(tmp_path).unlink()
    await control.seconds(5)
    await control.journal.flush()
    assert list(outcomes(journal_in(tmp_path))) == [True] * 5


async def test_a_disk_that_was_full_leaves_no_half_batch_and_no_file_without_a_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    control = Control(tmp_path)
    real = Path.open

    class Full(io.BytesIO):
        def write(self, data: Any) -> int:  # noqa: ANN401 - what a file takes
            with real(journal_in(tmp_path), "ab") as file:
                file.write(bytes(data)[:50])
            raise OSError(28, "No space left on device")

    for number in range(4):
        full = number in {0, 2}
        monkeypatch.setattr(Path, "open", (lambda *_arguments, **_options: Full()) if full else real)
        await control.seconds(5)
        await control.journal.flush()
    assert control.journal.lost == 10
    assert list(outcomes(journal_in(tmp_path))) == [True] * 10
    assert gzip.decompress(journal_in(tmp_path).read_bytes()).startswith(b'{"site"')


def test_when_the_disk_does_not_keep_up_cycles_are_lost_and_counted_and_what_follows_replays(tmp_path: Path) -> None:
    journal = Journal(tmp_path, SITE, 64.0)
    for number in range(QUEUED + 25):
        journal.record(*cycle(START_S + number))
    assert journal.lost == 25

    async def go_on() -> None:
        await journal.flush()
        for number in range(3):
            journal.record(*cycle(START_S + 1000.0 + number))
        await journal.flush()

    asyncio.run(go_on())
    lines = lines_in(journal_in(tmp_path))
    assert len(lines) == 1 + QUEUED + 3
    assert lines[1 + QUEUED]["memory"] is not None  # after a gap the memory is told anew


async def test_a_folder_that_cannot_be_written_never_stops_a_cycle(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "state"
    folder.write_text("in the way", encoding="utf-8")
    control = Control(folder)
    for _ in range(4):
        await control.seconds(5)
        await control.journal.flush()
    assert control.number == 20
    assert control.journal.lost == 20
    assert caplog.text.count("control goes on without it") == 1
    folder.unlink()
    await control.seconds(5)
    await control.journal.flush()
    assert control.journal.lost == 20
    assert list(outcomes(journal_in(folder))) == [True] * 5


async def test_cycles_recorded_while_a_write_was_failing_leave_no_false_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    control = Control(tmp_path)
    await control.seconds(5)
    real = Path.mkdir

    recorded = threading.Event()

    def full(*_arguments: object, **_options: object) -> None:
        assert recorded.wait(PATIENCE_S)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    writing = asyncio.create_task(control.journal.flush())
    await asyncio.sleep(0)  # the write is under way in its thread
    await control.seconds(5)
    recorded.set()
    await writing
    monkeypatch.setattr(Path, "mkdir", real)
    await control.seconds(5)
    await control.journal.flush()
    assert control.journal.lost == 10
    assert list(outcomes(journal_in(tmp_path))) == [True] * 5


async def test_a_stop_between_two_batches_loses_nothing(tmp_path: Path) -> None:
    control = Control(tmp_path)
    running = asyncio.create_task(control.journal.run())
    await control.seconds(5)
    running.cancel()
    await asyncio.wait([running])
    await control.journal.flush()
    assert list(outcomes(journal_in(tmp_path))) == [True] * 5


def test_lines_are_written_in_batches_off_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock()
    written: list[tuple[float, int]] = []

    async def inline(write: Any, lines: list[Any]) -> None:  # noqa: ANN401 - what to_thread is given
        written.append((clock.now_s() - START_S, len(lines)))
        write(lines)

    monkeypatch.setattr(asyncio, "to_thread", inline)
    journal = Journal(tmp_path, SITE, 64.0)

    async def play() -> None:
        running = asyncio.create_task(journal.run())
        for number in range(35):
            journal.record(*cycle(START_S + number))
            await asyncio.sleep(1.0)
        running.cancel()

    in_virtual_time(clock, play())
    assert [at_s for at_s, _ in written] == [BATCH_S, 2 * BATCH_S, 3 * BATCH_S]
    assert sum(lines for _, lines in written) >= 30

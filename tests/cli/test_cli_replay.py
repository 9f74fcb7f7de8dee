import json
from pathlib import Path

import pytest

from tests.cli.command import laadplein
from tests.shell.recorded import Control, journal_in, plain


@pytest.fixture
async def journal(tmp_path: Path) -> Path:
    control = Control(tmp_path)
    await control.seconds(12)
    await control.journal.flush()
    return plain(journal_in(tmp_path))


def plant_a_difference(journal: Path, line: int) -> None:
    lines = journal.read_text(encoding="utf-8").splitlines()
    document = json.loads(lines[line - 1])
    document["decision"]["setpoints"]["bravo-1"]["value_a"] += 1.0
    lines[line - 1] = json.dumps(document)
    journal.write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_cycles_that_are_decided_the_same_again_exit_0(journal: Path) -> None:
    ended = laadplein("replay", str(journal))
    assert (ended.code, ended.stdout, ended.stderr) == (0, "12 cycles decided again, no difference\n", "")
    ended = laadplein("replay", str(journal), "--json")
    assert (ended.code, json.loads(ended.stdout)) == (0, {"cycles": 12, "difference_at_line": None})


def test_a_compressed_journal_replays_as_it_is(journal: Path) -> None:
    ended = laadplein("replay", str(journal_in(journal.parent)))
    assert (ended.code, ended.stdout, ended.stderr) == (0, "12 cycles decided again, no difference\n", "")


@pytest.mark.parametrize("kept", [(), (0,), (2, 3), (0, 2, 3)])
def test_a_journal_of_which_nothing_can_be_decided_again_is_not_called_well(
    journal: Path, kept: tuple[int, ...]
) -> None:
    lines = journal.read_text(encoding="utf-8").splitlines(keepends=True)
    journal.write_text("".join(lines[number] for number in kept), encoding="utf-8")
    ended = laadplein("replay", str(journal))
    assert (ended.code, ended.stderr) == (1, "")
    assert ended.stdout.startswith(f"{journal}: no cycle could be decided again: ")
    ended = laadplein("replay", str(journal), "--json")
    assert (ended.code, json.loads(ended.stdout)) == (1, {"cycles": 0, "difference_at_line": None})


def test_the_first_difference_is_named_with_its_line_and_exits_1(journal: Path) -> None:
    plant_a_difference(journal, 9)
    plant_a_difference(journal, 5)
    ended = laadplein("replay", str(journal))
    assert ended.code == 1
    first, recorded, now = ended.stdout.splitlines()
    assert first == f"{journal}:5: decided otherwise"
    assert recorded.startswith("recorded {")
    assert now.startswith("now      {")
    ended = laadplein("replay", str(journal), "--json")
    assert (ended.code, json.loads(ended.stdout)) == (1, {"cycles": 4, "difference_at_line": 5})


def test_what_is_no_journal_exits_2(journal: Path) -> None:
    lines = journal.read_text(encoding="utf-8").splitlines()
    journal.write_text("\n".join([*lines[:3], "nonsense", *lines[3:]]) + "\n", encoding="utf-8")
    ended = laadplein("replay", str(journal))
    assert (ended.code, ended.stdout) == (2, "")
    assert f"{journal}:4: not a journal line of this version" in ended.stderr
    assert "Traceback" not in ended.stderr

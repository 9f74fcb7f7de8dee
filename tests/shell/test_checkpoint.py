"""What a restarted gateway remembers, whatever the clocks did meanwhile."""

import json
import os
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from controller.core.model import (
    MEMORY_VERSION,
    CircuitMemory,
    ContractMemory,
    EvseEvidence,
    EvseMemory,
    EvseState,
    Memory,
)
from controller.store import OLDEST_CHECKPOINT_S, CheckpointFile, rebased
from tests.shell.bench import START_S, UNIX_S, ManualClock, files_in

MEMORY = Memory(
    decided_at_s=999.0,
    evses={"alpha": EvseMemory(held_a=16.0, on_since_s=900.0, served_as=1234.5, credit_a=(1.0, 2.0, 3.0))},
    circuits={
        "grid": CircuitMemory(sample=7, sampled_at_s=998.5, base=(1.0, 2.0, 3.0, 4.0), watched_at_s=998.5),
    },
    contracts={"gtv": ContractMemory(interval=1_994_728, counted_wh=420.0, counted_at_s=998.0, register_wh=55_000.0)},
)
EVIDENCE = {
    "alpha": EvseEvidence(
        verified=True,
        state=EvseState.CHARGING,
        transaction="17",
        transaction_since_s=500.0,
        sent_a=16.0,
        sent_at_s=600.0,
        confirmed_a=16.0,
        confirmed_at_s=601.0,
        lease_until_s=1200.0,
    ),
    "bravo-1": EvseEvidence(),
}
NOTHING: tuple[Memory, dict[str, EvseEvidence]] = (Memory(), {})


async def saved(folder: Path, clock: ManualClock) -> Path:
    await CheckpointFile(folder, clock).save(MEMORY, EVIDENCE)
    return folder / "checkpoint.json"


def loaded(folder: Path, now_s: float, unix_s: float) -> tuple[Memory, dict[str, EvseEvidence]]:
    return CheckpointFile(folder, ManualClock(now_s, unix_s)).load()


# ---------------------------------------------------------------------------------------------------------- the clocks


async def test_a_restart_on_the_same_monotonic_clock_changes_nothing(tmp_path: Path) -> None:
    await saved(tmp_path, ManualClock())
    assert loaded(tmp_path, START_S + 5.0, UNIX_S + 5.0) == (MEMORY, EVIDENCE)


async def test_after_a_reboot_every_instant_is_as_long_ago_as_it_really_is(tmp_path: Path) -> None:
    await saved(tmp_path, ManualClock())
    memory, evidence = loaded(tmp_path, 3.0, UNIX_S + 60.0)  # 60 s later, on a clock that began 3 s ago
    assert evidence["alpha"].lease_until_s == pytest.approx(3.0 + 200.0 - 60.0)
    assert evidence["alpha"].transaction_since_s == pytest.approx(3.0 - 500.0 - 60.0)
    assert memory.decided_at_s == pytest.approx(3.0 - 1.0 - 60.0)
    assert memory.contracts["gtv"].counted_at_s == pytest.approx(3.0 - 2.0 - 60.0)
    # What is no instant stays as it was.
    assert memory.contracts["gtv"].interval == 1_994_728
    assert memory.contracts["gtv"].counted_wh == 420.0
    assert memory.evses["alpha"].served_as == 1234.5
    assert evidence["alpha"].sent_a == 16.0
    assert evidence["bravo-1"] == EvseEvidence()


async def test_a_lease_that_ran_out_while_the_gateway_was_away_is_over(tmp_path: Path) -> None:
    await saved(tmp_path, ManualClock())
    _, evidence = loaded(tmp_path, 10.0, UNIX_S + 1000.0)
    lease_until_s = evidence["alpha"].lease_until_s
    assert lease_until_s is not None
    assert lease_until_s < 10.0


@pytest.mark.parametrize("away_s", [-0.5, -3600.0, OLDEST_CHECKPOINT_S + 1.0])
async def test_a_clock_gone_backwards_or_a_checkpoint_too_old_means_safe_defaults(
    tmp_path: Path, away_s: float, caplog: pytest.LogCaptureFixture
) -> None:
    await saved(tmp_path, ManualClock())
    assert loaded(tmp_path, START_S, UNIX_S + away_s) == NOTHING
    assert caplog.text.count("is dropped, starting without") == 1


async def test_a_checkpoint_of_nearly_a_week_is_still_used(tmp_path: Path) -> None:
    await saved(tmp_path, ManualClock())
    assert loaded(tmp_path, START_S, UNIX_S + OLDEST_CHECKPOINT_S - 1.0)[1]["alpha"].transaction == "17"


# ------------------------------------------------------------------------------------------------------ every instant


def _filled(kind: type[Any], instant_s: float) -> Any:  # noqa: ANN401 - one of the model's dataclasses
    """Make one with every optional or defaulted number set: an instant wherever a name says seconds."""
    values: dict[str, Any] = {}
    for name, hint in get_type_hints(kind).items():
        inner = [argument for argument in get_args(hint) if is_dataclass(argument)]
        if inner:
            values[name] = {"one": _filled(inner[0], instant_s)}  # type: ignore[arg-type]  # a class, not an instance
        elif name.endswith("_s"):
            values[name] = instant_s
    return kind(**values)


def _seconds(value: Any) -> dict[str, float]:  # noqa: ANN401 - one of the model's dataclasses
    """Return every number of seconds in it, however deep, by its place."""
    found: dict[str, float] = {}
    for field in fields(value):
        inner = getattr(value, field.name)
        if isinstance(inner, dict):
            for key, part in inner.items():
                found |= {f"{field.name}.{key}.{place}": number for place, number in _seconds(part).items()}
        elif field.name.endswith("_s") and not field.name.endswith("_unix_s"):  # UTC is the same after a restart
            found[field.name] = inner
    return found


@pytest.mark.parametrize("kind", [Memory, EvseEvidence, EvseMemory, CircuitMemory, ContractMemory])
def test_every_instant_is_moved_so_that_a_new_one_cannot_be_forgotten(kind: type[Any]) -> None:
    before = _filled(kind, 500.0)
    moved = _seconds(rebased(before, -250.0))
    assert moved
    # All that the memory holds in seconds are instants. A duration among them would have to be named here.
    assert moved == dict.fromkeys(_seconds(before), 250.0)


def test_what_is_unknown_stays_unknown() -> None:
    assert rebased(Memory(), 100.0) == Memory()
    assert rebased(EvseEvidence(sent_a=6.0), 100.0) == EvseEvidence(sent_a=6.0)


# ---------------------------------------------------------------------------------------------------- files that fail


async def test_without_a_directory_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = CheckpointFile(None, ManualClock())
    await file.save(MEMORY, EVIDENCE)
    assert file.load() == NOTHING
    assert files_in(tmp_path) == {}


def test_the_first_start_finds_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert loaded(tmp_path / "not-yet-there", START_S, UNIX_S) == NOTHING
    assert caplog.text == ""


@pytest.mark.parametrize("text", [b"", b"{", b'{"version": 1}', b"\xff\x00", b"[]", b"null"])
def test_a_checkpoint_that_is_no_checkpoint_means_safe_defaults(
    tmp_path: Path, text: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "checkpoint.json").write_bytes(text)
    assert loaded(tmp_path, START_S, UNIX_S) == NOTHING
    assert "is not usable, starting without" in caplog.text


async def test_half_a_checkpoint_means_safe_defaults(tmp_path: Path) -> None:
    path = await saved(tmp_path, ManualClock())
    path.write_bytes(path.read_bytes()[:-20])
    assert loaded(tmp_path, START_S + 1.0, UNIX_S + 1.0) == NOTHING


async def test_a_checkpoint_of_another_version_means_safe_defaults_and_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = await saved(tmp_path, ManualClock())
    document = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(document | {"version": MEMORY_VERSION + 1}), encoding="utf-8")
    assert loaded(tmp_path, START_S + 1.0, UNIX_S + 1.0) == NOTHING
    assert caplog.text.count("is dropped, starting without") == 1


async def test_a_folder_that_cannot_be_written_is_an_error_that_the_caller_sees(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(OSError, match=r"file"):
        await CheckpointFile(tmp_path / "file", ManualClock()).save(MEMORY, EVIDENCE)
    assert loaded(tmp_path / "file", START_S, UNIX_S) == NOTHING


async def test_a_new_checkpoint_replaces_the_old_one_as_a_whole_and_only_when_it_is_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await saved(tmp_path / "made" / "as-needed", ManualClock())
    old = path.read_bytes()
    seen: list[tuple[bytes, bytes]] = []

    def observed(number: int) -> None:
        seen.append((path.read_bytes(), Path(f"/proc/self/fd/{number}").read_bytes()))

    monkeypatch.setattr(os, "fsync", observed)
    clock = ManualClock(START_S + 1.0, UNIX_S + 1.0)
    await CheckpointFile(path.parent, clock).save(replace(MEMORY, decided_at_s=1000.5), EVIDENCE)
    new = path.read_bytes()
    assert seen == [(old, new)]
    assert new != old
    assert set(files_in(path.parent)) == {"checkpoint.json"}

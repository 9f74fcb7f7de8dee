"""What outlives a restart: the checkpoint of memory and evidence, and the record of transactions.

Files are written off the loop. A checkpoint is replaced as a whole, so that a power cut leaves the old or the new one;
a transaction record is on disk before its message is acknowledged (invariant C5). Monotonic times are moved to the new
clock when a checkpoint is read: a restart, or a reboot, must not make an old lease look young.
"""

import asyncio
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import TypeAdapter, ValidationError

from controller.core.model import MEMORY_VERSION, EvseEvidence, Memory
from controller.ports import Clock, TransactionRecord

REPEATED_S: Final = 600.0  # a start that is told again is told so soon after
MOST_OPEN: Final = 10_000
LARGEST_ID: Final = 2**31 - 1  # a signed 32-bit number is all that some stations can hold
LARGEST_LOG_BYTES: Final = 8_000_000
OLDEST_CHECKPOINT_S: Final = 7 * 86_400.0

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """All that a restarted gateway must know, with the clocks of its writing."""

    version: int
    now_s: float
    unix_s: float
    memory: Memory
    evidence: Mapping[str, EvseEvidence]


_CHECKPOINT: Final = TypeAdapter(Checkpoint)
_INSTANTS: Final = ("_at_s", "_since_s", "_until_s", "_latest_s")


def rebased(value: _T, shift_s: float) -> _T:
    """Return `value` with every instant in it, however deep, moved by `shift_s`."""
    if isinstance(value, Mapping):
        return {key: rebased(inner, shift_s) for key, inner in value.items()}  # type: ignore[return-value]  # a mapping stays one
    if not is_dataclass(value) or isinstance(value, type):
        return value
    changes: dict[str, Any] = {}
    for field in fields(value):
        inner = getattr(value, field.name)
        if field.name.endswith(_INSTANTS):
            changes[field.name] = None if inner is None else inner + shift_s
        elif isinstance(inner, Mapping) or is_dataclass(inner):
            changes[field.name] = rebased(inner, shift_s)
    return replace(value, **changes) if changes else value


class CheckpointFile:
    """The checkpoint on disk. Without a directory nothing is kept."""

    def __init__(self, directory: Path | None, clock: Clock) -> None:
        self._path = None if directory is None else directory / "checkpoint.json"
        self._clock = clock
        self._writing = threading.Lock()  # a cancelled save goes on in its thread

    def load(self) -> tuple[Memory, dict[str, EvseEvidence]]:
        """Return what was kept, on today's clock; safe defaults when there is nothing usable."""
        if self._path is None:
            return Memory(), {}
        try:
            checkpoint = _CHECKPOINT.validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return Memory(), {}
        except (OSError, ValidationError) as error:
            _log.warning("checkpoint %s is not usable, starting without: %s", self._path, error)
            return Memory(), {}
        away_s = self._clock.unix_s() - checkpoint.unix_s
        if checkpoint.version != MEMORY_VERSION or not 0.0 <= away_s <= OLDEST_CHECKPOINT_S:
            text = "checkpoint %s is dropped, starting without: version %d (here %d), written %.0f s ago (0 to %.0f)"
            _log.warning(text, self._path, checkpoint.version, MEMORY_VERSION, away_s, OLDEST_CHECKPOINT_S)
            return Memory(), {}
        shift_s = self._clock.now_s() - away_s - checkpoint.now_s
        return rebased(checkpoint.memory, shift_s), dict(rebased(dict(checkpoint.evidence), shift_s))

    async def save(self, memory: Memory, evidence: Mapping[str, EvseEvidence]) -> None:
        """Replace the checkpoint. Raises OSError."""
        if self._path is None:
            return
        checkpoint = Checkpoint(
            version=MEMORY_VERSION,
            now_s=self._clock.now_s(),
            unix_s=self._clock.unix_s(),
            memory=memory,
            evidence=evidence,
        )
        await asyncio.to_thread(self._write, self._path, checkpoint)

    def _write(self, path: Path, checkpoint: Checkpoint) -> None:
        new = path.with_suffix(".new")
        with self._writing:
            path.parent.mkdir(parents=True, exist_ok=True)
            with new.open("wb") as file:
                file.write(_CHECKPOINT.dump_json(checkpoint))
                file.flush()
                os.fsync(file.fileno())
            new.replace(path)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line(TransactionRecord):
    """A record as it is kept. `given` says that the transaction's id is ours: the station's message had none."""

    given: bool = False


_LINE: Final = TypeAdapter(_Line)


class TransactionFile:
    """The record of transactions, one JSON line each. Implements the `TransactionLog` port.

    Without a directory it is kept in memory only, and a restart forgets it. Ids are whole numbers (some stations know
    no others), never below the second they were given in, so that they stay unique even where the record was lost.
    What stations call their own transactions has no influence on them.
    """

    def __init__(self, directory: Path | None) -> None:
        self._path = None if directory is None else directory / "transactions.jsonl"
        self._lock = asyncio.Lock()
        self._open: dict[tuple[str, str], _Line] = {}
        self._starts: dict[tuple[str, ...], str] = {}  # the id of every open start, by what makes it the same
        self._ended: OrderedDict[tuple[str, ...], _Line] = OrderedDict()  # starts whose end came a moment ago
        self._last_id = 0
        if self._path is not None:
            self._read(self._path)

    async def start(self, record: TransactionRecord) -> str:
        """Keep a start and return its transaction id: a new one if it has none, the first one if it is a repeat."""
        async with self._lock:
            line = _Line(**asdict(record), given=not record.transaction)
            known = self._starts.get(_identity(line)) or self._just_ended(line)
            if known is not None:
                return known
            if line.given:
                line = replace(line, transaction=str(self._new_id(record.received_unix_s)))
            await self._append(line)
            self._note(line)
            return line.transaction

    async def append(self, record: TransactionRecord) -> None:
        """Keep an update or an end."""
        async with self._lock:
            line = _Line(**asdict(record))
            await self._append(line)
            self._note(line)

    def open_transactions(self) -> Sequence[TransactionRecord]:
        """Return the starts that have no end."""
        return tuple(self._open.values())

    def _just_ended(self, line: _Line) -> str | None:
        """Return the id of a start repeated soon after its end. Later it is another one: a clock may stand still."""
        ended = self._ended.get(_identity(line))
        if ended is None or line.received_unix_s - ended.received_unix_s > REPEATED_S:
            return None
        return ended.transaction

    def _new_id(self, unix_s: float) -> int:
        # A clock beyond 2038 has no second that fits: then the ids only count on.
        number = max(self._last_id + 1, int(unix_s) if unix_s <= LARGEST_ID else 0)
        if number <= LARGEST_ID:
            return number
        taken = {line.transaction for line in self._open.values()}
        return next(free for free in range(1, LARGEST_ID) if str(free) not in taken)

    def _note(self, line: _Line) -> None:
        """Take up a line. Raises ValueError, and has taken up nothing, where it says of a text that it is our id."""
        if line.event == "ended":
            self._close((line.station, line.transaction), line.received_unix_s)
        elif line.event == "started":
            if line.given:
                self._last_id = max(self._last_id, int(line.transaction))
            for key in [key for key, other in self._open.items() if _gives_way(other, line)]:
                self._close(key, line.received_unix_s)
            self._open[line.station, line.transaction] = line
            self._starts[_identity(line)] = line.transaction
            while len(self._open) > MOST_OPEN:
                self._close(next(iter(self._open)), line.received_unix_s)

    def _close(self, key: tuple[str, str], ended_unix_s: float) -> None:
        """Note that a start is over."""
        line = self._open.pop(key, None)
        if line is None:
            return
        self._starts.pop(_identity(line), None)
        self._ended[_identity(line)] = replace(line, received_unix_s=ended_unix_s)
        while len(self._ended) > MOST_OPEN:
            self._ended.popitem(last=False)

    async def _append(self, line: _Line) -> None:
        if self._path is not None:
            await asyncio.to_thread(self._write, self._path, [line], tuple(self._open.values()))

    @staticmethod
    def _write(path: Path, lines: list[_Line], running: Sequence[_Line]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size > LARGEST_LOG_BYTES:
            path.replace(path.with_suffix(".1.jsonl"))
            lines = [*running, *lines]  # a start must not be lost with an old file while its transaction runs
        drop_cut_off_line(path)
        new = not path.exists()
        with path.open("ab") as file:
            file.writelines(_LINE.dump_json(line) + b"\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())
        if new:
            _sync_folder(path.parent)

    def _read(self, path: Path) -> None:
        """Take up the record again; a line cut off by a power cut was never acknowledged."""
        for part in (path.with_suffix(".1.jsonl"), path):
            try:
                lines = part.read_bytes().split(b"\n")[:-1]
            except FileNotFoundError:
                continue
            except OSError as error:
                _log.warning("%s is not readable and is left out: %s", part, error)
                continue
            for line in lines:
                try:
                    self._note(_LINE.validate_json(line))
                except ValueError:  # pydantic's ValidationError is one
                    _log.warning("%s: a line is not readable and is left out", part)


def drop_cut_off_line(path: Path) -> None:
    """Cut a file of lines behind its last whole one, lest the next line be appended to half a line. Raises OSError."""
    if not path.exists() or path.stat().st_size == 0:
        return
    with path.open("rb+") as file:
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)


def _sync_folder(folder: Path) -> None:
    """Make a new file's name durable, which syncing the file alone does not."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _identity(line: _Line) -> tuple[str, ...]:
    """Return what makes two starts the same: a station repeats one, as it told it, until it is answered."""
    told = "" if line.given else line.transaction
    return (line.station, line.evse, told, line.id_token, line.station_time, str(line.meter_wh))


def _gives_way(old: _Line, new: _Line) -> bool:
    """Tell whether a new start shows that an open one is over: one EVSE has one transaction, so its end was lost.

    By the order of arrival, not by the station's times: ends are lost in power cuts, and so are clocks. A start that
    names no EVSE shows nothing about others.
    """
    if old.station != new.station:
        return False
    return old.transaction == new.transaction or (bool(new.evse) and old.evse == new.evse)

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
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import TypeAdapter, ValidationError

from controller.core.model import MEMORY_VERSION, EvseEvidence, Memory
from controller.ports import Clock, TransactionRecord

REMEMBERED_STARTS: Final = 10_000
LARGEST_LOG_BYTES: Final = 8_000_000
OLDEST_CHECKPOINT_S: Final = 7 * 86_400.0

_log = logging.getLogger("laadplein.store")
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
_RECORD: Final = TypeAdapter(TransactionRecord)
_INSTANTS: Final = ("_at_s", "_since_s", "_until_s")


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


class TransactionFile:
    """The record of transactions, one JSON line each. Implements the `TransactionLog` port.

    Without a directory it is kept in memory only, and a restart forgets it. Ids are whole numbers (some stations know
    no others), never below the second they were given in, so that they stay unique even where the record was lost.
    """

    def __init__(self, directory: Path | None) -> None:
        self._path = None if directory is None else directory / "transactions.jsonl"
        self._lock = asyncio.Lock()
        self._starts: OrderedDict[tuple[str, ...], str] = OrderedDict()
        self._open: dict[str, TransactionRecord] = {}
        self._last_id = 0
        if self._path is not None:
            self._read(self._path)

    async def start(self, record: TransactionRecord) -> str:
        """Keep a start and return its transaction id: a new one if it has none, the first one if it is a repeat."""
        async with self._lock:
            key = _identity(record)
            known = self._starts.get(key)
            if known is not None:
                return known
            transaction = record.transaction
            if not transaction:
                transaction = str(max(self._last_id + 1, int(record.received_unix_s)))
            kept = replace(record, transaction=transaction)
            await self._append(kept)
            self._note(kept)
            return transaction

    async def append(self, record: TransactionRecord) -> None:
        """Keep an update or an end."""
        async with self._lock:
            await self._append(record)
            self._note(record)

    def open_transactions(self) -> Sequence[TransactionRecord]:
        """Return the starts that have no end."""
        return tuple(self._open.values())

    def _note(self, record: TransactionRecord) -> None:
        if record.event == "ended":
            self._open.pop(f"{record.station}/{record.transaction}", None)
        elif record.event == "started":
            self._open[f"{record.station}/{record.transaction}"] = record
            if record.transaction.isdigit():
                self._last_id = max(self._last_id, int(record.transaction))
            self._starts[_identity(record)] = record.transaction
            while len(self._starts) > REMEMBERED_STARTS:
                self._starts.popitem(last=False)

    async def _append(self, record: TransactionRecord) -> None:
        if self._path is not None:
            await asyncio.to_thread(self._write, self._path, [record], tuple(self._open.values()))

    @staticmethod
    def _write(path: Path, records: list[TransactionRecord], running: Sequence[TransactionRecord]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size > LARGEST_LOG_BYTES:
            path.replace(path.with_suffix(".1.jsonl"))
            records = [*running, *records]  # a start must not be lost with an old file while its transaction runs
        drop_cut_off_line(path)
        new = not path.exists()
        with path.open("ab") as file:
            file.writelines(_RECORD.dump_json(record) + b"\n" for record in records)
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
                    record = _RECORD.validate_json(line)
                except ValidationError:
                    _log.warning("%s: a line is not readable and is left out", part)
                    continue
                self._note(record)


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


def _identity(record: TransactionRecord) -> tuple[str, ...]:
    """Return what makes two starts the same: a station repeats one until it is answered."""
    return (record.station, record.evse, record.id_token, record.station_time, str(record.meter_wh))

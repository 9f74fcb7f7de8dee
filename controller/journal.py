"""The journal: every cycle's snapshot and decision, a JSON line each, so that any decision can be replayed.

Bounded: two files of half the allowance each, the older one is overwritten. Written off the loop; a full disk or a slow
card loses journal lines, never control cycles (invariant C7).
"""

import asyncio
import logging
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from pydantic import TypeAdapter, ValidationError

from controller.core.model import Decision, EvseEvidence, Memory, MeterReading, Site, Snapshot
from controller.loop import decide_or_fail_safe
from controller.store import drop_cut_off_line

QUEUED: Final = 600
BATCH_S: Final = 2.0
KEYFRAME_CYCLES: Final = 60  # the memory is written this often; between, it follows from the decisions

_T = TypeVar("_T")

_log = logging.getLogger("laadplein.journal")


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The first line of a file."""

    site: Site


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One cycle. `memory` is what the decision started from, on keyframes."""

    now_s: float
    unix_s: float
    clock_synchronised: bool
    started_at_s: float
    meters: Mapping[str, MeterReading]
    evses: Mapping[str, EvseEvidence]
    memory: Memory | None
    decision: Decision


_HEADER: Final = TypeAdapter(Header)
_LINE: Final = TypeAdapter(Line)
_DECISION: Final = TypeAdapter(Decision)


class JournalError(Exception):
    """A journal cannot be read; the message names the file and the line."""


class Journal:
    """Writes cycles to `journal.jsonl` in a directory."""

    def __init__(self, directory: Path, site: Site, allowance_mb: float) -> None:
        self.lost = 0
        self._path = directory / "journal.jsonl"
        self._half_bytes = allowance_mb * 1e6 / 2.0
        self._site = site
        self._queue: asyncio.Queue[Line] = asyncio.Queue(QUEUED)
        self._cycles = 0
        self._complained = False
        self._headed = False
        self._after_gap = False
        self._writing = threading.Lock()  # a cancelled write goes on in its thread

    def record(self, snapshot: Snapshot, memory: Memory, decision: Decision) -> None:
        """Queue one cycle; when the disk does not keep up the cycle is lost and counted."""
        keyframe = self._cycles % KEYFRAME_CYCLES == 0
        line = Line(
            now_s=snapshot.now_s,
            unix_s=snapshot.unix_s,
            clock_synchronised=snapshot.clock_synchronised,
            started_at_s=snapshot.started_at_s,
            meters=snapshot.meters,
            evses=snapshot.evses,
            memory=memory if keyframe else None,
            decision=decision,
        )
        try:
            self._queue.put_nowait(line)
        except asyncio.QueueFull:
            self.lost += 1
            self._cycles = 0  # a gap: the next line carries the memory again
        else:
            self._cycles += 1

    async def run(self) -> None:
        """Write queued cycles for ever, in batches."""
        while True:
            await asyncio.sleep(BATCH_S)
            await self.flush()

    async def flush(self) -> None:
        """Write what is queued now. After a gap, cycles up to the next keyframe are lost: none can be replayed."""
        lines = []
        while not self._queue.empty():
            line = self._queue.get_nowait()
            if self._after_gap and line.memory is None:
                self.lost += 1
                continue
            self._after_gap = False
            lines.append(line)
        if not lines:
            return
        try:
            await asyncio.to_thread(self._write, lines)
        except OSError as error:
            self.lost += len(lines)
            self._cycles, self._after_gap = 0, True
            if not self._complained:
                _log.warning("journal: %s; control goes on without it", error)
            self._complained = True
        else:
            self._complained = False

    def _write(self, lines: list[Line]) -> None:
        with self._writing:
            self._append(lines)

    def _append(self, lines: list[Line]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._path.exists() and self._path.stat().st_size > self._half_bytes:
            self._path.replace(self._path.with_suffix(".1.jsonl"))
            self._headed = False
        drop_cut_off_line(self._path)
        with self._path.open("ab") as file:
            if not self._headed:
                file.write(_HEADER.dump_json(Header(site=self._site)) + b"\n")
                self._headed = True
            file.writelines(_LINE.dump_json(line) + b"\n" for line in lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A recorded decision that the code decides otherwise today."""

    line: int
    recorded: str
    decided: str


def replay(path: Path) -> Iterator[Difference | None]:
    """Decide every recorded cycle again: None where it is the same, the difference where not. Raises JournalError.

    Cycles before the first keyframe cannot be replayed and are passed over.
    """
    site: Site | None = None
    memory: Memory | None = None
    for number, text in enumerate(_lines(path), start=1):
        if text.startswith(b'{"site"'):
            site, memory = _parsed(_HEADER, text, path, number).site, None
            continue
        line = _parsed(_LINE, text, path, number)
        memory = line.memory or memory
        if site is None or memory is None:
            continue
        decision, memory, _ = decide_or_fail_safe(_snapshot(line, site), memory)
        recorded, decided = _DECISION.dump_json(line.decision).decode(), _DECISION.dump_json(decision).decode()
        yield None if recorded == decided else Difference(line=number, recorded=recorded, decided=decided)


def _snapshot(line: Line, site: Site) -> Snapshot:
    return Snapshot(
        now_s=line.now_s,
        unix_s=line.unix_s,
        clock_synchronised=line.clock_synchronised,
        started_at_s=line.started_at_s,
        site=site,
        meters=line.meters,
        evses=line.evses,
    )


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            # The last line may be cut off by a power cut: it has no end.
            yield from (text.rstrip(b"\n") for text in file if text.endswith(b"\n"))
    except OSError as error:
        raise JournalError(f"{path}: {error}; give the path of a journal.jsonl") from error


def _parsed(adapter: TypeAdapter[_T], line: bytes, path: Path, number: int) -> _T:
    try:
        return adapter.validate_json(line)
    except ValidationError as error:
        text = f"{path}:{number}: not a journal line of this version ({error.error_count()} errors)"
        raise JournalError(text) from error

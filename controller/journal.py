"""The journal: every cycle's snapshot and decision, a JSON line each, so that any decision can be replayed.

Compressed, a gzip member per batch of cycles: cards wear. Bounded: two files of half the allowance each, the older one
is overwritten. Written off the loop; a full disk or a slow card loses journal lines, never control cycles (C7).
"""

import asyncio
import gzip
import logging
import os
import threading
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from pydantic import TypeAdapter, ValidationError

from controller.core.model import Decision, EvseEvidence, Memory, MeterReading, Site, Snapshot
from controller.loop import decide_or_fail_safe

QUEUED: Final = 600
BATCH_S: Final = 10.0
KEYFRAME_CYCLES: Final = 60  # the memory is written this often; between, it follows from the decisions

_GZIP: Final = b"\x1f\x8b"  # how a gzip member begins (RFC 1952)
_CHUNK_BYTES: Final = 65_536

_T = TypeVar("_T")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The first line of a file, and of what is written after a gap."""

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
    """Writes cycles to `journal.jsonl.gz` in a directory."""

    def __init__(self, directory: Path, site: Site, allowance_mb: float) -> None:
        self.lost = 0
        self._path = directory / "journal.jsonl.gz"
        self._older = directory / "journal.1.jsonl.gz"
        self._half_bytes = allowance_mb * 1e6 / 2.0
        self._site = site
        self._queue: asyncio.Queue[Line] = asyncio.Queue(QUEUED)
        self._cycles = 0
        self._complained = False
        self._headed = False
        self._end: int | None = None  # bytes of whole members in the file; None before it was looked at
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
        try:
            end = self._prepare()
            texts = [] if self._headed else [_HEADER.dump_json(Header(site=self._site))]
            texts += [_LINE.dump_json(line) for line in lines]
            member = gzip.compress(b"".join(text + b"\n" for text in texts), mtime=0)
            with self._path.open("ab") as file:
                file.write(member)
        except OSError:
            self._headed = False
            raise
        self._headed, self._end = True, end + len(member)

    def _prepare(self) -> int:
        """Make the file ready for another member, behind the last whole one, and return its size. Raises OSError."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        found = self._path.stat().st_size if self._path.exists() else 0
        end = self._end
        if end is None or found < end:  # the first write, or somebody took the file away
            end = _whole_bytes(self._path) if found else 0
            self._headed = False
        if found > end:  # a power cut or a full disk left half a member
            os.truncate(self._path, end)
        if end > self._half_bytes:
            self._path.replace(self._older)
            end, self._headed = 0, False
        self._end = end
        return end


def _members(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the content of every whole gzip member with the place where it ends, up to what is none. Raises OSError."""
    end = 0
    with path.open("rb") as file:
        while True:
            file.seek(end)
            member, parts = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS), []
            while not member.eof:
                chunk = file.read(_CHUNK_BYTES)
                if not chunk:
                    return
                try:
                    parts.append(member.decompress(chunk))
                except zlib.error:
                    return
            end = file.tell() - len(member.unused_data)
            yield end, b"".join(parts)


def _whole_bytes(path: Path) -> int:
    return max((end for end, _content in _members(path)), default=0)


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
    """Yield the lines of a journal, compressed or not. What a power cut left half written at the end is left out."""
    try:
        with path.open("rb") as file:
            if file.read(len(_GZIP)) == _GZIP:
                yield from _compressed_lines(path)
                return
            file.seek(0)
            yield from (text.rstrip(b"\n") for text in file if text.endswith(b"\n"))
    except OSError as error:
        raise JournalError(f"{path}: {error}; give the path of a journal.jsonl.gz") from error


def _compressed_lines(path: Path) -> Iterator[bytes]:
    whole_bytes = 0
    for end, content in _members(path):
        whole_bytes = end
        yield from content.split(b"\n")[:-1]
    dropped = path.stat().st_size - whole_bytes
    if dropped:
        _log.warning("%s: the last %d bytes are no whole batch of cycles and are left out", path, dropped)


def _parsed(adapter: TypeAdapter[_T], line: bytes, path: Path, number: int) -> _T:
    try:
        return adapter.validate_json(line)
    except ValidationError as error:
        text = f"{path}:{number}: not a journal line of this version ({error.error_count()} errors)"
        raise JournalError(text) from error

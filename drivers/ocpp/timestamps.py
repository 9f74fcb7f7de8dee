"""Station timestamps: reading and writing them, and learning how far a station's clock is off.

Knows ISO 8601 as stations write it. Does not care which message carried it. Seconds are UTC since 1970.
"""

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

OLD_S: Final = 30.0
_STEADY_S: Final = 2.0
_STREAM_S: Final = 20.0
_LAST_S: Final = 253_402_300_799.0


def to_unix_s(text: str) -> float | None:
    """Return UTC seconds, or None for what is no timestamp.

    A time without a zone says nothing: stations that write so mean their local time (Growatt), and the receipt time
    serves better.
    """
    try:
        moment = datetime.fromisoformat(text.strip())
        return None if moment.tzinfo is None else moment.timestamp()
    except (ValueError, OverflowError):
        return None


def to_iso(unix_s: float) -> str:
    """Return whole UTC seconds as OCPP writes them, `2026-01-31T12:00:00Z`, within the years 1970 to 9999."""
    return datetime.fromtimestamp(math.floor(min(max(unix_s, 0.0), _LAST_S)), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(slots=True)
class StationClock:
    """How far a station's clock is behind ours: the smallest (received - station time) over live messages.

    A message that waited in the station's offline queue looks just like a clock that is behind. So a difference of more
    than `OLD_S` is only learned from a steady stream: messages over at least 20 s whose difference stays the same.
    A queue that is emptied sends faster than its messages were written, and is not steady.
    """

    skew_s: float = 0.0
    _learned: bool = False
    _stream_since_s: float | None = None
    _stream_skew_s: float = 0.0

    def observe(self, station_unix_s: float, received_unix_s: float) -> None:
        """Learn from a message that is not known to have been queued."""
        behind_s = received_unix_s - station_unix_s
        if abs(behind_s - self.skew_s) <= OLD_S:
            self.skew_s = min(self.skew_s, behind_s) if self._learned else behind_s
            self._learned, self._stream_since_s = True, None
            return
        if self._stream_since_s is None or abs(behind_s - self._stream_skew_s) > _STEADY_S:
            self._stream_since_s, self._stream_skew_s = received_unix_s, behind_s
            return
        self._stream_skew_s = min(self._stream_skew_s, behind_s)
        if received_unix_s - self._stream_since_s >= _STREAM_S:
            self.skew_s, self._learned, self._stream_since_s = self._stream_skew_s, True, None

    def age_s(self, station_unix_s: float, received_unix_s: float) -> float:
        """Return how long ago a station wrote this, by its own clock; never negative."""
        return max(0.0, received_unix_s - station_unix_s - self.skew_s)

    def station_unix_s(self, unix_s: float) -> float:
        """Return what the station's clock shows at `unix_s`."""
        return unix_s - self.skew_s

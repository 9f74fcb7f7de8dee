"""The system clock: the one place where time is read."""

import ctypes
import time

_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised
_TIMEX_BYTES = 512  # larger than struct timex on any Linux; modes = 0 asks and changes nothing


class SystemClock:
    """The machine's clocks. `assume_synchronised` skips asking the kernel (containers may not tell)."""

    def __init__(self, *, assume_synchronised: bool = False) -> None:
        self._assume = assume_synchronised
        self._libc = None if assume_synchronised else ctypes.CDLL(None, use_errno=True)

    def now_s(self) -> float:
        """Return monotonic seconds."""
        return time.monotonic()  # noqa: TID251 - this is the place

    def unix_s(self) -> float:
        """Return UTC seconds since 1970."""
        return time.time()  # noqa: TID251 - this is the place

    def synchronised(self) -> bool:
        """Tell whether the kernel holds UTC to be disciplined (adjtimex(2)); False where it cannot be asked."""
        if self._libc is None:
            return True
        try:
            status: int = self._libc.adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
        except AttributeError:  # not Linux
            return False
        return status not in (-1, _TIME_ERROR)

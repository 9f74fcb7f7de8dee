"""The answer of a command on stdout, and what is told beside it on stderr.

An answer that does not reach its reader (a closed pipe, a full disk, no stdout at all) is an error of its own, so that
no exit code says that all is well when nobody could read what is not.
"""

import json
import os
import sys
from typing import Any


class AnswerLostError(Exception):
    """The answer could not be written; the message says why. Empty where the reader left: it wants to hear no more."""


def stand_in_for_closed() -> None:
    """Make stdout something that cannot be written to where it was closed, lest a socket takes its number."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, encoding="utf-8")  # noqa: PTH123, SIM115 - a stream for as long as we run


def print_json(value: dict[str, Any]) -> None:
    """Print the one JSON object of a command. Raises AnswerLostError."""
    say(json.dumps(value))


def say(text: str) -> None:
    """Print a line of a command's answer. Raises AnswerLostError."""
    try:
        print(text)  # noqa: T201 - a command line speaks
    except OSError as error:
        raise _lost(error) from error


def tell(text: str) -> None:
    """Print a line beside a command's answer, on stderr, if anybody listens there."""
    if sys.stderr is not None:
        print(text, file=sys.stderr)  # noqa: T201 - a command line speaks


def finish() -> None:
    """Hand over what is still buffered. Raises AnswerLostError."""
    try:
        sys.stdout.flush()
    except OSError as error:
        raise _lost(error) from error


def _lost(error: OSError) -> AnswerLostError:
    # What is still buffered would be tried again at the end of the process, and fail again.
    if sys.stdout.writable():
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    return AnswerLostError("" if isinstance(error, BrokenPipeError) else f"the answer could not be written: {error}")

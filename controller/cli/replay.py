"""`laadplein replay JOURNAL`: decide every recorded cycle again; exit 1 at the first difference."""

import argparse
from pathlib import Path

from controller.cli.answer import print_json, say
from controller.cli.usage import UsageError
from controller.journal import JournalError, replay


def run(options: argparse.Namespace) -> int:
    """Replay until the end or the first difference. A journal without a cycle to decide proves nothing: exit 1."""
    cycles, different = 0, None
    try:
        for outcome in replay(Path(options.journal)):
            cycles += 1
            if outcome is not None:
                different = outcome
                break
    except JournalError as error:
        raise UsageError(str(error)) from error
    if options.json:
        print_json({"cycles": cycles, "difference_at_line": different.line if different else None})
    elif different is not None:
        say(f"{options.journal}:{different.line}: decided otherwise")
        say(f"recorded {different.recorded}\nnow      {different.decided}")
    elif cycles:
        say(f"{cycles} cycles decided again, no difference")
    else:
        say(f"{options.journal}: no cycle could be decided again: it holds none that follows a header and a memory")
    return 1 if different or not cycles else 0

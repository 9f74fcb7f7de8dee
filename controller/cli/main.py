"""`laadplein`: parse the command line and hand over to the subcommand.

Exit codes: 0 fine, 1 the question's answer is no or could not be written, 2 usage or configuration, 130 interrupted
before there was an answer. A service that is told to end, and a simulator, end with 0.
"""

import argparse
import logging
import signal
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from math import isfinite
from typing import Any

from controller.cli import OWN_PROCESS, answer
from controller.cli.usage import USAGE_EXIT, UsageError

ANSWER_LOST_EXIT = 1
INTERRUPTED_EXIT = 130  # 128 + SIGINT, as shells say it

# What they tell of peers that come and go, our own modules tell once, in our words.
LIBRARY_LEVELS = {"websockets": logging.ERROR, "uvicorn.error": logging.CRITICAL, "pymodbus": logging.CRITICAL}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    answer.stand_in_for_closed()
    try:
        _interruptible(signal.SIG_DFL, signal.default_int_handler)
        try:
            return _perform(_parser().parse_args(arguments))
        finally:
            answer.finish()
    except answer.AnswerLostError as lost:
        if str(lost):
            answer.tell(f"laadplein: {lost}")
        return ANSWER_LOST_EXIT
    except KeyboardInterrupt:
        return INTERRUPTED_EXIT
    finally:
        _interruptible(signal.default_int_handler, signal.SIG_DFL)


def _interruptible(old: object, new: Any) -> None:  # noqa: ANN401 - as the signal module has handlers
    """Change what Ctrl-C does where we are a process of our own; who ignores it goes on ignoring it."""
    if OWN_PROCESS and signal.getsignal(signal.SIGINT) is old:
        signal.signal(signal.SIGINT, new)


def _perform(options: argparse.Namespace) -> int:
    logging.basicConfig(
        level=logging.WARNING if options.quiet else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    for library, level in LIBRARY_LEVELS.items():
        logging.getLogger(library).setLevel(level)
    run: Callable[[argparse.Namespace], int] = import_module(f"controller.cli.{options.command}").run
    try:
        return run(options)
    except UsageError as error:
        answer.tell(str(error))
        return USAGE_EXIT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="laadplein", description="Smart-charging controller: many charging stations behind one grid connection."
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    parser.add_argument("-q", "--quiet", action="store_true", help="only warnings and errors on stderr")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_run(commands.add_parser("run", help="run the service for a site"))
    _add_check(commands.add_parser("check", help="validate a site file; show the circuit tree and the worst case"))
    _add_demo(commands.add_parser("demo", help="a whole example site on real sockets"))
    _add_station(commands.add_parser("station", help="simulated charging stations against any central system"))
    _add_meter(commands.add_parser("meter", help="a simulated Modbus meter"))
    _add_replay(commands.add_parser("replay", help="decide every recorded cycle again"))
    return parser


class _Version(argparse.Action):
    """Look the version up only when it is asked for: that costs more than all else before a command begins."""

    def __call__(self, *_arguments: object) -> None:
        answer.say(f"laadplein {import_module('importlib.metadata').version('laadplein')}")
        sys.exit(0)


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("site", metavar="SITE.toml")


def _add_check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("site", metavar="SITE.toml")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=_positive, help="end by itself after so many seconds (default: Ctrl-C)")
    parser.add_argument("--port", type=_port, default=0, help="HTTP port on loopback (default: a free one)")
    parser.add_argument("--seed", type=int, default=1, help="the vehicles' seed")
    parser.add_argument("--picture", metavar="FILE.svg", help="save the last screen as a picture")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout at the end, nothing else there")


def _add_station(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", required=True, help="ws://HOST:PORT/PATH/IDENTITY; with --count, -1, -2, ... follow")
    parser.add_argument("--count", type=_positive_int, default=1, help="number of stations (default 1)")
    parser.add_argument("--ocpp", choices=("1.6", "2.0.1"), default="1.6")
    parser.add_argument("--max-a", type=_positive, default=32.0, help="hardware maximum per phase (default 32)")
    parser.add_argument("--phases", type=int, choices=(1, 3), default=3)
    parser.add_argument("--rotate", action="store_true", help="rotate the phases from one station to the next")
    parser.add_argument("--needs-kwh", type=_positive, default=40.0, help="what each vehicle needs (default 40)")
    parser.add_argument("--empty", action="store_true", help="no vehicle is plugged in")
    parser.add_argument(
        "--feed", metavar="HOST:PORT", type=_address, help="tell a `laadplein meter --feed-port` what is drawn"
    )
    parser.add_argument("--seconds", type=_positive, help="end after so many seconds (default: Ctrl-C)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout at the end, nothing else there")


def _add_meter(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--map", required=True, metavar="NAME", help="register map; an unknown name lists them")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=_port, default=0, help="TCP port (default: a free one)")
    parser.add_argument("--unit-id", type=_unit_id, default=1)
    parser.add_argument("--base-a", type=_finite, default=20.0, help="base load per phase (default 20)")
    parser.add_argument("--step-a", type=_finite, default=0.0, help="added to the base load half of the time")
    parser.add_argument("--step-s", type=_positive, default=30.0, help="length of each half (default 30)")
    parser.add_argument("--feed-port", type=_port, help="add what `laadplein station --feed` sends to this UDP port")
    parser.add_argument("--seconds", type=_positive, help="end after so many seconds (default: Ctrl-C)")


def _add_replay(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("journal", metavar="JOURNAL")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def _finite(text: str) -> float:
    value = float(text)
    if not isfinite(value):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number")
    return value


def _positive(text: str) -> float:
    value = _finite(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def _positive_int(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive whole number")
    return value


def _port(text: str) -> int:
    return _between(0, 65_535, text, "a port")


def _unit_id(text: str) -> int:
    return _between(0, 255, text, "a Modbus unit")


def _between(lowest: int, highest: int, text: str, what: str) -> int:
    value = int(text)
    if not lowest <= value <= highest:
        raise argparse.ArgumentTypeError(f"{text} is not {what} ({lowest} to {highest})")
    return value


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not port.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is not an address; write HOST:PORT")
    return host or "127.0.0.1", _port(port)


if __name__ == "__main__":
    sys.exit(main())

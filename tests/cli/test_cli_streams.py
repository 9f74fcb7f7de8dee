"""An answer that reaches nobody is no good answer, and Ctrl-C is no error of the program."""

import asyncio
import contextlib
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from controller.cli.main import main
from tests.cli.command import PATIENCE_S, Ended, started
from tests.house.source import ROOT

SITE = "deploy/site.toml"
LAADPLEIN = f"{sys.executable} -m controller.cli.main"


def shell(line: str) -> Ended:
    """Run a line of shell; the exit code is that of our command."""
    done = subprocess.run(  # noqa: S603 - our own command
        ["/bin/bash", "-o", "pipefail", "-c", line.replace("laadplein", LAADPLEIN)],
        cwd=ROOT,
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    return Ended(done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.mark.parametrize("arguments", [f"check {SITE}", f"check {SITE} --json", "--version", "demo --seconds 1 --json"])
@pytest.mark.parametrize("stdout", ["> /dev/full", ">&-"])
def test_an_answer_that_cannot_be_written_exits_1_and_says_why(arguments: str, stdout: str) -> None:
    ended = shell(f"laadplein {arguments} {stdout}")
    assert ended.code == 1
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("laadplein: the answer could not be written: ")
    assert "Traceback" not in ended.stderr
    assert "Exception ignored" not in ended.stderr


@pytest.mark.parametrize("arguments", [f"check {SITE}", f"check {SITE} --json"])
def test_a_reader_that_left_before_the_answer_ends_the_command_with_1_in_silence(arguments: str) -> None:
    # The reader is gone before the command has even started: no race with what the pipe can hold.
    ended = shell(f"(sleep 0.5; laadplein {arguments}) | true")
    assert (ended.code, ended.stderr) == (1, "")


def test_who_reads_the_first_line_only_gets_it_and_no_traceback() -> None:
    ended = shell(f"laadplein check {SITE} | head -1")
    assert ended.stdout == f"{SITE}: Example business park, valid\n"
    assert ended.stderr == ""


def test_a_service_needs_no_stdout(tmp_path: Path) -> None:
    ended = shell(f"laadplein meter --map eastron_sdm630 --seconds 0.5 >&- 2>{tmp_path}/told")
    assert ended.code == 0
    assert "eastron_sdm630 at 127.0.0.1:" in (tmp_path / "told").read_text(encoding="utf-8")


def test_a_problem_that_nobody_can_read_still_exits_2() -> None:
    assert shell("laadplein check nosuch.toml 2>&-").code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", SITE),
        ("run", "simulators/demo.toml"),
        ("demo",),
        ("meter", "--map", "eastron_sdm630"),
        ("station", "--url", "ws://127.0.0.1:1/x"),
        ("replay", "/dev/stdin"),
    ],
    ids=lambda arguments: arguments[0],
)
@pytest.mark.parametrize("after_s", [0.1, 0.3, 0.6])
async def test_an_interrupt_at_the_very_start_is_no_error_of_the_program(
    arguments: tuple[str, ...], after_s: float
) -> None:
    async with started(*arguments) as command:
        await asyncio.sleep(after_s)
        with contextlib.suppress(ProcessLookupError):  # it has ended already
            command.send(signal.SIGINT)
        ended = await command.ended()
    assert "Traceback" not in ended.stderr
    assert "Exception ignored" not in ended.stderr
    # By then it may have ended, or been told to end as a service.
    assert ended.code in {0, 1, 130, -signal.SIGINT}


def test_an_interrupt_before_the_answer_is_not_taken_for_a_good_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_path: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("controller.cli.check.site_at", interrupted)
    assert main(["check", SITE]) == 130

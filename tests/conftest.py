"""Suites that did not run are named, never passed over in silence.

A test marked `needs_<program>` (requirements/programs.txt lists them) is skipped where the program is missing, and the
end of the run names every suite with a skipped test, and why. With `LAADPLEIN_REQUIRE_ALL` set, as `.ci/run` does, a
missing program is a failure, and so is any other skipped test.
"""

import os
import shutil
from collections import Counter
from collections.abc import Generator
from pathlib import Path

import pytest

_LIST = Path(__file__).parent.parent / "requirements" / "programs.txt"
_LISTED = (line.split() for line in _LIST.read_text(encoding="utf-8").splitlines())
PACKAGES = {words[0]: words[1] for words in _LISTED if words and not words[0].startswith("#")}
REQUIRE_ALL = os.environ.get("LAADPLEIN_REQUIRE_ALL", "") not in ("", "0")

# Debian keeps daemons in sbin, which is not on everybody's PATH.
os.environ["PATH"] = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))


def pytest_configure(config: pytest.Config) -> None:
    """Make the markers known."""
    for program in PACKAGES:
        config.addinivalue_line("markers", f"needs_{program}: needs the program {program}")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose program is missing, or fail it where everything has to run."""
    for program, package in PACKAGES.items():
        if item.get_closest_marker(f"needs_{program}") and shutil.which(program) is None:
            reason = f"the program {program} is missing (Debian: apt-get install {package})"
            if REQUIRE_ALL:
                pytest.fail(reason, pytrace=False)
            pytest.skip(reason)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run that had to run everything and did not."""
    if REQUIRE_ALL and _not_run(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> Generator[None, None, None]:
    """Name what did not run, on the last lines before the counts."""
    yield
    not_run = _not_run(config)
    if not_run:
        terminalreporter.section("suites that did not run, or not in full", red=REQUIRE_ALL, yellow=not REQUIRE_ALL)
    for (suite, reason), tests in sorted(not_run.items()):
        terminalreporter.write_line(f"NOT RUN: {suite} ({tests} test{'s' if tests > 1 else ''}): {reason}")


def _not_run(config: pytest.Config) -> Counter[tuple[str, str]]:
    """Count the skipped tests by suite and reason."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    skipped: list[pytest.TestReport | pytest.CollectReport] = reporter.stats.get("skipped", []) if reporter else []
    return Counter((report.nodeid.partition("::")[0], _reason(report)) for report in skipped)


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")

"""A suite that cannot run is named at the end; where everything has to run, it is a failure (tests/conftest.py)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.source import ROOT

SUITE = """
import pytest

@pytest.mark.needs_abacus
def test_with_the_program(): pass

def test_without(): pass
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Make a project with one suite that needs a program nobody has."""
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers -p no:cacheprovider\n")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text(encoding="utf-8"))
    (tmp_path / "tests" / "test_sums.py").write_text(SUITE)
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "programs.txt").write_text("# program package\nabacus abacus-tools\n")
    return tmp_path


def run(project: Path, *, require_all: bool, path: str = "") -> tuple[int, list[str]]:
    environment = {**os.environ, "LAADPLEIN_REQUIRE_ALL": "1" if require_all else ""}
    environment["PATH"] = os.pathsep.join(filter(None, (path, os.environ["PATH"])))
    command = [sys.executable, "-m", "pytest", "-p", "no:asyncio", str(project)]
    done = subprocess.run(  # noqa: S603 - the Python that runs this
        command, cwd=project, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    return done.returncode, done.stdout.splitlines()


def test_a_missing_program_is_named_with_its_remedy(project: Path) -> None:
    status, lines = run(project, require_all=False)
    assert status == 0
    assert lines[-2] == (
        "NOT RUN: tests/test_sums.py (1 test): the program abacus is missing (Debian: apt-get install abacus-tools)"
    )
    assert "1 passed, 1 skipped" in lines[-1]


def test_a_missing_program_is_a_failure_where_everything_has_to_run(project: Path) -> None:
    status, lines = run(project, require_all=True)
    assert status == 1
    assert "1 passed, 1 error" in lines[-1]
    assert any("the program abacus is missing" in line for line in lines)


def test_any_other_skipped_test_is_one_too(project: Path) -> None:
    (project / "tests" / "test_sums.py").write_text("import pytest\ndef test_later(): pytest.skip('another day')\n")
    status, lines = run(project, require_all=True)
    assert status == 1
    assert lines[-2] == "NOT RUN: tests/test_sums.py (1 test): another day"


def test_with_the_program_everything_runs(project: Path) -> None:
    program = project / "bin" / "abacus"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    status, lines = run(project, require_all=True, path=str(program.parent))
    assert status == 0
    assert "2 passed" in lines[-1]
    assert not any("NOT RUN" in line for line in lines)

"""The lock files hold what pyproject.toml asks for, on every supported Python, and nothing of where they were made."""

import re
import tomllib
from collections.abc import Iterable
from typing import Any

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.house.source import ROOT

PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
GROUPS: dict[str, list[str]] = PYPROJECT["dependency-groups"]
FILES = ("lock.txt", "runtime.txt", "build.txt")
PYTHONS = ("3.11", "3.12", "3.13")


def text_of(name: str) -> str:
    return (ROOT / "requirements" / name).read_text(encoding="utf-8")


def entries(name: str) -> list[tuple[Requirement, list[str]]]:
    """Return each requirement of a lock file with its hashes."""
    joined = re.sub(r"\\\n\s*", " ", re.sub(r"(?m)^\s*#.*\n", "", text_of(name)))
    split = (line.partition(" --hash=") for line in joined.splitlines() if line.strip())
    return [(Requirement(head), re.findall(r"sha256:[0-9a-f]{64}", tail)) for head, _, tail in split]


def pinned(name: str, python: str) -> dict[str, str]:
    """Return what a lock file installs on Linux with this Python: version by name."""
    environment = {key: str(value) for key, value in default_environment().items()} | {
        "python_version": python, "python_full_version": f"{python}.0", "implementation_name": "cpython",
        "sys_platform": "linux", "platform_system": "Linux",
    }  # fmt: skip
    found: dict[str, str] = {}
    for requirement, _ in entries(name):
        if requirement.marker is None or requirement.marker.evaluate(environment):
            (exact,) = requirement.specifier
            assert exact.operator == "==", f"{name}: {requirement} is not pinned"
            assert requirement.name not in found, f"{name}: {requirement.name} is pinned twice for Python {python}"
            found[canonicalize_name(requirement.name)] = exact.version
    return found


def unmet(wanted: Iterable[str], lock: dict[str, str]) -> list[str]:
    requirements = [Requirement(line) for line in wanted]
    return [str(r) for r in requirements if not r.specifier.contains(lock.get(canonicalize_name(r.name), "0.dev0"))]


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("lock.txt", [*PYPROJECT["project"]["dependencies"], *GROUPS["dev"], *GROUPS["build"]]),
        ("runtime.txt", PYPROJECT["project"]["dependencies"]),
        ("build.txt", [*GROUPS["build"], *PYPROJECT["build-system"]["requires"]]),
    ],
)
def test_the_lock_satisfies_pyproject(name: str, wanted: list[str], python: str) -> None:
    assert unmet(wanted, pinned(name, python)) == [], "run: make lock"


def test_a_lock_that_is_too_old_or_lacks_a_package_is_found() -> None:
    assert unmet(["ocpp>=2.1,<3", "rich>=14"], {"ocpp": "2.0.0"}) == ["ocpp<3,>=2.1", "rich>=14"]


@pytest.mark.parametrize("name", ["runtime.txt", "build.txt"])
def test_what_ships_is_what_was_tested(name: str) -> None:
    assert pinned(name, "3.13").items() <= pinned("lock.txt", "3.13").items()


@pytest.mark.parametrize("name", FILES)
def test_every_pin_has_hashes_and_names_no_host(name: str) -> None:
    assert all(hashes for _, hashes in entries(name))
    assert not re.search(r"://|--(?:extra-)?index|--find-links|--trusted-host|file:", text_of(name))


def test_the_classifiers_name_the_pythons_that_the_lock_is_for() -> None:
    prefix = "Programming Language :: Python :: "
    named = [line.removeprefix(prefix) for line in PYPROJECT["project"]["classifiers"] if line.startswith(prefix)]
    assert tuple(named) == PYTHONS

"""The import contracts in pyproject.toml hold, catch what they are there for, and leave no module out."""

import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.house.source import ROOT, production

PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LAYERS, PURE_CORE = PYPROJECT["tool"]["importlinter"]["contracts"]
STACK = [[name.strip(" ()") for name in row.replace("|", ":").split(":")] for row in LAYERS["layers"]]


def lint_imports(folder: Path) -> tuple[int, str]:
    program = Path(sys.executable).with_name("lint-imports")
    # The planted packages must be found before the installed ones.
    command = [str(program), "--config", str(ROOT / "pyproject.toml"), "--no-cache"]
    done = subprocess.run(  # noqa: S603 - a program of our own environment
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )
    return done.returncode, " ".join(done.stdout.split()) + done.stderr


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Make an empty module for every name in the layers."""
    for name in (name for row in STACK for name in row):
        plant(tmp_path, name, "")
    return tmp_path


def plant(tree: Path, name: str, text: str) -> None:
    folder = tree
    for part in name.split("."):
        folder /= part
        folder.mkdir(exist_ok=True)
        (folder / "__init__.py").touch()
    (folder / "__init__.py").write_text(text, encoding="utf-8")


def test_the_project_keeps_its_contracts() -> None:
    status, said = lint_imports(ROOT)
    assert status == 0, said


def test_an_empty_tree_keeps_the_contracts(tree: Path) -> None:
    status, said = lint_imports(tree)
    assert status == 0, said
    assert "Contracts: 2 kept, 0 broken" in said


def test_every_arrow_that_points_left_is_caught(tree: Path) -> None:
    upward = [(low, high) for upper, lower in pairwise(STACK) for low in lower for high in upper]
    for low in {low for low, _ in upward}:
        plant(tree, low, "".join(f"import {high}\n" for start, high in upward if start == low))
    status, said = lint_imports(tree)
    assert status == 1, said
    assert f"{LAYERS['name']} BROKEN" in said
    for low, high in upward:
        assert f"{low} -> {high}" in said


def test_every_impure_import_of_the_core_is_caught(tree: Path) -> None:
    forbidden: list[str] = PURE_CORE["forbidden_modules"]
    plant(tree, "controller.core.planted", "".join(f"import {name}\n" for name in forbidden))
    status, said = lint_imports(tree)
    assert status == 1, said
    assert f"{PURE_CORE['name']} BROKEN" in said
    for name in forbidden:
        assert f"controller.core.planted -> {name}" in said


def test_every_library_that_the_project_needs_is_forbidden_to_the_core() -> None:
    libraries = {line.partition(">")[0].replace("-", "_") for line in PYPROJECT["project"]["dependencies"]}
    assert libraries - set(PURE_CORE["forbidden_modules"]) <= {"tzdata"}, "add it to the core's forbidden modules"


def test_every_module_has_its_layer() -> None:
    known = {name for row in STACK for name in row}
    modules = {module.name for module in production() if module.name not in ("controller", "drivers")}
    outside = {m for m in modules if not any(m == name or m.startswith(f"{name}.") for name in known)}
    assert not outside, f"a module outside the layers is banned, use a layer of [tool.importlinter] for it: {outside}"

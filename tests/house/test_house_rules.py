"""The whole tree obeys the house rules, and each rule catches a violation planted for it."""

import re
import tomllib
from collections.abc import Callable, Iterator

import pytest

from tests.house import rules, units
from tests.house.source import ROOT, Module, everything, production

Rule = Callable[[Module], Iterator[str]]

EVERYWHERE: tuple[Rule, ...] = (
    rules.functions_are_short,
    rules.modules_are_short,
    rules.suppressions_have_a_reason,
)
SHIPPED: tuple[Rule, ...] = (
    rules.public_names_are_documented,
    rules.shell_knows_no_protocol_version,
    rules.core_is_pure,
    rules.time_comes_from_the_clock_port,
    rules.randomness_is_seeded,
    rules.nothing_catches_everything,
    rules.production_imports_no_tests,
    units.numbers_carry_their_unit,
)


def found_by(rule: Rule, text: str, path: str = "controller/core/planted.py") -> list[str]:
    return list(rule(Module(path, text)))


@pytest.mark.parametrize("rule", EVERYWHERE, ids=lambda rule: rule.__name__)
def test_every_file_obeys(rule: Rule) -> None:
    findings = [finding for module in everything() for finding in rule(module)]
    assert not findings, "\n".join(findings)


@pytest.mark.parametrize("rule", SHIPPED, ids=lambda rule: rule.__name__)
def test_all_shipped_code_obeys(rule: Rule) -> None:
    findings = [finding for module in production() for finding in rule(module)]
    assert not findings, "\n".join(findings)


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (rules.functions_are_short, "def f():\n" + "    pass\n" * 70),
        (rules.modules_are_short, "pass\n" * 601),
        (rules.suppressions_have_a_reason, "x = 1  # " + "noqa\n"),
        (rules.suppressions_have_a_reason, "x = 1  # " + "noqa: E501\n"),
        (rules.suppressions_have_a_reason, "x = 1  # " + "noqa: E501 - ok\n"),
        (rules.suppressions_have_a_reason, "x = 1  # " + "noqa - because it is long\n"),
        (rules.suppressions_have_a_reason, "x = 1  # " + "type: ignore[misc]\n"),
        (rules.suppressions_have_a_reason, "x = 1  # " + "pragma: no cover\n"),
        (rules.public_names_are_documented, "x = 1\n"),
        (rules.public_names_are_documented, '"""Doc."""\ndef f(): pass\n'),
        (rules.public_names_are_documented, '"""Doc."""\nclass C:\n    """Doc."""\n    async def f(self): pass\n'),
        (rules.core_is_pure, "import time\n"),
        (rules.core_is_pure, "def f():\n    from datetime import datetime\n"),
        (rules.core_is_pure, "import logging as log\n"),
        (rules.core_is_pure, "import os.path\n"),
        (rules.core_is_pure, "import pydantic\n"),
        (rules.core_is_pure, "from controller.ports import Clock\n"),
        (rules.core_is_pure, "from ..ports import Clock\n"),
        (rules.core_is_pure, "def f(x): return hash(x)\n"),
        (rules.core_is_pure, "print(1)\n"),
        (rules.time_comes_from_the_clock_port, "import time\ntime.monotonic()\n"),
        (rules.time_comes_from_the_clock_port, "from time import monotonic as now\n"),
        (rules.time_comes_from_the_clock_port, "import datetime as dt\ndt.datetime.now(dt.UTC)\n"),
        (rules.time_comes_from_the_clock_port, "from datetime import datetime\nf = datetime.now\n"),
        (rules.randomness_is_seeded, "import random\nrandom.random()\n"),
        (rules.randomness_is_seeded, "from random import Random\nRandom()\n"),
        (rules.randomness_is_seeded, "import uuid\nuuid.uuid4()\n"),
        (rules.nothing_catches_everything, "try: pass\nexcept Exception: pass\n"),
        (rules.nothing_catches_everything, "try: pass\nexcept: pass\n"),
        (rules.nothing_catches_everything, "try: pass\nexcept (OSError, BaseException): pass\n"),
        (rules.nothing_catches_everything, "import contextlib\nwith contextlib.suppress(Exception): pass\n"),
        (rules.production_imports_no_tests, "from tests.house import rules\n"),
        (rules.production_imports_no_tests, "def f():\n    import pytest\n"),
        (units.numbers_carry_their_unit, "def f(current: float): pass\n"),
        (units.numbers_carry_their_unit, "def f(*, ceiling: float | None): pass\n"),
        (units.numbers_carry_their_unit, "class C:\n    base: Phases\n"),
        (units.numbers_carry_their_unit, "class C:\n    value: float\n"),
        (units.numbers_carry_their_unit, "class C:\n    limits: dict[str, float]\n    power_by_id: dict[str, float]\n"),
        (units.numbers_carry_their_unit, "def headroom(x: str) -> Phases: ...\n"),
        (units.numbers_carry_their_unit, "class C:\n    interval: int = 900\n"),
        (units.numbers_carry_their_unit, "MARGIN: Final = 0.02\n"),
        (units.numbers_carry_their_unit, "MARGIN = 0.02\n"),
    ],
)
def test_a_planted_violation_is_found(rule: Rule, text: str) -> None:
    findings = found_by(rule, text)
    assert findings
    for finding in findings:
        assert re.fullmatch(r"[\w./]+:\d+: .+ is banned(, | \().*use .+", finding), finding


@pytest.mark.parametrize(
    "line",
    ['if version == "1.6":', "from drivers.ocpp.dialects import v16", '"""For OCPP 2.1 stations."""', "# 2.0.1 does"],
)
def test_a_protocol_version_in_the_shell_is_found(line: str) -> None:
    assert found_by(rules.shell_knows_no_protocol_version, line, "controller/reconcile.py")
    assert not found_by(rules.shell_knows_no_protocol_version, line, "drivers/ocpp/server.py")


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (rules.functions_are_short, "def f():\n" + "    pass\n" * 69),
        (rules.suppressions_have_a_reason, "x = 1  # " + "noqa: E501 - a table reads best on one line\n"),
        (rules.suppressions_have_a_reason, "x = 1  # " + "type: ignore[misc]  # the library has no types\n"),
        (rules.suppressions_have_a_reason, "x = 1  # " + "noqa: E501 - a table\ny = 1  # " + "noqa: E501\n"),
        (
            rules.core_is_pure,
            "from dataclasses import replace\nfrom controller.core.model import Site\nclass C:\n    id: str\n",
        ),
        (rules.time_comes_from_the_clock_port, "import time\nx = time.struct_time\n"),
        (rules.randomness_is_seeded, "import random\ndef f(seed: int): return random.Random(seed).random()\n"),
        (rules.nothing_catches_everything, "try: pass\nexcept (OSError, ValueError): pass\n"),
        (units.numbers_carry_their_unit, "def f(limit_a: float, age_s: float | None, weight: float) -> float: ...\n"),
        (units.numbers_carry_their_unit, "class C:\n    value: float\n    unit: str\n"),
        (units.numbers_carry_their_unit, "class C:\n    limits: tuple[Limit, ...]\n    period: Schedule\n"),
    ],
)
def test_what_is_allowed_is_not_found(rule: Rule, text: str) -> None:
    assert found_by(rule, text) == []


def test_every_module_is_used() -> None:
    findings = list(rules.dead_modules(production(), _entry_points()))
    assert not findings, "\n".join(findings)


def test_a_module_that_nothing_imports_is_found() -> None:
    modules = (
        Module("controller/app.py", "from controller.core import model\nload(f'controller.cli.{x}')\nadd('run')"),
        Module("controller/cli/run.py", ""),
        Module("controller/core/model.py", ""),
        Module("controller/core/forgotten.py", ""),
    )
    (finding,) = rules.dead_modules(modules, {"controller.app"})
    assert finding.startswith("controller/core/forgotten.py")


def test_every_exception_to_a_rule_still_applies() -> None:
    here = {module.path for module in production()}
    for path in (*rules.CLOCK_READERS, *rules.BROAD_ALLOWED, *(path for path, _ in units.EXCEPTIONS)):
        assert path in here, f"{path} is gone: take it off the list of exceptions"
    modules = {module.path: module for module in production()}
    for path, name in units.EXCEPTIONS:
        assert re.search(rf"\b{name}\b", modules[path].text), (
            f"{path} has no {name}: take it off the list of exceptions"
        )


def test_every_ignored_lint_rule_has_a_reason() -> None:
    lines = (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    inside, found, bare = "", 0, []
    for number, line in enumerate(lines, start=1):
        if line.startswith("["):
            inside = line
        if inside.startswith("[tool.ruff.lint") and re.match(r'\s+"[A-Z]+[0-9]*"', line):
            found += 1
            bare += [] if re.search(r",\s+# \S.{9,}", line) else [f"pyproject.toml:{number}: {line.strip()}"]
    assert found
    assert not bare, "an ignored lint rule without a reason is banned, use a comment behind it:\n" + "\n".join(bare)


def test_the_readme_stays_short() -> None:
    lines = len((ROOT / "README.md").read_text(encoding="utf-8").splitlines())
    assert lines <= 150, f"a README of more than 150 lines is banned (it has {lines}), use docs/"


def _entry_points() -> set[str]:
    scripts: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    return {target.partition(":")[0] for target in scripts.values()}

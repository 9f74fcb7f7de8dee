"""The house rules: each a function from a module to what is wrong in it. A finding says what is banned, what to use."""

import ast
import re
import sys
from collections.abc import Iterator

from tests.house.source import PRODUCTION, Function, Module

FUNCTION_LINES = 70
MODULE_LINES = 600


def functions_are_short(module: Module) -> Iterator[str]:
    """A function is read in one look."""
    for function in module.functions():
        lines = (function.end_lineno or function.lineno) - function.lineno + 1
        if lines > FUNCTION_LINES:
            says = (
                f"a function of more than {FUNCTION_LINES} lines is banned ({function.name} has {lines}), use several"
            )
            yield module.at(function, says)


def modules_are_short(module: Module) -> Iterator[str]:
    """A module knows one thing."""
    lines = len(module.text.splitlines())
    if lines > MODULE_LINES:
        yield module.at(lines, f"a module of more than {MODULE_LINES} lines is banned (this has {lines}), use two")


# ------------------------------------------------------------------------------------------------------------- words


def public_names_are_documented(module: Module) -> Iterator[str]:
    """Whoever calls it must not have to read it."""
    if ast.get_docstring(module.tree) is None:
        yield module.at(
            1, "a module without a docstring is banned, use one that says what it knows and does not care about"
        )
    for node in _public(module.tree.body):
        if ast.get_docstring(node) is None:
            yield module.at(
                node, f"{node.name} without a docstring is banned, use one: what, units, sign, errors, source"
            )


def _public(body: list[ast.stmt]) -> Iterator[Function | ast.ClassDef]:
    for node in body:
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from _public(node.body)


VERSIONS = re.compile(
    r"(?i)\b2\.0\.1\b|\b1\.6J?\b(?=[\"'`])|\bocpp ?-?_?(?:1\.6|16|2\.\d|2\d)|\bv(?:16|20|201|21)\b|2\.1(?=[\"'`])"
)


def shell_knows_no_protocol_version(module: Module) -> Iterator[str]:
    """The shell sees capabilities; what a version can do is a dialect's knowledge."""
    if module.folders != ("controller",):
        return
    for number, line in enumerate(module.text.splitlines(), start=1):
        if found := VERSIONS.search(line):
            says = f"a protocol version in the shell ({found.group()}) is banned, use controller.ports.Capabilities"
            yield module.at(number, says)


# ------------------------------------------------------------------------------------------------------------ purity

IMPURE = {
    "asyncio", "concurrent", "ctypes", "datetime", "http", "io", "logging", "multiprocessing", "os", "pathlib",
    "random", "secrets", "select", "selectors", "shutil", "signal", "socket", "sqlite3", "ssl", "subprocess", "sys",
    "tempfile", "threading", "time", "urllib", "uuid", "warnings", "zoneinfo",
}  # fmt: skip
IMPURE_CALLS = {"breakpoint", "eval", "exec", "globals", "hash", "id", "input", "open", "print"}


def core_is_pure(module: Module) -> Iterator[str]:
    """The same snapshot and memory give the same decision, on every machine, in every process."""
    if module.folders[:2] != ("controller", "core"):
        return
    for node, name in module.used_names():
        top, _, rest = name.partition(".")
        if top == "builtins" and rest in IMPURE_CALLS:
            yield module.at(node, f"{rest}() in the core is banned, use what the snapshot says")
        elif top in IMPURE:
            yield module.at(
                node, f"{name} in the core is banned, use what the snapshot says (time is data, the shell does I/O)"
            )
    for node, name in module.imports():
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and not name.startswith("controller.core"):
            yield module.at(node, f"{name} in the core is banned, use the standard library and controller.core")


CLOCKS = {
    "time.time", "time.time_ns", "time.monotonic", "time.monotonic_ns", "time.perf_counter", "time.perf_counter_ns",
    "time.sleep", "time.localtime", "time.gmtime", "datetime.datetime.now", "datetime.datetime.utcnow",
    "datetime.datetime.today", "datetime.date.today",
}  # fmt: skip
CLOCK_READERS = {"controller/clock.py": "the Clock port's one implementation on real time"}


def time_comes_from_the_clock_port(module: Module) -> Iterator[str]:
    """Whoever reads a clock himself cannot be run in virtual time."""
    if module.path in CLOCK_READERS:
        return
    for node, name in module.used_names():
        if name in CLOCKS:
            yield module.at(node, f"{name} is banned, use the Clock port (controller.ports.Clock)")


ENTROPY = {"os.urandom", "uuid.uuid1", "uuid.uuid4"}


def randomness_is_seeded(module: Module) -> Iterator[str]:
    """A failing run is repeated from its seed."""
    calls = [node for node in ast.walk(module.tree) if isinstance(node, ast.Call)]
    without_seed: set[ast.AST] = {call.func for call in calls if not call.args and not call.keywords}
    for node, name in module.used_names():
        top, _, rest = name.partition(".")
        if (top == "random" and rest not in ("", "Random")) or top == "secrets" or name in ENTROPY:
            yield module.at(node, f"{name} is banned, use a random.Random(seed) that is passed in")
        if name == "random.Random" and node in without_seed:
            yield module.at(node, "Random() without a seed is banned, use random.Random(seed)")


# ------------------------------------------------------------------------------------------------------------ errors

BROAD_ALLOWED = {
    "controller/loop.py": "once around decide: fallback currents, an alarm, counted",
    "controller/supervisor.py": "a task that failed is logged, counted and started again",
}
"""Files that may catch everything, once each, and why."""


def nothing_catches_everything(module: Module) -> Iterator[str]:
    """A broad except hides the error that was not thought of."""
    found = [node for node in ast.walk(module.tree) if isinstance(node, ast.ExceptHandler) and _is_broad(node.type)]
    calls = [node for node in ast.walk(module.tree) if isinstance(node, ast.Call)]
    suppressed = [
        node for node in calls if ast.unparse(node.func).endswith("suppress") and any(_is_broad(a) for a in node.args)
    ]
    for node in [*found, *suppressed][1 if module.path in BROAD_ALLOWED else 0 :]:
        yield module.at(node, "a broad except is banned, use the errors that are meant")


def _is_broad(caught: ast.expr | None) -> bool:
    if isinstance(caught, ast.Tuple):
        return any(_is_broad(each) for each in caught.elts)
    return caught is None or (isinstance(caught, ast.Name) and caught.id in ("Exception", "BaseException"))


SUPPRESSION = re.compile(
    r"#\s*(?P<kind>noqa|type:\s*ignore|pragma:\s*no\s*(?:cover|branch))"
    r"(?P<codes>\s*\[[\w, -]+\]|:\s*[A-Z]+\d+(?:,\s*[A-Z]+\d+)*|)"
)
REASON = re.compile(r"\s*(?:- |# )\S.{5,}")


def suppressions_have_a_reason(module: Module) -> Iterator[str]:
    """The next reader must be able to judge whether it still holds. Once a file is enough for the same codes."""
    reasoned = set()
    for line, comment in module.comments():
        found = SUPPRESSION.search(comment)
        if found is None:
            continue
        what = (found["kind"], found["codes"])
        if REASON.match(comment[found.end() :]) and (what[1] or what[0].startswith("pragma")):
            reasoned.add(what)
        elif what not in reasoned:
            yield module.at(line, f"{comment!r} is banned, use one that names its code and says why it is right here")


# ----------------------------------------------------------------------------------------------------- dependencies


def production_imports_no_tests(module: Module) -> Iterator[str]:
    """What ships must work without what does not."""
    for node, name in module.imports():
        if name.partition(".")[0] in ("tests", "pytest", "hypothesis", "unittest"):
            yield module.at(node, f"{name} in shipped code is banned, use the simulators for a stand-in")


def dead_modules(modules: tuple[Module, ...], entry_points: set[str]) -> Iterator[str]:
    """Yield every module that nothing shipped imports and that is no entry point.

    A string that is a module's whole name counts as an import of it: `importlib` is given one. So does f"package.{x}"
    for the modules whose last name stands in the same file as a string, such as the commands of a parser.
    """
    used = set(entry_points)
    for module in modules:
        used.update(name for _, name in module.imports())
        strings = {value for node in ast.walk(module.tree) if isinstance(value := getattr(node, "value", None), str)}
        packages = {text for text in strings if text.startswith(PRODUCTION) and text.endswith(".")}
        used.update(text for text in strings if text.startswith(PRODUCTION))
        used.update(package + text for package in packages for text in strings)
    # `from a.b import c` names a.b as much as a.b.c.
    used |= {name.rpartition(".")[0] for name in used}
    for module in modules:
        if not module.path.endswith(("/__init__.py", "/__main__.py")) and module.name not in used:
            yield module.at(1, "a module that nothing imports is banned, use it or delete it")

"""The project's source as data for the house rules: parsed modules, and what to say about a place in them."""

import ast
import io
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PRODUCTION = ("controller", "drivers", "simulators")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """One Python file: its path from the top of the project (with slashes), and its text."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """The parsed text."""
        return ast.parse(self.text)

    @property
    def name(self) -> str:
        """The name it is imported by."""
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders it lies in, outermost first."""
        return tuple(self.path.split("/")[:-1])

    def functions(self) -> Iterator[Function]:
        """Yield every function and method, nested ones too."""
        return (node for node in ast.walk(self.tree) if isinstance(node, Function))

    def comments(self) -> Iterator[tuple[int, str]]:
        """Yield line and text of every comment."""
        for token in tokenize.generate_tokens(io.StringIO(self.text).readline):
            if token.type == tokenize.COMMENT:
                yield token.start[0], token.string

    def at(self, line: int | ast.AST, says: str) -> str:
        """Return a finding: place, what is wrong, what to do."""
        number: Any = line if isinstance(line, int) else getattr(line, "lineno", 1)
        return f"{self.path}:{number}: {says}"

    def used_names(self) -> Iterator[tuple[ast.AST, str]]:
        """Yield every import, every use of an imported name and every call of a built-in, as `time.monotonic`."""
        known: dict[str, str] = {}
        for node in ast.walk(self.tree):
            for imported in self._imported(node):
                known[imported.local] = imported.means
                yield node, imported.full
        for node in ast.walk(self.tree):
            head, _, rest = _dotted(node).partition(".")
            if head in known:
                yield node, f"{known[head]}.{rest}".rstrip(".")
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id not in known:
                yield node, f"builtins.{node.func.id}"

    def imports(self) -> Iterator[tuple[ast.AST, str]]:
        """Yield every module or name that is imported anywhere in the file, also inside a function."""
        for node in ast.walk(self.tree):
            for imported in self._imported(node):
                yield node, imported.full

    def _imported(self, node: ast.AST) -> Iterator["_Imported"]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                yield _Imported(alias.asname or top, alias.name if alias.asname else top, alias.name)
        if isinstance(node, ast.ImportFrom):
            base = [node.module] if node.module else []
            if node.level:
                base = [*self.folders[: len(self.folders) - node.level + 1], *base]
            for alias in node.names:
                full = ".".join([*base, alias.name])
                yield _Imported(alias.asname or alias.name, full, full)


class _Imported(NamedTuple):
    local: str
    means: str
    full: str


def _dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (head := _dotted(node.value)):
        return f"{head}.{node.attr}"
    return ""


@cache
def production() -> tuple[Module, ...]:
    """Return every module of the three shipped packages."""
    return tuple(module for package in PRODUCTION for module in _under(package))


@cache
def everything() -> tuple[Module, ...]:
    """Return those, the tests and the set-up scripts."""
    return (*production(), *_under("tests"), *_under("requirements"))


def _under(folder: str) -> Iterator[Module]:
    for path in sorted((ROOT / folder).rglob("*.py")):
        yield Module(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))

"""What a source file says, whatever it is called and however it is commented: a digest of it.

The digest is over the syntax tree, so that comments, docstrings, blank lines and layout do not
count. Nor do `__all__` and `__version__`, nor the names of spbench's own modules in import
statements: those say where a thing lies, which a move changes. `bench.code_roles` puts in their
place what the thing is.

Shared by the controller, which reads what lies on the disk, and the worker, which says what it
imported: Python 3.9 or later, standard library only. All versions of Python give one digest: fields
that some of them lack (`type_params`) are empty in a file that parses on all, and are left out.
"""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Set, Tuple

PACKAGE = "bench"
_UNMEASURED = ("controller", "recipes")
"""Packages of ours that no rank imports."""
_NAMES = {"__all__", "__version__"}
_SKIPPED_FIELDS = {"ctx", "kind", "type_comment", "type_ignores"}


class Import(NamedTuple):
    """One name that a module takes from another of ours."""

    level: int
    """Dots of a relative import."""
    module: str
    name: str
    """Empty for `import module`."""
    bound: str
    """What it is called here."""


class Facts(NamedTuple):
    """What is known of one source file."""

    own: str
    """Digest of what it does itself, 16 hex digits; empty where that is nothing."""
    imports: List[Import]
    """Of our own modules, at any depth of the file; sorted."""
    plugins: List[str]
    """Packages from which it loads a file by name: `plugins.load("loss", …)`."""
    defines: Dict[str, str]
    """What others can take from it, by name: `class`, a value (`=`), or a function's arguments."""

    @classmethod
    def parsed(cls, content: Any) -> Facts:
        """From what JSON makes of it."""
        own, imports, plugins, defines = content
        return cls(own, [Import(*one) for one in imports], plugins, defines)


def facts_of(source: bytes) -> Facts:
    """The facts of a file; of one that does not parse, all its bytes count."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return Facts(digest([source.decode(errors="replace")]), [], [], {})
    reader = _Reader()
    reader.statements(tree.body)
    own = digest(reader.parts) if reader.parts else ""
    defines = dict(_definitions(tree.body))
    return Facts(own, sorted(reader.imports), sorted(reader.plugins), defines)


def digest(parts: List[str]) -> str:
    """16 hex digits of texts, none of which holds a line's end."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def source_files(root: Path) -> Iterator[Tuple[str, Path]]:
    """Relative and whole path of every file under the checkout `root` that ranks may import."""
    for path in sorted((root / PACKAGE).rglob("*.py")):
        relative = path.relative_to(root)
        if relative.parts[1] not in _UNMEASURED and not relative.parts[1].startswith("cli"):
            yield relative.as_posix(), path


def candidates(name: str) -> Tuple[str, str]:
    """Where the module `name` may lie, relative to the checkout: as a file, as a package."""
    path = name.replace(".", "/")
    return f"{path}.py", f"{path}/__init__.py"


def stamp_of(path: Path) -> List[int]:
    """Time of the last change [ns] and size [bytes] of a file."""
    status = path.stat()
    return [status.st_mtime_ns, status.st_size]


class _Reader:
    """Walks a tree once: `parts` is what it does, in an order that every Python gives."""

    def __init__(self) -> None:
        self.parts: List[str] = []
        self.imports: Set[Import] = set()
        self.plugins: Set[str] = set()

    def statements(self, body: List[Any]) -> None:
        """The statements of a module, a function or a branch."""
        for statement in body:
            if isinstance(statement, (ast.Import, ast.ImportFrom)):
                if not self._takes_ours(statement):
                    self.node(statement)
            elif not _says_nothing(statement):
                self.node(statement)

    def node(self, node: Any) -> None:
        """A node, its class and fields; what is empty is left out."""
        kind = node.__class__
        if kind is ast.Constant:
            self.parts.append(f"={node.value!a}")
            return
        if kind is ast.Call:
            self._note_plugins(node)
        self.parts.append(f"({kind.__name__}")
        for field in node._fields:
            value = getattr(node, field, None)
            if kind is ast.JoinedStr:  # Python 3.12 puts empty texts beside what it formats
                value = [part for part in node.values if getattr(part, "value", None) != ""]
            if value is None or value == [] or field in _SKIPPED_FIELDS:
                continue
            self.parts.append(field)
            self._value(value)
        self.parts.append(")")

    def _value(self, value: Any) -> None:
        if isinstance(value, ast.AST):
            self.node(value)
        elif not isinstance(value, list):
            self.parts.append(ascii(value))
        elif isinstance(value[0], ast.stmt):
            self.statements(value)
        else:
            for one in value:  # a key that `**` stands for in a dictionary is None
                self._value(one)

    def _takes_ours(self, statement: Any) -> bool:
        """Note an import of our own modules. Whether nothing else is imported."""
        if isinstance(statement, ast.ImportFrom):
            module, level = statement.module or "", statement.level
            if not level and not _is_ours(module):
                return False
            for alias in statement.names:
                bound = alias.asname or alias.name
                self.imports.add(Import(level, module, alias.name, bound))
            return True
        ours = [alias for alias in statement.names if _is_ours(alias.name)]
        for alias in ours:
            self.imports.add(Import(0, alias.name, "", alias.asname or PACKAGE))
        others = [alias for alias in statement.names if alias not in ours]
        for alias in others if ours else []:
            self.node(alias)
        return bool(ours)

    def _note_plugins(self, call: ast.Call) -> None:
        function = call.func
        if not isinstance(function, ast.Attribute) or function.attr != "load":
            return
        if isinstance(function.value, ast.Name) and function.value.id == "plugins" and call.args:
            package = call.args[0]
            if isinstance(package, ast.Constant):
                self.plugins.add(str(package.value))


def _definitions(body: List[Any]) -> Iterator[Tuple[str, str]]:
    """What statements of a module define."""
    for statement in body:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
            a = statement.args
            every = [*a.posonlyargs, *a.args, a.vararg, *a.kwonlyargs, a.kwarg]
            yield statement.name, " ".join(one.arg for one in every if one is not None) or "()"
        elif isinstance(statement, ast.ClassDef):
            yield statement.name, "class"
        elif isinstance(statement, (ast.Assign, ast.AnnAssign)):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            for target in targets:
                if isinstance(target, ast.Name):
                    yield target.id, "="


def _is_ours(module: str) -> bool:
    return module == PACKAGE or module.startswith(f"{PACKAGE}.")


def _says_nothing(statement: Any) -> bool:
    """Whether a statement is a text that documents, or one of the names left out."""
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant) and isinstance(statement.value.value, str)
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        target = statement.targets[0]
        return isinstance(target, ast.Name) and target.id in _NAMES
    return False

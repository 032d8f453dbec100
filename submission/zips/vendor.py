"""Copies of just those definitions of our own packages that a module needs, importing each other relatively.

A submission runs where this package does not exist. Starting from a few names, their imports are followed through the
source text: a definition that nothing needs is left out, and an import of our own becomes a relative one. Comments and
layout stay as they are. Nothing is renamed: `wiring_plugins.recipe` becomes `wiring_plugins/recipe.py` in the plugin.
"""
from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path
from types import MappingProxyType

from wiring_plugins import WiringError, hookimpl

Name = tuple[str, str]
"""A definition: dotted module and the name that it binds there."""

EVERYTHING = "*"


class CannotCarry(WiringError):
    """Code whose needs cannot be read from its text."""


def vendor(roots: Iterable[Name], *, own: Iterable[str],
           place: Mapping[str, str] = MappingProxyType({})) -> Carried:
    """Collect what `roots` need.

    roots: where to start; the name `"*"` stands for all of a module.
    own: top-level packages whose modules are copied; whatever else is imported stays an import.
    place: where a module goes, if not to its own dotted name.

    Raises:
        CannotCarry: a definition cannot be found or told apart from its neighbour, is imported in a way that cannot be
            followed, or two modules would go to one place.
    """
    collector = _Collector(frozenset(own), dict(place))
    for root in roots:
        collector.need(*root)
    return collector.result()


@dataclass(frozen=True)
class Carried:
    """files: path in the plugin -> source text. foreign: top-level packages that the sources import from elsewhere."""

    files: Mapping[str, str]
    foreign: frozenset[str]


@dataclass
class _Statement:
    """A top-level statement with the text from the end of the one before it: its comments and blank lines."""

    node: ast.stmt
    first: int
    last: int
    binds: frozenset[str]
    always: bool = False


@dataclass
class _Module:
    name: str
    is_package: bool
    lines: list[str]
    statements: list[_Statement]
    kept: list[_Statement] = field(default_factory=list)
    names: set[str] = field(default_factory=set)

    @property
    def package(self) -> str:
        return self.name if self.is_package else self.name.rpartition(".")[0]

    def bindings(self, name: str) -> list[_Statement]:
        """The statements that give the name a value: several, if it is changed later."""
        return [statement for statement in self.statements if name in statement.binds]

    def binding(self, name: str) -> _Statement | None:
        return (self.bindings(name) or [None])[-1]


class _Collector:
    def __init__(self, own: frozenset[str], place: dict[str, str]):
        self._own, self._place = own, place
        self._modules: dict[str, _Module] = {}
        self._seen: set[Name] = set()

    def need(self, module_name: str, name: str) -> None:
        """Keep the definition and, in turn, all that it refers to."""
        waiting = [(module_name, name)]
        while waiting:
            wanted = waiting.pop()
            if wanted in self._seen:
                continue
            self._seen.add(wanted)
            waiting += self._keep(self._module(wanted[0]), wanted[1])

    def result(self) -> Carried:
        files, owners = {}, {}
        for module in (module for module in self._modules.values() if module.kept):
            path = self._file(module)
            if path in files:
                raise CannotCarry(f"The modules {owners[path]} and {module.name} would both become {path} in the "
                                  "submission. Rename yours, or move it into a package.")
            files[path], owners[path] = self._source(module), module.name
        for path in list(files):
            for parent in Path(path).parents:
                if parent.parts:
                    files.setdefault((parent / "__init__.py").as_posix(), "")
        foreign = {root for module in self._modules.values() for statement in module.kept
                   for root in self._foreign(module, statement)}
        return Carried(files, frozenset(foreign - sys.stdlib_module_names))

    # Following ---------------------------------------------------------------------------------------------------

    def _keep(self, module: _Module, name: str) -> Iterator[Name]:
        """Mark the statements that bind `name` (or all) and yield what they refer to."""
        if name == EVERYTHING:
            chosen = [statement for statement in module.statements
                      if not (_is_typing_only(statement.node) or self._is_hook(module, statement))]
        else:
            chosen = [statement for statement in module.statements if statement.always]
            bindings = module.bindings(name)
            if not bindings:
                raise CannotCarry(f"{module.name} does not define {name!r} in its own text, so it cannot be copied "
                                  "into a submission. Import it from the module that defines it.")
            chosen += bindings
            module.names.add(name)
        for statement in chosen:
            new = statement not in module.kept
            if new:
                module.kept.append(statement)
            if name == EVERYTHING:
                module.names |= statement.binds
            if isinstance(statement.node, (ast.Import, ast.ImportFrom)):
                yield from self._imported(module, statement.node, only=None if name == EVERYTHING else {name})
            elif new:
                yield from self._references(module, statement)

    def _references(self, module: _Module, statement: _Statement) -> Iterator[Name]:
        for node in ast.walk(statement.node):
            if isinstance(node, ast.Name) and node.id == "__file__" and module.name not in self._place:
                raise CannotCarry(f"{module.name}, line {node.lineno}, reads a file beside its source, and only source "
                                  "is copied into a submission. Write its numbers into the module, or register them as "
                                  "a statistics file (`wiring statistics import`).")
            if isinstance(node, ast.Name) and module.binding(node.id):
                yield module.name, node.id
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                yield from self._imported(module, node, only=None)

    def _imported(self, module: _Module, node: ast.Import | ast.ImportFrom, only: set[str] | None) -> Iterator[Name]:
        for alias in node.names:
            if only is None or (alias.asname or alias.name) in only:
                if target := self._target(module, node, alias.name):
                    yield target

    def _target(self, module: _Module, node: ast.Import | ast.ImportFrom, name: str) -> Name | None:
        """The definition of ours that an imported name stands for; None if it is not ours."""
        if isinstance(node, ast.Import):
            if name.split(".")[0] in self._own:
                raise CannotCarry(f"{module.name}, line {node.lineno}: `import {name}` cannot be made relative. "
                                  f"Write `from {name} import ...`.")
            return None
        source = _absolute(module, node)
        if source.split(".")[0] not in self._own:
            return None
        if name == "*":
            raise CannotCarry(f"{module.name}, line {node.lineno}: `import *` hides what is needed. Name it.")
        return self._resolve(source, name)

    def _resolve(self, source: str, name: str) -> Name:
        """Where `from source import name` finds the definition itself, past re-exports."""
        module = self._module(source)
        binding = module.binding(name)
        if binding is None and module.is_package and find_spec(f"{source}.{name}"):
            return f"{source}.{name}", EVERYTHING
        if binding is None:  # an attribute that the module makes when it is asked, such as a lazy import
            found = getattr(import_module(source), name, None)
            defined_in = getattr(found, "__module__", None)
            if defined_in == source or str(defined_in).split(".")[0] not in self._own:
                return source, name
            return self._resolve(defined_in, getattr(found, "__qualname__", name))
        if isinstance(binding.node, ast.ImportFrom):
            original = next(alias.name for alias in binding.node.names if (alias.asname or alias.name) == name)
            return self._target(module, binding.node, original) or (source, name)
        return source, name

    def _is_hook(self, module: _Module, statement: _Statement) -> bool:
        """Whether the definition speaks to the plugin manager, which a submission does not have."""
        marks = [mark.func if isinstance(mark, ast.Call) else mark
                 for mark in getattr(statement.node, "decorator_list", [])]
        return any(isinstance(mark, ast.Name) and self._stands_for_hookimpl(module, mark.id) for mark in marks)

    def _stands_for_hookimpl(self, module: _Module, name: str) -> bool:
        binding = module.binding(name)
        return binding is not None and isinstance(binding.node, ast.ImportFrom) and (
            getattr(import_module(_absolute(module, binding.node)), name, None) is hookimpl)

    # Reading and writing -----------------------------------------------------------------------------------------

    def _module(self, name: str) -> _Module:
        if name not in self._modules:
            self._modules[name] = _read(name)
        return self._modules[name]

    def _file(self, module: _Module) -> str:
        path = self._placed(module.name).replace(".", "/")
        return f"{path}/__init__.py" if module.is_package else f"{path}.py"

    def _placed(self, name: str) -> str:
        return self._place.get(name, name)

    def _source(self, module: _Module) -> str:
        text, blank = "", 0
        for statement in module.statements:
            above = takewhile(lambda line: not line.strip(), module.lines[statement.first:statement.last])
            blank = max(blank, len(list(above)))  # what is left out leaves its distance to what follows
            if statement in module.kept:
                text += "\n" * blank + self._text(module, statement).lstrip()
                blank = 0
        return text.strip("\n") + "\n"

    def _text(self, module: _Module, statement: _Statement) -> str:
        lines = [line.encode() for line in module.lines[statement.first:statement.last]]  # columns count bytes
        imports = [node for node in ast.walk(statement.node)
                   if isinstance(node, (ast.Import, ast.ImportFrom)) and not _is_future(node)]
        top = statement.node in imports
        for node in sorted(imports, key=lambda node: (node.lineno, node.col_offset), reverse=True):
            written = self._import_text(module, node, module.names if top else None)
            if written == ast.unparse(node):
                continue
            first, last = node.lineno - 1 - statement.first, node.end_lineno - 1 - statement.first
            before, after = lines[first][:node.col_offset], lines[last][node.end_col_offset:]
            between = b"; " if before.strip() else b"\n" + before
            lines[first:last + 1] = [before + written.encode().replace(b"\n", between) + after]
        return b"".join(lines).decode()

    def _import_text(self, module: _Module, node: ast.Import | ast.ImportFrom, names: set[str] | None) -> str:
        """The import statement, or several, of those of its names that are needed (None: all)."""
        groups: dict[str | None, list[ast.alias]] = {}
        for alias in node.names:
            if names is not None and (alias.asname or alias.name) not in names:
                continue
            target = self._target(module, node, alias.name)
            if target is None:
                groups.setdefault(None, []).append(alias)
            elif target[1] == EVERYTHING:
                parent, _, child = self._placed(target[0]).rpartition(".")
                groups.setdefault(parent, []).append(_alias(child, alias))
            else:
                groups.setdefault(self._placed(target[0]), []).append(_alias(target[1], alias))
        return "\n".join(self._one_import(module, node, place, aliases) for place, aliases in groups.items())

    def _one_import(self, module: _Module, node, place: str | None, aliases: list[ast.alias]) -> str:
        if place is None:
            return ast.unparse(ast.Import(aliases) if isinstance(node, ast.Import)
                               else ast.ImportFrom(node.module, aliases, node.level))
        here = self._placed(module.name)
        package = here if module.is_package else here.rpartition(".")[0]
        return ast.unparse(ast.ImportFrom(_relative(package, place), aliases, 0))

    def _foreign(self, module: _Module, statement: _Statement) -> Iterator[str]:
        for node in ast.walk(statement.node):
            if isinstance(node, ast.Import):
                yield from (alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                root = _absolute(module, node).split(".")[0]
                if root not in self._own:
                    yield root


def _read(name: str) -> _Module:
    spec = find_spec(name)
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        raise CannotCarry(f"The source of module {name} cannot be found, so it cannot be copied into a submission.")
    text = Path(spec.origin).read_text(encoding="utf-8")
    lines = [f"{line}\n" for line in text.split("\n")]  # as Python counts them: a form feed ends none
    statements: list[_Statement] = []
    for number, node in enumerate(ast.parse(text).body):
        first = statements[-1].last if statements else 0
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if docstring and number and statements:  # the documentation of the definition above it
            statements[-1].last = node.end_lineno
            continue
        if statements and node.lineno <= first:
            raise CannotCarry(f"{name}, line {node.lineno}, holds two statements, of which one may be needed without "
                              "the other. Give each a line of its own.")
        binds = _bound(node)
        always = docstring or _is_future(node) or not (binds or _is_typing_only(node))
        statements.append(_Statement(node, first, node.end_lineno, binds, always))
    return _Module(name, spec.submodule_search_locations is not None, lines, statements)


def _bound(node: ast.stmt) -> frozenset[str]:
    """The names that a top-level statement defines."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return frozenset({node.name})
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return frozenset() if _is_future(node) else frozenset(
            alias.asname or (alias.name.split(".")[0] if isinstance(node, ast.Import) else alias.name)
            for alias in node.names)
    if isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return frozenset(part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name))
    return frozenset()


def _is_future(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"


def _is_typing_only(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def _absolute(module: _Module, node: ast.ImportFrom) -> str:
    """The dotted module that an import statement names, relative or not."""
    if not node.level:
        return node.module or ""
    parts = module.package.split(".")
    base = parts[:len(parts) - node.level + 1]
    return ".".join([*base, *([node.module] if node.module else [])])


def _alias(name: str, written: ast.alias) -> ast.alias:
    """`name`, bound to the name that the import as written binds."""
    bound = written.asname or written.name
    return ast.alias(name, bound if bound != name else None)


def _relative(package: str, target: str) -> str:
    """`target` as a module in `package` imports it: `..recipe` for a.b and a.recipe."""
    here, there = package.split(".") if package else [], target.split(".") if target else []
    common = 0
    while common < min(len(here), len(there)) and here[common] == there[common]:
        common += 1
    return "." * (len(here) - common + 1) + ".".join(there[common:])

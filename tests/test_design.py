"""The house rules that a machine can hold: who imports whom, and what stays light."""
from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {"wiring_plugins": "wiring_plugins", "wiring_training": "training", "wiring_submission": "submission"}
FORBIDDEN = {
    "wiring_plugins": {"wiring_training", "wiring_submission", "brainscore_vision", "brainscore_core"},
    "wiring_training": {"wiring_submission", "brainscore_vision", "brainscore_core"},
    "wiring_submission": {"wiring_training"},
}
PURE = ("architectures", "initializers", "variants")
IMPURE = {"registry", "plugins", "names", "birth", "build", "cli"}


def imported(path: Path) -> set[str]:
    """Modules that a file imports when it runs, relative ones with their leading dots."""
    names = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {id(inner) for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
                 for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add("." * node.level + (node.module or ""))
            if node.level and not node.module:
                names |= {"." * node.level + alias.name for alias in node.names}
    return names


@pytest.mark.parametrize("package", FOLDERS)
def test_packages_import_only_what_the_design_allows(package):
    for path in (ROOT / FOLDERS[package]).rglob("*.py"):
        roots = {name.split(".")[0] for name in imported(path)}
        assert not roots & FORBIDDEN[package], f"{path} imports {roots & FORBIDDEN[package]}"


def test_other_packages_use_the_public_names_of_wiring_plugins_only():
    for folder in ("training", "submission"):
        for path in (ROOT / folder).rglob("*.py"):
            deep = {name for name in imported(path) if name.startswith("wiring_plugins.")}
            assert not deep, f"{path} imports {deep}; import public names from wiring_plugins"


@pytest.mark.parametrize("package", FOLDERS)
def test_names_imported_inside_functions_exist(package):
    """An import inside a function fails only when that function runs; here all of them are looked up."""
    folder = ROOT / FOLDERS[package]
    for path in sorted(folder.rglob("*.py")):
        if "carried" in path.parts:  # laid into zips, where their neighbours are others
            continue
        inside = ".".join((package, *path.relative_to(folder).parent.parts))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom) or not (node.level or (node.module or "").split(".")[0] in FOLDERS):
                continue
            target = importlib.util.resolve_name("." * node.level + (node.module or ""), inside)
            if importlib.util.find_spec(target.split(".")[0]) is None:
                continue
            try:
                module = importlib.import_module(target)
            except ModuleNotFoundError as missing:
                if missing.name.split(".")[0] in FOLDERS:
                    raise
                continue
            for alias in node.names:
                found = hasattr(module, alias.name) or importlib.util.find_spec(f"{target}.{alias.name}")
                assert found, f"{path}:{node.lineno} imports {alias.name}, which {target} does not have"


def test_nothing_imports_the_command_line():
    for folder in FOLDERS.values():
        for path in (ROOT / folder).rglob("*.py"):
            assert not any(name.endswith(".cli") or name == "wiring_plugins.cli" for name in imported(path)), path


@pytest.mark.parametrize("part", PURE)
def test_plugins_of_the_core_do_not_reach_for_the_host(part):
    for path in (ROOT / "wiring_plugins" / part).rglob("*.py"):
        relative = {name.lstrip(".").split(".")[0] for name in imported(path) if name.startswith(".")}
        assert not relative & IMPURE, f"{path} imports {relative & IMPURE}"


def test_importing_the_package_and_its_help_need_no_torch():
    code = ("import sys, wiring_plugins.cli; app = wiring_plugins.cli.make_app(); "
            "heavy = {'torch', 'scipy', 'sklearn', 'brainscore_vision', 'pandas'} & set(sys.modules); "
            "sys.exit(f'imported {heavy}' if heavy else 0)")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_a_terminal_without_greek_letters_shows_the_rest():
    result = subprocess.run([sys.executable, "-c", "from wiring_plugins.cli import main; main()", "show", "wiring-kaiming"],
                            env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True, text=True)
    assert result.returncode == 0 and "? = 1" in result.stdout, result.stderr


def test_a_closed_output_is_no_error():
    code = "import sys; sys.stdout = None; from wiring_plugins.cli import main; main()"
    result = subprocess.run([sys.executable, "-c", code, "models"], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")

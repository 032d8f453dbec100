"""The rules that a submission has to keep, each with its reason and its fix: the site's, then the platform's own.

The numbers are those of `docs/submitting.md`. A rule looks at one thing alone, so that a mistake is reported once.
"""
from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from wiring_plugins import WiringError

from .archive import MACOS, Submission
from .environments import impossible_requirements, named_environments, other_pythons
from .platform import REGISTRATION, platform_folder, taken_names
from .registrations import SITE_ID, all_ids, init_code, registrations, site_ids, unusable_lines, with_init

MAX_BYTES = 50 << 20
OTHER_PLUGINS = frozenset({"benchmarks", "data", "metrics"})
CORE_ID = re.compile(r"model_registry\[.*\]")

@dataclass(frozen=True, kw_only=True)
class Rule:
    """find: what in a submission breaks the rule, one sentence part each; nothing if the rule is kept.

    advice: whether breaking it is only worth a word and refuses nothing.
    """

    number: str
    says: str
    reason: str
    fix: str
    find: Callable[[Submission], Iterable[str]]
    advice: bool = False


@dataclass(frozen=True)
class Finding:
    """A broken rule and what breaks it."""

    rule: Rule
    found: tuple[str, ...]


def check(submission: Submission) -> list[Finding]:
    """Every rule that the submission breaks, in the order of :data:`RULES`.

    Raises:
        WiringError: it holds a plugin of another kind than a model, of which these rules say nothing.
    """
    folders = {name.split("/")[1].lower() for name in submission.names if name.count("/") > 1}
    if "models" not in folders and (others := sorted(folders & OTHER_PLUGINS)):
        raise WiringError(f"{submission.path} holds {' and '.join(others)} and no model. The site takes such plugins "
                          "too, but the rules that are known here are those of models.")
    findings = (Finding(rule, tuple(rule.find(submission))) for rule in RULES)
    return [finding for finding in findings if finding.found]


# What the site looks at -------------------------------------------------------------------------------------------

def _size(zip_: Submission) -> Iterator[str]:
    if zip_.size > MAX_BYTES:
        yield f"the zip has {zip_.size / 2**20:.1f} MiB"


def _spaces(zip_: Submission) -> Iterator[str]:
    yield from (repr(name) for name in zip_.zip.namelist() if " " in name)


def _metadata(zip_: Submission) -> Iterator[str]:
    yield from (name for name in zip_.zip.namelist() if name.lower().endswith(("metadata.yaml", "metadata.yml")))


def _top_level_files(zip_: Submission) -> Iterator[str]:
    yield from (repr(name) for name in zip_.zip.namelist() if "/" not in name)


def _one_root(zip_: Submission) -> Iterator[str]:
    roots = {name.split("/")[0]: None for name in zip_.names if "/" in name}
    if len(roots) > 1:
        yield f"{len(roots)} top folders: {', '.join(roots)}"
    elif not zip_.names:
        yield "nothing at all"
    elif zip_.root == ".":
        yield "paths that begin with './'"
    elif zip_.root.lower() == "models" and not zip_.plugins:
        yield f"{zip_.root}/ at the top, with no folder around it"


def _models_folder(zip_: Submission) -> Iterator[str]:
    if zip_.root and _single_root(zip_) and not any(_is_folder_of(name, zip_, "models") for name in zip_.names):
        near = {name.split("/")[1] for name in zip_.names if name.count("/") > 1}
        wrong = [folder for folder in sorted(near) if folder.lower() == "models"]
        yield f"{zip_.root}/{wrong[0]}/" if wrong else f"no folder {zip_.root}/models/"


def _foreign_files(zip_: Submission) -> Iterator[str]:
    """Files and plugins beside the model, in a zip whose `models/` folder is where it should be."""
    for name in zip_.files if zip_.plugins else ():
        parts = name.split("/")
        beside = len(parts) > 1 and (parts[1] != "models" or len(parts) == 3)
        if parts[0] == zip_.root and beside and parts[-1] != ".DS_Store":  # which the platform's .gitignore leaves out
            yield name


def _folder_entries(zip_: Submission) -> Iterator[str]:
    if not zip_.plugins:
        return
    for folder in (f"{zip_.root}/models/", *(f"{zip_.root}/models/{plugin}/" for plugin in zip_.plugins)):
        if folder not in zip_.names:
            yield folder


def _empty(zip_: Submission) -> Iterator[str]:
    if _single_root(zip_) and not zip_.plugins and any(_is_folder_of(name, zip_, "models") for name in zip_.names):
        yield f"{zip_.root}/models/ has no folder in it"


def _plugin_parts(zip_: Submission) -> Iterator[str]:
    for plugin in zip_.plugins:
        files = zip_.plugin_files(plugin)
        yield from (f"models/{plugin}/ has no {part}" for part in ("__init__.py", "test.py") if part not in files)


def _init_encoding(zip_: Submission) -> Iterator[str]:
    for plugin in with_init(zip_):
        try:
            zip_.read(plugin, "__init__.py").decode()
        except UnicodeDecodeError as error:
            yield f"models/{plugin}/__init__.py, byte {error.start}"


def _site_sees_id(zip_: Submission) -> Iterator[str]:
    for plugin in with_init(zip_):
        if not site_ids(zip_, plugin) and not unusable_lines(zip_, plugin):
            quoted = re.search(r'model_registry\["(.+?)"\]', init_code(zip_, plugin))
            yield (f"models/{plugin}/__init__.py registers {quoted[1]!r} in double quotes" if quoted else
                   f"models/{plugin}/__init__.py registers nothing")


def _hyphens(zip_: Submission) -> Iterator[str]:
    yield from (repr(name) for name in all_ids(zip_) if "-" in name or (" " in name and "'" not in name))


def _one_id(zip_: Submission) -> Iterator[str]:
    if len(ids := all_ids(zip_)) > 1:
        yield f"{len(ids)} identifiers: {', '.join(ids)}"


def _taken(zip_: Submission) -> Iterator[str]:
    names = dict.fromkeys([*all_ids(zip_), *zip_.plugins])
    yield from (repr(name) for name in names if name.lower() in taken_names())


# What the platform's own code and tests look at ----------------------------------------------------------------------

def _literal(zip_: Submission) -> Iterator[str]:
    for plugin in with_init(zip_):
        yield from (f"models/{plugin}/__init__.py: {line}" for line in unusable_lines(zip_, plugin))


def _comments(zip_: Submission) -> Iterator[str]:
    """Lines in which the platform reads a registration and Python none: comments and docstrings."""
    for plugin in with_init(zip_):
        tree = _parse(zip_.text(plugin, "__init__.py"))
        live = {node.lineno for node in ast.walk(tree) if isinstance(node, ast.Subscript)} if tree else None
        for number, line in registrations(zip_, plugin):
            if line.lstrip().startswith("#") or (live is not None and number not in live):
                yield f"models/{plugin}/__init__.py, line {number}: {line.strip()}"


def _later_bracket(zip_: Submission) -> Iterator[str]:
    for plugin in with_init(zip_):
        for number, line in registrations(zip_, plugin):
            meant = REGISTRATION.search(line)
            read = CORE_ID.search(line)[0][len("model_registry['"):-len("']")] if meant else None
            if meant and read != meant[1] and not line.lstrip().startswith("#"):
                yield f"models/{plugin}/__init__.py, line {number}: the platform reads the identifier {read!r}"


def _registered_once(zip_: Submission) -> Iterator[str]:
    lines = [line for plugin in with_init(zip_) for _, line in registrations(zip_, plugin)
             if not line.lstrip().startswith("#")]
    ids = [match[1] for line in lines if (match := SITE_ID.search(line))]
    yield from (f"{name!r} is registered {ids.count(name)} times" for name in dict.fromkeys(ids) if ids.count(name) > 1)


def _folder_name(zip_: Submission) -> Iterator[str]:
    for plugin in with_init(zip_):
        if plugin.startswith("_") or "." in plugin:
            yield f"models/{plugin}/"


def _same_name(zip_: Submission) -> Iterator[str]:
    for plugin in zip_.plugins:
        if not re.fullmatch(r"[a-z0-9_]+", plugin):
            yield f"the folder models/{plugin}/"
        yield from (f"{name!r} in models/{plugin}/" for name in site_ids(zip_, plugin) if name != plugin)


def _test_files(zip_: Submission) -> Iterator[str]:
    for plugin in zip_.plugins:
        for file in zip_.plugin_files(plugin):
            path = PurePosixPath(file)
            if path.match("test*.py") and file != "test.py":
                yield f"models/{plugin}/{file}"


def _syntax(zip_: Submission) -> Iterator[str]:
    for plugin in zip_.plugins:
        for file in zip_.plugin_files(plugin):
            if file.endswith(".py") and _parse(zip_.text(plugin, file)) is None:
                yield f"models/{plugin}/{file}"


# Advice -------------------------------------------------------------------------------------------------------------

def _litter(zip_: Submission) -> Iterator[str]:
    litter = [name for name in zip_.zip.namelist() if name.startswith(MACOS)
              or {"__pycache__", ".DS_Store", ".git"} & set(name.split("/")) or name.endswith((".pyc", ".pyo"))]
    if litter:
        yield f"{len(litter)} such {'entry' if len(litter) == 1 else 'entries'}, the first being {litter[0]}"


def _ignored(zip_: Submission) -> Iterator[str]:
    for plugin in zip_.plugins:
        for file in zip_.plugin_files(plugin):
            path = PurePosixPath(file)
            if path.suffix in (".pt", ".swp") or {"build", "venv", ".venv"} & set(path.parts):
                yield f"models/{plugin}/{file}"


def _no_platform(zip_: Submission) -> Iterator[str]:
    if platform_folder() is None:
        yield "brainscore-vision is not installed for this Python"


# Reading -------------------------------------------------------------------------------------------------------------

def _single_root(zip_: Submission) -> bool:
    return not any(True for _ in _one_root(zip_))


def _is_folder_of(name: str, zip_: Submission, folder: str) -> bool:
    return name.startswith(f"{zip_.root}/{folder}/")


def _parse(source: str) -> ast.Module | None:
    try:
        return ast.parse(source.removeprefix("\ufeff"), feature_version=(3, 11))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


RULES = (
    Rule(number="S1", says="The zip has at most 50 MiB.", find=_size,
         reason="The site refuses a larger upload.",
         fix="Keep large weights out of the zip and use the large-file route of docs/submitting.md."),
    Rule(number="S2", says="No path holds a space.", find=_spaces,
         reason="The site refuses any path with a space in it, folders included.",
         fix="Rename with underscores and zip again."),
    Rule(number="S3", says="No file is called, or ends in, metadata.yaml or metadata.yml.", find=_metadata,
         reason="The site refuses it: metadata has a review of its own, outside uploads.",
         fix="Leave the file out."),
    Rule(number="S4", says="No file lies at the top of the zip.", find=_top_level_files,
         reason="The site ends in an internal error at a path without a folder.",
         fix="Zip one folder from outside: `zip -r x.zip my_model -x '*.DS_Store'`."),
    Rule(number="S5", says="Everything lies in one root folder around models/.", find=_one_root,
         reason="The site takes the first part of every path for the submission's name.",
         fix="Arrange the files as my_model/models/my_model/ and zip my_model/ from its parent, without './'."),
    Rule(number="S6", says="The folder in the root is called models, in lower case.", find=_models_folder,
         reason="The site finds a submission's model by that folder, and compares letters exactly.",
         fix="Rename it to models."),
    Rule(number="S7", says="The folder models/ holds a plugin folder.", find=_empty,
         reason="Without one there is nothing to submit.",
         fix="Put the model's files into models/my_model/."),
    Rule(number="S8", says="Folders have entries of their own in the zip.", find=_folder_entries,
         reason="The site finds a plugin by its folder's entry; a zip that lists files alone looks empty to it.",
         fix="Zip with directory entries: `zip -r` adds them, `zip -D` leaves them out; or shutil.make_archive."),
    Rule(number="S9", says="Every file belongs to the model's folder.", find=_foreign_files,
         reason="The site takes one plugin, and a file beside it takes the merge out of the automatic path.",
         fix="Move it into models/my_model/, or leave it out."),
    Rule(number="S10", says="Every folder in models/ has __init__.py and test.py.", find=_plugin_parts,
         reason="The site takes each of them for a model, a __pycache__ too, and refuses one without these files.",
         fix="Add the missing file, or remove the folder."),
    Rule(number="S11", says="__init__.py is UTF-8.", find=_init_encoding,
         reason="The site ends in an internal error at any other encoding.",
         fix="Save the file as UTF-8."),
    Rule(number="S12", says="The model is registered in single quotes.", find=_site_sees_id,
         reason="The site looks for the text model_registry['...'] and takes a model without it for none.",
         fix="Write model_registry['my_model'] = build on one line of __init__.py."),
    Rule(number="S13", says="The identifier holds no hyphen and no space.", find=_hyphens,
         reason="The site refuses a hyphen, and the platform separates identifiers by spaces.",
         fix="Write underscores."),
    Rule(number="S14", says="The zip registers one identifier.", find=_one_id,
         reason="The site takes one model per upload.",
         fix="Make a zip for each model: `wiring pack --all` does."),
    Rule(number="S15", says="Folder and identifier are new.", find=_taken,
         reason="The site keeps no revisions: a name that the platform holds would collide with somebody's model.",
         fix="Choose another name, for a new version too: my_model_v2."),
    Rule(number="P1", says="The identifier is a literal.", find=_literal,
         reason="The platform never runs the file to find identifiers: it reads the line's text.",
         fix="Write model_registry['my_model'] = build, without a variable or a loop."),
    Rule(number="P2", says="No comment or docstring mentions a registration.", find=_comments,
         reason="The platform's tests take every line with 'model_registry[' for a model, in comments too.",
         fix="Delete the line."),
    Rule(number="P3", says="No ']' follows on the registration's line.", find=_later_bracket,
         reason="The platform reads up to the last ']' of the line, and gets another identifier.",
         fix="Build the model in a function: model_registry['my_model'] = build."),
    Rule(number="P4", says="The identifier is registered once.", find=_registered_once,
         reason="The platform loads no model that two folders register, and tests one twice that two lines register.",
         fix="Keep one line, in one folder."),
    Rule(number="P5", says="The plugin folder's name begins with a letter or digit and holds no dot.",
         find=_folder_name,
         reason="The platform skips folders that begin with '_' or '.', and cannot import one with a dot.",
         fix="Rename the folder to the identifier."),
    Rule(number="P6", says="The only test file is the plugin's test.py.", find=_test_files,
         reason="The platform runs every test*.py below the folder, and stops at one in a sub-folder.",
         fix="Move the tests into test.py, or rename the file so that it does not begin with 'test'."),
    Rule(number="P7", says="environment.yml holds the letters 'name' nowhere.", find=named_environments,
         reason="The platform names the environment itself, and searches the text for the letters.",
         fix="Delete the name line."),
    Rule(number="P8", says="environment.yml pins Python to 3.11 if at all.", find=other_pythons,
         reason="The platform runs on Python 3.11 and stops at another.",
         fix="Write python=3.11, or no pin."),
    Rule(number="P9", says="requirements.txt agrees with what the platform needs.", find=impossible_requirements,
         reason="The platform needs numpy < 2, pandas < 3, scikit-learn < 1.6, xarray < 2022.6, "
                "importlib-metadata < 5, torch >= 2.6 and torchvision >= 0.21; pip fails, or breaks every other model.",
         fix="Loosen or drop the line: what the platform depends on is there without being asked for."),
    Rule(number="P10", says="Every Python file can be parsed.", find=_syntax,
         reason="The platform imports the plugin with Python 3.11.", fix="Mend the syntax error."),
    Rule(number="A1", says="The folder is called like the identifier, in a-z, 0-9 and _.", find=_same_name,
         advice=True,
         reason="The layer map is looked for under both names, and capitals collide on some file systems.",
         fix="Rename one to the other."),
    Rule(number="A2", says="No caches or system files are inside.", find=_litter, advice=True,
         reason="They become part of a public repository.",
         fix="Zip with -x '*__pycache__*' '*.DS_Store', and without macOS's Compress."),
    Rule(number="A3", says="No file is one that the platform's repository ignores.", find=_ignored, advice=True,
         reason="Its .gitignore names *.pt, *.swp, build, venv and .venv: such a file may not arrive.",
         fix="Rename it, such as weights.pt to weights.pth."),
    Rule(number="A4", says="The platform is installed here.", find=_no_platform, advice=True,
         reason="Only then can its own models' names be compared.",
         fix="Install brainscore-vision (Python 3.11)."),
)

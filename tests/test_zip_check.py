"""`wiring check`: every rule refuses the zip that breaks it, and only that one; hostile zips are not opened."""
from __future__ import annotations

import os
import stat
import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

pytest.importorskip("brainscore_vision", reason="needs brainscore-vision, which runs on Python 3.11 only")

from wiring_plugins import WiringError  # noqa: E402
from wiring_submission.zips import archive, platform, rules  # noqa: E402
from wiring_submission.zips.archive import Refused, open_submission  # noqa: E402
from wiring_submission.zips.report import report  # noqa: E402

PLUGIN = "mine/models/mine/"
INIT = "from brainscore_vision import model_registry\n\nfrom .model import build\n\nmodel_registry['mine'] = build\n"
GOOD = {
    "mine/": "", "mine/models/": "", PLUGIN: "",
    PLUGIN + "__init__.py": INIT,
    PLUGIN + "model.py": "def build():\n    pass\n",
    PLUGIN + "test.py": "def test_it():\n    pass\n",
    PLUGIN + "requirements.txt": "torch>=2.6\nnumpy<2  # as the platform\n",
}


def write(path: Path, entries: dict[str, str | bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in entries.items():
            target.writestr(name, content)
    return path


def changed(changes: dict[str, str | bytes | None]) -> dict[str, str | bytes]:
    """The good zip's entries with some added, replaced, or (None) left out."""
    return {name: content for name, content in {**GOOD, **changes}.items() if content is not None}


def renamed(old: str, new: str) -> dict[str, str | bytes]:
    return {name.replace(old, new, 1): content for name, content in GOOD.items()}


def init(text: str) -> dict[str, str | bytes]:
    return changed({PLUGIN + "__init__.py": text})


def second(name: str, init_text: str = INIT) -> dict[str, str | bytes]:
    folder = f"mine/models/{name}/"
    return changed({folder: "", folder + "__init__.py": init_text, folder + "test.py": ""})


BROKEN = {
    "more than 50 MiB": ("S1", changed({PLUGIN + "weights.bin": os.urandom((50 << 20) + 1)})),
    "space in a file": ("S2", changed({PLUGIN + "my weights.bin": "x"})),
    "space in a folder": ("S2", changed({PLUGIN + "my weights/": ""})),
    "space in the root": ("S2", renamed("mine/", "my model/")),
    "metadata": ("S3", changed({PLUGIN + "metadata.yaml": "x"})),
    "metadata as a suffix, in capitals": ("S3", changed({PLUGIN + "my_METADATA.yml": "x"})),
    "file at the top": ("S4", changed({"README": "x"})),
    "file at the top, before all else": ("S4", {"README": "x", **GOOD}),
    "two roots with one plugin": ("S5", changed({"other/models/mine/tests.py": ""})),
    "two roots": ("S5", changed({"other/": "", "other/file": ""})),
    "models at the top": ("S5", renamed("mine/models/", "models/") | {}),
    "dot as the root": ("S5", {"./" + name: content for name, content in GOOD.items()}),
    "nothing": ("S5", {}),
    "Models in capitals": ("S6", renamed("/models/", "/Models/")),
    "no models folder": ("S6", renamed("/models/", "/plugins/")),
    "empty models folder": ("S7", {"mine/": "", "mine/models/": ""}),
    "files without folder entries": ("S8", {name: text for name, text in GOOD.items() if not name.endswith("/")}),
    "no entry of the plugin folder": ("S8", changed({PLUGIN: None})),
    "file in the root": ("S9", changed({"mine/README": "x"})),
    "file in models": ("S9", changed({"mine/models/helper.py": ""})),
    "data plugin": ("S9", changed({"mine/data/": "", "mine/data/d/": "", "mine/data/d/__init__.py": ""})),
    "data plugin of the same name": ("S9", changed({"mine/data/mine/tests.py": ""})),
    "no test.py": ("S10", changed({PLUGIN + "test.py": None})),
    "no __init__.py": ("S10", changed({PLUGIN + "__init__.py": None})),
    "__pycache__ in models": ("S10", changed({"mine/models/__pycache__/": ""})),
    "Latin-1 __init__.py": ("S11", init(b"# caf\xe9\n" + INIT.encode())),
    "double quotes": ("S12", init(INIT.replace("'", '"'))),
    "no registration": ("S12", init("from .model import build\n")),
    "second plugin without registration": ("S12", second("other", "")),
    "hyphen": ("S13", init(INIT.replace("'mine'", "'mi-ne'"))),
    "space in the identifier": ("S13", init(INIT.replace("'mine'", "'my model'"))),
    "two identifiers in one file": ("S14", init(INIT + "model_registry['mine_too'] = build\n")),
    "two plugins": ("S14", second("other", INIT.replace("'mine'", "'other'"))),
    "identifier of the platform": ("S15", init(INIT.replace("'mine'", "'alexnet'"))),
    "identifier of the platform in other letters": ("S15", init(INIT.replace("'mine'", "'ALEXnet'"))),
    "folder of the platform": ("S15", {name.replace("models/mine/", "models/cornet_s/"): content
                                       for name, content in GOOD.items()}),
    "the tutorial's identifier": ("S15", init(INIT.replace("'mine'", "'resnet50_tutorial'"))),
    "variable as identifier": ("P1", init(INIT.replace("'mine'", "NAME"))),
    "loop over identifiers": ("P1", init("for name in NAMES:\n    model_registry[name] = build\n")),
    "registration in a comment": ("P2", init(INIT + "# model_registry['mine'] = old\n")),
    "registration in a docstring": ("P2", init('"""\nSets model_registry["mine"].\n"""\n' + INIT)),
    "bracket after the registration": ("P3", init(INIT.replace("= build", "= lambda: build(L['y'])"))),
    "concatenated identifier": ("P1", init(INIT.replace("'mine'", "'mi' + 'ne'"))),
    "identifier on the next line": ("P1", init(INIT.replace("['mine']", "[\n    'mine']"))),
    "registered in two folders": ("P4", second("other")),
    "registered twice": ("P4", init(INIT + "model_registry['mine'] = build\n")),
    "underscore before the folder": ("P5", renamed("models/mine/", "models/_mine/") | {}),
    "dot in the folder": ("P5", {name.replace("models/mine/", "models/mi.ne/"): content
                                 for name, content in GOOD.items()}),
    "test file in a sub-folder": ("P6", changed({PLUGIN + "tools/": "", PLUGIN + "tools/tests.py": ""})),
    "second test file": ("P6", changed({PLUGIN + "test_more.py": ""})),
    "name in environment.yml": ("P7", changed({PLUGIN + "environment.yml": "name: mine\n"})),
    "Python 3.8 in environment.yml": ("P8", changed({PLUGIN + "environment.yml": "dependencies:\n  - python=3.8\n"})),
    "two Pythons in environment.yml": ("P8", changed({
        PLUGIN + "environment.yml": "dependencies:\n  - python=3.11\n  - ipython=3.11\n"})),
    "numpy 2": ("P9", changed({PLUGIN + "requirements.txt": "numpy>=2\n"})),
    "numpy 2, for this Python": ("P9", changed({PLUGIN + "requirements.txt": "numpy>=2; python_version < '3.12'\n"})),
    "old torch": ("P9", changed({PLUGIN + "requirements.txt": "torch==2.5.1\n"})),
    "old torch, in other words": ("P9", changed({PLUGIN + "requirements.txt": "torch~=2.5.0\n"})),
    "requirements that exclude each other": ("P9", changed({PLUGIN + "requirements.txt": "einops<0.7\neinops>0.7\n"})),
    "unreadable requirement": ("P9", changed({PLUGIN + "requirements.txt": "torch = 2\n"})),
    "syntax error": ("P10", changed({PLUGIN + "model.py": "def build(:\n"})),
}


def requirements(content: str | bytes) -> dict[str, str | bytes]:
    return changed({PLUGIN + "requirements.txt": content})


SOUND = {
    "as it should be": GOOD,
    "no entry of the root": changed({"mine/": None}),
    "setup.py in place of requirements.txt": changed({PLUGIN + "requirements.txt": None, PLUGIN + "setup.py": "x = 1"}),
    "Windows line ends": {name: content.replace("\n", "\r\n") for name, content in GOOD.items()},
    "byte order mark": init(b"\xef\xbb\xbf" + INIT.encode()),
    "form feed": init("import os\n\x0c\n" + INIT),
    "line separator in a docstring": init('"""one\u2028two"""\n' + INIT),
    "the template's lambda": init(INIT.replace("= build", "= lambda: build('mine', layers=layers('mine'))")),
    "a registration that goes on": init(INIT.replace("= build", "= \\\n    lambda: build(L['y'])")),
    "guarded registration": init("if 'mine' not in model_registry:\n    model_registry['mine'] = build\n"),
    "folder without an entry below the plugin": changed({PLUGIN + "helpers/__init__.py": ""}),
    "data_packaging": changed({PLUGIN + "data_packaging/": "", PLUGIN + "data_packaging/make.py": ""}),
    "environment.yml": changed({PLUGIN + "environment.yml": "# its name is given\ndependencies:\n  - python=3.11.5\n"}),
    "git address": requirements("CORnet @ git+https://github.com/dicarlolab/CORnet\ngit+https://host/a.git#egg=a\n"),
    "address of a wheel, and a path": requirements("https://host/a-1.0-py3-none-any.whl\n./wheels/b\n"),
    "options, hashes and continued lines": requirements("-i https://host\na==1 \\\n  --hash=sha256:00\nb>=1,\\\n<2\n"),
    "a requirement of another Python": requirements("numpy>=2; python_version >= '3.12'\n"),
    "exact versions": requirements("numpy==1.24.4\npandas==1.5.3\ntorch==2.9.0+cu126\ntorchvision===0.99.1\n"),
    "ranges": requirements("numpy>1.26,<1.27\nscikit_learn!=1.5.*\ntorch~=2.5\n"),
    "requirements from PowerShell": requirements("numpy<2\n".encode("utf-16")),
    "requirements with a byte order mark": requirements(b"\xef\xbb\xbfnumpy<2\n"),
}
"""Zips unlike ours in which nothing is wrong."""


def broken_rules(path: Path) -> list[str]:
    with open_submission(path) as submission:
        return [finding.rule.number for finding in rules.check(submission) if not finding.rule.advice]


@pytest.mark.parametrize("case", SOUND)
def test_a_sound_zip_is_accepted(case, tmp_path):
    with open_submission(write(tmp_path / "sound.zip", SOUND[case])) as submission:
        assert rules.check(submission) == []


@pytest.mark.parametrize("kind", ["benchmarks", "data", "metrics"])
def test_another_kind_of_plugin_is_not_said_to_be_refused(kind, tmp_path):
    with open_submission(write(tmp_path / "x.zip", renamed("/models/", f"/{kind}/"))) as submission:
        with pytest.raises(WiringError, match=f"holds {kind} and no model"):
            rules.check(submission)


@pytest.mark.parametrize("case", BROKEN)
def test_each_mistake_is_refused_for_its_own_reason(case, tmp_path):
    rule, entries = BROKEN[case]
    assert broken_rules(write(tmp_path / "x.zip", entries)) == [rule]


def test_the_table_breaks_every_rule():
    assert {rule for rule, _ in BROKEN.values()} == {rule.number for rule in rules.RULES if not rule.advice}


def test_the_document_lists_every_rule():
    text = (Path(__file__).parents[1] / "docs" / "submitting.md").read_text(encoding="utf-8")
    missing = [rule.number for rule in rules.RULES
               if f"| {rule.number} | {rule.says} | {rule.reason} | {rule.fix} |" not in text]
    assert not missing


@pytest.mark.parametrize("entries, number", [
    (changed({PLUGIN + "__pycache__/": "", PLUGIN + "__pycache__/model.cpython-311.pyc": ""}), "A2"),
    (changed({"__MACOSX/": "", "__MACOSX/mine/": "", "__MACOSX/mine/._models": ""}), "A2"),
    (init(INIT.replace("'mine'", "'My.Model'")), "A1"),
    (changed({"mine/.DS_Store": "x", "mine/models/.DS_Store": "x"}), "A2"),
    (changed({PLUGIN + "weights.pt": "x"}), "A3"),
    (changed({PLUGIN + "build/": "", PLUGIN + "build/x.py": ""}), "A3"),
])
def test_advice_refuses_nothing(entries, number, tmp_path):
    with open_submission(write(tmp_path / "x.zip", entries)) as submission:
        findings = rules.check(submission)
    assert [(finding.rule.number, finding.rule.advice) for finding in findings] == [(number, True)]


def entry(name: str, *, mode: int = 0, encrypted: bool = False) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    info.flag_bits |= encrypted
    return info


def hostile(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in GOOD.items():
            target.writestr(name, content)
        if kind == "link":
            target.writestr(entry(PLUGIN + "link", mode=stat.S_IFLNK | 0o777), "/etc/passwd")
        elif kind == "pipe":
            target.writestr(entry(PLUGIN + "pipe", mode=stat.S_IFIFO | 0o644), "")
        elif kind == "many":
            for number in range(archive.MAX_ENTRIES):
                target.writestr(f"{PLUGIN}{number}", "")
        elif kind == "bomb":
            target.writestr(PLUGIN + "zeros", bytes(archive.MAX_UNPACKED_AT_ANY_RATIO + 1))
        elif kind == "big":
            with target.open(PLUGIN + "pages", "w") as stream:
                page = os.urandom(1 << 15) + bytes(1 << 20)
                for _ in range(archive.MAX_UNPACKED // len(page) + 1):
                    stream.write(page)
        elif kind == "lzma":
            target.writestr(PLUGIN + "x", os.urandom(99), zipfile.ZIP_LZMA)
        else:
            names = {"absolute": "/etc/x", "drive": "C:/x", "backslash": "..\\..\\x", "climbing": "mine/../../x",
                     "twice": PLUGIN + "MODEL.py", "file and folder": PLUGIN + "model.py/x",
                     "long": PLUGIN + 256 * "x", "deep": PLUGIN + 500 * "x/" + "x"}
            target.writestr(names.get(kind, PLUGIN + "x"), "payload that is stored" * 20)
    raw = bytearray(path.read_bytes())
    if kind == "encrypted":
        for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
            raw[(at := raw.rindex(signature) + offset):at + 2] = struct.pack("<H", 1)
    elif kind == "damaged":
        at = raw.index((PLUGIN + "x").encode()) + len(PLUGIN) + 3
        raw[at] ^= 0xFF
    elif kind == "lzma":
        raw[raw.index((PLUGIN + "x").encode()) + len(PLUGIN) + 20] ^= 0xFF
    elif kind == "name":
        raw[:] = raw.replace((PLUGIN + "x").encode(), (PLUGIN + "\xff").encode("latin-1"))
        raw[raw.rindex(b"PK\1\2") + 9] |= 0x08  # it says that names are UTF-8
    elif kind == "version":
        raw[raw.rindex(b"PK\1\2") + 6] = 99
    elif kind == "truncated":
        del raw[len(raw) // 2:]
    elif kind == "understated":
        at = raw.rindex(b"PK\1\2") + 24
        raw[at:at + 4] = struct.pack("<I", 3)
    path.write_bytes(b"not a zip" if kind == "text" else raw)
    return path


@pytest.mark.parametrize("kind, sentence", [
    ("text", "no readable zip"), ("name", "no readable zip"), ("version", "no readable zip"), ("lzma", "damaged"),
    ("file and folder", "as a file and as a folder"), ("long", "too long"), ("deep", "too long"),
    ("truncated", "no readable zip"), ("damaged", "damaged"), ("understated", "damaged"),
    ("encrypted", "encrypted"), ("absolute", "absolute"), ("drive", "absolute"), ("backslash", "absolute"),
    ("climbing", "climbs out"), ("link", "the link"), ("pipe", "device or pipe"), ("twice", "twice"),
    ("bomb", "zip bomb"), ("big", "zip bomb"), ("many", "entries"),
])
def test_a_hostile_zip_is_not_opened(kind, sentence, tmp_path):
    path = hostile(tmp_path, kind)
    with pytest.raises(Refused, match=sentence), open_submission(path):
        pytest.fail("it was opened")


def test_what_fails_later_is_not_blamed_on_the_zip(tmp_path):
    with pytest.raises(OSError, match="disk"), open_submission(write(tmp_path / "x.zip", GOOD)):
        raise OSError("the disk is full")


def test_a_strangers_letters_do_not_steer_the_terminal(tmp_path):
    path = write(tmp_path / "x.zip", changed({"mine/\x1b[2J\u202ered": "x"}))
    with open_submission(path) as submission:
        printed = report(path, rules.check(submission))
    assert "mine/\\x1b[2J\\u202ered" in printed and all(letter.isprintable() or letter == "\n" for letter in printed)


@given(st.dictionaries(st.text(st.characters(codec="utf-8", exclude_characters="\0\\:"), min_size=1, max_size=30),
                       st.binary(max_size=200), max_size=6), st.binary(max_size=300))
def test_any_zip_gets_an_answer(tmp_path_factory, entries, init_bytes):
    path = tmp_path_factory.getbasetemp() / "any.zip"
    write(path, {**GOOD, **entries, PLUGIN + "__init__.py": init_bytes})
    try:
        with open_submission(path) as submission:
            rules.check(submission)
    except Refused:
        pass


def app():
    from wiring_plugins.cli import make_app
    return make_app()


def test_the_command_prints_reason_and_fix_and_ends_with_2(tmp_path):
    path = write(tmp_path / "x.zip", BROKEN["double quotes"][1])
    result = CliRunner().invoke(app(), ["check", str(path)])
    rule = next(rule for rule in rules.RULES if rule.number == "S12")
    printed = " ".join(result.output.split())
    assert result.exit_code == 2
    assert rule.reason in printed and rule.fix in printed and "breaks 1 of" in printed


def test_a_path_that_cannot_be_looked_at_is_a_sentence(monkeypatch, capsys):
    """Too long a name stands for a closed folder, which is open to whoever runs tests as root."""
    from wiring_plugins.cli import main
    monkeypatch.setattr("sys.argv", ["wiring", "check", 300 * "x"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert f"Error: {300 * 'x'} cannot be used: File name too long." in capsys.readouterr().err


def test_the_command_accepts_a_good_zip(tmp_path):
    result = CliRunner().invoke(app(), ["check", str(write(tmp_path / "x.zip", GOOD))])
    assert result.exit_code == 0 and "keeps all" in result.output


def test_the_platform_is_read_without_being_imported():
    import subprocess
    import sys
    code = ("import sys; from wiring_submission.zips.platform import taken_names; names = taken_names(); "
            "assert 'brainscore_vision' not in sys.modules; print(len(names), 'alexnet' in names, 'cornet-s' in names)")
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert int(printed[0]) > 607 and printed[1:] == ["True", "True"]


def test_without_the_platform_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(rules, "platform_folder", lambda: None)
    with open_submission(write(tmp_path / "x.zip", GOOD)) as submission:
        assert [finding.rule.number for finding in rules.check(submission)] == ["A4"]
    monkeypatch.setattr(platform, "find_spec", lambda name: None)
    assert platform.platform_folder() is None

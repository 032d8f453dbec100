"""`wiring pack`: the zip holds the same model, needs nothing of this package, and packing changes nothing else."""
from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import textwrap
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from wiring_plugins import (CorruptFile, Init, Initializer, Registry, UnknownName, WeightsRef, WiringError, build_model,
                            fingerprint)
from wiring_submission.zips import install_test, pack, rules, vendor
from wiring_submission.zips.archive import open_submission

MODEL, IDENTIFIER = "wiring-gabor-frozen", "wiring_gabor_frozen"
REAL_INSTALL = "WIRING_TEST_INSTALL"
OURS = ("wiring_plugins", "wiring_submission", "wiring_training", "wiring_weights")

HIDE_US = f"""
import sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {OURS!r}:
            raise ModuleNotFoundError(name + " is not on the platform's machines")
sys.meta_path.insert(0, Hide())
"""


@pytest.fixture(scope="module")
def packed(tmp_path_factory, registry):
    path = tmp_path_factory.mktemp("packed") / "x.zip"
    pack.pack(MODEL, path, registry=registry)
    return path


@pytest.fixture(scope="module")
def network(registry):
    return build_model(MODEL, registry=registry)


@pytest.fixture(scope="module")
def platform(packed, tmp_path_factory):
    """A folder for PYTHONPATH with the platform in it, whose only model is the packed one."""
    import importlib.util
    installed = Path(importlib.util.find_spec("brainscore_vision").origin).parent
    folder = tmp_path_factory.mktemp("platform")
    copy = folder / "brainscore_vision"
    (copy / "models").mkdir(parents=True)
    for item in installed.iterdir():
        if item.name not in ("models", "__pycache__"):
            (copy / item.name).symlink_to(item)
    with open_submission(packed) as submission:
        submission.unpack(IDENTIFIER, copy / "models" / IDENTIFIER)
    return folder


def run_without_us(code: str, folder: Path, *arguments) -> str:
    environment = {**os.environ, "PYTHONPATH": str(folder), "BS_INSTALL_DEPENDENCIES": "no",
                   "RESULTCACHING_HOME": str(folder / "cache")}
    done = subprocess.run([sys.executable, "-c", HIDE_US + textwrap.dedent(code), *map(str, arguments)],
                          capture_output=True, text=True, env=environment, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def names(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def test_the_zip_keeps_every_rule_and_is_small(packed):
    with open_submission(packed) as submission:
        assert rules.check(submission) == []
        assert submission.plugins == (IDENTIFIER,)
        assert f"region_layer_map/{IDENTIFIER}.json" in submission.plugin_files(IDENTIFIER)
    assert packed.stat().st_size < 1_000_000


def test_packing_twice_gives_the_same_bytes(packed, tmp_path, registry):
    pack.pack(MODEL, tmp_path / "again.zip", registry=registry)
    assert (tmp_path / "again.zip").read_bytes() == packed.read_bytes()


def test_every_import_is_of_the_platform_or_of_the_zip(packed):
    with open_submission(packed) as submission:
        files = submission.plugin_files(IDENTIFIER)
        for file in (file for file in files if file.endswith(".py")):
            for node in ast.walk(ast.parse(submission.text(IDENTIFIER, file))):
                if isinstance(node, ast.Import):
                    roots = {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    roots = {node.module.split(".")[0]}
                else:
                    continue
                assert roots <= pack.PLATFORM_PROVIDES | sys.stdlib_module_names | {"pytest"}, (file, roots)
        assert submission.text(IDENTIFIER, "requirements.txt").startswith("#")


def test_the_platform_loads_the_same_model_bit_for_bit(platform, packed, network, registry, tmp_path):
    from wiring_submission.brain_model import WiredBrainModel
    from wiring_submission.zips.carried.gratings import grating_stimuli
    printed = run_without_us(f"""
        import json, pathlib, numpy
        from brainscore_vision import load_model, load_model_bibtex
        model = load_model({IDENTIFIER!r})
        from brainscore_vision.models.{IDENTIFIER}.gratings import grating_stimuli
        stimuli = grating_stimuli(pathlib.Path(sys.argv[1]), "platform")
        values = {{}}
        for region in ("V1", "V2", "V4", "IT"):
            model.start_recording(region, time_bins=[(70, 170), (170, 270)])
            values[region] = model.look_at(stimuli).values
        model.start_task("label", "imagenet")
        label = model.look_at(stimuli).values.tolist()
        numpy.savez(sys.argv[1] + "/values.npz", **values)
        print(json.dumps([model.identifier, label, load_model_bibtex({IDENTIFIER!r})]))
    """, platform, tmp_path)
    identifier, label, bibtex = json.loads(printed)
    local = WiredBrainModel(MODEL, network, registry.commitment(registry.recipe(MODEL)))
    stimuli = grating_stimuli(tmp_path, "local")
    with np.load(tmp_path / "values.npz") as values:
        for region, value in values.items():
            local.start_recording(region, time_bins=[(70, 170), (170, 270)])
            assert np.array_equal(value, local.look_at(stimuli).values), region
    local.start_task("label", "imagenet")
    assert label == local.look_at(stimuli).values.tolist()
    assert identifier == IDENTIFIER
    assert bibtex.count("@") == 1 and "openreview.net" in bibtex


def test_the_zips_own_test_tells_another_model(platform, tmp_path):
    """Its test.py passes as packed, and fails for the same recipe under another seed."""
    other = tmp_path / "platform"
    shutil.copytree(platform, other, symlinks=True)
    described = other / "brainscore_vision" / "models" / IDENTIFIER / "recipe.json"
    text = json.loads(described.read_text())
    text["recipe"]["seed"] += 1
    described.write_text(json.dumps(text))
    code = """
        import pytest
        sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "--rootdir", sys.argv[1], sys.argv[1] + "/test.py"]) != %d)
    """
    for folder, expected in ((platform, 0), (other, 1)):
        run_without_us(code % expected, folder, folder / "brainscore_vision" / "models" / IDENTIFIER)


@pytest.fixture(scope="module")
def acme(tmp_path_factory, monkeypatch_module):
    """A stranger's plugin package with an initialiser of its own, spread over two modules."""
    folder = tmp_path_factory.mktemp("site")
    package = folder / "acme_wiring"
    package.mkdir()
    (package / "__init__.py").write_text('"""Acme."""\nfrom .scales import scale\n')
    (package / "scales.py").write_text("SCALE = 0.5\n\n\ndef scale(weights):\n    return weights * SCALE\n")
    (package / "plugin.py").write_text(textwrap.dedent('''
        """Half of Kaiming."""
        from acme_wiring import scale
        from wiring_plugins import Initializer, hookimpl
        from wiring_plugins.initializers.kaiming import kaiming


        def half(rng, shape, context):
            """Half of Kaiming."""
            # a comment that stays
            from .scales import SCALE
            assert SCALE == 0.5
            return scale(kaiming(rng, shape, context)).astype("float32")


        @hookimpl
        def wiring_initializers():
            return [Initializer(name="half", sample=half)]
    '''))
    monkeypatch_module.syspath_prepend(str(folder))
    from acme_wiring import plugin
    return plugin


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def test_a_strangers_initialiser_is_carried_along(acme, registry):
    base = registry.recipe(MODEL)
    recipe = replace(base, name="acme-half", init={**base.init, "V2.conv1": Init("half")})
    extended = replace(registry, initializers={**registry.initializers, "half": acme.wiring_initializers()[0]})
    parts, carried = pack._parts(recipe, extended)
    assert parts["initializers"]["half"] == "acme_wiring.plugin:half"
    text = carried.files["acme_wiring/plugin.py"]
    assert "from ..wiring_plugins.initializers.kaiming import kaiming" in text
    assert "from .scales import scale" in text and "    from .scales import SCALE" in text
    assert "# a comment that stays" in text and "hookimpl" not in text
    assert carried.files["acme_wiring/scales.py"].startswith("SCALE = 0.5")
    assert not carried.foreign & set(OURS)


def test_what_has_no_source_of_its_own_is_refused(registry):
    base = registry.recipe(MODEL)
    recipe = replace(base, init={**base.init, "V2.conv1": Init("nameless")})
    extended = replace(registry, initializers={
        **registry.initializers, "nameless": Initializer(name="nameless", sample=lambda rng, shape, context: None)})
    with pytest.raises(vendor.CannotCarry, match="'nameless'"):
        pack._parts(recipe, extended)


@pytest.mark.parametrize("text, sentence", [
    ("import wiring_plugins\n\ndef f():\n    return wiring_plugins.__version__\n", "cannot be made relative"),
    ("from wiring_plugins.errors import *\n\ndef f():\n    return WiringError\n", "hides what is needed"),
])
def test_imports_that_cannot_be_followed_are_refused(text, sentence, tmp_path, monkeypatch):
    (tmp_path / "odd_module.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(vendor.CannotCarry, match=sentence):
        vendor.vendor([("odd_module", vendor.EVERYTHING)], own=("odd_module", *OURS), place={})


def test_only_what_is_needed_is_copied(tmp_path, monkeypatch):
    (tmp_path / "tidy_module.py").write_text(textwrap.dedent('''\
        """Doc."""
        from __future__ import annotations

        import json
        import os
        from typing import TYPE_CHECKING

        if TYPE_CHECKING:
            import wiring_plugins

        # about A
        A = 1
        """More about A."""
        B = 2
        """About B."""


        def used(x: wiring_plugins.Recipe):
            return os.fspath(x), A


        def unused():
            return json, B
    '''))
    monkeypatch.syspath_prepend(str(tmp_path))
    carried = vendor.vendor([("tidy_module", "used")], own=("tidy_module",), place={"tidy_module": "there.it_is"})
    assert set(carried.files) == {"there/it_is.py", "there/__init__.py"}
    text = carried.files["there/it_is.py"]
    assert "# about A\nA = 1\n\"\"\"More about A.\"\"\"" in text and "def used" in text and "import os" in text
    assert not any(word in text for word in ("json", "About B", "unused", "TYPE_CHECKING", "import wiring_plugins"))


def hosted_zip(tmp_path, registry):
    weights = tmp_path / "weights.safetensors"
    pack.stored_weights(MODEL, weights, registry=registry)
    pack.pack(MODEL, tmp_path / "hosted.zip", registry=registry,
              hosted="https://brainscore-storage.s3.us-east-1.amazonaws.com/brainscore-vision/models/u/w.safetensors?versionId=v1")
    return tmp_path / "hosted.zip", weights


def test_hosted_weights_are_checked_by_our_loader(tmp_path, registry, network, monkeypatch):
    path, weights = hosted_zip(tmp_path, registry)
    assert not [name for name in names(path) if name.endswith(".safetensors")]
    with open_submission(path) as submission:
        submission.unpack(IDENTIFIER, tmp_path / "hosted_plugin")
    monkeypatch.syspath_prepend(str(tmp_path))
    import brainscore_core.supported_data_standards.brainio.s3 as storage
    asked = []
    monkeypatch.setattr(storage, "load_weight_file", lambda **where: asked.append(where) or weights)
    from hosted_plugin import model
    assert fingerprint(model.build_network().state_dict()) == fingerprint(network.state_dict())
    assert asked[0]["bucket"] == "brainscore-storage" and asked[0]["version_id"] == "v1"
    assert (asked[0]["folder_name"], asked[0]["relative_path"]) == ("brainscore-vision/models/u", "w.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(Exception, match="altered or damaged") as raised:
        model.build_network()
    assert type(raised.value).__name__ == CorruptFile.__name__


def invoke(*arguments):
    from wiring_plugins.cli import make_app
    return CliRunner().invoke(make_app(), [str(argument) for argument in arguments])


@pytest.mark.parametrize("arguments", [
    ("pack",), ("pack", MODEL, "--all"), ("pack", MODEL, "--weights", "w", "-o", "x.zip"), ("pack", "--all", "-o", "none"),
    ("pack", "--all", "--hosted", "https://x"), ("pack", "no-such-model"), ("check", "x.zip", "--python-env", "."),
])
def test_bad_arguments_are_one_sentence(arguments):
    error = invoke(*arguments).exception
    assert isinstance(error, WiringError) and error.exit_code == 2


def test_an_unknown_model_writes_nothing(tmp_path, registry):
    with pytest.raises(UnknownName):
        pack.pack("wiring-gabor-frozn", tmp_path / "x.zip", registry=registry)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("target", ["missing/x.zip", "."])
def test_a_path_that_cannot_be_written_is_refused_before_the_work(target, tmp_path, registry, monkeypatch):
    monkeypatch.setattr(pack, "build_model", lambda *_, **__: pytest.fail("the model was built"))
    with pytest.raises(WiringError, match="cannot be written|is a folder"):
        pack.pack(MODEL, tmp_path / target, registry=registry)
    assert not any(tmp_path.iterdir())


def test_a_failure_keeps_the_zip_that_was_there(tmp_path, registry, monkeypatch):
    (tmp_path / "x.zip").write_bytes(b"before")
    monkeypatch.setattr(pack, "build_model", lambda *_, **__: (_ for _ in ()).throw(WiringError("broken")))
    with pytest.raises(WiringError, match="broken"):
        pack.pack(MODEL, tmp_path / "x.zip", registry=registry)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("x.zip", b"before")]


def test_a_name_of_the_platform_is_refused(registry):
    with pytest.raises(WiringError, match="already holds"):
        pack.identify(replace(registry.recipe(MODEL), name="cornet-s"))


@pytest.mark.parametrize("url", ["nonsense", "https://example.org/a/b?versionId=1", "https://b.s3.amazonaws.com/a/b"])
def test_an_address_outside_the_platforms_storage_is_refused(url):
    with pytest.raises(WiringError, match="no address"):
        pack._storage_place(url, b"")


def snapshot(folders) -> dict:
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for folder in folders for path in Path(folder).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts}


def test_packing_and_checking_change_nothing_but_their_output(tmp_path):
    """The installed packages, the repository, the home folder and the current folder are as before."""
    import sysconfig
    repository = Path(__file__).parents[1]
    home, out = tmp_path / "home", tmp_path / "out"
    home.mkdir(), out.mkdir()
    watched = [sysconfig.get_paths()["purelib"], home, *(repository / folder for folder in
               ("wiring_plugins", "submission", "training", "weights", "docs"))]
    import brainscore_vision
    watched.append(Path(brainscore_vision.__file__).parent)
    before = snapshot(watched)
    environment = {**os.environ, "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", "from wiring_plugins.cli import main; main()"]
    for arguments in (["pack", MODEL, "-o", "x.zip"], ["check", "x.zip"]):
        done = subprocess.run([*command, *arguments], cwd=out, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert snapshot(watched) == before
    assert [path.name for path in out.iterdir()] == ["x.zip"]


def test_a_folder_that_is_no_environment_is_refused(packed, tmp_path):
    with open_submission(packed) as submission, pytest.raises(WiringError, match="no virtual environment"):
        install_test.install_test(submission, prepared=tmp_path, say=lambda line: None)


def test_too_little_disk_is_said_before_installing(packed, monkeypatch):
    monkeypatch.setattr(install_test, "NEEDED_DISK", 1 << 60)
    with open_submission(packed) as submission, pytest.raises(WiringError, match="GB"):
        install_test.install_test(submission, say=lambda line: None)


@pytest.mark.skipif(not os.environ.get(REAL_INSTALL), reason=f"installs the platform (3 minutes, 7 GB); set {REAL_INSTALL}=1, "
                    "or to a prepared environment's folder")
def test_the_platforms_own_tests_pass_where_we_are_not_installed(packed):
    prepared = os.environ[REAL_INSTALL]
    with open_submission(packed) as submission:
        steps = install_test.install_test(submission, prepared=None if prepared == "1" else Path(prepared))
    assert steps[-1].passed, steps[-1].output
    assert steps[-1].name == "the plugin's test.py"

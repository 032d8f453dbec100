"""`wiring pack`: the zip holds the same model, needs nothing of this package, and packing changes nothing else."""
from __future__ import annotations

import ast
import hashlib
import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

pytest.importorskip("brainscore_vision", reason="needs brainscore-vision, which runs on Python 3.11 only")

from wiring_plugins import (CorruptFile, DataUnavailable, Init, Initializer, UnknownName, WeightsRef,  # noqa: E402
                            WiringError, build_model, fingerprint)
from wiring_submission.zips import install_test, pack, rebuild, rules, vendor  # noqa: E402
from wiring_submission.zips.archive import open_submission  # noqa: E402

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


ACME = {
    "__init__.py": '"""Acme."""\nfrom .scales import scale\n',
    "scales.py": "SCALE = 0.5\n\n\ndef scale(weights):\n    return weights * SCALE\n",
    "plugin.py": """
        from acme_wiring import scale
        from wiring_plugins import Architecture, Commitment, Init, Initializer, Layer, Recipe, hookimpl
        from wiring_plugins.initializers.kaiming import kaiming


        def half(rng, shape, context):
            \"\"\"Half of Kaiming.\"\"\"
            # a comment that stays
            from .scales import SCALE
            assert SCALE == 0.5
            return scale(kaiming(rng, shape, context)).astype("float32")


        def tiny():
            from collections import OrderedDict

            from torch import nn
            area = OrderedDict(conv=nn.Conv2d(3, 8, 5, stride=2, bias=False), norm=nn.BatchNorm2d(8), nonlin=nn.ReLU())
            read = OrderedDict(pool=nn.AdaptiveAvgPool2d(2), flat=nn.Flatten(), linear=nn.Linear(32, 1000))
            return nn.Sequential(OrderedDict(V1=nn.Sequential(area), decoder=nn.Sequential(read)))


        LAYERS = (Layer(path="V1.conv", kind="conv", shape=(8, 3, 5, 5)),
                  Layer(path="V1.norm", kind="norm", shape=(8,), bias=True, after="V1.conv"),
                  Layer(path="decoder.linear", kind="linear", shape=(1000, 32), bias=True))
        TINY = Architecture(name="acme-tiny", build=tiny, layers=LAYERS, commitment=Commitment(
            regions={"V1": "V1"}, readout="decoder.pool", logits="decoder.linear", image_size=112))
        HALF = Recipe(name="acme-half", architecture="acme-tiny", trainable=("decoder",),
                      init={"V1.conv": Init("half"), "decoder.linear": Init("uniform-fan-in")})


        @hookimpl
        def wiring_initializers():
            return [Initializer(name="half", sample=half)]
    """,
}
"""A stranger's plugin: an architecture, an initialiser spread over two modules, and a recipe."""


@pytest.fixture(scope="module")
def acme(tmp_path_factory, registry):
    """The registry with the stranger's plugin, which is importable meanwhile."""
    folder = tmp_path_factory.mktemp("site")
    for name, text in ACME.items():
        path = folder / "acme_wiring" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        from acme_wiring import plugin
        yield replace(registry, architectures={**registry.architectures, "acme-tiny": plugin.TINY},
                      initializers={**registry.initializers, "half": plugin.wiring_initializers()[0]},
                      recipes={**registry.recipes, "acme-half": plugin.HALF})


@pytest.fixture(scope="module")
def acme_zip(acme, tmp_path_factory):
    path = tmp_path_factory.mktemp("acme") / "acme.zip"
    pack.pack("acme-half", path, registry=acme)
    return path


@pytest.fixture(scope="module")
def platform(packed, acme_zip, tmp_path_factory):
    """A folder for PYTHONPATH with the platform in it, whose only models are the packed ones."""
    import importlib.util
    installed = Path(importlib.util.find_spec("brainscore_vision").origin).parent
    folder = tmp_path_factory.mktemp("platform")
    copy = folder / "brainscore_vision"
    (copy / "models").mkdir(parents=True)
    for item in installed.iterdir():
        if item.name not in ("models", "__pycache__"):
            (copy / item.name).symlink_to(item)
    for path, plugin in ((packed, IDENTIFIER), (acme_zip, "acme_half")):
        with open_submission(path) as submission:
            submission.unpack(plugin, copy / "models" / plugin)
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


def test_every_import_is_of_the_platform_or_of_the_zip(packed):
    with open_submission(packed) as submission:
        files = submission.plugin_files(IDENTIFIER)
        for file in (file for file in files if file.endswith(".py")):
            for node in ast.walk(ast.parse(submission.text(IDENTIFIER, file))):
                if isinstance(node, ast.Import):
                    roots = {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    roots = {node.module.split(".")[0]}
                elif isinstance(node, ast.ImportFrom):
                    module = Path(file).parents[node.level - 1] / node.module.replace(".", "/")
                    text = submission.text(IDENTIFIER, f"{module}.py")
                    assert all(re.search(rf"^(def|class) {alias.name}\b|^{alias.name} =", text, re.M)
                               for alias in node.names), (file, ast.unparse(node))
                    continue
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


def test_the_zips_own_test_tells_another_model(platform):
    """Its test.py passes as packed, and fails for the same recipe under another seed."""
    models = platform / "brainscore_vision" / "models"
    other = models / "acme_other"
    shutil.copytree(models / "acme_half", other, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("__init__.py", "recipe.json", "expected.json"):
        text = (other / file).read_text().replace("acme_half", "acme_other")
        (other / file).write_text(text.replace('"seed": 0', '"seed": 1'))
    code = """
        import pytest
        options = ["-q", "-p", "no:cacheprovider", "--rootdir", sys.argv[1]]
        print(*(int(pytest.main([*options, f"{sys.argv[1]}/{name}/test.py"])) for name in ("acme_half", "acme_other")))
    """
    assert run_without_us(code, platform, models).splitlines()[-1] == "0 1"


def test_a_strangers_code_is_carried_along(acme):
    _, carried, _ = pack._parts(acme.recipe("acme-half"), acme)
    text = carried.files["acme_wiring/plugin.py"]
    assert "from ..wiring_plugins.initializers.kaiming import kaiming" in text
    assert "from .scales import scale" in text and "    from .scales import SCALE" in text
    assert "# a comment that stays" in text and "hookimpl" not in text
    assert carried.files["acme_wiring/scales.py"].startswith("SCALE = 0.5")
    assert not carried.foreign & {*OURS, "acme_wiring"}


def test_every_initialiser_and_source_can_be_carried_along(registry, tmp_path):
    """The copies of all of them can be imported where this package is not, and ask for nothing but the platform."""
    base, here = registry.recipe(MODEL), {}
    for name, source in registry.statistics.items():
        try:
            source.load()
            here[name] = source
        except DataUnavailable:
            pass
    kinds = sorted(registry.initializers)
    init = {path: Init(kinds[number % len(kinds)], source=sorted(here)[number % len(here)])
            for number, path in enumerate([*base.init, *range(len(kinds))])}
    _, carried, statistics = pack._parts(replace(base, init=init), registry)
    assert carried.foreign <= pack.PLATFORM_PROVIDES
    assert len(statistics) == len(here) - 1  # v1-physiology is code
    for file, text in carried.files.items():
        path = tmp_path / "carried_all" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    modules = ["carried_all." + file.removesuffix(".py").replace("/", ".") for file in carried.files
               if not file.endswith("__init__.py")]
    run_without_us(f"import importlib\nfor name in {modules!r}: importlib.import_module(name)", tmp_path)


def test_what_has_no_source_of_its_own_is_refused(registry):
    base = registry.recipe(MODEL)
    recipe = replace(base, name="nameless", init={**base.init, "V2.conv1": Init("nameless")})
    extended = replace(registry, initializers={
        **registry.initializers, "nameless": Initializer(name="nameless", sample=lambda rng, shape, context: None)})
    with pytest.raises(vendor.CannotCarry, match="'nameless'"):
        pack._parts(recipe, extended)


def test_what_the_platform_brings_is_not_copied(registry):
    """An architecture of torchvision is imported, not carried along."""
    from torchvision.models import alexnet
    base = registry.recipe(MODEL)
    extended = replace(registry, architectures={"torchvision-alexnet": replace(
        registry.architecture(base.architecture), name="torchvision-alexnet", build=alexnet)})
    extended = replace(extended, initializers=registry.initializers, statistics=registry.statistics)
    parts, carried, _ = pack._parts(replace(base, architecture="torchvision-alexnet"), extended)
    assert parts["architecture"]["build"] == "torchvision.models.alexnet:alexnet"
    assert not any(file.startswith("torchvision") for file in carried.files)


@pytest.mark.parametrize("package, body, sentence", [
    ("sly_reader", "import pkgutil\n    return np.full(shape, pkgutil.get_data(__package__, 'w'), 'float32')",
     "cannot be wired"),
    ("sly_namer", "return np.full(shape, len(__name__), 'float32')", "another model"),
])
def test_a_copy_that_is_not_the_model_is_refused(package, body, sentence, acme, tmp_path, monkeypatch):
    """What names and imports do not show is noticed when the copy is loaded; the zip is not made."""
    folder = tmp_path / "site" / package
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(f"import numpy as np\n\n\ndef sly(rng, shape, context):\n    {body}\n")
    (folder / "w").write_text("0.5")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    half = acme.recipe("acme-half")
    sly = Initializer(name="sly", sample=importlib.import_module(package).sly)
    registered = replace(acme, initializers={**acme.initializers, "sly": sly}, recipes={
        "acme-half": replace(half, init={**half.init, "V1.conv": Init("sly")})})
    with pytest.raises(vendor.CannotCarry, match=sentence):
        pack.pack("acme-half", tmp_path / "x.zip", registry=registered)
    assert [path.name for path in tmp_path.iterdir()] == ["site"]
    assert not any(name.startswith(rebuild.PACKAGE) for name in sys.modules)


def test_params_that_are_no_plain_numbers_are_refused(acme, tmp_path):
    half = acme.recipe("acme-half")
    init = {**half.init, "V1.conv": Init("constant", params={"value": np.float32(0.1)})}
    with pytest.raises(WiringError, match="float32 is not JSON serializable.*plain numbers"):
        recipes = {"acme-half": replace(half, init=init)}
        pack.pack("acme-half", tmp_path / "x.zip", registry=replace(acme, recipes=recipes))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("text, sentence", [
    ("import wiring_plugins\n\ndef f():\n    return wiring_plugins.__version__\n", "cannot be made relative"),
    ("from wiring_plugins.errors import *\n\ndef f():\n    return WiringError\n", "hides what is needed"),
    ("from wiring_plugins.errors import no_such_name\n\ndef f():\n    return no_such_name\n", "does not define"),
    ("def f():\n    return open(__file__).read()\n", "beside its source"),
    ("A = 1; B = 2\n\ndef f():\n    return B\n", "two statements"),
])
def test_code_that_cannot_be_followed_is_refused(text, sentence, tmp_path, monkeypatch):
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
        A += 1
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
    assert "# about A\nA = 1\n\"\"\"More about A.\"\"\"\nA += 1\n" in text and "def used" in text and "import os" in text
    assert not any(word in text for word in ("json", "About B", "unused", "TYPE_CHECKING", "import wiring_plugins"))


def test_odd_layouts_are_copied_faithfully(tmp_path, monkeypatch):
    """Form feeds, letters of several bytes, imports that share their line; what is left out leaves no gap."""
    (tmp_path / "odd_layout.py").write_text(
        '"""Doc."""\nimport typing\n\nimport os\nimport math\n\nif typing.TYPE_CHECKING:\n    import wiring_plugins\n'
        "from odd_helper import one, two  # both\n\n\ndef left_out():\n    return os, one\n\n\x0c\n# about f\n"
        "def f(é='é'):\n    if é: from odd_helper import three, four; é = three\n    return two, math\n")
    (tmp_path / "odd_helper.py").write_text("one = 1\ntwo = 2\nthree = 3\nfrom odd_deeper import four\n")
    (tmp_path / "odd_deeper.py").write_text("four = 4\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    carried = vendor.vendor([("odd_layout", "f")], own=("odd_layout", "odd_helper", "odd_deeper"),
                            place={"odd_layout": "a.b"})
    assert carried.files["a/b.py"] == (
        '"""Doc."""\n\nimport math\n\nfrom ..odd_helper import two  # both\n\n\n# about f\n'
        "def f(é='é'):\n    if é: from ..odd_helper import three; from ..odd_deeper import four; é = three\n"
        "    return two, math\n")


def test_two_modules_of_one_place_are_refused(tmp_path, monkeypatch):
    (tmp_path / "one_module.py").write_text("def f():\n    pass\n")
    (tmp_path / "two_module.py").write_text("def g():\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(vendor.CannotCarry, match="one_module and two_module would both become there.py"):
        vendor.vendor([("one_module", "f"), ("two_module", "g")], own=("one_module", "two_module"),
                      place={"one_module": "there", "two_module": "there"})


def test_the_platform_can_read_the_publication_of_every_model(registry):
    from pybtex.database import parse_string

    from wiring_submission.zips.reference import bibtex
    for recipe in registry.recipes.values():
        if text := bibtex(recipe):
            entry, = parse_string(text, "bibtex").entries.values()
            assert entry.persons["author"] and entry.fields["year"] and entry.fields["url"]
        assert text or "Geiger" not in recipe.reference, recipe.name


URL = "https://brainscore-storage.s3.us-east-1.amazonaws.com/brainscore-vision/models/u/w%2B1.pth?versionId=v1"


def test_hosted_weights_are_checked_by_our_loader(tmp_path, acme, monkeypatch):
    weights, path = tmp_path / "weights.safetensors", tmp_path / "hosted.zip"
    sha256 = pack.stored_weights("acme-half", weights, registry=acme)
    assert sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    pack.pack("acme-half", path, registry=acme, hosted=URL)
    with open_submission(path) as submission:
        assert "weights.safetensors" not in submission.plugin_files("acme_half")
        submission.unpack("acme_half", tmp_path / "hosted_plugin")
    monkeypatch.syspath_prepend(str(tmp_path))
    import brainscore_core.supported_data_standards.brainio.s3 as storage
    asked = []
    monkeypatch.setattr(storage, "load_weight_file", lambda **where: asked.append(where) or weights)
    from hosted_plugin import model
    local = build_model("acme-half", registry=acme)
    assert fingerprint(model.build_network().state_dict()) == fingerprint(local.state_dict())
    assert asked[0]["bucket"] == "brainscore-storage" and asked[0]["version_id"] == "v1"
    assert (asked[0]["folder_name"], asked[0]["relative_path"]) == ("brainscore-vision/models/u", "w+1.pth")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(Exception, match="altered or damaged") as raised:
        model.build_network()
    assert type(raised.value).__name__ == "CorruptFile"


def learn(network) -> None:
    network.decoder.linear.bias.data += 1
    network.V1.norm.num_batches_tracked += 3


def trained(acme, file: Path, change=learn) -> Path:
    """A delta file of acme-half whose decoder has learned."""
    from wiring_plugins.delta import Delta, frozen_fingerprints, stored_names, write_delta
    network = build_model("acme-half", registry=acme)
    change(network)
    names = stored_names(network, {"decoder.linear.weight", "decoder.linear.bias"})
    tensors = {name: tensor for name, tensor in network.state_dict().items() if name in names}
    write_delta(file, Delta(recipe=acme.recipe("acme-half"), tensors=tensors,
                            frozen=frozen_fingerprints(network, names)))
    return file


ODD = """we"ird \\u'];model_registry['y.safetensors"""


def test_a_trained_model_keeps_what_it_learned(acme, tmp_path, monkeypatch):
    name = f"acme-half@{trained(acme, tmp_path / ODD)}"
    packed = pack.pack(name, tmp_path / "trained.zip", registry=acme)
    assert packed.identifier == "acme_half_we_ird_u_model_registry_y"
    with open_submission(packed.path) as submission:
        submission.unpack(packed.identifier, tmp_path / "trained_plugin")
    monkeypatch.syspath_prepend(str(tmp_path))
    from trained_plugin import model
    rebuilt, local = model.build_network(), build_model(name, registry=acme)
    assert fingerprint(rebuilt.state_dict()) == fingerprint(local.state_dict())
    assert rebuilt.decoder.linear.bias.mean() == 1


def test_the_sign_of_a_zero_is_kept(acme, tmp_path):
    weights = trained(acme, tmp_path / "w.safetensors", lambda network: network.decoder.linear.bias.data.neg_())
    pack.pack(f"acme-half@{weights}", tmp_path / "x.zip", registry=acme)  # which compares all bits


def test_missing_or_altered_trained_weights_are_refused(acme, tmp_path):
    weights = trained(acme, tmp_path / "w.safetensors")
    recipe = replace(acme.recipe("acme-half"), weights=WeightsRef(kind="delta", file=str(weights), sha256="0" * 64))
    registered = replace(acme, recipes={"acme-half": recipe})
    with pytest.raises(CorruptFile, match="SHA-256"):
        pack.pack("acme-half", tmp_path / "x.zip", registry=registered)
    weights.unlink()
    with pytest.raises(WiringError, match="no weights file"):
        pack.pack("acme-half", tmp_path / "x.zip", registry=registered)
    assert not any(tmp_path.iterdir())


def test_too_large_a_trained_part_is_sent_to_the_large_file_upload(acme, tmp_path, monkeypatch):
    monkeypatch.setattr(pack, "HOSTED_ABOVE", 100)
    with pytest.raises(WiringError, match="--weights FILE.safetensors.*--hosted URL"):
        pack.pack("acme-half", tmp_path / "x.zip", registry=acme)
    assert not any(tmp_path.iterdir())


def invoke(*arguments):
    from wiring_plugins.cli import make_app
    return CliRunner().invoke(make_app(), [str(argument) for argument in arguments])


@pytest.mark.parametrize("arguments", [
    ("pack",), ("pack", MODEL, "--all"), ("pack", MODEL, "--weights", "w", "-o", "x.zip"),
    ("pack", "--all", "-o", "none"), ("pack", "--all", "--hosted", "https://x"), ("pack", "--all", "--identifier", "x"),
    ("pack", "no-such-model"), ("check", "x.zip", "--python-env", "."),
])
def test_bad_arguments_are_one_sentence(arguments):
    error = invoke(*arguments).exception
    assert isinstance(error, WiringError) and error.exit_code == 2


def test_an_unknown_model_writes_nothing(tmp_path, registry):
    with pytest.raises(UnknownName):
        pack.pack("wiring-gabor-frozn", tmp_path / "x.zip", registry=registry)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("target", ["missing/x.zip", ".", "/dev/null", 300 * "x"])
def test_a_path_that_cannot_be_written_is_refused_before_the_work(target, tmp_path, registry, monkeypatch):
    monkeypatch.setattr(pack, "wire", lambda *_: pytest.fail("the model was built"))
    for write in (pack.pack, pack.stored_weights):
        with pytest.raises(WiringError, match="cannot be written|is a folder|is a device"):
            write(MODEL, tmp_path / target, registry=registry)
    assert not any(tmp_path.iterdir())


def test_a_bad_address_is_refused_before_the_work(tmp_path, registry, monkeypatch):
    monkeypatch.setattr(pack, "wire", lambda *_: pytest.fail("the model was built"))
    with pytest.raises(WiringError, match="no address"):
        pack.pack(MODEL, tmp_path / "x.zip", registry=registry, hosted="https://host/x")


def test_without_the_platform_packing_says_so(tmp_path, registry, monkeypatch):
    monkeypatch.setattr(pack, "platform_folder", lambda: None)
    with pytest.raises(WiringError, match="brainscore-vision"):
        pack.pack(MODEL, tmp_path / "x.zip", registry=registry)


def test_a_failure_keeps_the_zip_that_was_there(tmp_path, registry, monkeypatch):
    (tmp_path / "x.zip").write_bytes(b"before")

    def fail(*_):
        assert os.listdir(tmp_path) == ["x.zip"]  # nor would a kill leave anything
        raise WiringError("broken")

    monkeypatch.setattr(pack, "wire", fail)
    with pytest.raises(WiringError, match="broken"):
        pack.pack(MODEL, tmp_path / "x.zip", registry=registry)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("x.zip", b"before")]


@pytest.mark.parametrize("name, wanted, sentence", [
    ("cornet-s", None, "already holds"), (MODEL, "alexnet", "already holds"), (MODEL, "Mine", "no identifier"),
    (MODEL, "my-model", "no identifier"), (MODEL, "_mine", "no identifier"), (MODEL, "../mine", "no identifier"),
    (MODEL, 101 * "a", "at most 100"),
])
def test_an_identifier_that_the_platform_refuses_is_refused(name, wanted, sentence, registry):
    with pytest.raises(WiringError, match=sentence):
        pack.identify(replace(registry.recipe(MODEL), name=name), wanted)


def test_a_new_version_gets_a_new_identifier(acme, tmp_path):
    packed = pack.pack("acme-half", tmp_path / "x.zip", registry=acme, identifier="acme_half_v2")
    with open_submission(packed.path) as submission:
        assert submission.plugins == ("acme_half_v2",)
        assert "model_registry['acme_half_v2'] = build\n" in submission.text("acme_half_v2", "__init__.py")


def test_all_makes_a_zip_of_every_model_and_names_those_that_failed(acme, tmp_path, monkeypatch):
    half = acme.recipe("acme-half")
    recipes = {"acme-half": half, "alexnet": replace(half, name="alexnet"), "acme-b": replace(half, name="acme-b")}
    monkeypatch.setattr("wiring_plugins.plugins.load_registry", lambda: replace(acme, recipes=recipes))
    error = invoke("pack", "--all", "-o", tmp_path).exception
    assert "1 of 3 models were not packed: alexnet" in str(error)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["acme_b.zip", "acme_half.zip"]


@pytest.mark.parametrize("url", ["nonsense", "https://example.org/a/b?versionId=1", "https://b.s3.amazonaws.com/a/b"])
def test_an_address_outside_the_platforms_storage_is_refused(url):
    with pytest.raises(WiringError, match="no address"):
        pack._storage_place(url)


def snapshot(folders) -> dict:
    return {path: (path.stat().st_size, path.stat().st_mtime_ns)
            for folder in folders for path in Path(folder).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts}


def test_packing_again_gives_the_same_bytes_and_changes_nothing_else(packed, tmp_path):
    """In another process, zone and folder, with one thread. The installed packages, the repository, the home and the
    current folder are as before."""
    import sysconfig
    repository = Path(__file__).parents[1]
    home, out = tmp_path / "home", tmp_path / "out"
    home.mkdir(), out.mkdir()
    watched = [sysconfig.get_paths()["purelib"], home, *(repository / folder for folder in
               ("wiring_plugins", "submission", "training", "weights", "docs"))]
    import brainscore_vision
    watched.append(Path(brainscore_vision.__file__).parent)
    before = snapshot(watched)
    environment = {**os.environ, "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"),
                   "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "5", "TZ": "Asia/Tokyo", "OMP_NUM_THREADS": "1"}
    code = f"""
import os
os.umask(0o077)
from wiring_plugins.cli import make_app
for arguments in (["pack", {MODEL!r}, "-o", "x.zip"], ["check", "x.zip"]):
    make_app()(arguments, standalone_mode=False)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=out, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert snapshot(watched) == before
    assert [path.name for path in out.iterdir()] == ["x.zip"]
    assert (out / "x.zip").read_bytes() == packed.read_bytes()


def test_a_folder_that_is_no_environment_is_refused(packed, tmp_path):
    with open_submission(packed) as submission, pytest.raises(WiringError, match="no virtual environment"):
        install_test.install_test(submission, prepared=tmp_path, say=lambda line: None)


def test_a_prepared_environment_is_only_read(tmp_path, monkeypatch):
    """Not even bytecode is written to it, and the current folder's clone of the platform is not taken for it."""
    prepared, clone = tmp_path / "prepared", tmp_path / "clone" / "brainscore_vision"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", prepared], check=True)
    packages = next(prepared.glob("lib/python*/site-packages"))
    for package in (packages / "brainscore_vision", packages / "pytest_check", clone):
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(f"WHERE = {str(package)!r}")
    before = sorted(prepared.rglob("*"))
    monkeypatch.chdir(clone.parent)
    with install_test._scratch_folder() as folder:
        scratch = install_test._Scratch(folder)
        scratch.make(prepared)
        code = "import tempfile, pytest_check, brainscore_vision; print(brainscore_vision.WHERE, tempfile.gettempdir())"
        where, temporary = scratch.step("x", ["-c", code]).output.split()
        assert where == str(packages / "brainscore_vision") and temporary.startswith(str(folder))
    assert sorted(prepared.rglob("*")) == before


def test_a_test_that_is_terminated_removes_its_folder(packed, tmp_path, monkeypatch):
    def terminate(*_):
        assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL, "that would end the tests"
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(install_test.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(install_test._Scratch, "make", terminate)
    result = invoke("check", packed, "--install-test")
    assert result.exit_code == 130 and not any(tmp_path.iterdir())


def test_a_scratch_folder_that_cannot_be_written_is_said(packed, monkeypatch):
    monkeypatch.setattr(install_test.shutil, "copytree", lambda *_: (_ for _ in ()).throw(shutil.Error(1000 * ["x"])))
    with open_submission(packed) as submission, pytest.raises(WiringError, match="TMPDIR") as raised:
        monkeypatch.setattr(install_test._Scratch, "make", lambda *_: install_test.shutil.copytree("a", "b"))
        install_test.install_test(submission, say=lambda line: None)
    assert len(str(raised.value)) < 200


def test_too_little_disk_is_said_before_installing(packed, monkeypatch):
    monkeypatch.setattr(install_test, "NEEDED_DISK", 1 << 60)
    with open_submission(packed) as submission, pytest.raises(WiringError, match="GB"):
        install_test.install_test(submission, say=lambda line: None)


def plugin_of(path: Path, identifier: str, folder: Path, monkeypatch):
    """The packed plugin's `model` module, imported from where it is unpacked."""
    package = f"unpacked_{identifier}"  # a name of its own: Python imports a name once
    with open_submission(path) as submission:
        submission.unpack(identifier, folder / package)
    monkeypatch.syspath_prepend(str(folder))
    return importlib.import_module(f"{package}.model")


def equal_scores(name: str, registry, path: Path, folder: Path, monkeypatch):
    """Score the local model and the one in the zip on an offline benchmark, each as `brainscore score` does."""
    from wiring_submission.brain_model import WiredBrainModel
    from wiring_submission.platform import platform_session
    recipe, before = registry.recipe(name), dict(os.environ)
    with platform_session():
        from wiring_submission.scoring import score_benchmark
        from wiring_submission.subjects import Subject
        packed = plugin_of(path, pack.identify(recipe), folder, monkeypatch)
        network = build_model(name, registry=registry)
        ways = [lambda window, _: WiredBrainModel(name, network, registry.commitment(recipe), window=window),
                lambda window, _: packed.build(window=window, device="cpu")]
        scores = [score_benchmark(Subject(name=name, identifier=name, fresh=way, seed=0, weights="untrained"),
                                  "Marques2020_DeValois1982-pref_or", seed=0, online=False) for way in ways]
    os.environ.clear()
    os.environ.update(before)
    assert scores[0].reason is None and 0 < scores[0].score < 1
    assert (scores[0].raw, scores[0].score) == (scores[1].raw, scores[1].score)


def test_offline_scores_of_local_and_packed_model_are_equal(acme, acme_zip, tmp_path, monkeypatch):
    """On a part of the benchmark's gratings, for a small model."""
    from wiring_submission.offline import gratings, stimuli
    near = tuple(grating for grating in gratings.receptive_field_grid()
                 if -0.5 <= grating.position_y <= 1.5 and -0.5 <= grating.position_x <= 1.5)
    monkeypatch.setenv("WIRING_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(stimuli, "GRIDS", {"Marques2020_receptive_field": lambda: near,
                                           "Marques2020_orientation": lambda: gratings.orientation_grid()[:384]})
    equal_scores("acme-half", acme, acme_zip, tmp_path, monkeypatch)


def test_offline_scores_of_the_full_model_are_equal(registry, packed, tmp_path, monkeypatch):
    equal_scores(MODEL, registry, packed, tmp_path, monkeypatch)


@pytest.mark.skipif(not os.environ.get(REAL_INSTALL), reason="installs the platform (3 minutes, 7 GB); set "
                    f"{REAL_INSTALL}=1, or to a prepared environment's folder")
def test_the_platforms_own_tests_pass_where_we_are_not_installed(packed):
    prepared = os.environ[REAL_INSTALL]
    with open_submission(packed) as submission:
        steps = install_test.install_test(submission, prepared=None if prepared == "1" else Path(prepared))
    assert steps[-1].passed, steps[-1].output
    assert steps[-1].name == "the plugin's test.py"

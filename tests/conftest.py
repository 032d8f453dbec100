"""Fixtures that several test files use."""
from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("BS_INSTALL_DEPENDENCIES", "no")  # the platform must never install packages during a test


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared test material; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("WIRING_SHARED", Path(__file__).parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip(f"needs the shared material, which is not at {folder}; set WIRING_SHARED")
    return folder


@pytest.fixture(scope="session")
def registry():
    from wiring_plugins import load_registry
    return load_registry()


@pytest.fixture(scope="module")
def host():
    """The plugin host, with the tiny architecture and its recipes."""
    import tiny

    from wiring_plugins import load_host
    host = load_host()
    host.manager.register(tiny)
    return host


@pytest.fixture(scope="module")
def tiny_registry(host):
    from wiring_plugins import load_registry
    return load_registry(host)


@pytest.fixture
def run(host, tiny_registry, tmp_path):
    """Train tiny recipes on synthetic images, or on others."""
    from tiny import CPU, SHORT

    from wiring_training import train

    def start(*recipes, condition=SHORT, hardware=CPU, data="synthetic:80:4", out=tmp_path / "run", **more):
        return train(recipes or ["tiny-it"], data=str(data), out=out, condition=condition, hardware=hardware, host=host,
                     **{"registry": tiny_registry, **more})
    return start


@pytest.fixture
def tree(tmp_path):
    """train/ and val/ of three classes with 8 and 4 images each, of several shapes."""
    import numpy as np
    from PIL import Image
    rng = np.random.RandomState(0)
    for split, count in (("train", 8), ("val", 4)):
        for label in range(3):
            for number in range(count):
                path = tmp_path / "tree" / split / f"n{label:08d}" / f"{number}.JPEG"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = rng.randint(0, 256, (40 + number, 60 - number, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(path, "JPEG")
    return tmp_path / "tree"

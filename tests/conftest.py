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

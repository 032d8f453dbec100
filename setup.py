"""Packaging: the repository's short folder names become import names that are safe in a user's site-packages."""
from pathlib import Path

from setuptools import find_packages, setup

FOLDERS = {
    "wiring_plugins": "wiring_plugins",
    "wiring_submission": "submission",
    "wiring_training": "training",
    "wiring_weights": "weights",
}


def packages() -> list[str]:
    return [name if sub is None else f"{name}.{sub}" for name, folder in FOLDERS.items()
            for sub in (None, *find_packages(folder))]


setup(
    name="wiring-plugins",
    version="0.1.0",
    description="Models of the visual system that are wired instead of trained, as plugins, scored on Brain-Score",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    packages=packages(),
    package_dir=FOLDERS,
    package_data={"wiring_plugins.statistics": ["*.json"], "wiring_weights": ["*.json", "*.safetensors"]},
    install_requires=[
        "numpy>=1.26",
        "packaging",
        "pillow",
        "platformdirs",
        "pluggy>=1.5",
        "psutil",
        "rich",
        "safetensors",
        "scikit-learn",
        "scipy",
        "threadpoolctl",
        "torch>=2.6",
        "torchvision>=0.21",
        "typer>=0.12",
        # its own pins (xarray < 2022.6, numpy < 2) need Python 3.11; everything but scoring works without it
        'brainscore-vision>=2.4.2; python_version < "3.12"',
    ],
    extras_require={
        "test": ["pytest", "hypothesis"],
        # torchcodec decodes twice as fast as Pillow and needs torch 2.11; nvidia-ml-py tells what energy a GPU has used
        "train": ["torchcodec>=0.16", "nvidia-ml-py"],
        "slurm": ["submitit"],
        "tensorboard": ["tensorboard"],
    },
    entry_points={
        "console_scripts": ["wiring = wiring_plugins.cli:main", "brainscore = wiring_plugins.cli:main"],
        "wiring_plugins": [
            "submission = wiring_submission.plugin",
            "submission-zips = wiring_submission.zips.plugin",
            "training = wiring_training.plugin",
            "tensorboard = wiring_training.tensorboard:plugin",
            "weights = wiring_weights.plugin",
        ],
    },
)

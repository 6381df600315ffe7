"""Installs speechbrain-mser; see README.md."""

import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
# Beside the package in a checkout, inside it where pip has installed it
# (speechbrain_mser/settings/project_files.py).
TRAVELS = ("hparams", "manifests/exclusions", "manifests/splits", "recipes")
# What running the recipe leaves there, see .gitignore
LEFT = ("results", "features", "environment", "models", "tokenizers")


def version():
    """The version, read without importing the package."""
    for line in (
        (HERE / "speechbrain_mser/__init__.py").read_text().splitlines()
    ):
        if line.startswith("__version__"):
            return line.split('"')[1]
    raise RuntimeError("no __version__ in speechbrain_mser/__init__.py")


class BuildWithRecipe(build_py):
    """Puts hyperparameters, manifests and the recipe into a wheel."""

    def run(self):
        """Copy them beside the modules; an editable install has them."""
        super().run()
        if self.editable_mode:
            return
        package = Path(self.build_lib) / "speechbrain_mser"
        for name in TRAVELS:
            shutil.copytree(
                HERE / name,
                package / name,
                ignore=shutil.ignore_patterns("__pycache__", ".*", *LEFT),
                dirs_exist_ok=True,
            )


setup(
    cmdclass={"build_py": BuildWithRecipe},
    name="speechbrain-mser",
    version=version(),
    description=(
        "Zero-shot multilingual speech emotion recognition with LLMs and "
        "contrastive learning, as a SpeechBrain plugin"
    ),
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    # The code, and the released recogniser's weights
    license_expression="Apache-2.0 AND LicenseRef-non-commercial-research",
    license_files=["LICENSE", "speechbrain_mser/models/open/LICENSE"],
    packages=find_packages(include=["speechbrain_mser", "speechbrain_mser.*"]),
    package_data={
        # The released recogniser
        "speechbrain_mser.models": ["open/*"],
        "speechbrain_mser.command": ["schema/*.json"],
    },
    entry_points={
        "console_scripts": ["mser = speechbrain_mser.command.main:main"]
    },
    python_requires=">=3.10",
    # The lower bounds are tried, on Python 3.10: make test-oldest.
    install_requires=[
        "speechbrain>=1.1.0",
        "torch>=2.7.1",
        "torchaudio>=2.7.1",
        # The first that reads the vocabularies of GGUF files rightly
        "transformers>=5.6",
        "huggingface-hub>=1.5",
        "hyperpyyaml>=1.2.2",
        "sentencepiece>=0.2.0",
        "pandas>=2.2",
        "soundfile>=0.13",
        "soxr>=0.5",
        "scikit-learn>=1.5",
        "scipy>=1.13",
        "safetensors>=0.5",
        # GGUF files: the first whose reader works with numpy 2
        "gguf>=0.13",
        "xxhash>=3.4.1",
        # The first whose locks are refused where a file system has none
        "filelock>=3.30",
        "numpy>=1.26",
        "ruamel.yaml>=0.18",
        "tqdm>=4.66",
        "matplotlib>=3.9",
        "pillow>=10.0",
        "tensorboard>=2.17",
    ],
    extras_require={
        # espeakng-loader carries eSpeak NG, which is GPL-3: never required
        "demo": ["espeakng-loader>=0.2.4"],
        "containers": ["av>=14.0"],
        # Where speech is; the first that asks for torch alone
        "timeline": ["silero-vad>=6.2.3"],
        # The page; the first that admits the hub's library in its version 1.5
        "page": ["gradio>=6.20", "silero-vad>=6.2.3"],
        # RESD, which comes as parquet files
        "parquet": ["av>=14.0", "pyarrow>=16.0"],
        # CMU-MOSEI, whose labels come as HDF5
        "mosei": ["h5py>=3.11"],
        # openSMILE's licence is for non-commercial use: never required
        "egemaps": ["opensmile>=2.5"],
        "lora": ["peft>=0.18"],
        # To export; whoever runs what was exported needs onnxruntime alone
        "onnx": ["onnx>=1.18", "onnxruntime>=1.20", "onnxscript>=0.5.4"],
        # What transformers asks for; needs a GPU, so tried on none
        "quantized": ["bitsandbytes>=0.46.1"],
        # Synthesis on many hosts
        "ray": ["ray>=2.40"],
        "docs": ["mkdocs-material>=9.6", "mkdocstrings-python>=1.16"],
        "dev": [
            "av>=14.0",
            "gradio>=6.20",
            "h5py>=3.11",
            "hypothesis>=6.100",
            "ipykernel>=6.29",
            "jsonschema>=4.18",
            "onnx>=1.18",
            "onnxruntime>=1.20",
            "onnxscript>=0.5.4",
            "nbclient>=0.10",
            "nbformat>=5.10",
            "opensmile>=2.5",
            "peft>=0.18",
            "pyarrow>=16.0",
            "playwright>=1.65",
            "psutil>=6.0",
            "pympi-ling>=1.70.2",
            "pytorch-metric-learning>=2.0",
            "pytest>=8.0",
            "pytest-xdist>=3.6.1",
            "ray>=2.40",
            "ruff>=0.17",
            "silero-vad>=6.2.3",
            "yamllint>=1.35",
        ],
    },
    classifiers=[
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Multimedia :: Sound/Audio :: Speech",
    ],
)

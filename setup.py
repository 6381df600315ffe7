"""Installs speechbrain-mser; see README.md."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent


def version():
    """The version, read without importing the package."""
    for line in (
        (HERE / "speechbrain_mser/__init__.py").read_text().splitlines()
    ):
        if line.startswith("__version__"):
            return line.split('"')[1]
    raise RuntimeError("no __version__ in speechbrain_mser/__init__.py")


setup(
    name="speechbrain-mser",
    version=version(),
    description=(
        "Zero-shot multilingual speech emotion recognition with LLMs and "
        "contrastive learning, as a SpeechBrain plugin"
    ),
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    packages=find_packages(include=["speechbrain_mser", "speechbrain_mser.*"]),
    python_requires=">=3.10",
    # The lower bounds are the versions that the tests ran with.
    install_requires=[
        "speechbrain>=1.1.2",
        "torch>=2.13.0",
        "torchaudio>=2.11.0",
        "transformers>=5.23.0",
        "huggingface-hub>=2.4",
        "hyperpyyaml>=1.2.3",
        "sentencepiece>=0.2.3",
        "pandas>=3.1",
        "soundfile>=0.14.0",
        "soxr>=1.1.0",
        "scikit-learn>=1.9",
        "scipy>=1.17",
        "safetensors>=0.8.0",
        "lmdb>=3.0",
        "xxhash>=4.1",
        "filelock>=4.2",
        "numpy>=2.4",
        "ruamel.yaml>=0.18.17",
        "tqdm>=4.70",
        "matplotlib>=3.11",
        "pillow>=13.0",
        "tensorboard>=2.21",
    ],
    extras_require={
        # espeakng-loader carries eSpeak NG, which is GPL-3: never required
        "demo": ["espeakng-loader>=0.2.4"],
        "containers": ["av>=18.0"],
        # RESD, which comes as parquet files
        "parquet": ["av>=18.0", "pyarrow>=26.0"],
        # CMU-MOSEI, whose labels come as HDF5
        "mosei": ["h5py>=3.16"],
        # openSMILE's licence is for non-commercial use: never required
        "egemaps": ["opensmile>=2.6"],
        "lora": ["peft>=0.21"],
        "quantized": ["bitsandbytes>=0.50"],
        # Synthesis on many hosts
        "ray": ["ray>=2.60"],
        "dev": [
            "av>=18.0",
            "h5py>=3.16",
            "hypothesis>=6.170",
            "opensmile>=2.6",
            "peft>=0.21",
            "pyarrow>=26.0",
            "psutil>=7.0",
            "pytest>=9.0",
            "pytest-xdist>=3.8",
            "ray>=2.60",
            "ruff>=0.17",
            "yamllint>=1.38",
        ],
    },
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3",
        "Topic :: Multimedia :: Sound/Audio :: Speech",
    ],
)

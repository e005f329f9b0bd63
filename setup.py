"""Package metadata. kernels/ stands at the top level and installs as gru4rec_np.kernels."""

import re
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "gru4rec_np/__init__.py").read_text())[1]

setup(
    name="gru4rec_np",
    version=VERSION,
    description="GRU4Rec from scratch in NumPy, every gradient by hand",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    packages=["gru4rec_np", "gru4rec_np.kernels", "gru4rec_np.kernels.emulator"],
    package_dir={"gru4rec_np": "gru4rec_np", "gru4rec_np.kernels": "kernels"},
    package_data={
        "gru4rec_np": ["configurations/*.toml"],
        "gru4rec_np.kernels": ["cuda/*.cu", "cuda/*.cuh"],
        "gru4rec_np.kernels.emulator": ["*.h", "*.cpp", "README.md"],
    },
    install_requires=[
        "numpy>=1.26",
        "scipy>=1.11",
        "numba>=0.60; python_version < '3.15'",  # where it is absent, NumPy does its work
        "polars>=1.34",
        "matplotlib>=3.8",
        "threadpoolctl>=3.2",
        "tqdm>=4.66",
        "tomli-w>=1.0",
        "tomli>=2; python_version < '3.11'",
    ],
    extras_require={
        "tutorials": ["jupyterlab>=4"],
        "test": [
            "pytest>=8",
            "pytest-xdist>=3.5",
            "hypothesis>=6.100",
            "ruff>=0.6",
            "pandas>=2",
            "nbclient>=0.10",
            "ipykernel>=6.29",
        ],
        "bench": ["torch>=2.2"],
        "cuda": ["cupy-cuda12x>=13"],  # for CUDA 12; cupy-cuda11x and -cuda13x do as well
    },
    classifiers=[
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)

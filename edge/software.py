"""The versions that change the physics, the picture or the judge, as every trial names them."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("enpire", "numpy", "numba", "mujoco", "opencv-python-headless", "gymnasium", "gym-pusht", "pymunk")


def versions() -> str:
    """Return one line, e.g. `enpire 0.1.0, numpy 2.4.6`; what is not installed is left out. Nothing is imported."""
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)

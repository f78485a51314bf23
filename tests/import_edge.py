"""Imports every module of the edge: run with the `edge` extra alone, it shows that nothing more is needed."""

from __future__ import annotations

import importlib
import os
import pkgutil

os.environ.setdefault("MUJOCO_GL", "egl")

import edge

NOT_A_MODULE = "__main__"  # running it is its only purpose

names = [item.name for item in pkgutil.walk_packages(edge.__path__, "edge.") if not item.name.endswith(NOT_A_MODULE)]
for name in names:
    importlib.import_module(name)
print(f"{len(names)} modules of the edge import on their own")

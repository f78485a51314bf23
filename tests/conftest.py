"""What holds for all tests."""

import os

from hypothesis import settings

# No test passes or fails by the time that it takes: the first call of a kernel compiles it.
settings.register_profile("enpire", deadline=None)
settings.load_profile("enpire")

# Read when mujoco is first imported, by whichever test does.
os.environ.setdefault("MUJOCO_GL", "egl")

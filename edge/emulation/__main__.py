"""`python -m edge.emulation STATION_DIR [PACE]` or `--check [STATION_DIR]`: the process of one emulated station.

It steps control, motors, physics and trials in lock-step; the policy runs in its own process and the uplink beside it.
Exit code 2 means that the station's files were refused or that nothing can be rendered here.
"""

import os
import sys


def _set_environment() -> None:
    """Name the renderer and keep libraries from starting threads; both are read when they are first imported."""
    os.environ.setdefault("MUJOCO_GL", "egl")
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "LP_NUM_THREADS"):
        os.environ.setdefault(name, "1")


if __name__ == "__main__":
    _set_environment()
    from edge.emulation.process import main

    sys.exit(main(sys.argv[1:]))

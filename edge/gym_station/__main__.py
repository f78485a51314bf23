"""`python -m edge.gym_station STATION_DIR [PACE]` or `--check STATION_DIR`: a station that is an environment.

Exit code 2 means that the station's files were refused or that its environment cannot be made here.
"""

import os
import sys


def _set_environment() -> None:
    """Let nothing look for a screen or start threads; read when the libraries are first imported."""
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")


if __name__ == "__main__":
    _set_environment()
    from edge.gym_station.process import main

    sys.exit(main(sys.argv[1:]))

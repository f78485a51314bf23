"""`python -m edge.replay RECORDING STATION_DIR [--json]`: feeds one recorded trial through today's code.

Exit code 0: all is as it was, within tolerance; 1: something differs; 2: the files cannot be used.
"""

import os
import sys


def _set_environment() -> None:
    """Keep libraries from starting threads; read when they are first imported."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")


def _lacks(error: ModuleNotFoundError) -> int:
    print(f"edge.replay: no {error.name} here: install the robot's side too, as enpire[edge]", file=sys.stderr)
    return 2


if __name__ == "__main__":
    _set_environment()
    try:
        from edge.replay.replay import main
    except ModuleNotFoundError as error:  # a coordinator alone; Python's own exit code would read as "differs"
        sys.exit(_lacks(error))
    sys.exit(main(sys.argv[1:]))

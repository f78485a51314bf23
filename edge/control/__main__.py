"""`python -m edge.control STATION_DIR [SOCKET]`: the control process of a real arm, or of emulated motors at SOCKET."""

import sys

from edge.control.process import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

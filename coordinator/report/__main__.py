"""Makes the report of a run, `python -m coordinator.report runs/<id>`, or of several one page that compares them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from coordinator.report.run import ReportError
from coordinator.report.write import write_reports


def main() -> int:
    """Write the report and print where it is; one line and exit 1 where the folder holds no run."""
    parser = argparse.ArgumentParser(prog="python -m coordinator.report", description=__doc__)
    parser.add_argument(
        "run_dirs", type=Path, nargs="+", metavar="RUN_DIR", help="folder of a run, with coordinator.db"
    )
    try:
        print(write_reports(parser.parse_args().run_dirs))
    except (ReportError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

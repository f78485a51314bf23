"""`python -m coordinator` is `enpire-coord`."""

from __future__ import annotations

from coordinator.cli import main

if __name__ == "__main__":
    main()

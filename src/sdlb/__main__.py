"""`python -m sdlb` is the command `sdlb`."""

from __future__ import annotations

import sys

from sdlb.cli import main

if __name__ == "__main__":
    sys.exit(main())

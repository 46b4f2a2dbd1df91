"""`python -I -S .../supervisor/__main__.py FOLDER`: becomes the supervisor of a slot, in the background."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    here = os.path.abspath(__file__)
    for _ in range(4):
        here = os.path.dirname(here)
    sys.path.append(here)  # -I and -S have left it out, with everything else that is installed
    from sdlb.adapters.supervisor.main import main

    sys.exit(main(sys.argv[1]))

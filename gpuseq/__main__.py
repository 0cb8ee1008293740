"""``python -m gpuseq``: the command, where its script is not on PATH."""

from __future__ import annotations

import sys

from gpuseq.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

"""What gpuseq costs, against what would be used instead."""

import os as _os
import sys as _sys

REHEARSES = _os.environ.get("GPUSEQ_GPU_STANDIN", "") not in ("", "0")
"""Whether this is a rehearsal of what needs a GPU: every process of it gets the tests' stand-ins for one."""

if REHEARSES:
    from tests.standin.process import install as _install

    # A worker of gpuseq's does without torch, whose import takes longer than its work.
    _install(with_torch="benchmarks.worker" not in _sys.orig_argv)

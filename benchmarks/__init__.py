"""What gpuseq costs, against what people would use instead."""

import os as _os

REHEARSES = _os.environ.get("GPUSEQ_GPU_STANDIN", "") not in ("", "0")
"""Whether this is a rehearsal of what needs a GPU: every process of it gets the tests' stand-ins for one."""

if REHEARSES:
    from tests.cuda.rehearsal import install as _install

    _install()

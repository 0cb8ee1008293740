"""A pytest plugin for compute-sanitizer: without CuPy's pool each array ends where its memory does."""

import cupy

cupy.cuda.set_allocator(None)

"""``device="cuda"`` from the iterator, the cache and the loaders down to interpreted PTX.

What `test_on_standin` and `test_second_device` ask of g++'s code is asked of NVRTC's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.feed.test_second_device import (  # noqa: F401
    test_batches,
    test_batches_that_threads_made_have_arrived,
    test_files_without_an_iterator,
    test_fit_on_a_device_array,
    test_process,
)
from tests.iterators.test_on_standin import (  # noqa: F401
    test_a_cache_on_the_host_sends_only_the_batch,
    test_an_array_beyond_the_limit_stays_on_the_host,
    test_arrays_labels_and_weights,
    test_bad_files,
    test_folders,
    test_masks,
    test_single_images_and_free_functions,
    test_the_second_device_is_used_while_the_first_is_current,
)
from tests.standin import cupy as standin
from tests.standin import work
from tests.standin.ptx import compiler
from tests.standin.ptx.runner import PtxRun

pytestmark = [
    pytest.mark.skipif(not compiler.is_installed(), reason="NVRTC is not installed"),
    pytest.mark.filterwarnings("ignore:interpolation_order"),
]


@pytest.fixture(autouse=True)
def cuda() -> Iterator[Any]:
    """Put the interpreter in the place that g++'s code has in those files."""
    with pytest.MonkeyPatch.context() as patch:
        before = work.num_launches(work.COMPILED)
        yield standin.install(patch, PtxRun(schedule="random"))
        assert work.num_launches(work.COMPILED) == before


@pytest.fixture
def cupy(cuda: Any) -> Any:
    import cupy

    return cupy

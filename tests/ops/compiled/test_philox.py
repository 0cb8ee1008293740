"""Numbers by key from the library are those of NumPy's twin, and the plans ask for them there."""

from __future__ import annotations

import numpy as np
import pytest

from gpuseq.ops import dispatch  # noqa: F401  from here on plans ask the library
from gpuseq.ops.compiled import library
from gpuseq.ops.compiled.philox import uniform_rows
from gpuseq.plan import philox
from tests import compiled_library
from tests.compare import assert_same


def test_the_library_is_asked_and_gives_numpys_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few and many samples and numbers, ids and keys of 64 bits, ids that are not in a row."""
    compiled_library.require()
    assert philox._compiled is uniform_rows
    rng = np.random.default_rng(0)
    for num_samples, num_doubles in [(0, 3), (1, 1), (2, 4), (5, 5), (33, 22), (256, 0)]:
        seed, epoch = rng.integers(0, 2**64, 2, np.uint64).tolist()
        for ids in (rng.integers(0, 2**62, 2 * num_samples)[::-2], np.arange(num_samples, dtype=np.uint64) + 2**63):
            for place in (-1, 0, 7):
                drawn = []
                for engine in ("numpy", "compiled"):
                    monkeypatch.setenv(library.ENGINE, engine)
                    # None from the library says that NumPy is to draw.
                    assert (uniform_rows(ids, 1, seed=seed, epoch=0, space=0) is None) == (engine == "numpy")
                    if place < 0:
                        drawn.append(philox.philox_uniform(ids, num_doubles, seed=seed, epoch=epoch))
                    else:
                        drawn.append(philox.philox_rows(ids, num_doubles, seed=seed, epoch=epoch, place=place))
                assert_same(drawn[1], drawn[0])


@pytest.mark.parametrize("engine", ["numpy", "compiled"])
@pytest.mark.parametrize("key", [{"seed": -1, "epoch": 0}, {"seed": 0, "epoch": 2**64}])
def test_keys_have_64_bits(engine: str, key: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    if engine == "compiled":
        compiled_library.require()
    monkeypatch.setenv(library.ENGINE, engine)
    with pytest.raises(OverflowError):
        philox.philox_rows(np.arange(3), 4, place=0, **key)

"""Who works on the host: what GPUSEQ_CPU_ENGINE says, what is missing, and who tells of it."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest

from gpuseq.base.errors import MissingDependencyError
from gpuseq.cli.doctor import examine
from gpuseq.generator import ImageDataGenerator
from gpuseq.ops import dispatch as ops
from gpuseq.ops.compiled import augment as ops_compiled
from gpuseq.ops.compiled import library
from gpuseq.ops.options import AugmentOptions
from tests import compiled_library
from tests.cases import draw_params, images


@pytest.fixture(autouse=True)
def _fresh() -> None:
    library.asked_for.cache_clear()


def _asked_engines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows by the instruction set of each batch of the compiled engine."""
    seen: list[str] = []
    caller = ops_compiled._caller

    def spy(instruction_set: library.InstructionSet, *arguments: Any) -> Callable[[int], None]:
        seen.append(instruction_set.name)
        return caller(instruction_set, *arguments)

    monkeypatch.setattr(ops_compiled, "_caller", spy)
    return seen


def test_each_engine_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled_library.require()
    seen = _asked_engines(monkeypatch)
    batch, params = images((2, 6, 5, 3), "uint8"), draw_params(2, 6, 5)
    found = library.instruction_sets()
    assert not isinstance(found, str)
    widest = found[0].name
    assert found[-1].name == "baseline"
    wanted = {"": [widest], "auto": [widest], "compiled": [widest], "compiled:baseline": ["baseline"], "numpy": []}
    for engine, names in wanted.items():
        monkeypatch.setenv(library.ENGINE, engine)
        ops.augment(batch, params, AugmentOptions())
        assert seen == names, engine
        seen.clear()


def test_an_unknown_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(library.ENGINE, "compild")
    with pytest.raises(ValueError, match=r"GPUSEQ_CPU_ENGINE must be one of .*; got 'compild'.*compiled"):
        library.chosen()


def test_a_missing_library_is_said_once_and_never_where_it_is_insisted_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setenv(library.PATH, str(tmp_path / "nothing.so"))
    monkeypatch.delenv(library.ENGINE, raising=False)
    caplog.set_level(logging.INFO, "gpuseq")
    assert library.chosen() is None
    assert library.chosen() is None
    (record,) = caplog.records
    assert "no C++ compiler" in record.message
    assert library.describe().startswith("numpy (the library was not built")
    monkeypatch.setenv(library.ENGINE, "compiled")
    with pytest.raises(MissingDependencyError, match="GPUSEQ_CPU_ENGINE=compiled cannot be had: the library was not"):
        library.chosen()


def test_the_variable_is_read_at_every_call_however_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled_library.require()
    monkeypatch.delenv(library.ENGINE, raising=False)
    found = library.chosen()
    assert found is not None
    with mock.patch.dict(os.environ, {library.ENGINE: "numpy"}):
        assert library.chosen() is None
    assert library.chosen() is found
    with mock.patch.dict(os.environb, {library.ENGINE.encode(): b"numpy"}):
        assert library.chosen() is None
    assert library.chosen() is found
    monkeypatch.setattr(os, "environ", {**os.environ, library.ENGINE: "numpy"})  # another mapping
    assert library.chosen() is None


def test_an_instruction_set_that_this_machine_lacks_is_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled_library.require()
    found = library.instruction_sets()
    assert not isinstance(found, str)
    monkeypatch.setattr(library, "instruction_sets", lambda: found[-1:])
    monkeypatch.setenv(library.ENGINE, "auto")
    chosen = library.chosen()
    assert chosen is not None
    assert chosen.name == "baseline"
    monkeypatch.setenv(library.ENGINE, "compiled:avx2")
    with pytest.raises(MissingDependencyError, match="this machine runs baseline"):
        library.chosen()


def test_a_library_of_another_version_or_none_at_all_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiled_library.require()
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"no library")
    monkeypatch.setenv(library.PATH, str(broken))
    assert "cannot be loaded" in str(library.instruction_sets())
    monkeypatch.undo()
    own = Path(shutil.copy(str(library._path()), tmp_path / "own.so"))
    monkeypatch.setenv(library.PATH, str(own))
    monkeypatch.setattr(library, "ABI", library.ABI + 1)
    assert "of another version of gpuseq" in str(library.instruction_sets())


def test_a_library_of_the_first_interface_is_of_another_version(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It lacks functions that later ones have."""
    (tmp_path / "first.so").touch()
    first = SimpleNamespace(gpuseq_abi=lambda: 1, gpuseq_job_bytes=lambda: 0, gpuseq_resize_job_bytes=lambda: 0)
    monkeypatch.setattr(library.ctypes, "CDLL", lambda path: first)
    monkeypatch.setenv(library.PATH, str(tmp_path / "first.so"))
    assert f"of another version of gpuseq (its interface is 1, not {library.ABI})" in str(library.instruction_sets())


def test_doctor_and_explain_name_the_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiled_library.require()
    iterator = ImageDataGenerator(device="cpu", rotation_range=10).flow(np.zeros((4, 8, 8, 3), np.uint8), batch_size=2)
    monkeypatch.setenv(library.ENGINE, "compiled:baseline")
    assert dict(iterator.explain().path)["engine"].startswith("compiled, baseline, ")
    (finding,) = (finding for finding in examine().findings if finding.name == "compiled CPU engine")
    assert finding.found
    assert finding.detail.endswith("at work: compiled, baseline")
    monkeypatch.setenv(library.ENGINE, "numpy")
    assert dict(iterator.explain().path)["engine"].startswith("numpy (GPUSEQ_CPU_ENGINE=numpy), ")
    monkeypatch.delenv(library.ENGINE)
    monkeypatch.setenv(library.PATH, str(tmp_path / "nothing.so"))
    (finding,) = (finding for finding in examine().findings if finding.name == "compiled CPU engine")
    assert not finding.found
    assert "g++" in str(finding.install)

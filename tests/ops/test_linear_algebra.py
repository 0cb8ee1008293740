"""A fork waits for NumPy's linear algebra: for OpenBLAS, whose threads and locks it would else wait for for ever."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import gpuseq
from gpuseq.base import forks
from gpuseq.ops import dispatch as ops
from gpuseq.ops import maps
from gpuseq.ops.numpy import affine
from gpuseq.plan.columns import identity_params
from gpuseq.transforms import statistics

PACKAGE = Path(gpuseq.__file__).parent
NUMPYS = {
    "dot",
    "vdot",
    "inner",
    "matmul",
    "einsum",
    "tensordot",
    "convolve",
    "correlate",
    "polyfit",
    "cov",
    "corrcoef",
}
"""Functions of NumPy that go to BLAS; and `numpy.linalg` as a whole."""


def is_linear_algebra(node: ast.AST) -> bool:
    """Return whether an expression is a product of matrices, or a call of what multiplies or solves."""
    if isinstance(node, ast.BinOp | ast.AugAssign):
        return isinstance(node.op, ast.MatMult)
    if not isinstance(node, ast.Call):
        return False
    names = ast.unparse(node.func).split(".")
    return len(names) > 1 and (names[-1] in NUMPYS or "linalg" in names)


def uses(node: ast.AST, *, is_waited_for: bool = False) -> Iterator[tuple[str, bool]]:
    """Yield each use, and whether it stands in a block that forks wait for."""
    if isinstance(node, ast.With):
        asked = [ast.unparse(item.context_expr) for item in node.items]
        is_waited_for = is_waited_for or "forks_wait(LINEAR_ALGEBRA)" in asked
    if is_linear_algebra(node):
        yield ast.unparse(node), is_waited_for
    for child in ast.iter_child_nodes(node):
        yield from uses(child, is_waited_for=is_waited_for)


def test_the_rule_below_finds_what_it_is_for() -> None:
    waited_for = "with forks_wait(LINEAR_ALGEBRA):\n    a.dot(b)\n    np.linalg.svd(c)\n"
    assert [found for _, found in uses(ast.parse(waited_for))] == [True, True]
    others = "with other():\n    a @ b\na @= b\nnp.linalg.solve(a, b)\nx = np.dot(np.dot(a, b), c)\n"
    assert [found for _, found in uses(ast.parse(others))] == [False] * 5


def test_all_linear_algebra_on_the_host_is_waited_for() -> None:
    found = {
        f"{path.relative_to(PACKAGE)}: {use}": is_waited_for
        for path in PACKAGE.rglob("*.py")
        if path.parent.name != "cuda"  # where arrays are CuPy's
        for use, is_waited_for in uses(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert len(found) >= 8
    assert [use for use, is_waited_for in found.items() if not is_waited_for] == []


def standardized() -> np.ndarray:
    generator = gpuseq.ImageDataGenerator(featurewise_center=True, zca_whitening=True, device="cpu")
    generator.mean, generator.zca_whitening_matrix = 0.0, np.eye(12, dtype=np.float32)
    return np.asarray(generator.standardize(np.ones((2, 2, 3), np.float32)))


WORK: dict[str, Callable[[], object]] = {
    "maps of a batch": lambda: affine.inverse_maps(np.repeat(identity_params(1), 3), 8, 8),
    "a map of one image": lambda: gpuseq.transform_matrix_offset_center(np.eye(3), 8, 8),
    "perspectives": lambda: maps.perspective(np.array([[0.0, 0, 7, 1, 6, 7, 1, 6]]), 8, 8),
    "flat perspectives": lambda: maps.perspective(np.zeros((1, 8)), 8, 8),
    "whitening a batch": lambda: ops.whiten(np.ones((1, 2, 2, 3), np.float32), np.eye(12, dtype=np.float32)),
    "whitening an image": standardized,
    "fit": lambda: statistics.whitening_matrix(np.eye(4), 1e-6),
}


@pytest.mark.parametrize("what", WORK)
def test_a_child_of_such_a_moment_refuses_and_does_not_hang(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    WORK[what]()
    monkeypatch.setattr(forks, "_inherited", {forks.LINEAR_ALGEBRA})
    with pytest.raises(forks.InheritedLockError, match="linear algebra of NumPy"):
        WORK[what]()

"""Small kernels, written by hand, that show what single instructions do."""

from __future__ import annotations

import numpy as np

from .encode import encode
from .machine import Array, Grid, Program, Result, catalogue
from .parse import parse

__all__ = ["kernel", "launch", "probe"]

_HEADER = ".version 9.0\n.target sm_80\n.address_size 64\n"
_REGISTERS = """
    .reg .pred %p<20>;
    .reg .b16 %rs<20>;
    .reg .b32 %r<20>;
    .reg .b64 %rd<20>;
    .reg .f32 %f<20>;
    .reg .f64 %fd<20>;
"""


def kernel(body: str, parameters: str = ".param .u64 data", before: str = "") -> Program:
    """Return a program of a kernel's body; there are twenty registers of each kind."""
    text = f"{_HEADER}{before}\n.visible .entry probe({parameters})\n{{{_REGISTERS}{body}\n    ret;\n}}\n"
    return Program(encode(parse(text), "probe", catalogue()))


def launch(body: str, data: np.ndarray, threads: int = 1, before: str = "", **grid: object) -> Result:
    """Run a body whose only parameter is ``data``, which it may write to."""
    how = Grid(blocks=grid.pop("blocks", (1,)), threads=threads, **grid)  # type: ignore[arg-type]
    address = np.uint64(data.ctypes.data)
    return kernel(body, before=before).launch(how, [address], [Array(int(address), data.nbytes, True)])


_NARROW = {
    "b": "cvt.u16.u64 %rs{k}, %rd{k};",
    "h": "cvt.u16.u64 %rs{k}, %rd{k};",
    "w": "cvt.u32.u64 %r{k}, %rd{k};",
    "d": "",
}
_NAMES = {"p": "%p{k}", "b": "%rs{k}", "h": "%rs{k}", "w": "%r{k}", "d": "%rd{k}"}


def probe(opcode: str, results: str, sources: str, operands: np.ndarray) -> np.ndarray:
    """Run one instruction on many operands.

    Parameters
    ----------
    opcode : str
        As it is written.
    results, sources : str
        What it takes, as the catalogue says it.
    operands : numpy.ndarray
        (number of sources, N) uint64.

    Returns
    -------
    numpy.ndarray
        (N,) uint64, each the bits of the result's register.
    """
    num_sources, count = operands.shape
    lines = [
        "ld.param.u64 %rd10, [data];",
        "mov.u32 %r10, %tid.x;",
        "mov.u32 %r11, %ctaid.x;",
        "mov.u32 %r12, %ntid.x;",
    ]
    lines += ["mad.lo.s32 %r13, %r11, %r12, %r10;", f"setp.ge.s32 %p10, %r13, {count};", "@%p10 bra $END;"]
    lines += ["mul.wide.s32 %rd11, %r13, 8;", "add.s64 %rd12, %rd10, %rd11;"]
    for k, kind in enumerate(sources.lower()):
        lines.append(f"ld.global.b64 %rd{k}, [%rd12+{8 * count * k}];")
        lines.append(f"setp.ne.u64 %p{k}, %rd{k}, 0;" if kind == "p" else _NARROW[kind].format(k=k))
    result = _NAMES[results.lower()].format(k=9)
    names = ", ".join(_NAMES[kind].format(k=k) for k, kind in enumerate(sources.lower()))
    lines.append(f"{opcode} {result}, {names};")
    widen = {"p": "selp.b64 %rd13, 1, 0, %p9;", "d": "mov.b64 %rd13, %rd9;", "w": "cvt.u64.u32 %rd13, %r9;"}
    lines.append(widen.get(results.lower(), "cvt.u64.u16 %rd13, %rs9;"))
    lines.append(f"st.global.b64 [%rd12+{8 * count * num_sources}], %rd13;\n$END:")
    data = np.concatenate([operands.astype(np.uint64).ravel(), np.zeros(count, np.uint64)])
    launch("\n".join(lines), data, threads=256, blocks=(-(-count // 256),))
    return data[-count:]

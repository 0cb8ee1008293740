"""What we ask of CuPy, and what its stand-in offers, is what the installed CuPy has: names, arguments, views.

Nothing here needs a driver: CuPy imports without one, and even its arrays can be looked at, on borrowed host memory.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gpuseq.ops.cuda import compile as kernels
from tests.standin import array as standin_array
from tests.standin import cupy as standin

cupy = pytest.importorskip("cupy")
if "stand-in" in cupy.__version__:  # a rehearsal: there is nothing to compare with
    pytest.skip("CuPy's stand-in is in its place", allow_module_level=True)

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(
    [
        *(ROOT / "gpuseq").rglob("*.py"),
        *(ROOT / "benchmarks").rglob("*.py"),
        ROOT / "tests" / "feed" / "test_tensors.py",
        *(ROOT / "tests" / "ops" / "cuda").glob("test_*.py"),
        *(ROOT / "tests").glob("*.py"),
    ]
)
ROOTS = ("cupy", "cupyx", "nvidia", "torch", "jax")
RETURNS = {
    "cupy.cuda.get_current_stream": "cupy.cuda.Stream",
    "cupy.cuda.Stream.from_external": "cupy.cuda.Stream",
    "cupy.cuda.Stream.record": "cupy.cuda.Event",
    "cupy.get_default_memory_pool": "cupy.cuda.MemoryPool",
    **{
        f"cupy.{name}": "cupy.ndarray"
        for name in (
            *("array", "asarray", "ascontiguousarray", "clip", "concatenate", "empty", "from_dlpack", "full"),
            *("mean", "moveaxis", "rint", "square", "stack", "std", "where", "zeros"),
        )
    },
    **{
        f"cupy.ndarray.{name}": "cupy.ndarray"
        for name in ("astype", "copy", "reshape", "transpose", "swapaxes", "view", "mean", "sum", "min", "max")
    },
}
"""What a function returns, where it is no class."""

HOLDS = {"cupy.ndarray.data": "cupy.cuda.MemoryPointer", "cupy.ndarray.device": "cupy.cuda.Device"}
ON_INSTANCES = {"cupy.cuda.Stream.ptr", "cupy.cuda.Stream.device_id"}
"""Set by a constructor, so that the class does not have it."""


def resolve(path: str) -> Any:
    """Return the object of a dotted name, importing modules on the way.

    Raises
    ------
    AttributeError, ImportError
        If there is no such thing.
    """
    import importlib

    first, *rest = path.split(".")
    found = importlib.import_module(first)
    for depth, name in enumerate(rest, 1):
        try:
            found = getattr(found, name)
        except AttributeError:
            if not inspect.ismodule(found):
                raise
            try:
                found = importlib.import_module(".".join([first, *rest[:depth]]))
            except ModuleNotFoundError as error:
                raise AttributeError(f"{path}: no {name!r}") from error
    return found


class Uses(ast.NodeVisitor):
    """Collects the dotted names of a file that begin with one of `ROOTS`, and the calls of them.

    Followed are imports, at any depth and under any name, ``self._cupy = cupy``, ``xp = array_module(...)``, and what
    a variable is made of: after ``event = cupy.cuda.Event()`` each ``event.x`` counts as ``cupy.cuda.Event.x``.
    """

    def __init__(self) -> None:
        self.aliases: dict[str, str] = {}
        self.names: dict[str, int] = {}
        self.calls: list[tuple[str, ast.Call]] = []

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        """What a function names is its own; attributes of ``self`` are shared by all methods."""
        before = dict(self.aliases)
        for argument in ast.walk(node.args):
            if isinstance(argument, ast.arg):
                self.aliases.pop(argument.arg, None)
        self.generic_visit(node)
        own = {name: target for name, target in self.aliases.items() if name.startswith("self.")}
        self.aliases = before | own

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            if alias.name.partition(".")[0] in ROOTS:
                target = alias.name if alias.asname else alias.name.partition(".")[0]
                self.aliases[alias.asname or target] = target
                self.names.setdefault(alias.name, node.lineno)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.level == 0 and node.module and node.module.partition(".")[0] in ROOTS:
            for alias in node.names:
                self.aliases[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                self.names.setdefault(f"{node.module}.{alias.name}", node.lineno)

    def visit_Assign(self, node: ast.Assign) -> None:
        source = self.dotted(node.value)
        for target in node.targets:
            if source and source.partition(".")[0] in ROOTS:
                self.aliases[ast.unparse(target)] = source
            else:
                self.aliases.pop(ast.unparse(target), None)
        self.generic_visit(node)

    def visit_With(self, node: ast.With) -> None:
        for item in node.items:
            if item.optional_vars is not None and (source := self.dotted(item.context_expr)):
                self.aliases[ast.unparse(item.optional_vars)] = source
        self.generic_visit(node)

    def dotted(self, node: ast.expr) -> str | None:
        """Return the name that an expression stands for."""
        text = ast.unparse(node)
        if text in self.aliases:
            return self.aliases[text]
        if isinstance(node, ast.Attribute):
            before = self.dotted(node.value)
            return HOLDS.get(f"{before}.{node.attr}", f"{before}.{node.attr}") if before else None
        if not isinstance(node, ast.Call):
            return None
        if isinstance(node.func, ast.Name) and node.func.id == "array_module":
            return "cupy"
        if isinstance(node.func, ast.Name) and node.func.id in ("require", "need", "importorskip") and node.args:
            return str(ast.literal_eval(node.args[0])) if isinstance(node.args[0], ast.Constant) else None
        made = self.dotted(node.func)
        if made is None:
            return None
        return RETURNS.get(made, made if made.rpartition(".")[2][:1].isupper() and made.startswith("cupy") else None)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if (name := self.dotted(node)) is not None:
            self.names.setdefault(name, node.lineno)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if (name := self.dotted(node.func)) is not None:
            self.calls.append((name, node))
        self.generic_visit(node)


@cache
def uses_of(path: Path) -> Uses:
    tree = ast.parse(path.read_text())
    found = Uses()
    found.visit(tree)  # the aliases first: an attribute may be read above its assignment
    found.names.clear()
    found.calls.clear()
    found.visit(tree)
    return found


def all_uses(root: str) -> Iterator[tuple[str, str]]:
    """Yield (where, dotted name)."""
    for path in FILES:
        for name, line in uses_of(path).names.items():
            if name.partition(".")[0] == root:
                yield f"{path.relative_to(ROOT)}:{line}", name


def parameters_of(found: Any) -> dict[str, inspect.Parameter] | None:
    """Return the parameters of a callable, from its signature or the first line of a Cython docstring."""
    try:
        return dict(inspect.signature(found).parameters)
    except (TypeError, ValueError):
        pass
    line = next(iter((inspect.getdoc(found) or "").splitlines()), "")
    match = re.match(r"[\w.]+\((.*?)\)(?: ->.*)?$", line)
    if match is None:
        return None
    parameters: dict[str, inspect.Parameter] = {}
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    for text in filter(None, re.split(r",\s*(?![^(\[]*[)\]])", match[1].replace("\\", ""))):
        name = text.partition("=")[0].strip().split()[-1].lstrip("*")
        if text.strip() in ("*", "/"):
            kind = inspect.Parameter.KEYWORD_ONLY if text.strip() == "*" else kind
        elif text.strip().startswith("**"):
            parameters[name] = inspect.Parameter(name, inspect.Parameter.VAR_KEYWORD)
        elif text.strip().startswith("*"):
            parameters[name] = inspect.Parameter(name, inspect.Parameter.VAR_POSITIONAL)
            kind = inspect.Parameter.KEYWORD_ONLY
        else:
            parameters[name] = inspect.Parameter(name, kind)
    return parameters


def refused(found: Any, call: ast.Call) -> str | None:
    """Return what is wrong with the arguments of a call, as far as their names and number tell."""
    parameters = parameters_of(found)
    if parameters is None:
        return None
    kinds = [parameter.kind for parameter in parameters.values()]
    named = {name for name, parameter in parameters.items() if parameter.kind != inspect.Parameter.POSITIONAL_ONLY}
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        for keyword in call.keywords:
            if keyword.arg is not None and keyword.arg not in named:
                return f"no argument {keyword.arg!r} in {sorted(named)}"
    if inspect.Parameter.VAR_POSITIONAL not in kinds and not any(isinstance(arg, ast.Starred) for arg in call.args):
        most = sum(kind != inspect.Parameter.KEYWORD_ONLY for kind in kinds)
        if len(call.args) > most:
            return f"{len(call.args)} arguments by position, of {most}"
    return None


def test_the_reader_of_files_finds_what_is_wrong() -> None:
    found = Uses()
    found.visit(
        ast.parse(
            "import cupy as cp\n"
            "def f(x):\n"
            "    xp = array_module(x)\n"
            "    event = cp.cuda.Event(disable_timin=True)\n"
            "    event.recrd()\n"
            "    return xp.emty(3), cp.empty(3).astype(int, copi=1), cp.rint(x, 1, 2, 3)\n"
        )
    )
    assert {"cupy.emty", "cupy.cuda.Event.recrd", "cupy.ndarray.astype"} <= set(found.names)
    for name in ("cupy.emty", "cupy.cuda.Event.recrd"):
        with pytest.raises(AttributeError):
            resolve(name)
    calls = dict(found.calls)
    assert "disable_timin" in str(refused(cupy.cuda.Event, calls["cupy.cuda.Event"]))
    assert "copi" in str(refused(cupy.ndarray.astype, calls["cupy.ndarray.astype"]))


@pytest.mark.parametrize("root", ROOTS)
def test_all_that_we_name_is_there(root: str) -> None:
    pytest.importorskip(root if root != "nvidia" else "nvidia.nvimgcodec")
    uses = list(all_uses(root))
    assert len(uses) >= {"cupy": 60, "cupyx": 1, "nvidia": 2, "torch": 30, "jax": 8}[root]
    missing = []
    for where, name in uses:
        if name in ON_INSTANCES:
            continue
        try:
            resolve(name)
        except ImportError as error:
            if root == "nvidia":
                continue  # DALI is not everywhere
            missing.append(f"{where}: {name}: {error}")
        except AttributeError as error:
            missing.append(f"{where}: {name}: {error}")
    assert not missing, "\n".join(missing)


@pytest.mark.parametrize("root", ROOTS)
def test_all_arguments_are_accepted(root: str) -> None:
    pytest.importorskip(root if root != "nvidia" else "nvidia.nvimgcodec")
    wrong, checked = [], 0
    for path in FILES:
        for name, call in uses_of(path).calls:
            if name.partition(".")[0] != root:
                continue
            try:
                found = resolve(name)
            except (ImportError, AttributeError):
                continue  # the test above
            checked += parameters_of(found) is not None
            if problem := refused(found, call):
                wrong.append(f"{path.relative_to(ROOT)}:{call.lineno}: {name}: {problem}")
    assert not wrong, "\n".join(wrong)
    assert checked >= {"cupy": 50, "cupyx": 1, "nvidia": 0, "torch": 15, "jax": 3}[root]


# The stand-in against CuPy.


def public(thing: Any) -> set[str]:
    return {name for name in vars(thing) if not name.startswith("_")}


def test_the_stand_in_offers_nothing_that_cupy_lacks() -> None:
    for name, module in standin.modules().items():
        for member in public(module):
            assert hasattr(resolve(name), member), f"{name}.{member}"
    ours = standin.modules()["cupy"]
    for name in ("ndarray", "cuda.Device", "cuda.Event", "cuda.Stream", "cuda.MemoryPointer", "cuda.UnownedMemory"):
        mine, theirs = SimpleNamespace(cupy=ours), resolve(f"cupy.{name}")
        found: Any = mine.cupy
        for part in name.split("."):
            found = getattr(found, part)
        assert not {member for member in public(found) if not hasattr(theirs, member)} - {"bytes"}, name
    assert not public(type(ours.get_default_memory_pool())) - set(dir(cupy.cuda.MemoryPool))
    special = {name for name in vars(standin_array.ndarray) if name.startswith("__")}
    assert special - set(dir(cupy.ndarray)) <= {"__imatmul__", "__module__", "__dict__", "__weakref__"}
    for name in standin_array.HOST_ONLY:
        assert not hasattr(standin_array.ndarray, name)


def test_the_stand_in_takes_no_argument_that_cupy_does_not() -> None:
    for name, module in standin.modules().items():
        for member in sorted(public(module)):
            mine, theirs = getattr(module, member), getattr(resolve(name), member)
            if inspect.ismodule(mine) or not callable(mine) or member in standin._FUNCTIONS:
                continue
            try:
                own = set(inspect.signature(mine).parameters)
            except (TypeError, ValueError):
                continue
            known = parameters_of(theirs)
            if known is None or any(p.kind == inspect.Parameter.VAR_POSITIONAL for p in known.values()):
                continue
            if name.endswith("runtime") or member in ("OutOfMemoryError",):
                assert len(own) <= max(len(known), 3), member
            else:
                assert own <= set(known), f"{name}.{member}: {own - set(known)}"


VIEWS = {
    "transpose": lambda x, xp: x.transpose((2, 0, 1)),
    "transpose by an array": lambda x, xp: x.transpose(np.argsort((2, 0, 1))),
    "T": lambda x, xp: x.T,
    "backwards": lambda x, xp: x[:, ::-1],
    "item": lambda x, xp: x[1],
    "NumPy's integer": lambda x, xp: x[np.int64(1), :, 2:],
    "new axis": lambda x, xp: x[None, ..., None],
    "swapaxes": lambda x, xp: x.swapaxes(0, 2),
    "reshape": lambda x, xp: x.reshape(-1, 12),
    "bytes": lambda x, xp: x.view(np.uint8),
    "moveaxis": lambda x, xp: xp.moveaxis(x, 2, 0),
    "the same dtype": lambda x, xp: x.astype(np.float32, copy=False),
    "contiguous": lambda x, xp: xp.ascontiguousarray(x),
    "expand_dims": lambda x, xp: xp.expand_dims(x, 1),
    "squeeze": lambda x, xp: x[:1].squeeze(0),
    "rows": lambda x, xp: list(x)[1],
    "nothing": lambda x, xp: x[2:],
}


@pytest.mark.parametrize("name", VIEWS)
def test_views_are_cut_as_cupy_cuts_them(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    host = np.arange(24, dtype=np.float32)
    memory = cupy.cuda.UnownedMemory(host.ctypes.data, host.nbytes, host, 0)
    theirs = cupy.ndarray((2, 3, 4), np.float32, cupy.cuda.MemoryPointer(memory, 0))
    ours = standin_array.ndarray((2, 3, 4), np.float32)
    seen = []
    for array, xp in ((theirs, cupy), (ours, SimpleNamespace(**vars(standin.modules()["cupy"])))):
        view = VIEWS[name](array, xp)
        offset = view.data.ptr - array.data.ptr if view.size else None
        strides = view.strides if view.size else None
        seen.append((view.shape, strides, view.dtype, offset, view.flags.c_contiguous, view.size, view.nbytes))
    assert seen[0][:2] == seen[1][:2] or 1 in seen[0][0]  # the stride of one item is of no meaning
    assert seen[0][2:] == seen[1][2:]


def test_both_refuse_a_host_array_in_an_assignment() -> None:
    host = np.arange(4.0)
    memory = cupy.cuda.UnownedMemory(host.ctypes.data, host.nbytes, host, 0)
    theirs = cupy.ndarray((4,), float, cupy.cuda.MemoryPointer(memory, 0))
    for array in (theirs, standin_array.ndarray((4,), float)):
        with pytest.raises(ValueError, match="non-scalar numpy.ndarray"):
            array[:] = np.zeros(4)


# CuPy itself, as far as it goes without a driver.


def test_every_argument_of_a_kernel_is_of_a_type_that_cupy_passes_on() -> None:
    for name, (_, parameters) in kernels.SIGNATURES.items():
        cast = kernels.cast_arguments(name, [None if kind == "pointer" else 1 for _, kind in parameters])
        assert {type(value) for value in cast} <= {np.dtype(code).type for code in "?bhilqBHILQefdFD"}


def test_cupy_knows_bfloat16() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    host = np.zeros(4, np.uint16)
    memory = cupy.cuda.UnownedMemory(host.ctypes.data, host.nbytes, host, 0)
    assert cupy.ndarray((4,), ml_dtypes.bfloat16, cupy.cuda.MemoryPointer(memory, 0)).itemsize == 2


@pytest.mark.parametrize("kernel", ["augment", "sample_range", "sample_moments", "resample_pass"])
def test_the_kernels_compile_with_the_options_that_cupy_adds(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flushed subnormals, and every function for the device: CuPy gives these to NVRTC behind ours."""
    known = ("-arch=sm_90", "cubin")  # what it asks the driver for
    monkeypatch.setattr(cupy.cuda.compiler, "_get_arch_for_options_for_nvrtc", lambda arch=None: known)
    options = (*kernels.COMPILE_OPTIONS, "-ftz=true")
    variants = {"augment": (("HAS_BRIGHTNESS", "1"), ("HAS_RANGE", "1")), "resample_pass": (("CHANNELS", "3"),)}
    macros = variants.get(kernel, ())
    source = kernels.pasted_source(kernels.SIGNATURES[kernel][0], macros)
    found, _ = cupy.cuda.compiler.compile_using_nvrtc(source, options, arch="90", filename="kernel.cu")
    assert kernel.encode() in found
    cupy.RawModule(code=source, options=options)


def test_a_variant_that_lies_in_the_cache_compiles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """CuPy compiles an empty program for each set of options that is new to the process, to learn the compiler."""
    compiler = cupy.cuda.compiler
    known = ("-arch=sm_90", "cubin")
    monkeypatch.setattr(compiler, "_get_arch_for_options_for_nvrtc", lambda arch=None: known)
    backend = SimpleNamespace(load=lambda name: b"a cubin", save=None)
    monkeypatch.setattr(compiler, "_kernel_cache_backend", backend)
    monkeypatch.setattr(compiler, "_empty_file_preprocess_cache", {})
    module = SimpleNamespace(load=lambda cubin: None, get_function=lambda name: name)  # a real one needs a driver
    monkeypatch.setattr(compiler, "function", SimpleNamespace(Module=lambda: module))
    compiled: list[tuple[str, ...]] = []
    preprocess = compiler._preprocess
    monkeypatch.setattr(compiler, "_preprocess", lambda *rest: compiled.append(rest[1]) or preprocess(*rest))

    class Module:
        def __init__(self, *, code: str, options: tuple[str, ...]) -> None:
            self.code, self.options = code, options

        def get_function(self, name: str) -> Any:
            return compiler._compile_module_with_cache(self.code, self.options, arch="90").get_function(name)

    monkeypatch.setattr(cupy, "RawModule", Module)
    for channels in ("1", "2", "3"):
        kernels.Kernel("resample_pass", (("CHANNELS", channels),))
    assert len(compiled) == 1, compiled


def test_cupyx_takes_our_modes_and_orders() -> None:
    interpolation = pytest.importorskip("cupyx.scipy.ndimage._interpolation")
    for order in (2, 3, 4, 5):
        for mode in ("nearest", "constant", "reflect", "wrap"):
            interpolation._check_parameter("affine_transform", order, mode)
    with pytest.raises(ValueError, match="mode"):
        interpolation._check_parameter("affine_transform", 3, "neighbour")

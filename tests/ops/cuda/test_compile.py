"""NVRTC, which needs no driver, compiles every variant; the launch table says what the `.cu` files say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gpuseq.ops.cuda import compile as kernels
from tests.ops.cuda.variants import all_variants
from tests.standin.ptx import compiler

cupy_cuda = pytest.importorskip("cupy.cuda")

VARIANTS = all_variants()
CONTRACTED_FLOAT = re.compile(r"fma\.rn\.(ftz\.)?f32")

KINDS = {"int": "int32", "long long": "int64", "double": "float64"}


def compile_variant(key: tuple[str, kernels.Macros], architecture: str) -> tuple[str, str]:
    """Return the PTX and the compiler's messages."""
    name, macros = key
    source = kernels.pasted_source(kernels.SIGNATURES[name][0], macros)
    return compiler.compile_aloud(source, kernels.COMPILE_OPTIONS, architecture)


@pytest.mark.parametrize("key", VARIANTS, ids=[f"{kernel}-{name}" for (kernel, _), name in VARIANTS.items()])
def test_nvrtc_compiles_every_variant_without_a_word(key: tuple[str, kernels.Macros]) -> None:
    ptx, messages = compile_variant(key, "compute_80")
    assert not messages, messages
    assert f".visible .entry {key[0]}(" in ptx
    assert not CONTRACTED_FLOAT.search(ptx), "a contracted multiply-add rounds once where SciPy and NumPy round twice"
    macros = dict(key[1])
    written = ptx.count("fma.rn.f64")
    from_unsigned = macros.get("SOURCE_T", "").startswith("unsigned") and macros["COMPUTE_T"] == "float"
    if from_unsigned and macros.get("ORDER") == "1" and macros["ROUND_AFFINE"] == "0":
        assert written > 6  # blend_fused has three for each channel that is read at once
        assert written % 3 == 0
    elif macros.get("HAS_AFFINE") == "1":
        assert written in (6, 12)  # build_inverse has six, as BLAS has
    else:
        assert written == 0


def test_without_augmentations_the_code_is_what_it_is_without_their_text() -> None:
    """Who asks for none gets kernels that `program.cuh` and `program.cu` are no part of, whatever is written there."""
    for file, headers in kernels.HEADERS.items():
        assert ("program.cuh" in headers) == (file == "program.cu"), file
    for (kernel, macros), _ in VARIANTS.items():
        file = kernels.SIGNATURES[kernel][0]
        assert ("run_segment" in kernels.pasted_source(file, macros)) == (file == "program.cu")


def test_without_the_option_the_compiler_would_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the counts above would prove nothing."""
    keys = {name: key for key, name in VARIANTS.items()}
    monkeypatch.setattr(kernels, "COMPILE_OPTIONS", ("--std=c++17",))
    assert compile_variant(keys["source_float32_float32"], "compute_80")[0].count("fma.rn.f64") > 12
    assert CONTRACTED_FLOAT.search(compile_variant(keys["brightness"], "compute_80")[0])


@pytest.mark.parametrize("name", kernels.SIGNATURES)
def test_each_file_compiles_as_it_stands(name: str) -> None:
    assert not compile_variant((name, ()), "compute_80")[1]


@pytest.mark.parametrize("architecture", ["compute_75", "compute_90", "compute_100", "compute_120"])
def test_nvrtc_compiles_for_every_generation(architecture: str) -> None:
    if int(architecture[8:]) not in cupy_cuda.nvrtc.getSupportedArchs():
        pytest.skip(f"this NVRTC does not know {architecture}")
    for name in ("affine_1_nearest", "out_float16", "out_bfloat16", "samplewise"):
        for key, case in VARIANTS.items():
            if case == name:
                assert not compile_variant(key, architecture)[1]


def declared(text: str) -> dict[str, list[tuple[str, str]]]:
    """Read the kernels of a `.cu` text: name -> (parameter, kind) in order."""
    bare = re.sub(r"//[^\n]*", "", text)
    found = {}
    for name, parameters in re.findall(
        r'extern "C" __global__ void (?:__launch_bounds__\([\w, ]+\) )?(\w+)\(([^)]*)\)', bare
    ):
        pairs = []
        for parameter in parameters.split(","):
            kind, parameter_name = re.fullmatch(r"\s*(.*?)(\w+)\s*", parameter.replace("\n", " ")).groups()
            pairs.append((parameter_name, "pointer" if "*" in kind else KINDS[kind.strip()]))
        found[name] = pairs
    return found


def test_the_launch_table_says_what_the_files_say() -> None:
    in_files = {}
    for path in sorted(kernels.kernel_folder().glob("*.cu")):
        for name, parameters in declared(path.read_text()).items():
            in_files[name] = (path.name, parameters)
    in_table = {name: (file, list(parameters)) for name, (file, parameters) in kernels.SIGNATURES.items()}
    assert in_table == in_files


def test_the_reader_of_declarations_sees_what_is_there() -> None:
    text = (
        'extern "C" __global__ void f(\n const T *__restrict__ a, // first, (N, 2)\n long long n, double x, int k)\n{'
    )
    assert declared(text) == {"f": [("a", "pointer"), ("n", "int64"), ("x", "float64"), ("k", "int32")]}


def test_messages_point_into_the_files() -> None:
    source = kernels.pasted_source("augment.cu")
    line = source.split('#line 1 "finish.cuh"\n')[1].splitlines().index("DEVICE OUT_T cast_out(COMPUTE_T value)") + 1
    broken = source.replace("DEVICE OUT_T cast_out(COMPUTE_T value)", "DEVICE OUT_T cast_out(NO_SUCH_TYPE value)")
    program = cupy_cuda.nvrtc.createProgram(broken, "augment.cu", [], [])
    with pytest.raises(cupy_cuda.nvrtc.NVRTCError):
        cupy_cuda.nvrtc.compileProgram(program, [*kernels.COMPILE_OPTIONS, "--gpu-architecture=compute_80"])
    assert f"finish.cuh({line}): error" in cupy_cuda.nvrtc.getProgramLog(program)


def test_the_packaged_folder_comes_before_the_checkouts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "gpuseq" / "_kernels").mkdir(parents=True)
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "common.cuh").touch()
    monkeypatch.setattr(kernels, "PACKAGE", tmp_path / "gpuseq")
    search = kernels.kernel_folder.__wrapped__
    assert search() == tmp_path / "kernels"
    (tmp_path / "gpuseq" / "_kernels" / "common.cuh").touch()
    assert search() == tmp_path / "gpuseq" / "_kernels"
    (tmp_path / "gpuseq" / "_kernels" / "common.cuh").unlink()
    (tmp_path / "kernels" / "common.cuh").unlink()
    with pytest.raises(FileNotFoundError, match="neither .*_kernels nor .*kernels"):
        search()

"""What gpuseq finds on this machine, and what each missing piece would bring."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import json
import os
import platform
import sys
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from gpuseq.base.devices import gpu_problem, kernel_cache_problem, resolve_device
from gpuseq.base.errors import MissingDependencyError
from gpuseq.base.threads import cpu_count
from gpuseq.decode.simplejpeg import problem as simplejpeg_problem
from gpuseq.ops.compiled.library import describe, instruction_sets

__all__ = ["Finding", "Report", "examine", "format_report"]

ENVIRONMENT = (
    "GPUSEQ_DEVICE",
    "GPUSEQ_CPU_ENGINE",
    "GPUSEQ_CPU_LIBRARY",
    "GPUSEQ_NUM_THREADS",
    "GPUSEQ_REQUIRE_GPU",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_PATH",
    "CUPY_CACHE_DIR",
    "KERAS_BACKEND",
    "OMP_NUM_THREADS",
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
)


@dataclass(frozen=True)
class Finding:
    """One piece that was looked for.

    Attributes
    ----------
    name : str
        What it is called.
    found : bool
        Whether it is there and answers.
    version : str or None
        Its version, where it has one.
    detail : str
        What was seen, or why it does not answer.
    brings : str
        What gpuseq does with it.
    install : str or None
        How to get it; None where it is part of the core or of the machine.
    """

    name: str
    found: bool
    version: str | None
    detail: str
    brings: str
    install: str | None = None


@dataclass(frozen=True)
class Report:
    """All that `examine` found.

    Attributes
    ----------
    gpuseq : str
        Version of this package.
    engine : str
        ``"cuda"`` or ``"cpu"``: what ``device="auto"`` would take now; "none" where GPUSEQ_DEVICE asks for what cannot
        be had, or CuPy is broken.
    reason : str
        Why.
    has_gpu : bool
        Whether a GPU could be used, whatever GPUSEQ_DEVICE asks for.
    findings : tuple of Finding
        The pieces, core first.
    environment : dict of str to str
        The environment variables that matter here and are set.
    """

    gpuseq: str
    engine: str
    reason: str
    has_gpu: bool
    findings: tuple[Finding, ...]
    environment: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON-able values."""
        return asdict(self)


def examine() -> Report:
    """Look at the interpreter, the packages, the driver and the devices. Imports CuPy and DALI where they are there.

    Returns
    -------
    Report
        Never raises for a piece that is missing or broken: the finding says so.
    """
    from gpuseq.base.version import __version__

    # What could be used, and what would be: GPUSEQ_DEVICE decides the second alone.
    without = "cpu"
    try:
        problem = gpu_problem()
    except Exception as error:  # a broken installation is a finding, whatever it raises
        # It ends "auto", too, which asks the same.
        problem, without = f"CuPy does not import: {error}", "none"
    asked = os.environ.get("GPUSEQ_DEVICE")
    engine = "cpu" if asked == "cpu" else without if problem else "cuda"
    reason = problem or "CuPy sees a CUDA device"
    if asked == "cpu":
        reason = "GPUSEQ_DEVICE=cpu"
    elif asked:
        try:
            engine = resolve_device(None).partition(":")[0]
        except Exception as error:  # as above; and what is asked for may be no device, or not here
            engine, reason = "none", f"GPUSEQ_DEVICE={asked}: {error}"
    findings = (
        Finding(
            "Python", True, platform.python_version(), f"{sys.executable}, {platform.platform()}", "the interpreter"
        ),
        _package("numpy", "NumPy", "the CPU engine, and every plan"),
        _package("pillow", "Pillow", "decoding and resizing on the CPU", detail=_pillow_detail),
        _package(
            "simplejpeg",
            "simplejpeg",
            "JPEG files on the CPU, to Pillow's pixels, faster",
            install='pip install "gpuseq[jpeg]"',
            detail=_simplejpeg_detail,
        ),
        Finding("CPU threads", True, str(cpu_count()), "this process may use them", "decoding and the CPU engine"),
        _compiled(),
        _driver(),
        _cupy(),
        _nvrtc(),
        _dali(),
        _package(
            ("nvidia-nvimgcodec-cu13", "nvidia-nvimgcodec-cu12"),
            "nvImageCodec",
            "image headers read fast, bad files found one by one",
            install='pip install "gpuseq[cuda13]"',
        ),
        _package("scipy", "SciPy", "interpolation_order 2 to 5", install='pip install "gpuseq[splines]"'),
        _package("pandas", "pandas", "flow_from_dataframe", install='pip install "gpuseq[dataframe]"'),
        _package("fsspec", "fsspec", "image files in object stores, by URL", install='pip install "gpuseq[fsspec]"'),
        _keras(),
        _package(
            "torch", "PyTorch", "a framework to train with; a backend for Keras", install='pip install "gpuseq[torch]"'
        ),
        _package("jax", "JAX", "a framework to train with; a backend for Keras", install='pip install "gpuseq[jax]"'),
        _package(
            ("tensorflow", "tensorflow-cpu"),
            "TensorFlow",
            "gpuseq.tensorflow: batches as eager tensors or a tf.data.Dataset",
            install='pip install "gpuseq[tensorflow]"',
        ),
    )
    # These alone: an environment may hold keys, and reports are pasted into issues.
    environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    return Report(__version__, engine, reason, problem is None, findings, environment)


def format_report(report: Report) -> str:
    """Return `report` as text for a terminal: what is there, what is not, and what that would bring.

    Parameters
    ----------
    report : Report
        What `examine` returned.

    Returns
    -------
    str
        Lines without a trailing newline.
    """
    width = max(len(finding.name) for finding in report.findings)
    versions = max(len(finding.version or "") for finding in report.findings)
    lines = [
        f"gpuseq {report.gpuseq}: device='auto' would "
        + ("fail" if report.engine == "none" else f"take the {report.engine.upper()} engine"),
        f"  {report.reason}",
        "",
    ]
    lines.append("Found")
    for finding in report.findings:
        if finding.found:
            detail = f"  {finding.detail}" if finding.detail else ""
            lines.append(f"  [x] {finding.name:<{width}}  {finding.version or '':<{versions}}{detail}".rstrip())
    missing = [finding for finding in report.findings if not finding.found]
    if missing:
        lines += ["", "Missing"]
    for finding in missing:
        lines.append(f"  [ ] {finding.name:<{width}}  would bring: {finding.brings}")
        # Under the name, so that a long explanation does not push the columns apart.
        indent = " " * (width + 8)
        if finding.detail:
            lines.append(f"{indent}{finding.detail}")
        if finding.install:
            lines.append(f"{indent}get it: {finding.install}")
    lines += ["", "Environment"]
    lines += [f"  {name}={value}" for name, value in report.environment.items()] or [
        "  none of gpuseq's variables is set"
    ]
    return "\n".join(lines)


def _compiled() -> Finding:
    name, brings = "compiled CPU engine", "the work on the host, several times as fast as NumPy, to the same bits"
    install = "a C++ compiler (apt-get install g++), and gpuseq installed again"
    # By what loads and runs here: a library on the disk may be of another version or another processor.
    found = instruction_sets()
    if isinstance(found, str):
        return Finding(name, False, None, found, brings, install)
    sets = ", ".join(item.name for item in found)
    try:
        detail = f"runs here: {sets}; at work: {describe()}"
    except (ValueError, MissingDependencyError) as error:
        detail = str(error)
    return Finding(name, True, None, detail, brings)


def _version(*distributions: str) -> tuple[str, str] | None:
    for name in distributions:
        try:
            return name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def _package(
    distributions: str | tuple[str, ...], name: str, brings: str, *, install: str | None = None, detail: Any = None
) -> Finding:
    """Find an installed distribution by its metadata: nothing is imported."""
    names = (distributions,) if isinstance(distributions, str) else distributions
    found = _version(*names)
    if found is None:
        return Finding(name, False, None, "", brings, install)
    text = detail() if detail else (found[0] if len(names) > 1 else "")
    return Finding(name, True, found[1], text, brings, install)


def _pillow_detail() -> str:
    from PIL import features

    if features.check("libjpeg_turbo"):
        return f"libjpeg-turbo {features.version('libjpeg_turbo')}"
    return f"libjpeg {features.version('jpg') or 'missing'}"


def _simplejpeg_detail() -> str:
    reason = simplejpeg_problem()
    return "decodes as this Pillow does" if reason is None else f"not used: {reason}"


def _driver() -> Finding:
    """Ask the CUDA driver itself, so that the answer does not depend on CuPy."""
    brings = "the GPU: augmentation, and batches that are made on the device"
    install = "NVIDIA driver 580 or newer for CUDA 13 wheels, 525.60 or newer for CUDA 12 wheels"
    library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    # libcuda comes with the driver, and everything else that may be installed does without it.
    try:
        cuda = ctypes.CDLL(library)
    except OSError:
        return Finding("CUDA driver", False, None, f"{library} is not on this machine", brings, install)
    version = ctypes.c_int()
    cuda.cuDriverGetVersion(ctypes.byref(version))
    # 1000 times the major version plus 10 times the minor one.
    text = f"{version.value // 1000}.{version.value % 1000 // 10}"
    if code := cuda.cuInit(0):
        return Finding(
            "CUDA driver", False, text, f"cuInit failed with error {code}: no device answers", brings, install
        )
    count = ctypes.c_int()
    cuda.cuDeviceGetCount(ctypes.byref(count))
    devices = ", ".join(_device(cuda, ordinal) for ordinal in range(count.value)) or "no device is visible"
    # A driver runs programs of its own major version and of older ones.
    too_old = _version("cupy-cuda13x") is not None and version.value < 13000
    if too_old:
        devices += "; older than CUDA 13: install cupy-cuda12x in place of cupy-cuda13x, or update the driver"
    return Finding("CUDA driver", count.value > 0 and not too_old, text, devices, brings, install)


def _device(cuda: ctypes.CDLL, ordinal: int) -> str:
    handle, name, memory = ctypes.c_int(), ctypes.create_string_buffer(128), ctypes.c_size_t()
    cuda.cuDeviceGet(ctypes.byref(handle), ordinal)
    cuda.cuDeviceGetName(name, len(name), handle)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), handle)
    capability = []
    for attribute in (75, 76):  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
        value = ctypes.c_int()
        cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, handle)
        capability.append(str(value.value))
    return f"cuda:{ordinal} {name.value.decode()} ({memory.value / 2**30:.0f} GiB, compute {'.'.join(capability)})"


def _cupy() -> Finding:
    brings, install = "the CUDA engine", 'pip install "gpuseq[cuda13]" (or cuda12)'
    found = _version("cupy-cuda13x", "cupy-cuda12x", "cupy")
    if found is None:
        return Finding("CuPy", False, None, "", brings, install)
    try:
        problem = gpu_problem()
    except Exception as error:  # a broken installation is a finding, whatever it raises
        return Finding("CuPy", False, found[1], f"{found[0]} does not import: {error}", brings, install)
    detail = f"{found[0]}, {'no device answers' if problem else 'sees a device'}"
    if (unwritable := kernel_cache_problem()) is not None:
        detail += (
            f"; it cannot keep compiled kernels ({unwritable}): set CUPY_CACHE_DIR to a folder that can be written to"
        )
    return Finding("CuPy", True, found[1], detail, brings, install)


def _nvrtc() -> Finding:
    brings, install = (
        "compiling the CUDA kernels (no driver is needed for that)",
        'pip install "gpuseq[cuda13]" (or cuda12)',
    )
    if importlib.util.find_spec("cupy") is None:
        return Finding("NVRTC", False, None, "", brings, install)
    try:
        from cupy.cuda import nvrtc

        major, minor = nvrtc.getVersion()
        # Really compiled: a missing libnvrtc-builtins is found only then.
        program = nvrtc.createProgram('extern "C" __global__ void probe() {}', "probe.cu", [], [])
        nvrtc.compileProgram(program, [])
        nvrtc.destroyProgram(program)
    except Exception as error:  # a missing or mismatched library is a finding, whatever it raises
        # The first line of it: of a kernel that does not compile, the rest is its text.
        return Finding("NVRTC", False, None, f"{type(error).__name__}: {error}".splitlines()[0], brings, install)
    return Finding("NVRTC", True, f"{major}.{minor}", "compiled a kernel just now", brings, install)


def _dali() -> Finding:
    brings, install = (
        'decoders of files: decoder="dali" and "nvimgcodec", JPEG on the GPU',
        'pip install "gpuseq[cuda13]" (or dali)',
    )
    found = _version("nvidia-dali-cuda130", "nvidia-dali-cuda120")
    if found is None:
        return Finding("DALI", False, None, "", brings, install)
    try:
        # DALI's own count, which is 0 without a driver; CuPy's raises.
        count = importlib.import_module("nvidia.dali.backend").GetCUDADeviceCount()
    except Exception as error:  # a broken installation is a finding, whatever it raises
        return Finding("DALI", False, found[1], f"{found[0]} does not import: {error}", brings, install)
    return Finding(
        "DALI",
        True,
        found[1],
        f"{found[0]}, {f'{count} device(s)' if count else 'decodes on the CPU'}",
        brings,
        install,
    )


def _keras() -> Finding:
    """Find Keras and the backend it would load, without importing it."""
    brings, install = (
        "gpuseq.keras: iterators for model.fit; what `gpuseq bench` compares with",
        'pip install "gpuseq[keras]"',
    )
    found = _version("keras")
    if found is None:
        return Finding("Keras", False, None, "", brings, install)
    backend = os.environ.get("KERAS_BACKEND") or None  # empty, it is not set: so Keras reads it
    source = "KERAS_BACKEND"
    if backend is None:
        # Where Keras looks, in its order: the variable, the file, then tensorflow.
        config = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "keras.json"
        source = str(config)
        try:
            backend = json.loads(config.read_text(encoding="utf-8")).get("backend")
        except (OSError, ValueError, AttributeError):  # not there, no JSON, or JSON without names
            backend = None
    if not isinstance(backend, str):
        backend, source = "tensorflow", "Keras' default"
    detail = f"backend {backend} ({source})"
    if importlib.util.find_spec(backend) is None:
        detail += f"; {backend} is not installed, so import keras would fail: set KERAS_BACKEND to one that is"
    return Finding("Keras", True, found[1], detail, brings, install)

"""What is shipped: a wheel with the kernels in it, a light import, one version, files that agree with each other."""

from __future__ import annotations

import email
import inspect
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

import gpuseq
from tests import compiled_library

ROOT = Path(__file__).resolve().parents[2]


def run(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("GPUSEQ_", "PYTHON"))}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=clean | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel as pip does, with the build backend that is installed here, so that no network is needed."""
    pytest.importorskip("hatchling", reason="the test extra brings it")
    out = tmp_path_factory.mktemp("dist")
    run(
        sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index", "-w", out, ROOT,
        cwd=out,
    )  # fmt: skip
    (built,) = out.glob("gpuseq-*.whl")
    return built


@pytest.fixture(scope="module")
def empty_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel into a new environment; its dependencies are lent by a path file that comes after it."""
    folder = tmp_path_factory.mktemp("empty") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=ROOT)
    python = folder / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel, cwd=folder)
    (site,) = (folder / "lib").glob("python*/site-packages")
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def test_the_wheel_holds_the_package_its_kernels_and_its_photographs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = email.message_from_bytes(archive.read(next(name for name in names if name.endswith("/METADATA"))))
    package = {
        f"gpuseq/{path.relative_to(ROOT / 'gpuseq')}"
        for path in (ROOT / "gpuseq").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".so"
    }
    kernels = {f"gpuseq/_kernels/{path.name}" for path in (ROOT / "kernels").glob("*.cu*")}
    assert kernels, "there are no kernels to ship"
    assert package | kernels <= names
    assert "gpuseq/py.typed" in names
    # Nothing lands beside the package: site-packages/kernels could be another package's.
    assert {name.partition("/")[0] for name in names} == {"gpuseq", f"gpuseq-{gpuseq.__version__}.dist-info"}
    assert metadata["Version"] == gpuseq.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_all("License-File") == ["LICENSE", "gpuseq/photos/SOURCES.md"]


LIBRARY = "gpuseq/ops/compiled/gpuseq_cpu.so"


def test_the_wheel_holds_the_compiled_engine(wheel: Path, empty_python: Path, tmp_path: Path) -> None:
    """Where there is a compiler: a library for a platform, of any Python; it loads and works where it is installed."""
    compiled_library.require()
    assert re.fullmatch(rf"gpuseq-{re.escape(gpuseq.__version__)}-py3-none-(?!any)\w+\.whl", wheel.name), wheel.name
    with zipfile.ZipFile(wheel) as archive:
        assert LIBRARY in archive.namelist()
    assert not (ROOT / "kernels" / "host" / "build").exists()
    report = json.loads(run(empty_python.with_name("gpuseq"), "doctor", "--json", cwd=tmp_path).stdout)
    (finding,) = (finding for finding in report["findings"] if finding["name"] == "compiled CPU engine")
    assert finding["found"], finding
    code = "from gpuseq.ops.compiled.library import chosen; print(chosen().name)"
    assert run(empty_python, "-I", "-c", code, cwd=tmp_path, GPUSEQ_CPU_ENGINE="compiled").stdout.strip()


def _checkout(folder: Path) -> Path:
    """Copy what is built from; an editable installation puts its library there."""
    for name in ("gpuseq", "kernels"):
        ignored = shutil.ignore_patterns("__pycache__", "*.so")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    return folder


BUILD = "import sys; from hatchling.build import build_{kind}; print(build_{kind}(sys.argv[1]))"


def _built(kind: str, checkout: Path, out: Path, **environment: str) -> Path:
    code = BUILD.format(kind=kind)
    return out / run(sys.executable, "-c", code, out, cwd=checkout, **environment).stdout.split()[-1]


def test_without_a_compiler_the_wheel_is_pure_unless_the_engine_is_insisted_on(tmp_path: Path) -> None:
    checkout = _checkout(tmp_path / "checkout")
    for choice in ({"CXX": "no-such-compiler"}, {"GPUSEQ_BUILD_ENGINE": "0"}):
        made = _built("wheel", checkout, tmp_path, **choice)
        assert made.name.endswith("-py3-none-any.whl")
        with zipfile.ZipFile(made) as archive:
            assert LIBRARY not in archive.namelist()
    with pytest.raises(AssertionError, match="no C\\+\\+ compiler found"):
        _built("wheel", checkout, tmp_path, CXX="no-such-compiler", GPUSEQ_BUILD_ENGINE="1")


def test_an_editable_installation_finds_the_engine_in_the_checkout(tmp_path: Path) -> None:
    compiled_library.require()
    pytest.importorskip("editables", reason="the test extra brings it")
    checkout = _checkout(tmp_path / "checkout")
    _built("editable", checkout, tmp_path)
    assert (checkout / LIBRARY).is_file()
    code = "from gpuseq.ops.compiled.library import describe; import gpuseq; print(gpuseq.__file__, describe())"
    answer = run(sys.executable, "-c", code, cwd=checkout, PYTHONPATH=str(checkout)).stdout
    assert answer.startswith(str(checkout))
    assert " compiled, " in answer


def test_the_source_distribution_can_make_the_engine(tmp_path: Path) -> None:
    checkout = _checkout(tmp_path / "checkout")
    made = _built("sdist", checkout, tmp_path)
    with tarfile.open(made) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "kernels/host/build.py",
        "kernels/host/hatch_build.py",
        "kernels/host/augment.cpp",
        "kernels/geometry.cuh",
    } <= names


def test_the_installed_kernels_are_found_and_are_these(empty_python: Path, tmp_path: Path) -> None:
    code = """
import json, pathlib, gpuseq
from gpuseq.ops.cuda import compile as kernels
found = pathlib.Path(kernels.kernel_folder())
texts = {path.name: path.read_text() for path in found.glob("*.cu*")}
print(json.dumps({"package": gpuseq.__file__, "kernels": texts}))
"""
    answer = json.loads(run(empty_python, "-I", "-c", code, cwd=tmp_path).stdout)
    assert Path(answer["package"]).is_relative_to(empty_python.parents[1])
    assert answer["kernels"] == {path.name: path.read_text() for path in (ROOT / "kernels").glob("*.cu*")}


def test_the_installed_command_runs_on_the_installed_photographs(empty_python: Path, tmp_path: Path) -> None:
    command = empty_python.with_name("gpuseq")
    assert run(command, "--version", cwd=tmp_path).stdout == f"gpuseq {gpuseq.__version__}\n"
    answer = json.loads(run(command, "check", "--json", photos_of(empty_python), cwd=tmp_path).stdout)
    assert answer["num_files"] == 9
    assert answer["bad"] == {}


def photos_of(python: Path) -> str:
    (found,) = python.parents[1].glob("lib/python*/site-packages/gpuseq/photos")
    return str(found)


LIGHT = {"numpy", "gpuseq", "PIL"}


def test_import_is_light() -> None:
    """No framework, no CuPy, no DALI, no SciPy, no pandas: nothing from site-packages but NumPy and Pillow."""
    code = """
import json, sys, sysconfig, time, numpy
before, started = set(sys.modules), time.perf_counter()
import gpuseq
seconds = time.perf_counter() - started
site = tuple({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
new = {name.partition(".")[0] for name in set(sys.modules) - before
       if str(getattr(sys.modules[name], "__file__", None)).startswith(site)}
print(json.dumps({"seconds": seconds, "new": sorted(new)}))
"""
    answer = json.loads(run(sys.executable, "-c", code, cwd=ROOT).stdout)
    print(f"import gpuseq, NumPy already there: {answer['seconds'] * 1000:.0f} ms")
    assert set(answer["new"]) <= LIGHT


LOADED = {
    "": ("generator",),
    "base": (
        *("arguments", "atomic", "devices", "errors", "forks", "machine", "streams"),
        *("text", "threads", "types", "version"),
    ),
    "decode": (
        *("dali", "headers", "host", "images", "nvimgcodec", "options"),
        *("orientation", "pillow", "routes", "simplejpeg"),
    ),
    "feed": ("lookahead",),
    "files": ("folders", "frames", "listing", "reading"),
    "iterators": (
        *("arrays", "batch", "checks", "files", "fit", "flow"),
        *("folders", "frames", "iterator", "passing", "planned", "sequence"),
    ),
    "ops": ("dispatch", "options", "resample", "table"),
    "ops.compiled": ("augment", "boxes", "choices", "library", "philox", "resize"),
    "ops.cuda": ("memory", "resident"),
    "ops.numpy": ("affine", "augment", "blocks", "resize"),
    "plan": (
        *("boxes", "choices", "columns", "draw", "order", "philox", "plan", "planner"),
        *("program", "ranges", "sharding", "state"),
    ),
    "sources": ("arrays", "cache", "crops", "files", "masks", "options", "source"),
    "transforms": (
        *("batch", "fitting", "functions", "masks", "normalisation"),
        *("protocol", "settings", "statistics"),
    ),
}
"""Room -> what ``import gpuseq`` loads of it. A module more is time that every script pays: let it wait for its use."""

WAITING = {"asyncio", "difflib", "email", "hashlib", "html", "http", "json", "multiprocessing", "shutil", "tempfile"}
"""Of Python's own library: what ``import gpuseq`` leaves to those who need it, where NumPy and Pillow do so, too."""


def test_import_loads_what_keras_classes_need_and_no_more() -> None:
    code = """
import json as encoder, sys, numpy, PIL.Image
dumps = encoder.dumps
for name in [name for name in sys.modules if name.partition(".")[0] == "json"]:
    del sys.modules[name]
before = set(sys.modules)
import gpuseq
print(dumps(sorted(set(sys.modules) - before)))
"""
    new = set(json.loads(run(sys.executable, "-c", code, cwd=ROOT).stdout))
    rooms = {"gpuseq", *(f"gpuseq.{room}" for room in LOADED if room)}
    allowed = rooms | {f"gpuseq.{room}.{name}".replace("..", ".") for room, names in LOADED.items() for name in names}
    assert {name for name in new if name.partition(".")[0] == "gpuseq"} == allowed
    assert not new & WAITING


def test_what_comes_later_says_gpuseq_by_whatever_road_it_comes() -> None:
    code = """
from gpuseq.plan.policies.strings import parse_policy
import pickle, pickletools, sys
assert "gpuseq.compose" not in sys.modules
policy = parse_policy("rand-m9-mstd0.5-inc1")
names = [argument for _, argument, _ in pickletools.genops(pickle.dumps(policy)) if isinstance(argument, str)]
assert "gpuseq" in names and not any("policies" in name for name in names), names
from gpuseq.compose import Compose
import gpuseq
assert gpuseq.Compose is Compose and Compose.__module__ == "gpuseq" and gpuseq.image.load_img is gpuseq.load_img
for name in ("RandAugmen", "MixUp", "Resize"):
    try:
        getattr(gpuseq, name)
    except AttributeError as error:
        print(error)
"""
    wrong, missing, elsewhere = run(sys.executable, "-c", code, cwd=ROOT).stdout.splitlines()
    assert wrong == "module 'gpuseq' has no attribute 'RandAugmen'; did you mean 'RandAugment'?"
    assert missing.startswith("gpuseq has no MixUp yet: apply keras.layers.MixUp")
    assert elsewhere == "gpuseq has no Resize: flow_from_directory and flow_from_dataframe resize to target_size="


@pytest.mark.parametrize("name", ["cupy", "keras", "torch", "jax", "tensorflow", "nvidia", "scipy", "pandas", "ray"])
def test_import_works_where_an_optional_package_is_broken(name: str, tmp_path: Path) -> None:
    """A package that fails at import must not be touched by ``import gpuseq``."""
    (tmp_path / f"{name}.py").write_text("raise SystemError('this package is broken')")
    code = "import gpuseq; print(gpuseq.__version__)"
    assert run(sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}").stdout.strip()


def test_every_public_name_imports_and_is_listed() -> None:
    namespace: dict[str, object] = {}
    exec("from gpuseq import *", namespace)
    missing = [name for name in gpuseq.__all__ if not hasattr(gpuseq, name)]
    assert missing == []
    assert set(gpuseq.__all__) <= set(namespace)
    assert set(gpuseq.__all__) <= set(dir(gpuseq))


def public_callables() -> list[tuple[str, Any]]:
    """Return what users call: the generator, the iterators and their own methods."""
    found: list[tuple[str, Any]] = []
    for name in ("ImageDataGenerator", "NumpyArrayIterator", "DirectoryIterator", "DataFrameIterator"):
        made = getattr(gpuseq, name)
        found.append((name, made))
        found += [
            (f"{name}.{method}", function)
            for method, function in vars(made).items()
            if inspect.isfunction(function) and not method.startswith("_")
        ]
    return found


@pytest.mark.parametrize(("name", "thing"), public_callables())
def test_every_public_argument_is_documented(name: str, thing: Any) -> None:
    text = inspect.getdoc(thing) or ""
    arguments = set(inspect.signature(thing).parameters) - {"self", "kwargs"}
    missing = {argument for argument in arguments if not re.search(rf"\b{argument}\b", text)}
    assert text
    assert "Parameters\n" not in text or not missing


def test_the_version_is_in_one_place() -> None:
    text = (ROOT / "gpuseq" / "base" / "version.py").read_text()
    assert re.findall(r'^__version__ = "(.+)"$', text, re.MULTILINE) == [gpuseq.__version__]
    assert 'dynamic = ["version"]' in (ROOT / "pyproject.toml").read_text()


def test_the_commands_in_the_readme_are_those_that_ci_runs() -> None:
    readme, ci = (ROOT / "README.md").read_text(), (ROOT / ".ci" / "run").read_text()
    assert ".venv-test/bin/python -m pytest -n auto\n" in readme
    assert "test_command=(-m pytest -n auto)" in ci
    assert "/bin/gpuseq demo\n" in readme
    assert "bin/gpuseq demo" in ci
    # The pinned tools agree: pre-commit's hooks and the dev extra.
    hooks = set(
        re.findall(r'"((?:ruff|mypy|import-linter|numpydoc)==[\d.]+)"', (ROOT / ".pre-commit-config.yaml").read_text())
    )
    extra = set(re.findall(r'"((?:ruff|mypy|import-linter|numpydoc)==[\d.]+)"', (ROOT / "pyproject.toml").read_text()))
    assert hooks == extra
    assert len(hooks) == 4


def test_the_example_in_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "train").symlink_to(ROOT / "gpuseq" / "photos")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GPUSEQ_DEVICE", "cpu")
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(example, names)
    assert names["images"].shape == (9, 224, 224, 3)
    assert names["labels"].sum(axis=0).tolist() == [3, 3, 3]


def test_a_start_of_the_command_is_quick() -> None:
    """Help must not wait for frameworks."""
    text = run(sys.executable, "-X", "importtime", "-m", "gpuseq", "--help", cwd=ROOT)
    assert "demo" in text.stdout
    heavy = {"cupy", "keras", "torch", "jax", "tensorflow", "scipy", "pandas"}
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in text.stderr.splitlines() if "|" in line}
    assert "gpuseq" in imported
    assert not heavy & imported


def test_the_tests_own_compiler_compiles_each_text_once(tmp_path: Path) -> None:
    """The builds in this suite share their objects: another text or option is another object, another folder is not."""
    command = shlex.split(os.environ["CXX"]) if "CXX" in os.environ else []
    if len(command) < 4 or Path(command[1]).name != "compile_once.py":
        pytest.skip("no C++ compiler")
    compiler = [*command[:2], str(tmp_path / "kept"), *command[3:]]

    def compiled(folder: str, text: str, *options: str) -> bytes:
        source = tmp_path / folder / "text.cpp"
        source.parent.mkdir(exist_ok=True)
        source.write_text(text)
        target = source.with_suffix(".o")
        run(*compiler, *options, "-c", source, "-o", target, cwd=tmp_path)
        return target.read_bytes()

    first = compiled("a", "int one() { return 1; }\n")
    kept = list((tmp_path / "kept").iterdir())
    assert len(kept) == 1
    kept[0].write_bytes(b"what was kept")
    assert compiled("b", "int one() { return 1; }  // as before\n") == b"what was kept"
    assert compiled("a", "int one() { return 2; }\n") not in (first, b"what was kept")
    assert compiled("a", "int one() { return 1; }\n", "-O2") != b"what was kept"
    assert len(list((tmp_path / "kept").iterdir())) == 3
    with pytest.raises(AssertionError, match="expected"):
        compiled("a", "int one( { return 1; }\n")

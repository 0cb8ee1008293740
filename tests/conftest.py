"""Session rules: the Keras backend, what a missing GPU means, and a line that counts what it cost."""

from __future__ import annotations

import gc
import importlib.util
import os
import random
import subprocess
import sys

# Keras reads its backend once, at import; every backend gives the same NumPy iterators.
os.environ.setdefault("KERAS_BACKEND", "torch")

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpuseq.base import devices as compat
from gpuseq.ops.compiled import library
from tests import compiled_library
from tests.photos import write_photo, write_tree
from tests.standin import host_runner, process, rehearsal, work
from tests.standin.ptx import machine

if importlib.util.find_spec("hypothesis"):  # the machine with the GPU may lack it, and the tests for one do without
    from hypothesis import HealthCheck, settings

    # The same examples on every machine and in every run: a suite that passes today passes tomorrow. How long an
    # example takes to draw is the machine's business.
    untimed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.register_profile("gpuseq", untimed, derandomize=True)
    settings.register_profile("explore", untimed)
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "gpuseq"))

ROOT = Path(__file__).resolve().parents[1]
"""The repository's."""

REQUIRE_GPU = "GPUSEQ_REQUIRE_GPU"
REQUIRE_FRAMEWORKS = "GPUSEQ_REQUIRE_FRAMEWORKS"
ORDER = "GPUSEQ_TEST_SEED"
"""Set, the tests run in an order drawn from it; "random" draws a seed, too. Any failure that it shows is repeatable."""

LONG = (
    "benchmarks/test_gpu_round.py",
    "standin/test_rehearsal.py",
    "ops/compiled/test_sanitizers.py",
    "docker/test_train.py",
    "keras/test_backends.py",
    "feed/test_loader_histories.py",
    "sources/test_endurance.py",
    "notebooks/test_notebooks.py",
    "docker/test_images.py",
    "ops/cuda/test_sanitizers.py",
    "ops/cuda/test_program_on_host.py",
)
"""Files with tests of ten seconds or more. They go first: one that begins last decides when the run ends."""

_skipped_for_want_of_a_gpu: list[str] = []

_COUNTERS = {
    "kernel_launches": (partial(work.num_launches, work.COMPILED), "kernels run on the CPU"),
    "ptx_launches": (partial(work.num_launches, work.INTERPRETED), "kernels run as interpreted PTX"),
}


def pytest_configure(config: pytest.Config) -> None:
    """Compile the CPU engine; put stand-ins in a GPU's place where that is asked for: see `tests.standin.rehearsal`."""
    if not hasattr(config, "workerinput"):
        host_runner.forget_the_unused()
        if os.environ.get(ORDER) == "random":
            os.environ[ORDER] = str(random.SystemRandom().randrange(10**6))  # the workers of pytest-xdist inherit it
        if getattr(config.option, "dist", "no") == "load":
            # What a worker is given lies together, so the fixtures of most files are made in one process; and none is
            # idle while another has tests left. Not among the options: those have to do without pytest-xdist.
            config.option.dist = "worksteal"
    compiled_library.compile_once()
    with ThreadPoolExecutor(1) as beside:
        if not hasattr(config, "workerinput") and _collects(config, machine.SOURCES.parent):
            beside.submit(_build_the_machine)  # which every worker would wait for
        if not os.environ.get(library.PATH):
            built = compiled_library.build()
            if built is not None:
                os.environ[library.PATH] = str(built)  # the workers of pytest-xdist inherit it
    if rehearsal.ENABLED:
        process.install()
        config.pluginmanager.register(rehearsal.Rehearsal())


def _collects(config: pytest.Config, folder: Path) -> bool:
    asked = [(config.invocation_params.dir / argument.partition("::")[0]).resolve() for argument in config.args]
    return any(folder.is_relative_to(path) for path in asked)


def _build_the_machine() -> None:
    with suppress(FileNotFoundError, RuntimeError):  # without a compiler, or refused: the tests that need it say so
        machine.build()


def pytest_report_header() -> str | None:
    """Say which seed the order comes from."""
    seed = os.environ.get(ORDER)
    return f"in random order: {ORDER}={seed} python -m pytest repeats it" if seed else None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep what was imported and collected out of all garbage collections: it stays to the end of the process.

    Half a million objects of torch, JAX, Keras and pytest: 0.4 s for each full collection, and many tests ask for one.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Shuffle the files, and the tests within each; a file stays together, because its fixtures are dear to make.

    Those of `LONG` come before all others, in its order, with a seed or without.
    """
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    groups = list(files.values())
    if seed := os.environ.get(ORDER):
        draw = random.Random(seed)
        draw.shuffle(groups)
        for group in groups:
            draw.shuffle(group)
    places = {ROOT / "tests" / name: place for place, name in enumerate(LONG)}
    groups.sort(key=lambda group: places.get(group[0].path, len(LONG)))
    items[:] = [item for group in groups for item in group]


CPU_ENGINES = ("numpy", "compiled")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what is marked ``each_cpu_engine`` through each of them."""
    if metafunc.definition.get_closest_marker("each_cpu_engine"):
        metafunc.parametrize("_cpu_engine", CPU_ENGINES, indirect=True)


@pytest.fixture(autouse=True)
def _cpu_engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name the engine for a test that is run through each; leave the others to the environment."""
    engine = getattr(request, "param", None)
    if engine == "compiled":
        compiled_library.require()
    if engine is not None:
        monkeypatch.setenv(library.ENGINE, engine)


def _required(name: str) -> bool:
    return os.environ.get(name, "") not in ("", "0")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test marked ``gpu`` or ``frameworks`` where they are not there, or fail it where they were promised."""
    missing = [
        name for marker in item.iter_markers("frameworks") for name in marker.args if not importlib.util.find_spec(name)
    ]
    if missing:
        if _required(REQUIRE_FRAMEWORKS):
            pytest.fail(f"{REQUIRE_FRAMEWORKS} is set, but there is no {', '.join(missing)}", pytrace=False)
        pytest.skip(f"not installed: {', '.join(missing)} (the frameworks extra brings it)")
    if item.get_closest_marker("gpu") is None:
        return
    problem = compat.gpu_problem()
    if problem is None:
        return
    if _required(REQUIRE_GPU):
        pytest.fail(f"{REQUIRE_GPU} is set, but {problem}", pytrace=False)
    _skipped_for_want_of_a_gpu.append(item.nodeid)
    pytest.skip(f"no GPU: {problem}")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how much of the suite a machine without a GPU left out, and how many kernels the CPU ran in its place."""
    if _skipped_for_want_of_a_gpu:
        terminalreporter.write_line(
            f"{len(_skipped_for_want_of_a_gpu)} test(s) skipped for want of a GPU "
            f"(set {REQUIRE_GPU}=1 to make that a failure)"
        )
    reports = [report for several in terminalreporter.stats.values() for report in several]
    torn_down = [report for report in reports if getattr(report, "when", None) == "teardown"]
    properties = [item for report in torn_down for item in report.user_properties]
    for name, (_, what) in _COUNTERS.items():
        if launches := [value for key, value in properties if key == name]:
            terminalreporter.write_line(f"{sum(launches)} {what}, in {len(launches)} tests")


@pytest.fixture(autouse=True)
def _global_stream() -> Iterator[None]:
    """Give every test NumPy's global stream in a known state, and take its traces away after it."""
    before = np.random.get_state()
    np.random.seed(20240229)
    yield
    np.random.set_state(before)


@pytest.fixture
def untouched_global_stream() -> Iterator[None]:
    """Fail a test that moved NumPy's global stream."""
    before = np.random.get_state()
    yield
    after = np.random.get_state()
    assert before[0] == after[0], "another bit generator was installed"
    np.testing.assert_array_equal(before[1], after[1], err_msg="the global NumPy stream was reseeded or advanced")
    assert before[2:] == after[2:], "the global NumPy stream was advanced"


@pytest.fixture(autouse=True)
def _counted(record_property: Callable[[str, object], None]) -> Iterator[None]:
    before = {name: count() for name, (count, _) in _COUNTERS.items()}
    yield
    for name, (count, _) in _COUNTERS.items():
        if count() > before[name]:
            record_property(name, count() - before[name])


# Folders of small pictures, written once a session and never changed by a test.


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return three classes with every kind of file: see `tests.photos.write_tree`. Read only, by agreement."""
    return write_tree(tmp_path_factory.mktemp("photos") / "tree")


@pytest.fixture(scope="session")
def plain_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of two classes, five JPEG files of 24x20 each. Read only, by agreement."""
    root = tmp_path_factory.mktemp("photos") / "plain"
    for label in ("left", "right"):
        for number in range(5):
            write_photo(root / label / f"{number}", "jpeg", seed=10 * number + len(label))
    return root


@pytest.fixture
def run_script(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Python source in a process of its own, from the repository's root, and fail if it fails."""

    def run(source: str, *args: str, python: tuple[str, ...] = (sys.executable,), **environment: str) -> Any:
        path = tmp_path / f"script_{abs(hash(source))}.py"
        path.write_text(source)
        env = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "OMPI_"))}
        path_of = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))  # of what was brought
        env |= {"PYTHONPATH": path_of, "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
        # Each step of JAX runs a few times: what XLA optimises takes longer to compile than it will ever save.
        env |= {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", **environment}
        done = subprocess.run(
            [*python, str(path), *args], cwd=ROOT, env=env, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
        return done

    return run

"""The Dockerfile without Docker: each target's files, install and entry commands, in a fresh virtual environment."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from gpuseq.base.devices import has_gpu
from tests.docker.dockerfile import Stage, read_stages

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "docker" / "Dockerfile"
STAGES = read_stages(DOCKERFILE)
TARGETS = ("cpu", "cuda13", "torch")


def run(command: list[str], cwd: Path, *, expected: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("GPUSEQ_", "PYTHON"))}
    done = subprocess.run(
        command,
        cwd=cwd,
        env=clean | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == expected, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


class Container:
    """A target's working folder and a fresh environment in which its own install commands have been run."""

    def __init__(self, stage: Stage, folder: Path) -> None:
        self.stage = stage
        self.app = folder / "app"
        self.out = folder / "out"
        self.out.mkdir(parents=True)
        for source, destination in stage.copies:
            if source == ".":
                ignored = shutil.ignore_patterns(
                    ".git", ".*cache", ".hypothesis", "__pycache__", ".venv*", "_build", "out"
                )
                shutil.copytree(ROOT, self.app, ignore=ignored, dirs_exist_ok=True)
                continue
            target = self.app / destination / (Path(source).name if destination.endswith("/") else "")
            target.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / source, target)
        environment = folder / "venv"
        run([sys.executable, "-m", "venv", "--without-pip", str(environment)], cwd=folder)
        self.bin = environment / "bin"
        # The dependencies are lent by the environment that runs the tests, so that no network is needed.
        (site,) = (environment / "lib").glob("python*/site-packages")
        (site / "lent.pth").write_text("".join(f"{path}\n" for path in sys.path if path.endswith("site-packages")))
        for words in stage.pip_installs:
            if "-r" in words:
                continue  # what the environment lends
            requirements = [word for word in words if word.startswith(".")]
            assert requirements, words
            install = [sys.executable, "-m", "pip", "--python", str(self.bin / "python"), "install", "-q", "--no-deps"]
            done = run([*install, "--no-build-isolation", "--no-index", *requirements], cwd=self.app)
            assert "does not provide the extra" not in done.stderr
        for name, module in (("torchrun", "torch.distributed.run"), ("pytest", "pytest")):
            script = self.bin / name
            script.write_text(f'#!/bin/sh\nexec "{self.bin}/python" -m {module} "$@"\n')
            script.chmod(0o755)

    def run(self, command: list[str], *, expected: int = 0) -> str:
        words = [word.replace("/out/", f"{self.out}/") for word in command]
        path = f"{self.bin}{os.pathsep}{os.environ['PATH']}"
        words[0] = shutil.which(words[0], path=path) or words[0]
        assert Path(words[0]).is_relative_to(self.bin), f"{words[0]} is not what this image installs"
        done = run(words, cwd=self.app, expected=expected, PATH=path, OMP_NUM_THREADS="1", GPUSEQ_NUM_THREADS="1")
        return done.stdout + done.stderr


class Containers(dict[str, Container]):
    """The containers by name, each made when it is first asked for: tests may be spread over processes."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        super().__init__()
        self.factory = factory

    def __missing__(self, name: str) -> Container:
        self[name] = Container(STAGES[name], self.factory.mktemp(name))
        return self[name]


@pytest.fixture(scope="module")
def containers(tmp_path_factory: pytest.TempPathFactory) -> Containers:
    pytest.importorskip("hatchling", reason="the test extra brings it")
    return Containers(tmp_path_factory)


def test_there_are_three_targets_and_their_bases() -> None:
    assert set(STAGES) == {"base", *TARGETS}
    assert STAGES["cpu"].base == STAGES["cuda13"].base == "base"
    assert STAGES["torch"].base == "${TORCH_IMAGE}"


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_runs_as_root(name: str) -> None:
    assert STAGES[name].last("USER") == ["1000:1000"]


@pytest.mark.parametrize("name", TARGETS)
def test_the_health_check_is_the_doctor(name: str, containers: Containers) -> None:
    health = STAGES[name].health
    assert health[:2] == ["gpuseq", "doctor"]
    needs_gpu = "--require-gpu" in health
    assert needs_gpu == (name != "cpu")
    assert "gpuseq" in containers[name].run(health, expected=int(needs_gpu and not has_gpu()))


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_installed_is_the_copied_checkout_with_its_kernels(name: str, containers: Containers) -> None:
    code = "import gpuseq, gpuseq.ops.cuda.compile as k; print(gpuseq.__file__); print(k.kernel_folder())"
    package, kernels = containers[name].run(["python", "-I", "-c", code]).splitlines()
    assert Path(package).is_relative_to(containers[name].bin.parent)
    assert Path(kernels).is_relative_to(containers[name].bin.parent)
    assert {path.name for path in Path(kernels).iterdir()} >= {path.name for path in (ROOT / "kernels").glob("*.cu*")}


def test_every_extra_that_is_asked_for_exists(containers: Containers) -> None:
    (found,) = containers["cpu"].bin.parent.glob("lib/*/site-packages/gpuseq-*.dist-info")
    known = set(metadata.PathDistribution(found).metadata.get_all("Provides-Extra") or ())
    asked = {
        extra
        for stage in STAGES.values()
        for words in stage.pip_installs
        for word in words
        for extra in re.findall(r"[\w-]+", word.partition("[")[2] if word.startswith(".") else "")
    }
    assert asked == {"test", "cuda13"}
    assert asked <= known


def test_cpu_runs_the_test_suite(containers: Containers) -> None:
    command = STAGES["cpu"].command
    assert command[:3] == ["python", "-m", "pytest"]
    some = [word if word != "auto" else "1" for word in command]
    assert " passed" in containers["cpu"].run([*some, "tests/plan/test_order.py", "-q"])


def test_cuda13_runs_the_demo(containers: Containers) -> None:
    command = STAGES["cuda13"].command
    assert command[:2] == ["gpuseq", "demo"]
    containers["cuda13"].run(command)
    assert (containers["cuda13"].out / "gpuseq-demo.png").stat().st_size > 10_000


def test_torch_runs_the_training_job(containers: Containers) -> None:
    pytest.importorskip("torch", reason="the test extra brings it")
    command = STAGES["torch"].command
    assert command[:4] == ["torchrun", "--standalone", "--nproc-per-node", "gpu"]
    some = [word if word != "gpu" else "1" for word in command]  # "gpu": as many as there are, and there may be none
    small = ["--device", "cpu", "--epochs", "1", "--image-size", "16", "--width", "4"]
    assert '"step": 1' in containers["torch"].run([*some, *small])
    assert (containers["torch"].out / "checkpoint.pt").is_file()


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("hadolint is not installed: the deploy extra brings it")
    assert run([hadolint, str(DOCKERFILE)], cwd=ROOT).stdout == ""

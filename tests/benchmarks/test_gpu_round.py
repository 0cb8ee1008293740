"""The GPU round: in time, in two files, from where it stopped, and rehearsed where there is no GPU."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tarfile
import time
import venv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import bring, gpu_round, gpu_smoke, gpu_tests, results, table
from benchmarks.__main__ import main
from benchmarks.contenders.policies import POLICIES
from benchmarks.measure import row
from gpuseq.ops.cuda import compile as kernels
from tests.standin.ptx import compiler

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _small_room(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUSEQ_BENCH_DIR", str(tmp_path_factory.getbasetemp() / "bench"))


# The round.


def test_without_a_gpu_the_round_says_why_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gpu_round.main(["--out", str(tmp_path)], problem=lambda: "no driver answered") == 2
    assert "no driver answered" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_the_round_fits_into_one_call_and_begins_with_what_is_worth_most() -> None:
    assert sum(step.limit_s for step in gpu_round.STEPS) + gpu_round.GRACE_S < 525
    assert [step.name for step in gpu_round.STEPS][:3] == ["smoke", "tests", "races"]
    assert [step.name for step in gpu_round.plan(["tests", "kernel"])][:3] == ["smoke", "races", "host"]
    assert [step.name for step in gpu_round.plan([], only=["feed"])] == ["feed"]


def test_a_rehearsal_does_not_touch_the_results() -> None:
    with pytest.raises(SystemExit):
        gpu_round.main(["--rehearse", "--out", str(results.RESULTS)])


GOOD = gpu_round.Step("tests", 60, ("-c", "print('3 passed')"))
BAD = gpu_round.Step("races", 60, ("-c", "print('{\"wrong\": 1}'); raise SystemExit(1)"))
HANGS = gpu_round.Step("kernel", 0.2, ("-c", "import time; time.sleep(60)"))


def test_the_round_keeps_what_each_step_found_and_goes_on_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_round, "STEPS", (GOOD, BAD, HANGS))
    first, second = tmp_path / "first", tmp_path / "second"
    assert gpu_round.main(["--out", str(first)], problem=lambda: None) == 1
    made = results.read(first / gpu_round.FIGURES)
    assert (made["checks"]["tests"]["ok"], made["checks"]["tests"]["said"]) == (True, "3 passed")
    assert (made["checks"]["races"]["ok"], made["checks"]["races"]["said"]) == (False, {"wrong": 1})
    assert "kernel" not in made["checks"]
    assert made["stopped"]["kernel"]["status"] == 124
    capsys.readouterr()
    # On another machine, with the two files that came back: only what was stopped is done again.
    quick = replace(HANGS, limit_s=60, command=("-c", "print('\"quick\"')"))
    monkeypatch.setattr(gpu_round, "STEPS", (GOOD, BAD, quick))
    assert gpu_round.main(["--resume", str(first), "--out", str(second)], problem=lambda: None) == 0
    said = capsys.readouterr().err
    assert "== kernel" in said
    assert "== tests" not in said
    made_then = results.read(second / gpu_round.FIGURES)
    assert made_then["checks"]["kernel"]["said"] == "quick"
    assert made_then["checks"]["tests"] == made["checks"]["tests"]
    assert results.read(first / gpu_round.FIGURES) == made, "what came back is left as it is"
    with tarfile.open(second / gpu_round.REPORTS) as packed:
        assert sorted(packed.getnames()) == ["kernel-0.txt", "kernel-1.txt", "races-0.txt", "tests-0.txt"]
    assert len(list(second.iterdir())) == 2
    with pytest.raises(SystemExit):  # which of the two is to stay?
        gpu_round.main(["--resume", str(first), "--out", str(second)], problem=lambda: None)


def test_a_call_ends_in_time_whatever_its_steps_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs = replace(HANGS, limit_s=60, command=("-c", "import time; time.sleep(600)"))
    monkeypatch.setattr(gpu_round, "STEPS", (replace(hangs, name="tests"), replace(hangs, name="races"), hangs))
    monkeypatch.setattr(gpu_round, "LEAST_S", 1.0)
    monkeypatch.setattr(gpu_round, "GRACE_S", 0.5)
    assert gpu_round.main(["--out", str(tmp_path), "--budget", "2"], problem=lambda: None) in (1, 3)
    made = results.read(tmp_path / gpu_round.FIGURES)
    # Each step that was begun was stopped, whose limit and sleep go far beyond the budget. On a busy machine none was.
    assert made["checks"] == {}
    assert "kernel" not in made.get("stopped", {})
    assert (tmp_path / gpu_round.REPORTS).exists()


def test_a_call_that_is_told_to_end_packs_what_it_has(tmp_path: Path) -> None:
    has_printed = tmp_path / "has printed"
    script = (
        "import sys\n"
        "from benchmarks import gpu_round\n"
        "gpu_round.STEPS = (gpu_round.Step('tests', 500, ('-c', "
        '\'import sys, time; print("half", flush=True); open(sys.argv[1], "w").close(); time.sleep(600)\', '
        "sys.argv[2])),)\n"
        "sys.exit(gpu_round.main(['--out', sys.argv[1]], problem=lambda: None))\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "out"), str(has_printed)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE)
    assert process.stderr is not None
    assert process.stderr.readline() == b"== tests\n"
    while not has_printed.exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.terminate()
    assert process.wait(300) == 143
    process.stderr.close()
    with tarfile.open(tmp_path / "out" / gpu_round.REPORTS) as packed:
        log = packed.extractfile("tests-0.txt")
        assert log is not None
        assert log.read() == b"half\n"


def test_what_is_brought_is_for_the_other_machine_and_comes_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = bring.command("3.12", ["pytest"])
    assert command[-1] == "pytest"
    assert command[command.index("--python-version") + 1] == "3.12"
    monkeypatch.setattr(gpu_round, "BROUGHT", tmp_path)
    monkeypatch.setenv("PYTHONPATH", "mine")
    assert gpu_round._environ(False)["PYTHONPATH"].split(os.pathsep) == [str(ROOT), "mine", str(tmp_path)]


def test_what_is_brought_is_brought_by_one_call_of_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second call would take away what of the first lies in a folder of the same name, as NVIDIA's packages do."""
    brought = tmp_path / "brought"
    (brought / "nvidia" / "nvimgcodec").mkdir(parents=True)
    calls = []

    def pip(command: list[str], check: bool) -> subprocess.CompletedProcess[bytes]:
        assert not brought.exists()
        calls.append(command[-2:])
        (brought / "nvidia" / "dali").mkdir(parents=True)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(bring, "BROUGHT", brought)
    monkeypatch.setattr(bring, "ROOT", tmp_path)
    monkeypatch.setattr(subprocess, "run", pip)
    assert bring.main(["nvidia-dali", "nvidia-nvimgcodec"]) == 0
    assert calls == [["nvidia-dali", "nvidia-nvimgcodec"]]


# The rehearsal.


def test_the_round_is_rehearsed_and_its_figures_are_not_published(tmp_path: Path) -> None:
    """Every step's own code runs once, on the stand-in for a GPU; for "tests" see `tests/standin/test_rehearsal.py`."""
    suites = [step.name for step in gpu_round.STEPS if step.is_suite]
    asked = ["--rehearse", "--out", str(tmp_path), "--only", "smoke", "races", *suites, "--peers"]
    assert gpu_round.main([*asked, "--budget", "5000"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [gpu_round.REPORTS, gpu_round.FIGURES]
    made = results.read(tmp_path / gpu_round.FIGURES)
    assert made["rehearsal"]
    races = made["checks"]["races"]["said"]
    assert races["streams"] == {"launches": 64, "wrong": [], "ok": True}
    assert {"nvimgcodec", "dali", "pillow"} < set(races)
    assert made["checks"]["smoke"]["said"]["passed"] > 25
    assert sorted(made["suites"]) == sorted(suites)
    rows = [item for content in made["suites"].values() for item in content["rows"]]
    assert not [item for item in rows if "absent" in item]
    assert {item["contender"] for item in rows} >= {"gpuseq, GPU", "device copy", "plan and launch", "a constant batch"}
    modern = {(item["case"].partition(", batch")[0], item["contender"]) for item in made["suites"]["modern"]["rows"]}
    assert modern == {(policy, f"gpuseq, GPU, {way}") for policy in POLICIES for way in ("iterator", "Compose")}
    assert all(item["at"]["device_work"][0] > 0 for item in made["suites"]["modern"]["rows"])
    on_device = [item for item in rows if "nvImageCodec on the GPU" in item["contender"]]
    assert on_device
    assert all(item["at"]["device_work"][1] > 0 for item in on_device)
    with tarfile.open(tmp_path / gpu_round.REPORTS) as packed:
        assert {"smoke/smoke.json", "smoke-0.txt", "races-0.txt", "kernel-0.txt"} <= set(packed.getnames())
    with pytest.raises(ValueError, match="not published"):
        table.write_tables([made])
    with pytest.raises(ValueError, match="holds a rehearsal"):
        main(["run", "--device", "cuda", "--smoke", "--suite", "host", "--json", str(tmp_path / gpu_round.FIGURES)])
    with pytest.raises(SystemExit):  # nor does the real round go on from it
        gpu_round.main(["--out", str(tmp_path)], problem=lambda: None)


def test_a_row_that_did_nothing_on_the_device_is_found() -> None:
    rows = [
        row("arrays", "tiny", "gpuseq, GPU", "img/s", [1.0], at={"device_work": [3, 0]}),
        row("arrays", "tiny", "gpuseq, CPU", "img/s", [1.0], at={"device_work": [0, 0]}),
        row("arrays", "tiny", "Somebody, GPU", "img/s", [1.0]),
    ]
    made: dict[str, Any] = {"suites": {"arrays": {"rows": rows}, "kernel": {"rows": [], "device_work": [5, 0]}}}
    assert gpu_round.idle_rows(made) == []
    rows[0]["at"]["device_work"] = [0, 3]
    assert gpu_round.idle_rows(made) == ["arrays | tiny | gpuseq, GPU: no kernel"]
    rows[0] |= {"contender": "gpuseq, GPU, DALI's decoder on the GPU", "at": {"device_work": [3, 0]}}
    assert gpu_round.idle_rows(made) == ["arrays | tiny | gpuseq, GPU, DALI's decoder on the GPU: no decode"]
    made["suites"]["kernel"]["device_work"] = [0, 0]
    assert "kernel" in gpu_round.idle_rows(made)


def only_the_devices_packages(folder: Path) -> Path:
    """Return the Python of an environment with CuPy, torch, JAX, NumPy, SciPy, pandas, and what gpuseq needs."""
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    wanted, seen = ["cupy-cuda13x", "torch", "jax", "numpy", "scipy", "pandas", "pillow", "tqdm"], set()
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # of another system
        needed = [entry for entry in distribution.requires or () if "extra ==" not in entry]
        wanted += [re.split(r"[^A-Za-z0-9._-]", entry, maxsplit=1)[0] for entry in needed]
        for top in {file.parts[0] for file in distribution.files or () if file.parts[0] not in ("..", "__pycache__")}:
            source = Path(str(distribution.locate_file(top)))
            if top != "nvidia" and source.exists() and not (site / top).exists():  # where the decoders are, too
                (site / top).symlink_to(source)
    return folder / "bin" / "python"


def test_the_round_is_rehearsed_where_only_the_devices_packages_are(tmp_path: Path) -> None:
    """No pytest, no hypothesis, no Keras, no decoders: what is missing is named, all else is done."""
    for name in ("cupy", "torch", "jax", "scipy", "pandas"):
        pytest.importorskip(name)
    python, out = only_the_devices_packages(tmp_path / "environment"), tmp_path / "out"
    kept = ("PATH", "HOME", "GPUSEQ_BENCH_DIR", "GPUSEQ_KERNEL_CACHE")
    environ = {name: os.environ[name] for name in kept if name in os.environ}
    names = "('pytest', 'hypothesis', 'keras', 'nvidia', 'gpuseq_is_not_installed')"
    check = f"import importlib.util as u; print([name for name in {names} if u.find_spec(name)])"
    found = subprocess.run([python, "-c", check], cwd=ROOT, env=environ, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
    command = [python, "-m", "benchmarks.gpu_round", "--rehearse", "--out", str(out), "--budget", "5000", "--peers"]
    steps = ["--only", "smoke", "tests", "races", "kernel", "host"]
    run = subprocess.run([*command, *steps], cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-6000:]
    assert len(list(out.iterdir())) == 2
    made = results.read(out / gpu_round.FIGURES)
    smoke = made["checks"]["smoke"]["said"]
    assert smoke["failed"] == []
    assert smoke["passed"] > 25
    assert {"decoder: dali", "decoder: nvimgcodec", "hand-over: tensorflow"} <= set(smoke["left_out"])
    assert made["checks"]["tests"]["ok"] is None
    assert "pytest is not installed" in made["checks"]["tests"]["said"]
    assert made["checks"]["races"]["said"]["dali"]["left_out"]
    assert {"kernel", "host"} == set(made["suites"])


@pytest.mark.skipif(not compiler.is_installed(), reason="NVRTC is not installed")
def test_the_smoke_runs_every_kernel_as_a_gpus_compiler_makes_it() -> None:
    environ = {**os.environ, "GPUSEQ_GPU_STANDIN": "ptx"}
    command = [sys.executable, "-m", "benchmarks.gpu_smoke", "--seconds", "5000"]
    run = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    said = json.loads(run.stdout.splitlines()[-1])
    assert (run.returncode, said["failed"]) == (0, []), run.stderr[-3000:]
    assert said["passed"] > 30
    assert said["kernels"] == sorted(f"{kernel} by PTX" for kernel in kernels.SIGNATURES)


def test_the_smoke_goes_on_past_failures_and_stops_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(gpu_smoke.time, "monotonic", lambda: now[0])

    def fails() -> None:
        raise ZeroDivisionError("by zero")

    def is_left() -> None:
        raise gpu_smoke.Left("no such package")

    def is_slow() -> None:
        now[0] += 0.6

    checks = {"bad": fails, "left": is_left, "good": lambda: None, "slow": is_slow, "late": fails}
    found = {item["name"]: item for item in gpu_smoke.run(0.5, checks)}
    assert {name: item["ok"] for name, item in found.items()} == {
        "bad": False,
        "left": None,
        "good": True,
        "slow": True,
        "late": None,
    }
    assert "ZeroDivisionError: by zero (test_gpu_round.py:" in found["bad"]["said"]
    assert found["late"]["said"] == "out of time"


def test_a_library_that_aborts_or_hangs_costs_one_check(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stand_in = tmp_path / "python"
    monkeypatch.setattr(gpu_smoke.sys, "executable", str(stand_in))

    def check(script: str) -> dict[str, Any]:
        stand_in.write_text(f"#!/bin/sh\n{script}\n")
        stand_in.chmod(0o755)
        name = "decoder: dali"
        (found,) = gpu_smoke.run(60, {name: gpu_smoke.CHECKS[name]}, alone=gpu_smoke.ALONE)
        return found

    died = check("echo terminate called >&2; kill -ABRT $$")
    assert died["ok"] is False
    assert "status -6: terminate called" in died["said"]
    monkeypatch.setattr(gpu_smoke, "ALONE_S", 0.3)
    assert check("exec sleep 600")["said"] == "no answer within 0 s"
    monkeypatch.setattr(gpu_smoke, "ALONE_S", 600)
    assert check('echo noise; echo \'{"name": "decoder: dali", "ok": true}\'')["ok"] is True
    assert set(gpu_smoke.CHECKS) > gpu_smoke.ALONE


# The tests marked gpu.


def test_every_file_that_holds_a_gpus_test_is_found() -> None:
    """By its text, so that nothing else is imported where half of the packages may be missing."""
    named = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "tests").rglob("test_*.py")
        if "pytest.mark.gpu" in path.read_text()
    }
    assert named - set(gpu_tests.test_files()) == {Path(__file__).relative_to(ROOT).as_posix()}
    assert gpu_tests.test_files()[0].startswith("tests/ops/cuda/")


def test_the_gpus_tests_are_shared_out_and_their_reports_put_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "test_it.py").write_text(
        "import pytest\npytestmark = pytest.mark.gpu\n"
        "@pytest.mark.parametrize('n', range(7))\ndef test_many(n): assert n != 4\n"
        "@pytest.mark.skip(reason='one device only')\ndef test_left_out(): pass\n"
    )
    (tmp_path / "test_other.py").write_text("import pytest\npytest.importorskip('no_such_thing')\n")
    reports = tmp_path / "reports"
    assert gpu_tests.main(["--reports", str(reports), "--processes", "3", str(tmp_path)]) == 1
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (said["collected"], said["passed"], said["failed"]) == (8, 6, 1)
    assert sorted(said["skips"].values()) == [1, 1]
    (failure,) = gpu_tests.merged(reports)["failures"]
    assert "test_many[4]" in failure["test"]
    assert len(list(reports.rglob("junit-*.xml"))) == 3


def test_a_file_that_cannot_be_imported_is_one_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "test_bad.py").write_text("import no_such_thing\n")
    (tmp_path / "test_good.py").write_text("import pytest\n@pytest.mark.gpu\ndef test_it(): pass\n")
    reports = tmp_path / "reports"
    assert gpu_tests.main(["--reports", str(reports), "--processes", "2", str(tmp_path)]) == 1
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (said["passed"], said["failed"]) == (1, 1)
    assert "no_such_thing" in gpu_tests.merged(reports)["failures"][0]["message"]


def test_a_second_call_runs_the_tests_that_are_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "test_it.py").write_text(
        "import os, pathlib, pytest\npytestmark = pytest.mark.gpu\n"
        "def note(name):\n    with open(pathlib.Path(__file__).parent / 'ran', 'a') as file: file.write(name)\n"
        "def test_a(): note('a')\n"
        "def test_b():\n    note('b')\n    assert 0\n"
        "def test_c():\n    note('c')\n    os.environ.get('SECOND') or os._exit(9)\n"
        "def test_d(): note('d')\n"
    )
    reports = tmp_path / "reports"
    arguments = ["--reports", str(reports), "--processes", "1", str(tmp_path)]
    with pytest.MonkeyPatch.context() as patch:
        assert gpu_tests.main(arguments) == 1
        patch.setenv("SECOND", "1")
        assert gpu_tests.main(arguments) == 1, "the failure of the first call still stands"
    assert (tmp_path / "ran").read_text() == "abccd"
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (said["collected"], said["passed"], said["failed"]) == (4, 3, 1)


def test_without_pytest_the_tests_are_left_out_by_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(gpu_tests.importlib.util, "find_spec", lambda name: None)
    assert gpu_tests.main(["--reports", str(tmp_path)]) == gpu_tests.LEFT_OUT
    assert "benchmarks.bring" in capsys.readouterr().out


def test_the_sanitizer_is_put_before_the_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("cupy")
    folder = tmp_path / "bin"
    folder.mkdir()
    (tmp_path / "test_it.py").write_text("import pytest\n@pytest.mark.gpu\ndef test_it(): pass\n")
    arguments = ["--reports", str(tmp_path / "reports"), "--processes", "1", "--memcheck", str(tmp_path)]
    monkeypatch.setenv("PATH", str(folder))
    assert gpu_tests.main(arguments) == gpu_tests.LEFT_OUT
    assert "no compute-sanitizer" in capsys.readouterr().out
    sanitizer = folder / "compute-sanitizer"
    sanitizer.write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/asked\nshift 6\n"$@"\nexit 9\n')
    sanitizer.chmod(0o755)
    assert gpu_tests.main(arguments) == 1
    assert "--tool memcheck" in (tmp_path / "asked").read_text()
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["passed"] == 1


def test_what_is_killed_has_left_its_findings(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import os, pytest\n"
        "def test_good(): pass\n"
        "def test_bad(): assert 1 == 2\n"
        "@pytest.mark.skip(reason='no such thing')\ndef test_left_out(): pass\n"
        "def test_hangs(): os._exit(9)\n"
    )
    report = tmp_path / "report.json"
    environ = {**os.environ, "GPUSEQ_SUITE_REPORT": str(report), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "benchmarks.suite_report", "-p", "no:cacheprovider"]
    subprocess.run([*command, str(tmp_path)], cwd=tmp_path, env=environ, capture_output=True, check=False)
    found = json.loads(report.read_text())
    assert not found["done"]
    assert [failure["test"] for failure in found["failures"]] == ["test_it.py::test_bad"]
    assert "assert 1 == 2" in found["failures"][0]["message"]
    assert (found["collected"], found["passed"]) == (4, 1)
    assert found["finished"][:2] == ["test_it.py::test_good", "test_it.py::test_bad"]

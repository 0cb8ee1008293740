"""The command: what it prints, what it writes, what it returns."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import types
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import gpuseq
import gpuseq.cli.demo
import gpuseq.cli.folder
from gpuseq.base import devices as compat
from gpuseq.cli import bench, commands, doctor, sheet
from gpuseq.cli.engine import quiet
from gpuseq.cli.folder import open_folder, shipped_photos
from gpuseq.cli.main import build_parser, main

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ("demo", "doctor", "preview", "check", "fit", "bench")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run every command in an empty folder on the CPU, without GPUSEQ_ variables."""
    for name in doctor.ENVIRONMENT:
        if name.startswith("GPUSEQ_"):
            monkeypatch.delenv(name, raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two class folders with three small pictures."""
    rng = np.random.default_rng(5)
    for name in ("cats/one.png", "cats/two.jpg", "dogs/three.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(path)
    return tmp_path / "photos"


def run_json(capsys: pytest.CaptureFixture[str], *argv: str, code: int = 0) -> Any:
    assert main([*argv, "--json"]) == code
    return json.loads(capsys.readouterr().out)


# Help and exit codes


def subparser(name: str) -> Any:
    (action,) = (action for action in build_parser()._actions if action.choices and "demo" in action.choices)
    return action.choices[name]


def test_every_command_is_listed_and_teaches_with_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    text = capsys.readouterr().out
    for name in COMMANDS:
        assert re.search(rf"^ +{name} +\S", text, re.MULTILINE)
        assert f"gpuseq {name} " in subparser(name).epilog or f"gpuseq {name}\n" in subparser(name).epilog
        assert "exit codes: 0" in subparser(name).epilog
        assert all(action.help for action in subparser(name)._actions)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_names_the_defaults_that_are_taken(name: str) -> None:
    """Numbers and file names; words such as "nearest" and "one per core" are of the library, whose default they are."""
    checked = []
    for action in subparser(name)._actions:
        said = re.search(r"\(default: (?:\./)?(\d[\d ]*|[\w-]+\.png)\)", action.help)
        if said:
            default = action.default if isinstance(action.default, (tuple, list)) else [action.default]
            assert said[1] == " ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in default)
            checked.append(action.dest)
    expected = {
        "demo": ["out", "batch_size", "seed", "size"],
        "preview": ["images", "variants", "seed", "size"],
        "fit": ["size"],
        "bench": ["seconds", "rounds", "batch_size", "size"],
    }
    assert checked == expected.get(name, [])


def documented_commands() -> list[str]:
    texts = [subparser(name).epilog for name in COMMANDS] + [build_parser().epilog or ""]
    texts += re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    lines = [line.strip() for text in texts for line in text.splitlines()]
    return sorted({line for line in lines if line.startswith("gpuseq ") and "COMMAND" not in line})


def test_there_are_documented_commands() -> None:
    assert len(documented_commands()) > 20


@pytest.mark.parametrize("line", documented_commands())
def test_every_documented_command_parses(line: str) -> None:
    command = re.split(r"\s{2,}|\s[|>#]", line)[0]
    arguments = build_parser().parse_args(shlex.split(command)[1:])
    assert callable(arguments.run)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"gpuseq {gpuseq.__version__}\n"


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["dmeo"],
        ["preview"],
        ["fit", "photos"],
        ["demo", "--batch-size", "0"],
        ["demo", "--size", "224"],
        ["demo", "--seed", "-1"],
    ],
)
def test_wrong_arguments_end_with_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(argv)
    assert "usage: gpuseq" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "meant"),
    [
        (["dmeo"], "'demo'"),
        (["check", "photos", "--jsno"], "'--json'"),
        (["preview", "photos", "--rotation-rnage", "3"], "'--rotation-range'"),
        (["preview", "photos", "--fill-mode", "refelct"], "'reflect'"),
    ],
    ids=str,
)
def test_a_misspelt_word_gets_the_nearest_one(argv: list[str], meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(argv)
    error = capsys.readouterr().err
    assert f"did you mean {meant}?" in error
    assert " --help" in error
    assert len(error.splitlines()) == 2


@pytest.mark.parametrize("out", ["sheet.txt", "absent/sheet.png"])
@pytest.mark.parametrize("command", ["demo", "preview"])
def test_a_sheet_that_cannot_be_written_fails_before_any_work(
    command: str, out: str, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpuseq.cli.folder, "open_folder", lambda path: pytest.fail("work was begun"))
    monkeypatch.setattr(gpuseq.cli.demo, "open_folder", lambda path: pytest.fail("work was begun"))
    assert main([command, str(photos), "--out", out]) != 0
    captured = capsys.readouterr()
    assert out.partition("/")[0] in captured.err
    assert captured.out == ""


@pytest.mark.parametrize("name", ["demo", "preview", "check", "bench"])
def test_a_missing_folder_is_named_and_ends_with_1(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "nowhere/at-all"]) == 1
    captured = capsys.readouterr()
    assert "nowhere/at-all" in captured.err
    assert "Traceback" not in captured.err
    assert os.listdir() == []


@pytest.mark.parametrize("command", ["demo", "fit", "bench"])
def test_one_picture_is_not_taken_for_its_folder(
    command: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its neighbours, which were not named, would come with it."""
    picture = str(photos / "cats" / "one.png")
    assert main([command, picture, *(["--out", "stats.json"] if command == "fit" else [])]) == 2
    assert "one.png' is one picture; this takes a folder" in capsys.readouterr().err
    assert os.listdir() == []


def test_a_gpu_that_is_not_there_ends_with_1_and_names_the_doctor(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compat, "gpu_problem", lambda: "no driver")
    assert main(["demo", "--device", "cuda"]) == 1
    assert "gpuseq doctor" in capsys.readouterr().err


def test_a_warning_is_a_sentence_without_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def warn(arguments: Any) -> int:
        warnings.warn("mind the gap", stacklevel=1)
        return 0

    monkeypatch.setattr(commands, "doctor", warn)
    before = warnings.showwarning
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main(["doctor"]) == 0
    assert capsys.readouterr().err == "gpuseq: mind the gap\n"
    assert warnings.showwarning is before


# demo


def test_the_demo_streams_two_epochs_and_draws_what_it_did(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--size", "32", "32", "--device", "cpu"]) == 0
    text = capsys.readouterr().out
    sheet_path = Path("gpuseq-demo.png").absolute()
    assert re.search(r"^Data .*9 photographs", text, re.MULTILINE)
    assert re.search(r"^Engine +(compiled|numpy)\b.*, on \d+ CPU thread\(s\): asked for", text, re.MULTILINE)
    assert re.findall(r"^Epoch (\d) +261 images.* ([\d,]+) img/s$", text, re.MULTILINE)[0][0] == "1"
    assert len(re.findall(r"^Epoch", text, re.MULTILINE)) == 2
    assert str(sheet_path) in text
    assert os.listdir() == ["gpuseq-demo.png"]
    with Image.open(sheet_path) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 500


def test_the_demo_takes_a_modern_policy(capsys: pytest.CaptureFixture[str], photos: Path) -> None:
    """In the place of Keras' ranges; a word that is none is an error of usage that names the nearest."""
    arguments = ("demo", str(photos), "--size", "24", "24", "--device", "cpu")
    assert main([*arguments, "--augment", "trivial"]) == 0
    assert "augmentations='trivial'" in capsys.readouterr().out
    assert main([*arguments, "--augment", "trivia"]) == 2
    assert "did you mean 'trivial'" in capsys.readouterr().err


def test_the_demo_in_json_says_why_this_engine(
    capsys: pytest.CaptureFixture[str], photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPUSEQ_DEVICE", "cpu")
    answer = run_json(capsys, "demo", str(photos), "--size", "16", "16", "--out", "sheet.html")
    assert (answer["device"], answer["reason"]) == ("cpu", "GPUSEQ_DEVICE=cpu")
    assert answer["num_files"] == 3
    assert [epoch["images"] for epoch in answer["epochs"]] == [258, 258]
    assert Path("sheet.html").read_text().startswith("<!DOCTYPE html>")


def test_the_demo_takes_a_flat_folder(capsys: pytest.CaptureFixture[str], photos: Path) -> None:
    answer = run_json(capsys, "demo", str(photos / "cats"), "--size", "16", "16", "--device", "cpu")
    assert answer["num_files"] == 2
    assert answer["epochs"][0]["images"] == 256


def test_a_broken_picture_stops_the_demo_and_is_named(capsys: pytest.CaptureFixture[str], photos: Path) -> None:
    (photos / "dogs" / "broken.jpg").write_bytes(b"no picture")
    assert main(["demo", str(photos), "--size", "16", "16", "--device", "cpu"]) == 1
    assert "broken.jpg" in capsys.readouterr().err
    assert os.listdir() == []


# doctor


def test_the_doctor_names_what_is_here_and_ends_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    answer = run_json(capsys, "doctor")
    found = {finding["name"]: finding for finding in answer["findings"]}
    assert found["NumPy"]["version"] == np.__version__
    assert found["Pillow"]["found"]
    assert answer["engine"] == ("cpu" if compat.gpu_problem() else "cuda")
    assert all(finding["brings"] for finding in answer["findings"])
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    for finding in answer["findings"]:
        mark = r"\[x\]" if finding["found"] else r"\[ \]"
        assert re.search(rf"{mark} {re.escape(finding['name'])} ", text), finding["name"]


def test_the_doctor_looks_for_each_package_by_the_name_it_is_installed_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.metadata, "version", lambda name: f"that of {name}")
    versions = {finding.name: finding.version for finding in doctor.examine().findings}
    for name, distribution in {
        "NumPy": "numpy",
        "Pillow": "pillow",
        "simplejpeg": "simplejpeg",
        "CuPy": "cupy-cuda13x",
        "DALI": "nvidia-dali-cuda130",
        "nvImageCodec": "nvidia-nvimgcodec-cu13",
        "SciPy": "scipy",
        "pandas": "pandas",
        "fsspec": "fsspec",
        "Keras": "keras",
        "PyTorch": "torch",
        "JAX": "jax",
        "TensorFlow": "tensorflow",
    }.items():
        assert versions.pop(name) == f"that of {distribution}"
    assert set(versions) == {"Python", "CPU threads", "compiled CPU engine", "CUDA driver", "NVRTC"}


def test_the_doctor_says_what_a_missing_piece_would_bring(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_version(name: str) -> str:
        raise doctor.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor.metadata, "version", no_version)
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    for name, install in [("DALI", "cuda13"), ("PyTorch", "gpuseq[torch]"), ("NVRTC", "cuda13"), ("Keras", "keras")]:
        block = text[text.index(f"[ ] {name}") :].split("[ ]")[1]
        assert "would bring: " in block
        assert install in block


def test_the_doctor_warns_of_a_keras_backend_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "nosuchbackend")
    monkeypatch.setattr(doctor.metadata, "version", lambda name: "3.15.0")
    (keras,) = (finding for finding in doctor.examine().findings if finding.name == "Keras")
    assert "backend nosuchbackend (KERAS_BACKEND)" in keras.detail
    assert "would fail" in keras.detail


@pytest.mark.parametrize(
    ("text", "backend"),
    [
        ('{"backend": "jax"}', "jax"),
        ('{"floatx": "float32"}', "tensorflow"),
        ('{"backend": null}', "tensorflow"),
        ("[]", "tensorflow"),
        ("{", "tensorflow"),
        (None, "tensorflow"),
    ],
    ids=str,
)
def test_the_doctor_reads_where_keras_does(
    text: str | None, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable, which counts as unset where it is empty; then the file, whatever is in it; then Keras' default."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(doctor.metadata, "version", lambda name: "3.15.0")
    config = tmp_path / "keras.json"
    if text is not None:
        config.write_text(text)
    for value in (None, ""):
        if value is None:
            monkeypatch.delenv("KERAS_BACKEND", raising=False)
        else:
            monkeypatch.setenv("KERAS_BACKEND", value)
        source = str(config) if backend != "tensorflow" else "Keras' default"
        assert doctor._keras().detail.partition(";")[0] == f"backend {backend} ({source})"


def driver(cuda_version: int = 13010, failure: int = 0, names: tuple[str, ...] = ("one", "two")) -> SimpleNamespace:
    """Return ``libcuda`` with devices of these names; `failure` is what ``cuInit`` returns."""

    def put(place: Any, value: int) -> None:
        place._obj.value = value  # what `byref` was given

    def name_of(name: Any, size: int, handle: Any) -> None:
        name.value = names[handle.value - 100].encode()[: size - 1]

    return SimpleNamespace(
        cuDriverGetVersion=lambda version: put(version, cuda_version),
        cuInit=lambda flags: failure,
        cuDeviceGetCount=lambda count: put(count, len(names)),
        cuDeviceGet=lambda handle, ordinal: put(handle, 100 + ordinal),
        cuDeviceGetName=name_of,
        cuDeviceTotalMem_v2=lambda memory, handle: put(memory, (handle.value - 90) * 2**30),
        cuDeviceGetAttribute=lambda value, attribute, handle: put(value, {75: 9, 76: handle.value - 100}[attribute]),
    )


TOO_OLD = "; older than CUDA 13: install cupy-cuda12x in place of cupy-cuda13x, or update the driver"
ONE = "cuda:0 one (10 GiB, compute 9.0)"


@pytest.mark.parametrize(
    ("options", "packages", "found", "detail"),
    [
        ({}, (), True, f"{ONE}, cuda:1 two (11 GiB, compute 9.1)"),
        ({"names": ()}, (), False, "no device is visible"),
        ({"failure": 100}, (), False, "cuInit failed with error 100: no device answers"),
        ({"cuda_version": 13000, "names": ("one",)}, ("cupy-cuda13x",), True, ONE),
        ({"cuda_version": 12080, "names": ("one",)}, ("cupy-cuda13x",), False, ONE + TOO_OLD),
        ({"cuda_version": 12080, "names": ("one",)}, ("cupy-cuda12x",), True, ONE),
    ],
    ids=["two", "none", "broken", "as new as CuPy", "too old", "old for an old CuPy"],
)
def test_the_doctor_asks_the_driver_for_each_device(
    options: dict[str, Any], packages: tuple[str, ...], found: bool, detail: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        if name not in packages:
            raise doctor.metadata.PackageNotFoundError(name)
        return "14.0"

    asked: list[str] = []
    monkeypatch.setattr(doctor.ctypes, "CDLL", lambda name: asked.append(name) or driver(**options))
    monkeypatch.setattr(doctor.metadata, "version", version)
    finding = doctor._driver()
    assert asked == ["nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"]
    assert (finding.found, finding.detail) == (found, detail)
    assert finding.version == {13010: "13.1", 13000: "13.0", 12080: "12.8"}[options.get("cuda_version", 13010)]


@pytest.mark.parametrize("text", ["", "no builtins\nin two lines"], ids=repr)
def test_a_compiler_that_does_not_work_is_a_finding(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError(text)

    cupy, cuda, compiler = (types.ModuleType(name) for name in ("cupy", "cupy.cuda", "cupy.cuda.nvrtc"))
    cuda.nvrtc, compiler.getVersion = compiler, fail  # type: ignore[attr-defined]
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: object())
    for module in (cupy, cuda, compiler):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    finding = doctor._nvrtc()
    assert (finding.name, finding.found) == ("NVRTC", False)
    assert finding.detail == f"RuntimeError: {text}".splitlines()[0]


@pytest.mark.parametrize(
    ("asked", "engine", "reason"),
    [
        (None, "none", "CuPy does not import: libcudart is missing"),
        ("cpu", "cpu", "GPUSEQ_DEVICE=cpu"),
        ("cuda", "none", "GPUSEQ_DEVICE=cuda: libcudart is missing"),
        ("gpu", "none", "GPUSEQ_DEVICE=gpu: .*'gpu'"),
    ],
)
def test_a_broken_cupy_is_a_finding(
    asked: str | None, engine: str, reason: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The report is there all the same, and says what ``device="auto"`` comes to."""

    def broken() -> str | None:
        raise ImportError("libcudart is missing")

    monkeypatch.setattr(doctor, "gpu_problem", broken)
    monkeypatch.setattr(compat, "gpu_problem", broken)
    monkeypatch.setattr(doctor.metadata, "version", lambda name: "14.0")
    if asked is not None:
        monkeypatch.setenv("GPUSEQ_DEVICE", asked)
    report = doctor.examine()
    assert (report.engine, report.has_gpu) == (engine, False)
    assert re.match(reason, report.reason)
    (cupy,) = (finding for finding in report.findings if finding.name == "CuPy")
    assert not cupy.found
    assert "does not import: libcudart is missing" in cupy.detail
    if asked is None:
        with pytest.raises(ImportError, match="libcudart"):
            compat.resolve_device("auto")
    assert main(["doctor", "--require-gpu"]) == 1
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first.endswith("would fail" if engine == "none" else "would take the CPU engine")
    assert re.match(reason, second.strip())


def test_a_required_gpu_decides_the_exit_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "gpu_problem", lambda: "no driver")
    assert main(["doctor", "--require-gpu"]) == 1
    assert "no driver" in capsys.readouterr().out
    monkeypatch.setattr(doctor, "gpu_problem", lambda: None)
    assert main(["doctor", "--require-gpu"]) == 0
    monkeypatch.setenv("GPUSEQ_DEVICE", "cpu")
    capsys.readouterr()
    assert run_json(capsys, "doctor")["engine"] == "cpu"


# preview


def test_a_preview_shows_the_arguments_that_were_given(capsys: pytest.CaptureFixture[str], photos: Path) -> None:
    answer = run_json(
        capsys,
        "preview",
        str(photos),
        "--rotation-range",
        "30",
        "--size",
        "24",
        "24",
        "--variants",
        "3",
        "--device",
        "cpu",
    )
    assert answer["arguments"] == {"rotation_range": 30.0}
    assert answer["sheet"] == str(Path("gpuseq-preview.png").absolute())
    assert [picture["title"] for picture in answer["pictures"]] == ["cats/one.png", "cats/two.jpg", "dogs/three.png"]
    angles = [float(variant["rotate"].rstrip("°")) for picture in answer["pictures"] for variant in picture["variants"]]
    assert len(set(angles)) == 9
    assert all(abs(angle) <= 30 for angle in angles)
    assert os.listdir() == ["gpuseq-preview.png"]


def test_a_preview_of_one_file_as_a_page(capsys: pytest.CaptureFixture[str], photos: Path) -> None:
    argv = ["preview", str(photos / "cats" / "one.png"), "--format", "html", "--size", "24", "24", "--device", "cpu"]
    assert main([*argv, "--zoom-range", "0.8", "1.2", "--vertical-flip"]) == 0
    page = Path("gpuseq-preview.html").read_text(encoding="utf-8")
    assert page.count("<img ") == 6
    assert "zoom_range=(0.8, 1.2), vertical_flip=True" in page
    assert str(Path("gpuseq-preview.html").absolute()) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--format", "html", "--out", "x.png"], "contradict"),
        (["--out", "x.gif"], r"\.gif"),
        (["--zoom-range", "1", "2", "3"], "zoom-range"),
    ],
)
def test_a_preview_that_cannot_be_ends_with_2(
    argv: list[str], words: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["preview", str(photos), "--size", "16", "16", "--device", "cpu", *argv]) == 2
    assert re.search(words, capsys.readouterr().err)
    assert os.listdir() == []


def test_every_augmentation_option_is_an_argument_of_the_generator() -> None:
    argv = shlex.split(
        "preview x --rotation-range 1 --width-shift-range .1 --height-shift-range .1 --shear-range 1 --zoom-range .1 "
        "--channel-shift-range 1 --brightness-range .5 1.5 --horizontal-flip --vertical-flip --fill-mode wrap --cval 1 "
        "--conventions keras"
    )
    chosen = commands.augmentation(build_parser().parse_args(argv))
    assert len(chosen) == 12
    gpuseq.ImageDataGenerator(**chosen, device="cpu")


# check


def test_check_names_each_bad_file_with_its_reason(capsys: pytest.CaptureFixture[str], photos: Path) -> None:
    assert main(["check", str(photos)]) == 0
    assert "all 3 files decode" in capsys.readouterr().out
    (photos / "dogs" / "empty.jpg").touch()
    whole = (photos / "cats" / "two.jpg").read_bytes()
    (photos / "cats" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    answer = run_json(capsys, "check", str(photos), code=1)
    assert sorted(Path(path).name for path in answer["bad"]) == ["cut.jpg", "empty.jpg"]
    assert all(answer["bad"].values())
    assert answer["num_files"] == 5
    assert main(["check", str(photos), "--quiet"]) == 1
    assert capsys.readouterr().out.splitlines() == list(answer["bad"])


@pytest.mark.skipif(sys.platform == "win32", reason="needs xargs")
def test_what_check_prints_can_be_handed_to_xargs(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names with newlines, and names that are no UTF-8: with null bytes between them, each as the system has it."""
    names = [b"plain.jpg", b"with\nnewline.jpg", b"\xff\xfe.jpg", b"- dash and 'quote.jpg"]
    for name in names:
        Path(os.fsdecode(os.fsencode(photos / "dogs") + b"/" + name)).touch()
    assert main(["check", str(photos), "--quiet"]) == 1
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 5
    assert "newline.jpg" in printed.err
    assert "--null" in printed.err
    assert main(["check", str(photos)]) == 1
    assert "4 of 7 files cannot be decoded" in capsys.readouterr().out
    environment = os.environ | {"PYTHONPATH": str(ROOT), "GPUSEQ_DEVICE": "cpu"}
    check = [sys.executable, "-m", "gpuseq", "check", str(photos), "--null"]
    done = subprocess.run(check, env=environment, capture_output=True, check=False)
    assert done.returncode == 1, done.stderr
    assert sorted(os.path.basename(path) for path in done.stdout.split(b"\0")) == sorted([*names, b""])
    subprocess.run(["xargs", "-0", "rm", "--"], input=done.stdout, check=True)
    assert main(["check", str(photos)]) == 0
    help_text = " ".join(build_parser()._subparsers._group_actions[0].choices["check"].format_help().split())  # type: ignore[union-attr, index]
    assert "--null | xargs -0 -o rm -i" in help_text


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["bench", ".", "--seconds", "nan"], "seconds above 0; got nan"),
        (["bench", ".", "--seconds", "0"], "seconds above 0; got 0"),
        (["bench", ".", "--seconds", "inf"], "seconds above 0; got inf"),
        (["preview", ".", "--variants", "1000000000"], "1000 or less.*1000000000"),
    ],
)
def test_numbers_without_an_end_are_refused(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert re.search(named, capsys.readouterr().err)


def test_check_takes_urls_and_the_others_say_that_they_do_not(
    capsys: pytest.CaptureFixture[str], photos: Path, tmp_path: Path
) -> None:
    store = pytest.importorskip("fsspec").filesystem("memory")
    (photos / "dogs" / "empty.jpg").touch()
    for path in photos.rglob("*.jpg"):
        store.pipe(f"/checked/{path.relative_to(photos)}", path.read_bytes())
    answer = run_json(capsys, "check", "memory://checked/", code=1)
    assert list(answer["bad"]) == ["memory://checked/dogs/empty.jpg"]
    assert answer["num_files"] == len(list(photos.rglob("*.jpg")))
    store.rm("/checked", recursive=True)
    assert main(["check", "memory://checked"]) != 0
    assert "memory://checked" in capsys.readouterr().err
    assert main(["preview", "memory://checked", "--out", str(tmp_path / "sheet.png")]) != 0
    assert "is a URL" in capsys.readouterr().err


# fit


def test_fit_writes_what_numpy_finds(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pictures = []
    for index in range(5):
        pixels = np.random.default_rng(index).integers(0, 256, (12, 14, 3), dtype=np.uint8)
        path = tmp_path / "data" / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        pictures.append(pixels)
    argv = ["fit", str(tmp_path / "data"), "--out", "stats.json", "--size", "12", "14", "--device", "cpu"]
    answer = run_json(capsys, *argv)
    assert json.loads(Path("stats.json").read_text()) == answer
    stacked = np.stack(pictures).astype(np.float64)
    np.testing.assert_allclose(answer["mean"], stacked.mean(axis=(0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(answer["std"], stacked.std(axis=(0, 1, 2)), rtol=1e-6)
    assert answer["num_images"] == 5
    assert os.listdir() == ["stats.json"]


def test_a_fit_that_fails_leaves_the_old_file(capsys: pytest.CaptureFixture[str], photos: Path) -> None:
    (photos / "dogs" / "broken.jpg").write_bytes(b"no picture")
    Path("stats.json").write_text("old")
    assert main(["fit", str(photos), "--out", "stats.json", "--size", "8", "8", "--device", "cpu"]) == 1
    assert "broken.jpg" in capsys.readouterr().err
    assert Path("stats.json").read_text() == "old"
    assert os.listdir() == ["stats.json"]


# bench


class Clockwork:
    """Batches of four images that take exactly `seconds` each, on a clock that the test owns."""

    now = 0.0

    def __init__(self, seconds: float, fail_after: int | None = None) -> None:
        self.seconds, self.left = seconds, fail_after

    def __next__(self) -> tuple[np.ndarray, np.ndarray]:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise OSError("the disk is gone")
        Clockwork.now += self.seconds
        return np.zeros((4, 1)), np.zeros(4)


def test_a_race_gives_each_its_slices_and_reports_medians(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.time, "perf_counter", lambda: Clockwork.now)
    slow, fast = bench.Contender("slow", lambda: Clockwork(0.4)), bench.Contender("fast", lambda: Clockwork(0.1))
    dying = bench.Contender("dying", lambda: Clockwork(0.1, fail_after=3))
    results = bench.race([slow, fast, dying], seconds=12.0, num_rounds=5, show_progress=False)
    assert [len(result.rates) for result in results[:2]] == [5, 5]
    assert results[0].median == pytest.approx(10)
    assert results[1].median == pytest.approx(40)
    assert results[2].problem == "OSError: the disk is gone"
    table = bench.format_results([*results, bench.BenchResult("absent", problem="not installed")])
    assert re.search(r"^slow +10 +10 to 10 +1\.0$", table, re.MULTILINE)
    assert re.search(r"^fast +40 +40 to 40 +4\.0$", table, re.MULTILINE)
    assert re.search(r"^absent +- +not installed$", table, re.MULTILINE)


def test_a_slice_lasts_until_the_device_has_made_its_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are handed out before that: two in a second, and three seconds later they are there."""
    monkeypatch.setattr(Clockwork, "now", 0.0)
    monkeypatch.setattr(bench.time, "perf_counter", lambda: Clockwork.now)
    waited: list[str] = []

    def wait(device: str) -> None:
        waited.append(device)
        Clockwork.now += 3.0

    monkeypatch.setattr(bench, "synchronize", wait)
    assert bench._slice(Clockwork(0.5), 1.0, "cuda:0") == pytest.approx(8 / 4.0)
    assert waited == ["cuda:0"]


def test_the_bench_races_keras_on_the_users_folder(capsys: pytest.CaptureFixture[str], photos: Path) -> None:
    argv = ["bench", str(photos), "--seconds", "1", "--rounds", "2", "--size", "16", "16", "--rotation-range", "10"]
    answer = run_json(capsys, *argv)
    rates = {result["name"].split()[0]: result for result in answer["results"] if result["median"]}
    assert {"Keras", "gpuseq"} <= set(rates)
    assert all(result["median"] > 0 and len(result["rates"]) == 2 for result in rates.values())
    assert answer["arguments"] == {"rotation_range": 10.0, "rescale": 1 / 255}


def test_a_bench_without_keras_and_without_a_gpu_says_so(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Any:
        raise ImportError("Keras is not here")

    monkeypatch.setattr(bench, "keras_generator", missing)
    monkeypatch.setattr(bench, "gpu_problem", lambda: "no driver")
    present, absent = bench.contenders(open_folder(photos), {})
    assert [contender.name.split("(")[0] for contender in present] == ["gpuseq CPU "]
    assert absent == [
        bench.BenchResult("Keras", problem="Keras is not here"),
        bench.BenchResult("gpuseq GPU", problem="no driver"),
    ]
    monkeypatch.setattr(bench, "gpu_problem", lambda: None)
    present, absent = bench.contenders(open_folder(photos), {})
    assert [(contender.name.split("(")[0], contender.device) for contender in present] == [
        ("gpuseq CPU ", "cpu"),
        ("gpuseq GPU", "cuda:0"),
    ]
    assert [result.name for result in absent] == ["Keras"]


@pytest.mark.parametrize(
    ("installed", "asked", "taken"),
    [
        (("keras", "torch", "jax"), None, "torch"),
        (("keras", "jax"), "", "jax"),
        (("keras", "tensorflow", "jax"), None, "jax"),
        (("keras", "torch", "jax"), "jax", "jax"),
        (("torch",), None, "Keras is not installed"),
        (("keras",), None, "none of its backends torch, jax, tensorflow"),
    ],
    ids=str,
)
def test_the_bench_finds_a_backend_for_keras(
    installed: tuple[str, ...], asked: str | None, taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first that is there, unless one is asked for: its iterators are NumPy under each."""
    monkeypatch.setenv("KERAS_BACKEND", asked or "")  # which is taken back after the test in any case
    if asked is None:
        monkeypatch.delenv("KERAS_BACKEND")
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    monkeypatch.setattr(bench.importlib.util, "find_spec", lambda name: name if name in installed else None)
    made = SimpleNamespace(ImageDataGenerator="theirs", __version__="3.0")
    monkeypatch.setattr(bench.importlib, "import_module", lambda name: made)
    if " " in taken:
        with pytest.raises(ImportError, match=taken):
            bench.keras_generator()
    else:
        assert bench.keras_generator() == ("theirs", "3.0")
        assert os.environ["KERAS_BACKEND"] == taken


def test_a_race_says_how_slices_spread_and_what_stopped() -> None:
    """Quartiles as NumPy has them; one slice has none, and no slice no number."""
    rates = [10.0, 20.0, 40.0, 80.0, 160.0]
    whole = bench.BenchResult("whole", rates)
    assert whole.quartiles == tuple(np.percentile(rates, [25, 75]))
    one, stopped = bench.BenchResult("one", [80.0]), bench.BenchResult("stopped", [20.0, 20.0], "OSError: gone")
    assert (one.quartiles, one.median) == (None, 80.0)
    assert bench.BenchResult("none").median is None
    lines = bench.format_results([whole, one, stopped, bench.BenchResult("none")]).splitlines()
    assert lines[1].split() == ["whole", "40", "20", "to", "80", "1.0"]
    assert lines[2].split() == ["one", "80", "one", "slice", "2.0"]
    assert lines[3].split() == ["stopped", "20", "20", "to", "20", "0.5", "stopped:", "OSError:", "gone"]
    assert lines[4].split() == ["none", "-", "not", "measured"]


def test_both_contenders_make_the_same_batches(photos: Path) -> None:
    augmentation = {"rotation_range": 20, "horizontal_flip": True, "rescale": 1 / 255}
    present, _ = bench.contenders(open_folder(photos), augmentation, target_size=(24, 24), batch_size=2)
    with quiet():
        keras, ours = (contender.open() for contender in present[:2])
        for _ in range(3):
            (expected, expected_labels), (images, labels) = next(keras), next(ours)
            np.testing.assert_allclose(images, expected, atol=1e-3)
            np.testing.assert_array_equal(labels, expected_labels)


# Interrupts


def test_an_interrupt_ends_with_130_and_leaves_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, photos: Path
) -> None:
    def interrupted(self: Image.Image, path: Path, **options: Any) -> None:
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(sheet.Image.Image, "save", interrupted)
    assert main(["preview", str(photos), "--size", "16", "16", "--device", "cpu"]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert os.listdir() == []


def test_sigterm_ends_with_143_and_leaves_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, photos: Path
) -> None:
    def end(self: object, *arguments: object, **options: object) -> None:
        assert len(os.listdir()) == 1, "the file that is being written"
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)

    monkeypatch.setattr(gpuseq.ImageDataGenerator, "fit_directory", end)
    before = signal.getsignal(signal.SIGTERM)
    assert main(["fit", str(photos), "--out", "stats.json", "--device", "cpu"]) == 143
    assert "SIGTERM" in capsys.readouterr().err
    assert os.listdir() == []
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("name", [f"{246 * 'a'}.json", f"{123 * 'é'}.json", f"a.{250 * 'b'}"])
def test_a_name_as_long_as_the_system_allows(photos: Path, name: str) -> None:
    assert main(["fit", str(photos), "--out", name, "--device", "cpu", "--size", "8", "8"]) == 0
    assert os.listdir() == [name]


def test_ctrl_c_on_the_real_process(photos: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "GPUSEQ_DEVICE": "cpu", "PYTHONUNBUFFERED": "1"}
    # As ``python -m gpuseq``, but a test run in the background of a shell inherits an ignored SIGINT. (Between fork
    # and exec it could be set right, too; but JAX, where an earlier test imported it, warns of every fork.)
    start = (
        "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "runpy.run_module('gpuseq', run_name='__main__', alter_sys=True)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", start, "bench", str(photos), "--seconds", "600", "--size", "64", "64"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert "3 files in" in process.stdout.readline()
        time.sleep(1.0)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=300)
    finally:
        process.kill()
        process.communicate()
    # Where the interrupt hits a module's first import, CPython ends itself by the signal: 130 for a shell as well.
    assert process.returncode in (130, -signal.SIGINT), errors
    assert "interrupted; nothing was left half-written" in errors
    assert "Traceback" not in errors


def test_the_shipped_photographs_decode() -> None:
    assert main(["check", str(shipped_photos())]) == 0

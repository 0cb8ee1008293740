"""Folders as phones and foreign disks leave them: macOS' notes, half files, formats that are not taken, deep levels."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gpuseq.cli import sheet
from gpuseq.cli.main import main

NOTE = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + bytes(60)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six photographs in two classes, and a note of macOS beside the first of each class."""
    monkeypatch.setenv("GPUSEQ_DEVICE", "cpu")
    rng = np.random.default_rng(5)
    for number in range(6):
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).save(path)
        if number < 2:
            path.with_name(f"._{number}.jpg").write_bytes(NOTE)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "photos"


COMMANDS: dict[str, list[str]] = {
    "demo": ["--size", "16", "16", "--batch-size", "4"],
    "preview": ["--size", "16", "16", "--images", "6"],
    "fit": ["--size", "16", "16", "--out", "stats.json"],
    "bench": ["--size", "16", "16", "--batch-size", "2", "--seconds", "0.5", "--rounds", "1"],
}


def run(capsys: pytest.CaptureFixture[str], command: str, photos: Path, *more: str) -> tuple[int, Any, str]:
    code = main([command, str(photos), *COMMANDS[command], "--json", *more])
    shown = capsys.readouterr()
    return code, json.loads(shown.out) if shown.out else None, shown.err


@pytest.mark.parametrize("command", COMMANDS)
def test_notes_of_macos_are_named_and_passed_over(
    photos: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found, said = run(capsys, command, photos)
    assert code == 0, said
    assert len(found["passed_over"] if command != "fit" else said.splitlines()[1:]) == 2
    assert "._0.jpg: no image, but what macOS notes about the file of that name without ._" in said
    assert "._1.jpg" in said
    if command == "fit":
        assert found["num_images"] == 6


@pytest.mark.parametrize("command", COMMANDS)
def test_a_damaged_file_stops_a_command_or_is_skipped(
    photos: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = photos / "a" / "2.jpg"
    damaged.write_bytes(damaged.read_bytes()[:300])
    code, found, said = run(capsys, command, photos)
    assert code == 1
    assert "2.jpg" in said or "2.jpg" in str(found)
    code, found, said = run(capsys, command, photos, "--on-error", "skip")
    assert code == 0, said
    assert f"{damaged}: " in said
    if command == "fit":
        assert found["num_images"] == 5
        intact = [np.asarray(Image.open(path).resize((16, 16), 0)) for path in sorted(photos.glob("*/[0-9].jpg"))
                  if path != damaged]  # fmt: skip
        assert np.allclose(found["mean"], np.mean(intact, (0, 1, 2)), atol=1e-3)
    if command == "preview":
        assert len(found["pictures"]) == 5


def test_nothing_left_is_an_error(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in photos.rglob("*.jpg"):
        path.write_bytes(b"no picture")
    for command in ("preview", "bench"):
        assert main([command, str(photos), *COMMANDS[command], "--on-error", "skip"]) == 1
        assert "can be decoded" in capsys.readouterr().err


def test_skipping_does_not_go_with_ray(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", str(photos), "--out", "stats.json", "--ray", "--on-error", "skip"]) == 2
    assert "does not go with --ray" in capsys.readouterr().err


def test_check_counts_what_nobody_takes_and_names_levels_that_are_cut(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in photos.rglob("._*"):
        path.unlink()
    for name in ("a.webp", "b.WEBP", "c.gif", "d.heic", "notes.txt"):
        (photos / "a" / name).write_bytes(b"anything")
    deep = photos / "b" / "deep.png"
    Image.fromarray(np.full((4, 5), 4095, np.uint16)).save(deep)
    Image.fromarray(np.full((4, 5), 255, np.uint16)).save(photos / "b" / "fits.png")
    assert main(["check", str(photos)]) == 0
    shown = capsys.readouterr().out
    assert "all 8 files decode" in shown
    assert f'note: {deep}: levels up to 4095, which color_mode="rgb" cuts at 255' in shown
    assert "fits.png" not in shown
    assert "note: not looked at, as Keras does not: 2 .webp, 1 .gif, 1 .heic." in shown
    assert main(["check", str(photos), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ignored"] == {".webp": 2, ".gif": 1, ".heic": 1}
    assert list(found["saturating"]) == [str(deep)]
    assert main(["check", str(photos), "--quiet"]) == 0
    assert capsys.readouterr().out == ""


def test_a_readable_file_of_90_megapixels_is_no_error(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """More than half of Pillow's limit, where Pillow warns; written as one bit a pixel, so that it is made quickly."""
    for path in photos.rglob("*.jpg"):
        path.unlink()
    Image.new("1", (9500, 9500)).save(photos / "a" / "poster.png")
    assert main(["check", str(photos)]) == 0
    shown = capsys.readouterr()
    assert shown.out == "the file decodes\n"
    assert shown.err == ""
    assert main(["preview", str(photos), "--size", "16", "16", "--images", "1", "--variants", "1"]) == 0
    assert capsys.readouterr().err == ""


def test_the_demo_looks_at_its_output_folder_before_it_works(
    photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By asking the system, since whoever runs the tests may write anywhere."""
    monkeypatch.setattr(sheet.os, "access", lambda path, mode: os.path.realpath(path) != os.getcwd())
    for command in ("demo", "preview"):
        assert main([command, str(photos), *COMMANDS[command]]) == 1
        shown = capsys.readouterr()
        assert "cannot be written to by this user; --out names another place" in shown.err
        assert "Epoch" not in shown.out


@pytest.mark.filterwarnings("default:no images in")
@pytest.mark.parametrize("command", [*COMMANDS, "check"])
def test_an_empty_class_folder_stops_no_command(photos: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    for path in photos.rglob("._*"):
        path.unlink()
    (photos / "empty").mkdir()
    assert main([command, str(photos), *COMMANDS.get(command, [])]) == 0
    said = capsys.readouterr().err
    if command in ("demo", "fit"):  # which take class folders as the iterators do
        assert said.count("no images in 1 of 3 class folders") == 1
        assert "'empty'" in said

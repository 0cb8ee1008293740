"""Ray Data on a local Ray of two workers: the same statistics and the same pixels as one process, to the last bit."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpuseq import ImageDataGenerator, ImageFileError
from gpuseq.cli.main import main
from tests.compare import assert_same
from tests.photos import write_broken, write_photo

ROOT = Path(__file__).resolve().parents[2]

if importlib.util.find_spec("ray") and importlib.util.find_spec("pyarrow"):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own imports
        import ray

        from gpuseq.ray import fit_directory, predecode, read_shards

pytestmark = [pytest.mark.frameworks("ray", "pyarrow"), pytest.mark.filterwarnings("ignore")]

SIZE = (12, 16)


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    os.environ["RAY_DATA_DISABLE_PROGRESS_BARS"] = "1"
    environment = {"PYTHONPATH": str(ROOT), "GPUSEQ_DEVICE": "cpu"}
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=100_000_000,
        runtime_env={"env_vars": environment},
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    for number in range(23):
        name = ("ants", "bees", "cats")[number % 3]
        write_photo(
            root / name / f"{number}", ("jpeg", "png", "png_gray")[number % 3], height=20, width=24, seed=number
        )
    return root


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("color_mode", ["rgb", "grayscale"])
def test_statistics_are_those_of_one_process(folder: Path, data_format: str, color_mode: str) -> None:
    arguments: dict[str, Any] = {"featurewise_center": True, "featurewise_std_normalization": True}
    arguments |= {"rescale": 1 / 255, "data_format": data_format, "device": "cpu"}
    one, many = ImageDataGenerator(**arguments), ImageDataGenerator(**arguments)
    one.fit_directory(folder, SIZE, color_mode, batch_size=5, interpolation="bilinear", progress=False)
    fit_directory(many, folder, SIZE, color_mode, batch_size=5, interpolation="bilinear", num_workers=2)
    assert_same(many.mean, one.mean)
    assert_same(many.std, one.std)
    assert float(np.min(many.std)) > 0


@pytest.mark.parametrize("shard_size", [4, 100])
def test_shards_hold_what_one_process_decodes(folder: Path, shard_size: int, tmp_path: Path) -> None:
    assert predecode(folder, tmp_path / "out", SIZE, interpolation="bicubic", shard_size=shard_size) == 23
    images, labels, classes = read_shards(tmp_path / "out")
    flow = ImageDataGenerator(dtype="uint8", device="cpu").flow_from_directory(
        folder, SIZE, interpolation="bicubic", class_mode="sparse", shuffle=False, batch_size=23, verbose=False
    )
    expected, _ = next(flow)
    assert_same(images, expected)
    assert_same(labels, flow.classes)
    assert classes == flow.class_indices
    assert len(list((tmp_path / "out").glob("images-*.npy"))) == -(-23 // shard_size)
    batch, _ = next(ImageDataGenerator(device="cpu").flow(images, labels, batch_size=8, shuffle=False))
    assert_same(batch, expected[:8].astype(np.float32))


def test_a_bad_file_ends_the_job_by_name_and_leaves_no_index(tmp_path: Path) -> None:
    write_photo(tmp_path / "in" / "one" / "good", "png")
    bad = write_broken(tmp_path / "in" / "one", "text")
    with pytest.raises(ImageFileError, match=bad.name):
        predecode(tmp_path / "in", tmp_path / "out", SIZE)
    with pytest.raises(FileNotFoundError, match="did not|predecode"):
        read_shards(tmp_path / "out")


def test_whitening_is_refused(folder: Path) -> None:
    with pytest.warns(UserWarning, match="zca_whitening"):
        generator = ImageDataGenerator(zca_whitening=True, device="cpu")
    with pytest.raises(ValueError, match="all images at once"):
        fit_directory(generator, folder, SIZE)


@pytest.mark.parametrize("is_flat", [False, True])
def test_the_command_gives_the_same_with_ray(folder: Path, is_flat: bool, tmp_path: Path) -> None:
    directory = str(folder / "ants" if is_flat else folder)
    found = []
    for name, more in (("one", ["--workers", "1"]), ("many", ["--ray", "--workers", "2"])):
        out = tmp_path / f"{name}.json"
        arguments = ["fit", directory, "--out", str(out), "--size", "12", "16", "--device", "cpu", *more]
        assert main(arguments) == 0
        found.append(json.loads(out.read_text()))
    assert found[0] == found[1]
    assert found[0]["num_images"] == (8 if is_flat else 23)


def test_the_snippet_of_the_page_on_clusters_runs(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With folders that exist, and as many workers as there are."""
    monkeypatch.setenv("GPUSEQ_DEVICE", "cpu")
    found = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "clusters.md").read_text(), re.MULTILINE | re.DOTALL)
    (code,) = (block for block in found if "gpuseq.ray" in block)
    for written, meant in (("/data/train", folder), ("/out/shards", tmp_path / "shards")):
        assert f'"{written}"' in code
        code = code.replace(f'"{written}"', repr(str(meant)))
    names: dict[str, Any] = {}
    exec(code.replace("num_workers=64", "num_workers=2"), names)
    images, labels = next(names["batches"])
    assert (images.shape, labels.shape) == ((23, 224, 224, 3), (23,))
    assert abs(float(images.mean())) < 0.1, "centred by what was fitted"

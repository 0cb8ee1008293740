"""The snippets of the pages on training, run as a reader runs them: an empty folder, and the data that they name."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

# Keras' progress bar turns torch's losses into numbers in a way that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


def blocks(page: str, heading: str | None = None) -> list[str]:
    """Return the Python of a page, or of one of its sections."""
    text = (DOCS / page).read_text()
    if heading is not None:
        text = re.split(rf"^## {re.escape(heading)}$", text, flags=re.MULTILINE)[1]
        text = re.split(r"^## ", text, flags=re.MULTILINE)[0]
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def run(code: list[str], **given: Any) -> dict[str, Any]:
    """Run blocks one after another, in one module, with what the text says the reader has."""
    names: dict[str, Any] = {"__name__": "reader", **given}
    assert code, "the page has no such block"
    for block in code:
        exec(block, names)
    return names


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in an empty folder, without a GPU."""
    monkeypatch.setenv("GPUSEQ_DEVICE", "cpu")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def photos(here: Path) -> Path:
    """Write three classes of four photographs each."""
    rng = np.random.default_rng(0)
    for number in range(12):
        folder = here / "photos" / "train" / f"class{number % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (70, 80, 3), np.uint8)).save(folder / f"{number}.jpg")
    return here


@pytest.fixture
def pairs(here: Path) -> Path:
    """Write flat folders of photographs and of masks of three classes."""
    rng = np.random.default_rng(0)
    for kind, shape, top in (("images", (70, 80, 3), 256), ("masks", (70, 80), 3)):
        (here / "data" / kind).mkdir(parents=True)
        for number in range(12):
            suffix = "jpg" if kind == "images" else "png"
            Image.fromarray(rng.integers(0, top, shape, np.uint8)).save(here / "data" / kind / f"{number}.{suffix}")
    return here


def keras_model(num_classes: int, size: tuple[int, int] = (256, 256)) -> Any:
    keras = pytest.importorskip("keras")
    model = keras.Sequential(
        [keras.Input((*size, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(num_classes, "softmax")]
    )
    model.compile("adam", "categorical_crossentropy")
    return model


@pytest.mark.keras
@pytest.mark.parametrize("page", ["../README.md", "index.md"])
def test_the_first_thing_that_is_copied_trains(page: str, photos: Path) -> None:
    pytest.importorskip("keras")
    names = run(blocks(page))
    assert names["images"].shape == (12, 224, 224, 3)
    keras_model(3, (224, 224)).fit(names["batches"], verbose=0)


@pytest.mark.keras
def test_the_line_that_migrates_a_script_does(photos: Path) -> None:
    pytest.importorskip("keras")
    names = run(blocks("migrating.md"))
    flow = names["ImageDataGenerator"](rescale=1 / 255).flow_from_directory("photos/train", target_size=(32, 32))
    keras_model(3, (32, 32)).fit(flow, verbose=0)


@pytest.mark.keras
def test_keras_trains(photos: Path) -> None:
    run(blocks("feeding.md", "Keras")[:1], model=keras_model(3))


def test_pytorch_trains(photos: Path) -> None:
    torch = pytest.importorskip("torch")
    names = run(blocks("feeding.md", "PyTorch"))
    assert tuple(names["images"].shape) == (12, 3, 64, 64)
    assert names["labels"].dtype == torch.int64
    assert torch.isfinite(names["loss"])


def test_jax_walks() -> None:
    jax = pytest.importorskip("jax")
    from gpuseq import ImageDataGenerator

    generator = ImageDataGenerator(device="cpu")
    names = run(blocks("feeding.md", "JAX"), generator=generator, x=np.zeros((5, 8, 8, 3), np.uint8), y=np.arange(5))
    assert isinstance(names["images"], jax.Array)


@pytest.mark.keras
def test_batches_of_ones_own_train(here: Path) -> None:
    pytest.importorskip("keras")

    def load_pair(index: int) -> Any:
        return np.full((2, 8, 8, 3), index, np.float32), np.eye(3, dtype=np.float32)[[index % 3, 0]]

    names = run(blocks("feeding.md", "Batches of your own"), load_pair=load_pair)
    keras_model(3, (8, 8)).fit(names["batches"], verbose=0)


@pytest.mark.keras
def test_segmentation_trains(pairs: Path) -> None:
    pytest.importorskip("keras")
    torch = pytest.importorskip("torch")
    start, keras_part, binary, torch_part, plan = blocks("segmentation.md")
    names = run([start])
    assert (names["images"].shape, str(names["images"].dtype)) == ((8, 64, 64, 3), "float32")
    assert (names["masks"].shape, str(names["masks"].dtype)) == ((8, 64, 64, 1), "uint8")
    assert set(np.unique(names["masks"])) == {0, 1, 2, 255}
    names = run([keras_part, binary, torch_part, plan], **names)
    yes_and_no = np.array([[[0], [255]]], np.uint8)
    assert float(names["binary_loss"](yes_and_no, np.array([[[0.0], [1.0]]], np.float32)).max()) < 1e-6
    assert tuple(names["images"].shape) == (4, 3, 64, 64)
    assert torch.isfinite(names["loss"])
    assert (names["batch_depths"] == 1).all()


def write(path: str, pixels: Callable[[], Any]) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels()).save(path)


def test_each_row_of_the_table_of_folders_is_right(here: Path) -> None:
    """The calls of the table, on folders as its first column draws them."""
    pandas = pytest.importorskip("pandas")
    from gpuseq import ImageDataGenerator

    rows = re.findall(r"^\| (`?.*) \| `(flow\w*\(.*\))` \|$", (DOCS / "segmentation.md").read_text(), re.MULTILINE)
    assert len(rows) == 6
    images = np.zeros((3, 8, 8, 3), np.uint8)
    for number, (drawn, call) in enumerate(rows):
        files = [name for name in re.findall(r"`([\w/.]+)`", drawn) if "." in name]
        for name in files or (["data/1.jpg", "data/1.png"] if "table" in drawn else []):
            is_mask = "mask" in name or name == "data/1.png"
            write(f"{number}/{name}", lambda is_mask=is_mask: images[0, ..., 0] if is_mask else images[0])
        call = re.sub(r'"(images|masks|train|train_masks|data|data/masks)"(?=[,)])', rf'"{number}/\1"', call)
        frame = pandas.DataFrame({"image": ["1.jpg"], "mask": ["1.png"]})
        made = eval(
            f"generator.{call}",
            {"generator": ImageDataGenerator(), "frame": frame, "images": images, "masks": images[..., 0]},
        )
        x, masks = next(made)
        assert len(x) == len(masks) == (1 if files or "table" in drawn else 3), call


def test_files_are_walked_and_explained(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from gpuseq import ImageDataGenerator

    generator = ImageDataGenerator(rotation_range=20)
    names = run(blocks("files.md"), generator=generator)
    images, _ = next(names["batches"])
    assert images.shape == (12, 224, 224, 3)
    cropped, labels = next(names["train"])
    assert cropped.shape == (12, 224, 224, 3)
    assert sorted(labels) == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
    for number in range(200):  # so that there is a batch 3
        source = photos / "photos" / "train" / f"class{number % 3}" / f"{number % 3}.jpg"
        source.with_name(f"more{number}.jpg").write_bytes(source.read_bytes())
    capsys.readouterr()
    run(blocks("explain.md"), generator=generator)
    shown = capsys.readouterr().out
    assert shown.count("Found 212 images belonging to 3 classes.") == 1
    assert shown.count("engine") >= 2


def test_the_modern_augmentations_are_applied(here: Path) -> None:
    import gpuseq

    rng = np.random.default_rng(0)
    images, masks = rng.integers(0, 256, (4, 224, 224, 3), np.uint8), rng.integers(0, 3, (4, 224, 224, 1), np.uint8)
    first, second = blocks("modern.md")
    names = run([first])
    batch = next(names["generator"].flow(images, batch_size=4, seed=1))
    assert (batch.shape, str(batch.dtype), float(batch.max()) <= 1) == ((4, 224, 224, 3), "float32", True)
    names = run([second], gpuseq=gpuseq, images=images, masks=masks, ids=np.arange(4))
    assert names["images"].shape == images.shape
    assert names["images"].dtype == np.uint8
    assert (names["images"] != images).any()
    assert set(np.unique(names["masks"])) <= {0, 1, 2}

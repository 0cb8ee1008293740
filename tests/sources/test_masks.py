"""Images and masks through one plan: same geometry, no colour, and no way to drift apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gpuseq import DirectoryIterator, ImageDataGenerator, ImageFileError, NumpyArrayIterator
from gpuseq.feed.loader import Loader
from tests.compare import assert_same_structure

pytestmark = pytest.mark.filterwarnings("ignore:conventions=")

GEOMETRY: dict[str, Any] = {
    "rotation_range": 40,
    "width_shift_range": 0.2,
    "height_shift_range": 0.2,
    "shear_range": 10,
    "zoom_range": 0.3,
    "horizontal_flip": True,
    "vertical_flip": True,
}
COLOUR: dict[str, Any] = {
    "channel_shift_range": 40.0,
    "brightness_range": (0.5, 1.5),
    "rescale": 1 / 255,
    "samplewise_center": True,
    "samplewise_std_normalization": True,
}


def images_of(n: int = 11, size: tuple[int, int] = (13, 17), channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *size, channels), np.uint8)


@pytest.mark.parametrize(
    "fill", [{"fill_mode": "nearest"}, {"fill_mode": "constant", "cval": 9}, {"fill_mode": "reflect"}]
)
@pytest.mark.parametrize("conventions", ["keras", "corrected"])
def test_a_mask_that_is_a_function_of_the_image_stays_that_function(fill: dict[str, Any], conventions: str) -> None:
    """The mask is a threshold of the image: nearest resampling commutes with it, pixel by pixel, batch after batch."""
    images = images_of()
    masks = images[..., :1] > 100
    generator = ImageDataGenerator(
        **GEOMETRY, **fill, interpolation_order=0, conventions=conventions, device="cpu", dtype="uint8"
    )
    iterator = generator.flow(images, batch_size=4, seed=5, masks=masks)
    differing = 0
    for _ in range(2 * len(iterator)):
        x, mask = next(iterator)
        assert mask.dtype == np.bool_
        if fill["fill_mode"] == "constant":
            inside = x[..., :1] != 9  # cval 9 is no image value where the mask would be True
            assert np.array_equal(mask[inside], (x[..., :1] > 100)[inside])
        else:
            assert np.array_equal(mask, x[..., :1] > 100)
        differing += int((mask != masks[: len(mask)]).sum())
    assert differing, "nothing was transformed: the test shows nothing"


def test_masks_equal_a_replay_of_the_images_plan() -> None:
    """The mask of a batch is what the same plan makes of the masks alone, with order 0 and no colours."""
    images, masks = images_of(), images_of(channels=1, seed=1)
    paired = ImageDataGenerator(**GEOMETRY, **COLOUR, device="cpu").flow(images, batch_size=4, seed=5, masks=masks)
    alone = ImageDataGenerator(**GEOMETRY, interpolation_order=0, dtype="uint8", device="cpu").flow(
        masks, batch_size=4, seed=1
    )
    for _ in range(2 * len(paired)):
        plan = paired.plan_batch()
        x, mask = paired.replay(plan)
        bare = plan.params.copy()
        bare["channel_shift_intensity"] = bare["brightness"] = np.nan
        expected = alone.replay(type(plan)(indices=plan.indices, params=bare))
        assert np.array_equal(mask, expected)
        assert mask.dtype == np.uint8
        assert set(np.unique(mask)) <= set(np.unique(masks)), "a mask holds only values that masks have"
        assert not np.array_equal(x[..., :1], mask)


def test_images_are_what_they_are_without_masks() -> None:
    images = images_of()
    generator = ImageDataGenerator(**GEOMETRY, **COLOUR, device="cpu")
    with_masks = generator.flow(images, batch_size=4, seed=5, masks=images[..., 0])
    without = generator.flow(images, batch_size=4, seed=5)
    for _ in range(4):
        assert np.array_equal(next(with_masks)[0], next(without))


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.uint16, np.int16, np.int32, np.int64, np.float32, np.float64])
def test_every_dtype_comes_out_as_it_went_in(dtype: Any) -> None:
    images = images_of()
    info = np.iinfo(dtype) if np.issubdtype(dtype, np.integer) else None
    high = min(info.max, 2**52) if info else 2
    masks = np.random.default_rng(3).integers(0, high, (11, 13, 17), endpoint=True).astype(dtype)
    _, mask = next(ImageDataGenerator(**GEOMETRY, device="cpu").flow(images, batch_size=11, seed=2, masks=masks))
    assert mask.dtype == dtype
    assert mask.shape == (11, 13, 17, 1)
    assert np.isin(mask, masks).all()


def test_channels_first_and_several_masks_and_weights() -> None:
    images = images_of().transpose(0, 3, 1, 2)
    first, second = images[:, :1] > 50, images[:, 1:]
    generator = ImageDataGenerator(horizontal_flip=True, data_format="channels_first", dtype="uint8", device="cpu")
    weights = np.arange(11, dtype=np.float32)
    iterator = generator.flow(images, batch_size=4, seed=1, masks=[first, second], sample_weight=weights)
    plan = iterator.plan_batch()
    x, masks, weight = iterator.replay(plan)
    assert isinstance(masks, list)
    assert np.array_equal(masks[0], x[:, :1] > 50)
    assert np.array_equal(masks[1], x[:, 1:])
    assert np.array_equal(weight, weights[plan.indices])


def test_subset_takes_the_same_part_of_both() -> None:
    images = images_of()
    generator = ImageDataGenerator(validation_split=0.4, dtype="uint8", device="cpu")
    for subset, size in (("validation", 4), ("training", 7)):
        iterator = generator.flow(images, batch_size=11, shuffle=False, subset=subset, masks=images)
        x, mask = next(iterator)
        assert len(x) == size
        assert np.array_equal(x, mask)


def test_exact_remainder_adds_weights() -> None:
    images = images_of(n=5)
    iterator = ImageDataGenerator(device="cpu").flow(
        images, batch_size=3, seed=1, shard=(1, 2), remainder="exact", masks=images[..., 0]
    )
    _, mask, weight = next(iterator)
    assert mask.shape == (3, 13, 17, 1)
    assert weight.tolist() == [1, 1, 0]


def test_bad_masks_are_named() -> None:
    images = images_of()
    flow = ImageDataGenerator(device="cpu").flow
    with pytest.raises(ValueError, match=r"x.shape = \(11, 13, 17, 3\), masks.shape = \(10, 13, 17\)"):
        flow(images, masks=images[:10, ..., 0])
    with pytest.raises(ValueError, match="rows and columns"):
        flow(images, masks=images[:, :12])
    with pytest.raises(TypeError, match="numbers"):
        flow(images, masks=np.full((11, 13, 17), "a"))
    with pytest.raises(ValueError, match="pass y=None"):
        flow(images, np.zeros(11), masks=images)
    with pytest.raises(ValueError, match="empty list"):
        flow(images, masks=[])


def test_an_overridden_transform_is_refused() -> None:
    class Own(ImageDataGenerator):
        def apply_transform(self, x: Any, transform_parameters: Any) -> Any:
            return x

    iterator = Own(device="cpu").flow(images_of(), masks=images_of())
    with pytest.raises(ValueError, match="Own overrides apply_transform"):
        next(iterator)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    rng = np.random.default_rng(7)
    for number in range(9):
        folder = f"{'ab'[number % 2]}"
        for root in ("images", "masks"):
            (tmp_path / root / folder).mkdir(parents=True, exist_ok=True)
        image = rng.integers(0, 256, (20 + number, 24, 3), np.uint8)
        Image.fromarray(image).save(tmp_path / "images" / folder / f"{number}.png")
        Image.fromarray(((image[..., 0] > 100) * 7).astype(np.uint8)).save(
            tmp_path / "masks" / folder / f"{number}.bmp"
        )
    return tmp_path / "images", tmp_path / "masks"


def directory(folders: tuple[Path, Path], **options: Any) -> DirectoryIterator:
    generator = ImageDataGenerator(
        **GEOMETRY, interpolation_order=0, dtype=options.pop("dtype", "uint8"), conventions="corrected", device="cpu"
    )
    return generator.flow_from_directory(
        folders[0],
        (16, 18),
        batch_size=4,
        seed=3,
        mask_directory=folders[1],
        verbose=False,
        decoder="pillow",
        **options,
    )


@pytest.mark.parametrize("prefetch", [0, 2])
def test_files_stay_together(folders: tuple[Path, Path], prefetch: int) -> None:
    iterator = directory(folders, prefetch=prefetch)
    for _ in range(2 * len(iterator)):
        x, mask = next(iterator)
        assert np.array_equal(mask, (x[..., :1] > 100) * np.uint8(7))
    iterator.close()


@pytest.mark.parametrize("broken", ["images", "masks"])
def test_a_broken_file_takes_its_partner_with_it(folders: tuple[Path, Path], broken: str) -> None:
    name = {"images": folders[0] / "a" / "4.png", "masks": folders[1] / "a" / "4.bmp"}[broken]
    name.write_bytes(b"no picture")
    strict = directory(folders, prefetch=0)
    with pytest.raises(ImageFileError, match="4"):
        list(zip(range(3), strict, strict=False))
    for policy in ("skip", "substitute"):
        iterator = directory(folders, prefetch=0, on_error=policy)
        seen = 0
        for _ in range(3):
            x, mask = next(iterator)
            assert np.array_equal(mask, (x[..., :1] > 100) * np.uint8(7))
            seen += len(x)
        assert seen == (9 if policy == "substitute" and broken == "images" else 8)


def test_missing_and_double_masks_are_named(folders: tuple[Path, Path]) -> None:
    (folders[1] / "b" / "3.png").write_bytes((folders[1] / "b" / "3.bmp").read_bytes())
    with pytest.raises(ValueError, match=r"3.png' has 2 masks"):
        directory(folders)
    (folders[1] / "b" / "3.png").unlink()
    (folders[1] / "b" / "3.bmp").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 9 images have no mask.*3\.png"):
        directory(folders)
    with pytest.raises(FileNotFoundError, match="not an existing folder"):
        directory((folders[0], folders[1] / "none"))


def test_sixteen_bit_masks_keep_their_bits(folders: tuple[Path, Path]) -> None:
    for path in folders[1].rglob("*.bmp"):
        Image.fromarray(np.full((20, 24), 1000, np.uint16)).save(path.with_suffix(".png"))
        path.unlink()
    _, mask = next(directory(folders))
    assert (mask == 1000).all()


def test_masks_are_keyword_only() -> None:
    with pytest.raises(TypeError):
        NumpyArrayIterator(*([None] * 18))


def test_masks_of_files_are_cached_beside_their_images(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    for number, image in enumerate(images_of(5)):
        Image.fromarray(image).save(tmp_path / "one" / f"{number}.png")
    arguments = {"mask_directory": tmp_path, "target_size": (9, 9), "batch_size": 2, "seed": 3, "verbose": False}
    generator = ImageDataGenerator(rotation_range=20, device="cpu")
    plain = generator.flow_from_directory(tmp_path, **arguments)
    image_bytes = 9 * 9 * 3
    for limit, num_masks in ((None, plain.samples), (plain.samples * image_bytes + 81, 1), (2 * image_bytes, 0)):
        cached = generator.flow_from_directory(tmp_path, **arguments, cache="host", memory_limit=limit)
        plain.set_epoch(0)
        cached.set_epoch(0)
        for _ in range(2 * len(plain)):
            assert_same_structure(next(cached), next(plain))
        assert cached._masks.sources[0].cache.used == num_masks
        cached.close()
    plain.close()


@pytest.mark.parametrize("cache", [None, "host"])
def test_bad_masks_beside_images_that_are_chosen_by_rows(folders: tuple[Path, Path], cache: str | None) -> None:
    """From the second epoch on images come out of a cache by rows, in another order than they lie there."""
    for name in ("a/4.bmp", "b/3.bmp"):
        (folders[1] / name).write_bytes(b"no picture")
    iterator = directory(folders, cache=cache, on_error="skip", prefetch=0)
    for epoch in range(3):
        iterator.set_epoch(epoch)
        seen = 0
        for index in range(len(iterator)):
            x, mask = iterator[index]
            assert np.array_equal(mask, (x[..., :1] > 100) * np.uint8(7))
            seen += len(x)
        assert seen == 7


def test_images_and_masks_that_are_bad_in_one_batch(folders: tuple[Path, Path]) -> None:
    for path in (folders[0] / "a" / "0.png", folders[1] / "b" / "1.bmp", folders[0] / "b" / "7.png"):
        path.write_bytes(b"no picture")
    iterator = directory(folders, cache="host", on_error="skip", prefetch=0)
    for _ in range(6):
        x, mask = next(iterator)
        assert len(x) == len(mask)
        assert np.array_equal(mask, (x[..., :1] > 100) * np.uint8(7))


@pytest.mark.parametrize("of", ["iterator", "loader"])
def test_closing_reaches_images_and_masks(folders: tuple[Path, Path], of: str) -> None:
    iterator = directory(folders, prefetch=2)
    closed = iterator if of == "iterator" else Loader(iterator)
    next(iter(closed))
    executors = [source._executor for source in (iterator._source, *iterator._masks.sources)]
    assert len(executors) == 2
    assert None not in executors
    closed.close()
    for source, executor in zip((iterator._source, *iterator._masks.sources), executors, strict=True):
        assert source._executor is None
        with pytest.raises(RuntimeError, match="after shutdown"):
            executor.submit(print)

"""Masks of files whose images are cropped as they are decoded: each is cut as its image is, with nearest pixels."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import gpuseq
from gpuseq import ImageFileError
from gpuseq.plan.boxes import with_boxes
from gpuseq.sources.crops import Part, crop_mask
from tests.compare import assert_same, assert_same_structure
from tests.standin import cupy as standin

SIZE = (16, 12)
SIZES = [(20, 30), (41, 25), (16, 16), (7, 90), (64, 48), (33, 32), (16, 12)]
"""Of the images: no two are alike, some sides are smaller than the target's, one image has its size."""
MOVES = [gpuseq.RandomHorizontalFlip(), gpuseq.RandomRotation(30), gpuseq.TrivialAugmentWide(num_magnitude_bins=31)]


def label_of(pixels: np.ndarray) -> np.ndarray:
    """Return a function of the image that nearest pixels keep; 1 where it is black, as beyond its border."""
    return ((pixels[..., :1] > 100) * np.uint8(2) + 1).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write images and their labels, of the images' own sizes."""
    rng = np.random.default_rng(3)
    for inner in ("images/a", "masks/a"):
        (tmp_path / inner).mkdir(parents=True)
    for number, size in enumerate(SIZES):
        pixels = rng.integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / "a" / f"{number}.png")
        Image.fromarray(label_of(pixels)[..., 0]).save(tmp_path / "masks" / "a" / f"{number}.bmp")
    return tmp_path


def flow(folder: Path, augmentations: Any, *, device: str = "cpu", rng: Any = "keyed", **options: Any) -> Any:
    generator = gpuseq.ImageDataGenerator(augmentations=augmentations, rng=rng, device=device, dtype="uint8")
    return generator.flow_from_directory(
        folder / "images",
        **{
            "mask_directory": folder / "masks",
            "target_size": SIZE,
            "batch_size": 4,
            "seed": 5,
            "verbose": False,
            **options,
        },
    )


def crop(interpolation: Any = "nearest", **ranges: Any) -> gpuseq.RandomResizedCrop:
    return gpuseq.RandomResizedCrop(SIZE, interpolation=interpolation, **ranges)


def geometry() -> list[gpuseq.Augmentation]:
    """Return a crop and what moves pixels without changing them."""
    return [
        crop(),
        gpuseq.RandomHorizontalFlip(),
        gpuseq.RandomRotation(40),
        gpuseq.RandomPerspective(p=0.5, interpolation="nearest"),
    ]


def boxes_of(plan: gpuseq.BatchPlan, position: int, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return left, upper, right, lower of a sample's crop of an image of that many rows and columns."""
    assert plan.program is not None
    top, left, height, width = with_boxes(plan.program[position : position + 1], size)["arg"][0, 0, :4].astype(int)
    return int(left), int(top), int(left + width), int(top + height)


def kept_as(mask: np.ndarray, kind: str) -> Image.Image:
    """Return labels as a file of that kind holds them."""
    if kind == "sixteen bits":
        return Image.fromarray(mask.astype(np.uint16) * 300)
    if kind == "palette":
        image = Image.fromarray(mask).convert("P")
        image.putdata(mask.ravel().tolist())
        image.putpalette([7, 8, 9] * 256)
        return image
    return Image.fromarray(mask)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("kind", ["grey", "sixteen bits", "palette"])
@pytest.mark.parametrize("scale", [1, 0.5, 1.7])
def test_a_mask_is_what_pillow_makes_of_the_images_box(
    folder: Path, interpolation: Any, kind: str, scale: float
) -> None:
    """Masks of the images' sizes are cropped and resized; of other sizes, the scaled box is resized."""
    rng = np.random.default_rng(11)
    written = {}
    for number, size in enumerate(SIZES):
        (folder / "masks" / "a" / f"{number}.bmp").unlink()
        own = tuple(max(1, round(side * scale)) for side in size)
        written[number] = kept_as(rng.integers(0, 200, own, np.uint8), kind)
        written[number].save(folder / "masks" / "a" / f"{number}.png")
    iterator = flow(folder, crop(interpolation, scale=(0.05, 1.0)), batch_size=7)
    boxes = set()
    for epoch in range(3):
        iterator.set_epoch(epoch)
        plan = iterator.plan_batch()
        for position, mask in enumerate(iterator.replay(plan)[1]):
            number = int(plan.indices[position])
            height, width = SIZES[number]
            left, upper, right, lower = box = boxes_of(plan, position, SIZES[number])
            boxes.add(box)
            file = written[number]
            if file.size == (width, height):
                wanted = file.crop(box).resize(SIZE[::-1], Image.Resampling.NEAREST)
            else:
                columns, rows = file.width / width, file.height / height
                scaled = left * columns, upper * rows, min(right * columns, file.width), min(lower * rows, file.height)
                wanted = file.resize(SIZE[::-1], Image.Resampling.NEAREST, box=scaled)
            assert_same(mask[..., 0], np.asarray(wanted), message=f"{number}, {box}")
    assert len(boxes) > 12


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_a_mask_of_the_images_size_is_cut_out_before_it_is_resized(dtype: Any) -> None:
    """A box within the whole mask counts positions from another start, which rounds to another pixel now and then.

    Not of 16 bits, whose positions Pillow multiplies where it adds up the others.
    """
    rng = np.random.default_rng(4)
    mask = rng.integers(0, 256, (61, 83)).astype(dtype)
    image, differing = Image.fromarray(mask), 0
    for _ in range(300):
        (top, bottom), (left, right) = (np.sort(rng.choice(side + 1, 2, replace=False)).tolist() for side in mask.shape)
        wanted = image.crop((left, top, right, bottom)).resize((24, 24), Image.Resampling.NEAREST)
        got = crop_mask(mask[..., None], Part(top, left, bottom - top, right - left, *mask.shape), (24, 24))
        assert_same(got[..., 0], np.asarray(wanted))
        boxed = image.resize((24, 24), Image.Resampling.NEAREST, box=(left, top, right, bottom))
        differing += bool((np.asarray(boxed) != got[..., 0]).any())
    assert differing or dtype is np.uint16


@pytest.mark.each_cpu_engine
@pytest.mark.parametrize("rng", ["keras", "keyed"])
@pytest.mark.parametrize("prefetch", [0, 2])
@pytest.mark.parametrize("color_mode", ["rgb", "rgba", "grayscale"])
def test_images_and_masks_stay_together(folder: Path, rng: Any, prefetch: int, color_mode: str) -> None:
    """Through crop, turns, flips and perspective: the mask is the same function of its image, in every batch."""
    if color_mode == "grayscale":
        for path in (folder / "images").rglob("*.png"):
            Image.open(path).getchannel(0).save(path)
    iterator = flow(folder, geometry(), rng=rng, prefetch=prefetch, color_mode=color_mode, ignore_value=1)
    for _ in range(2 * len(iterator)):
        x, masks = next(iterator)
        if color_mode == "rgba":
            # What lies beyond the border is of no colour.
            assert x.shape[3] == 4
        assert_same(masks, label_of(x))
    iterator.close()


@pytest.mark.parametrize("source", ["column", "folder"])
def test_tables(folder: Path, source: str) -> None:
    names = [f"images/a/{number}.png" for number in range(len(SIZES))]
    frame = pd.DataFrame({"image": names, "mask": [f"masks/a/{number}.bmp" for number in range(len(SIZES))]})
    if source == "folder":
        frame["image"] = [name.removeprefix("images/") for name in names]
    masks = {"mask_col": "mask"} if source == "column" else {"mask_directory": folder / "masks"}
    generator = gpuseq.ImageDataGenerator(augmentations=geometry(), device="cpu", dtype="uint8")
    iterator = generator.flow_from_dataframe(
        frame,
        folder if source == "column" else folder / "images",
        x_col="image",
        target_size=SIZE,
        batch_size=3,
        seed=2,
        ignore_value=1,
        class_mode=None,
        verbose=False,
        **masks,
    )
    for index in range(len(iterator)):
        x, found = iterator[index]
        assert_same(found, label_of(x))


def test_feeds_replays_and_resumes_make_the_same_masks(folder: Path) -> None:
    """Other batch sizes, decoded ahead or not, pickled, replayed from text, resumed: the same pairs."""
    pairs = []
    for batch_size, prefetch in ((7, 0), (4, 2), (1, 1)):
        iterator = flow(folder, [crop(), *MOVES], shuffle=False, batch_size=batch_size, prefetch=prefetch)
        batches = [iterator[index] for index in range(len(iterator))]
        pairs.append([np.concatenate(parts) for parts in zip(*batches, strict=True)])
    for other in pairs[1:]:
        assert_same_structure(other, pairs[0])

    first = flow(folder, [crop(), *MOVES])
    other = pickle.loads(pickle.dumps(first))
    for _ in range(3):
        assert_same_structure(next(other), next(first))
    resumed = flow(folder, [crop(), *MOVES])
    resumed.load_state_dict(first.state_dict())
    plan = first.plan_batch()
    batch = first.replay(plan)
    assert_same_structure(next(resumed), batch)
    assert_same_structure(resumed.replay(gpuseq.BatchPlan.from_json(plan.to_json())), batch)
    assert ("masks", "the same plan: the same crops, maps and flips, nearest neighbour, no colours") in (
        first.explain().path
    )


@pytest.mark.parametrize("broken", ["images/a/4.png", "masks/a/4.bmp"])
def test_a_file_that_fails_takes_its_partner_along(folder: Path, broken: str) -> None:
    """Where another image is substituted, its own mask comes, by the crop that the other image got."""
    (folder / broken).write_bytes(b"no picture")
    with pytest.raises(ImageFileError, match="4"):
        flow(folder, geometry(), batch_size=7)[0]
    for policy, num_samples in (("skip", 6), ("substitute", 7 if broken.startswith("images") else 6)):
        iterator = flow(folder, geometry(), batch_size=7, on_error=policy, ignore_value=1)
        for epoch in range(3):
            iterator.set_epoch(epoch)
            x, masks = iterator[0]
            assert len(x) == num_samples
            assert_same(masks, label_of(x))
        assert str(folder / broken) in iterator.bad_files


def test_an_image_that_on_error_answers_with_has_all_of_its_mask(folder: Path) -> None:
    """It was cropped of no file, so there is no box."""
    (folder / "images" / "a" / "4.png").write_bytes(b"no picture")
    answer = np.full((*SIZE, 3), 9, np.uint8)
    iterator = flow(folder, crop(), batch_size=7, shuffle=False, on_error=lambda path, error: answer)
    x, masks = iterator[0]
    assert_same(x[4], answer)
    with Image.open(folder / "masks" / "a" / "4.bmp") as mask:
        assert_same(masks[4, ..., 0], np.asarray(mask.resize(SIZE[::-1], Image.Resampling.NEAREST)))
    others = [0, 1, 2, 3, 5, 6]
    assert_same(masks[others], label_of(x[others]))


def test_a_plan_without_a_crop_takes_all_of_image_and_mask(folder: Path) -> None:
    """Another iterator's plan may have no program, or one that begins otherwise."""
    iterator = flow(folder, crop(), interpolation="nearest")
    plan = iterator.plan_batch()
    for program in (None, np.zeros_like(plan.program)):
        x, masks = iterator.replay(replace(plan, program=program))
        for index, image, mask in zip(plan.indices, x, masks, strict=True):
            with Image.open(folder / "images" / "a" / f"{index}.png") as file:
                assert_same(image, np.asarray(file.resize(SIZE[::-1], Image.Resampling.NEAREST)))
            assert_same(mask, label_of(image))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_device_makes_the_hosts_batches(folder: Path, monkeypatch: pytest.MonkeyPatch, dtype: Any) -> None:
    standin.install(monkeypatch)
    for path in (folder / "masks").rglob("*.bmp"):
        Image.fromarray(np.asarray(Image.open(path)).astype(dtype)).save(path.with_suffix(".png"))
        path.unlink()
    chosen = [crop("bilinear"), *MOVES]
    host, device = (flow(folder, chosen, device=device) for device in ("cpu", "cuda:0"))
    for _ in range(2 * len(host)):
        wanted, got = next(host), next(device)
        for mine, theirs in zip(got, wanted, strict=True):
            assert isinstance(mine, standin.DeviceArray)
            assert_same(mine.get(), theirs)
    host.close()
    device.close()


def test_a_box_beyond_the_image_names_the_file(folder: Path) -> None:
    """Whoever wrote the plan: the mask is not cut by a box that its image has not got."""
    iterator = flow(folder, crop(), batch_size=1, shuffle=False)
    plan = iterator.plan_batch()
    program = with_boxes(plan.program, SIZES[0])
    program["arg"][0, 0, :4] = 10, 0, 20, 20
    with pytest.raises(ValueError, match=r"0\.png has 20 x 30 pixels, and the plan crops 20 x 20 from \(10, 0\)"):
        iterator.replay(replace(plan, program=program))

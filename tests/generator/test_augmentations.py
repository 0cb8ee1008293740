"""`augmentations` of a generator: between Keras' ranges and its normalisation, drawn apart, the same for every feed."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import gpuseq
from gpuseq.ops.numpy.program import run_steps
from gpuseq.plan.boxes import with_boxes
from gpuseq.plan.plan import BatchPlan
from gpuseq.plan.program import dicts_to_program, only_geometry
from tests.compare import assert_same, read_only

MODERN = [gpuseq.RandAugment(3, 9, interpolation="bilinear"), gpuseq.RandomHorizontalFlip()]


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    rng = np.random.default_rng(3)
    return read_only(rng.integers(0, 256, (24, 20, 17, 3), np.uint8))


def _generator(**options: Any) -> gpuseq.ImageDataGenerator:
    return gpuseq.ImageDataGenerator(**{"device": "cpu", "conventions": "corrected", **options})


def test_without_them_a_plan_has_no_program(images: np.ndarray) -> None:
    plan = _generator(horizontal_flip=True).flow(images, seed=1).plan_batch()
    assert plan.program is None
    assert plan.describe(0) == []


@pytest.mark.parametrize("rng", ["keras", "keyed"])
def test_the_ranges_numbers_stay(images: np.ndarray, rng: str) -> None:
    """Order and parameters are the same numbers with augmentations and without."""
    ranges: dict[str, Any] = {"rotation_range": 20, "width_shift_range": 0.1, "horizontal_flip": True, "rng": rng}
    bare = _generator(**ranges).flow(images, batch_size=7, seed=5)
    with_them = _generator(**ranges, augmentations=MODERN).flow(images, batch_size=7, seed=5)
    for _ in range(9):
        first, second = bare.plan_batch(), with_them.plan_batch()
        assert (first.indices == second.indices).all()
        assert first.params.tobytes() == second.params.tobytes()
        assert second.program is not None


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_the_program_comes_before_the_normalisation(images: np.ndarray, data_format: str) -> None:
    """Each sample: its own steps on uint8, then rescale, layout and cast."""
    x = images if data_format == "channels_last" else np.moveaxis(images, 3, 1)
    generator = _generator(augmentations=MODERN, rescale=1 / 255, data_format=data_format)
    iterator = generator.flow(x, batch_size=10, seed=2)
    plan = iterator.plan_batch()
    batch = iterator.replay(plan)
    assert plan.program is not None
    for sample, index in enumerate(plan.indices):
        done = run_steps(images[index], plan.program[sample]).astype(np.float32) * np.float32(1 / 255)
        wanted = done if data_format == "channels_last" else np.moveaxis(done, 2, 0)
        assert_same(np.ascontiguousarray(batch[sample]), np.ascontiguousarray(wanted))
    assert len({str(plan.describe(sample)) for sample in range(10)}) > 5


def test_the_ranges_come_before_the_program(images: np.ndarray) -> None:
    """What Keras' ranges make is uint8, as in a generator of uint8 batches, and the program goes on from there."""
    ranges: dict[str, Any] = {
        "rotation_range": 25,
        "zoom_range": 0.2,
        "vertical_flip": True,
        "brightness_range": (0.6, 1.4),
    }
    warped = next(_generator(**ranges, dtype="uint8").flow(images, batch_size=8, seed=4))
    iterator = _generator(**ranges, augmentations=MODERN).flow(images, batch_size=8, seed=4)
    plan = iterator.plan_batch()
    batch = iterator.replay(plan)
    for sample in range(8):
        assert_same(batch[sample], run_steps(warped[sample], plan.program[sample]).astype(np.float32))


def test_erasing_is_last(images: np.ndarray) -> None:
    """The rectangle holds the value itself, in units of the normalised batch, and the rest is as without it."""
    value = (0.5, -2.0, 3.25)
    for extra in ({}, {"preprocessing_function": lambda image: image / 3}, {"samplewise_center": True}):
        options: dict[str, Any] = {"rescale": 1 / 255, **extra}
        erasing = _generator(augmentations=gpuseq.RandomErasing(1.0, value=value), **options).flow(images, seed=3)
        plain = next(_generator(**options).flow(images, seed=3))
        plan = erasing.plan_batch()
        batch = erasing.replay(plan)
        for sample in range(len(plan)):
            ((name, top, left, height, width, *_),) = plan.describe(sample)
            assert name == "Erase"
            wanted = plain[sample].copy()
            wanted[int(top) : int(top + height), int(left) : int(left + width)] = value
            assert_same(batch[sample], wanted)


def test_noise_does_not_depend_on_the_layout(images: np.ndarray) -> None:
    """Per-pixel noise is the key's and the place's, whichever axis comes first."""
    erasing = gpuseq.RandomErasing(1.0, value="random")
    last = next(_generator(augmentations=erasing).flow(images, seed=3))
    first = _generator(augmentations=erasing, data_format="channels_first").flow(np.moveaxis(images, 3, 1), seed=3)
    assert_same(np.moveaxis(next(first), 1, 3).copy(), last)
    assert ((last < 0).sum(axis=(1, 2, 3)) > 0).all()


@pytest.mark.parametrize("extra", ["callable", "zca", "mean"])
def test_slow_roads_give_the_same(images: np.ndarray, extra: str) -> None:
    """A function of the user's, whitening and statistics per pixel see what the program made."""
    plain, modern = (_generator(augmentations=given, rescale=1 / 255) for given in (None, MODERN))
    for generator in (plain, modern):
        if extra == "callable":
            generator.preprocessing_function = lambda image: image[..., ::-1] * 2
        elif extra == "zca":
            generator.zca_whitening = generator.featurewise_center = True
            generator.fit(images[:, :6, :5])
        else:
            generator.featurewise_center = True
            generator.mean = np.random.default_rng(0).uniform(0, 1, images.shape[1:]).astype(np.float32)
    x = images[:, :6, :5] if extra == "zca" else images
    iterator = modern.flow(x, batch_size=6, seed=8)
    plan = iterator.plan_batch()
    levels = np.stack([run_steps(x[index], steps) for index, steps in zip(plan.indices, plan.program, strict=True)])
    wanted = next(plain.flow(levels, batch_size=6, shuffle=False))
    assert_same(iterator.replay(plan), wanted, atol=1e-6 if extra == "zca" else 0)


def _pictures(iterator: Any, epochs: int = 2) -> dict[tuple[int, int], bytes]:
    """Return each sample's picture by (epoch, sample)."""
    found = {}
    for epoch in range(epochs):
        iterator.set_epoch(epoch)
        for index in range(len(iterator)):
            plan = iterator.plan_batch(index)
            for sample, picture in zip(plan.indices.tolist(), iterator.replay(plan), strict=True):
                found[epoch, sample] = picture.tobytes()
    return found


def test_keyed_pictures_do_not_depend_on_the_feed(images: np.ndarray) -> None:
    """Batch size, shuffling, shards and resuming: (seed, epoch, sample) decide, and each epoch is another."""
    generator = _generator(augmentations=[*MODERN, gpuseq.RandomErasing(value="random")], rng="keyed", rotation_range=9)
    wanted = _pictures(generator.flow(images, batch_size=5, seed=6))
    assert len(set(wanted.values())) == len(wanted) == 2 * len(images)
    assert _pictures(generator.flow(images, batch_size=24, seed=6, shuffle=False)) == wanted
    sharded: dict[tuple[int, int], bytes] = {}
    for rank in range(3):
        sharded |= _pictures(generator.flow(images, batch_size=4, seed=6, shard=(rank, 3)))
    assert sharded == wanted
    walked = generator.flow(images, batch_size=5, seed=6)
    for _ in range(7):
        next(walked)
    resumed = generator.flow(images, batch_size=5, seed=6)
    resumed.load_state_dict(json.loads(json.dumps(walked.state_dict())))
    for _ in range(5):
        assert_same(next(resumed), next(walked))


@pytest.mark.parametrize("num_workers", [0, 2, 8])
def test_keyed_pictures_do_not_depend_on_workers(images: np.ndarray, num_workers: int) -> None:
    """A DataLoader's worker processes make the pictures that this process makes."""
    torch = pytest.importorskip("torch")
    from gpuseq.torch import loader

    generator = _generator(augmentations=MODERN, rng="keyed")
    iterator = generator.flow(images, batch_size=6, seed=9)
    workers: dict[str, Any] = {"num_workers": num_workers} if num_workers else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # more workers than cores
        batches = list(torch.utils.data.DataLoader(loader(iterator, "channels_last"), batch_size=None, **workers))
    assert len(batches) == 4
    reference = generator.flow(images, batch_size=6, seed=9)
    for batch in batches:
        assert_same(np.asarray(batch[0] if isinstance(batch, list | tuple) else batch), next(reference))


def test_keras_walk_and_epochs_agree(images: np.ndarray) -> None:
    """rng="keras": taken from the start, batch i of epoch e has the program that set_epoch(e) gives it."""
    generator = _generator(augmentations=MODERN, rotation_range=5)
    walked, by_epoch = (generator.flow(images, batch_size=9, seed=1) for _ in range(2))
    seen = []
    for epoch in range(3):
        by_epoch.set_epoch(epoch)
        for index in range(len(walked)):
            plan = walked.plan_batch()
            assert plan.program.tobytes() == by_epoch.plan_batch(index).program.tobytes()
            seen.append(plan.program.tobytes())
    assert len(set(seen)) == len(seen)


def test_keras_state_resumes(images: np.ndarray) -> None:
    generator = _generator(augmentations=MODERN)
    walked = generator.flow(images, batch_size=5, seed=6)
    for _ in range(3):
        next(walked)
    resumed = generator.flow(images, batch_size=5, seed=6)
    resumed.load_state_dict(walked.state_dict())
    for _ in range(6):
        assert_same(next(resumed), next(walked))


def test_without_a_seed_the_global_stream_decides_and_loses_nothing(images: np.ndarray) -> None:
    """NumPy's global stream gives Keras its numbers as before, and the programs follow from its state."""
    plans = []
    for _ in range(2):
        np.random.seed(11)
        iterator = _generator(augmentations=MODERN, rotation_range=9).flow(images, batch_size=8)
        plans.append([iterator.plan_batch() for _ in range(4)])
    np.random.seed(11)
    bare = _generator(rotation_range=9).flow(images, batch_size=8)
    for first, second, plain in zip(*plans, [bare.plan_batch() for _ in range(4)], strict=True):
        assert first == second
        assert first.params.tobytes() == plain.params.tobytes()
    assert len({plan.program.tobytes() for plan in plans[0]}) == 4


def test_a_plan_is_text_and_back(images: np.ndarray) -> None:
    """JSON holds all of it: the plan read back is equal and makes the same batch; edited, another."""
    iterator = _generator(
        augmentations=[*MODERN, gpuseq.RandomErasing(value="random")], brightness_range=(0.5, 2)
    ).flow(images, batch_size=8, seed=2)
    plan = iterator.plan_batch()
    again = BatchPlan.from_json(plan.to_json())
    assert again == plan
    assert_same(iterator.replay(again), iterator.replay(plan))
    edited = json.loads(plan.to_json())
    edited["program"][0] = [{"op": "Invert"}]
    assert BatchPlan.from_json(json.dumps(edited)).describe(0) == [("Invert",)]
    with pytest.raises(ValueError, match="no plan that to_json"):
        BatchPlan.from_json('{"indices": [1]}')
    with pytest.raises(ValueError, match="no step 'Invrt'; did you mean 'Invert'"):
        BatchPlan.from_json(plan.to_json().replace('{"op": "', '{"op": "Invrt", "x": "', 1))


def test_a_plan_prints_its_steps(images: np.ndarray) -> None:
    plan = _generator(augmentations=MODERN).flow(images, batch_size=4, seed=2).plan_batch()
    for position, line in enumerate(str(plan).splitlines()[1:]):
        for name, *args in plan.describe(position):
            assert name in line
            assert all(f"{value:.4g}" in line for value in args)
    with pytest.raises(IndexError, match="position 4 is outside the batch of 4"):
        plan.describe(4)


def test_masks_take_part_in_the_geometry_alone(images: np.ndarray) -> None:
    """Masks of any dtype move with their images, by nearest pixels; colours and erasing do them nothing."""
    masks = np.random.default_rng(0).integers(0, 5, images.shape[:3]).astype(np.int32)
    generator = _generator(augmentations=[*MODERN, gpuseq.RandomErasing(1.0)], rotation_range=20)
    iterator = generator.flow(images, masks=masks, batch_size=12, seed=5)
    plan = iterator.plan_batch()
    _, done = iterator.replay(plan)
    assert done.dtype == np.int32
    bare = _generator(rotation_range=20).flow(images, masks=masks, batch_size=12, seed=5)
    _, warped = bare.replay(replace(plan, program=None))
    geometry = only_geometry(plan.program)
    for sample in range(12):
        assert_same(done[sample], np.ascontiguousarray(run_steps(warped[sample], geometry[sample])))
    assert (done != warped).any()
    # The plan's geometry is done for an iterator over masks too, whose generator asks for nothing.
    as_images = _generator(rotation_range=20, dtype="uint8", interpolation_order=0, fill_mode="nearest")
    moved = as_images.flow(masks[..., None].astype(np.uint8), batch_size=12, seed=5).replay(plan)
    assert_same(moved.astype(np.int32), done)


def test_files_are_augmented(tmp_path: Path) -> None:
    """flow_from_directory and flow_from_dataframe: the decoded, resized image goes through its program."""
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    (tmp_path / "a").mkdir()
    for number in range(6):
        Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8)).save(tmp_path / "a" / f"{number}.png")
    options: dict[str, Any] = {"target_size": (16, 16), "batch_size": 6, "seed": 3, "class_mode": None}
    generator = _generator(augmentations=MODERN, rescale=0.5)
    frame = pandas.DataFrame({"filename": [f"a/{number}.png" for number in range(6)]})
    for iterator in (
        generator.flow_from_directory(tmp_path, verbose=False, **options),
        generator.flow_from_dataframe(frame, tmp_path, verbose=False, **options),
    ):
        plan = iterator.plan_batch()
        for index, steps, picture in zip(plan.indices, plan.program, iterator.replay(plan), strict=True):
            with Image.open(tmp_path / iterator.filenames[index]) as file:
                decoded = np.asarray(file.resize((16, 16), Image.Resampling.NEAREST))
            assert_same(picture, run_steps(decoded, steps).astype(np.float32) * np.float32(0.5))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of files of one class, no two of a size."""
    rng = np.random.default_rng(0)
    (tmp_path / "a").mkdir()
    for number, size in enumerate([(20, 30), (41, 25), (16, 16), (7, 90), (64, 48), (33, 32)]):
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(tmp_path / "a" / f"{number}.png")
    return tmp_path


CROPPED: dict[str, Any] = {"target_size": (16, 12), "seed": 3, "class_mode": None, "verbose": False}


@pytest.mark.parametrize("rng", ["keras", "keyed"])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_files_are_cropped_where_they_are_decoded(folder: Path, interpolation: Any, rng: Any) -> None:
    """A rectangle of the file's own size is resized once, as Pillow does both; the other steps follow."""
    crop = gpuseq.RandomResizedCrop((16, 12), interpolation=interpolation)
    generator = _generator(augmentations=[crop, *MODERN], rescale=0.5, rng=rng)
    iterator = generator.flow_from_directory(folder, batch_size=6, **CROPPED)
    boxes = set()
    for _ in range(3):
        plan = iterator.plan_batch()
        read = gpuseq.BatchPlan.from_json(plan.to_json())
        batch = iterator.replay(plan)
        assert_same(iterator.replay(read), batch)
        for index, steps, picture in zip(plan.indices, plan.program, batch, strict=True):
            with Image.open(folder / iterator.filenames[index]) as file:
                drawn = with_boxes(steps[None], (file.height, file.width))[0]
                top, left, height, width = drawn["arg"][0, :4].astype(int).tolist()
                part = file.crop((left, top, left + width, top + height))
                resized = part.resize((12, 16), getattr(Image.Resampling, interpolation.upper()))
            boxes.add((top, left, height, width))
            assert_same(picture, run_steps(np.asarray(resized), drawn[1:]).astype(np.float32) * np.float32(0.5))
    assert len(boxes) > 12


def test_keyed_crops_do_not_depend_on_the_feed(folder: Path) -> None:
    """Other batch sizes, decoded ahead or not: the same pictures."""
    pictures = []
    for batch_size, prefetch in ((6, 0), (4, 2), (1, 1)):
        generator = _generator(augmentations=[gpuseq.RandomResizedCrop((16, 12)), gpuseq.RandAugment()], rng="keyed")
        iterator = generator.flow_from_directory(
            folder, batch_size=batch_size, prefetch=prefetch, shuffle=False, **CROPPED
        )
        pictures.append(np.concatenate([iterator[number] for number in range(len(iterator))]))
    assert_same(pictures[1], pictures[0])
    assert_same(pictures[2], pictures[0])


def test_a_file_that_fails_takes_its_crop_along(folder: Path) -> None:
    (folder / "a" / "2.png").write_bytes(b"no picture")
    generator = _generator(augmentations=gpuseq.RandomResizedCrop((16, 12)), rng="keyed")
    batch = next(generator.flow_from_directory(folder, on_error="skip", shuffle=False, batch_size=6, **CROPPED))
    assert batch.shape == (5, 16, 12, 3)
    whole = generator.flow_from_directory(folder, batch_size=6, shuffle=False, on_error="substitute", **CROPPED)
    assert_same(next(whole)[[0, 1, 3, 4, 5]], batch)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_size": (9, 9)}, r"target_size=\(9, 9\): say the same in both"),
        ({"cache": "host"}, "leave out cache=, or read the files once into an array .* let flow.. crop these"),
        ({"keep_aspect_ratio": True}, "has a ratio of its own"),
    ],
)
def test_what_does_not_go_with_a_crop_of_files_is_refused(folder: Path, options: dict[str, Any], message: str) -> None:
    generator = _generator(augmentations=gpuseq.RandomResizedCrop((16, 12)))
    with pytest.raises(ValueError, match="RandomResizedCrop.*" + message):
        generator.flow_from_directory(folder, **(CROPPED | options))


@pytest.mark.each_cpu_engine
def test_grey_files_of_sixteen_bits_are_refused_by_a_crop(tmp_path: Path) -> None:
    """As without a crop: the engines resize bytes, and a level of 1000 is none."""
    (tmp_path / "a").mkdir()
    Image.fromarray(np.full((20, 30), 1000, np.uint16)).save(tmp_path / "a" / "0.png")
    for augmentation in (gpuseq.RandomResizedCrop((16, 12)), gpuseq.RandomHorizontalFlip(1.0)):
        iterator = _generator(augmentations=augmentation).flow_from_directory(
            tmp_path, color_mode="grayscale", **CROPPED
        )
        with pytest.raises(TypeError, match=r"work on uint8 images, levels 0 to 255.*uint16"):
            next(iterator)


@pytest.mark.parametrize("channels", [1, 4])
def test_grey_and_alpha(images: np.ndarray, channels: int) -> None:
    x = images[..., :1] if channels == 1 else np.concatenate([images, images[..., :1]], axis=3)
    batch = next(_generator(augmentations="rand-m9-inc1-p1").flow(x, batch_size=8, seed=1))
    assert batch.shape == (8, 20, 17, channels)


def test_cropping_gives_the_batch_its_size(images: np.ndarray) -> None:
    generator = _generator(augmentations=[gpuseq.RandomResizedCrop((9, 8)), gpuseq.RandAugment()])
    iterator = generator.flow(images, masks=images[..., 0], batch_size=8, seed=1)
    batch, masks = next(iterator)
    assert batch.shape == (8, 9, 8, 3)
    assert masks.shape == (8, 9, 8, 1)


def test_fit_sees_the_augmented(images: np.ndarray) -> None:
    """fit(augment=True) looks at what the program makes, without erasing, and changes no draw of Keras'."""
    grey = _generator(featurewise_center=True, augmentations=[gpuseq.RandomInvert(1.0), gpuseq.RandomErasing(1.0)])
    grey.fit(images, augment=True, seed=3)
    np.testing.assert_allclose(grey.mean.ravel(), 255 - images.mean(axis=(0, 1, 2)), rtol=1e-5)
    with pytest.raises(TypeError, match="takes uint8 images"):
        grey.fit(images.astype(np.float32), augment=True)


def test_what_cannot_be_is_refused(images: np.ndarray, tmp_path: Path) -> None:
    """By name, at construction where that can be known, else at the first batch."""
    with pytest.raises(TypeError, match=r"RandAugment\(\).*work on uint8 images.*x\s+holds float32"):
        _generator(augmentations=gpuseq.RandAugment()).flow(images.astype(np.float32))
    with pytest.raises(ValueError, match="magnitude must be a number of 0 to 10; got 90"):
        _generator(augmentations="rand-m90")
    with pytest.raises(ValueError, match="augmentations got an empty list"):
        _generator(augmentations=[])
    with pytest.raises(TypeError, match="takes gpuseq's own augmentations"):
        _generator(augmentations=[lambda image: image])
    five = np.zeros((4, 8, 8, 5), np.uint8)
    for channels in (2, 5):
        with (
            pytest.warns(UserWarning, match=f"{channels} channels"),
            pytest.raises(
                ValueError, match=rf"RandomInvert\(p=0.01\) takes images of 1, 3 or 4 channels.*got {channels}"
            ),
        ):
            _generator(augmentations=gpuseq.RandomInvert(0.01)).flow(five[..., :channels])
    with pytest.warns(UserWarning, match="5 channels"):
        moved = _generator(augmentations=[gpuseq.RandomRotation(20), gpuseq.GaussianBlur(3)]).flow(five)
    assert next(moved).shape == five.shape

    class Own(gpuseq.ImageDataGenerator):
        def apply_transform(self, x: Any, transform_parameters: Any) -> Any:
            return x

    with pytest.raises(ValueError, match="Own overrides apply_transform"):
        Own(device="cpu", augmentations="trivial").flow(images)
    (tmp_path / "a").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "a" / "0.png")
    masked = _generator(augmentations="augmix").flow(images, masks=images[..., 0])
    with pytest.raises(ValueError, match="masks cannot be blended"):
        next(masked)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"op": "Erase", "top": 15, "height": 6, "width": 3}, "Erase 15 0 6 3 .*within the 20 x 17 pixels"),
        ({"op": "EraseNoise", "left": -1, "height": 6, "width": 3}, "EraseNoise 0 -1 6 3 0: the rectangle"),
        ({"op": "GaussianBlur", "kernel_width": 35, "kernel_height": 3, "sigma": 1}, "GaussianBlur 35 3 1: a kernel"),
        (
            {"op": "GaussianBlur", "kernel_width": 3, "kernel_height": 3},
            "GaussianBlur 3 3 0: sigma is a number above 0",
        ),
        ({"op": "Hue", "shift": -0.51}, "Hue -0.51: a shift goes from -0.5 to 0.5"),
        ({"op": "EraseNoise", "height": 6, "width": 3, "key": 0.5}, "EraseNoise 0 0 6 3 0.5: a key is a whole number"),
        ({"op": "PermuteChannels", "first": 3}, "channels are 0, 1 and 2"),
        ({"op": "AugMix", "width": 6}, "it mixes 1 to 5 chains"),
        ({"op": "Affine", "scale": 0.0}, "a scale of 0 leaves no image"),
        ({"op": "AffineAbout", "degrees": 3.0, "center_x": 1.0}, "AffineAbout 3 0 0 0 0 0 1 0: a scale of 0 leaves"),
        ({"op": "Posterize", "bits": 9}, "Posterize 9: bits go from 0 to 8"),
        (
            {"op": "ResizedCrop", "top": 1, "height": 20, "width": 5, "target_height": 4, "target_width": 4},
            "ResizedCrop 1 0 20 5 4 4: it has to lie within the 20 x 17 pixels",
        ),
    ],
    ids=str,
)
def test_a_program_that_reaches_beyond_an_image_is_refused(
    images: np.ndarray, step: dict[str, Any], message: str
) -> None:
    """Whoever wrote it: an engine would read, or write, what lies there."""
    augment = gpuseq.Compose("trivial", seed=1)
    plan = replace(augment.plan(2, (20, 17)), program=dicts_to_program([[step], [step]]))
    with pytest.raises(ValueError, match=message):
        augment.apply(plan, images[:2])


def test_repr_and_change(images: np.ndarray) -> None:
    """A generator prints them, and what is set or changed in place counts from the next batch."""
    generator = _generator(augmentations=[gpuseq.RandomInvert(1.0)])
    assert "augmentations=[RandomInvert(p=1.0)]" in repr(generator)
    iterator = generator.flow(images, batch_size=2, seed=1)
    assert iterator.plan_batch().describe(0) == [("Invert",)]
    generator.augmentations[0] = gpuseq.RandomEqualize(1.0)
    assert iterator.plan_batch().describe(0) == [("Equalize",)]
    generator.augmentations = None
    assert iterator.plan_batch().program is None

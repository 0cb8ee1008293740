"""`Compose` and single augmentations as callables: per sample, keyed, for arrays of four libraries."""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest

import gpuseq
from gpuseq.base.types import DataFormat, literals
from gpuseq.ops.numpy.program import run_steps
from gpuseq.plan.plan import BatchPlan
from gpuseq.plan.program import only_geometry
from tests.compare import assert_same, read_only

MODERN = [gpuseq.RandAugment(), gpuseq.ColorJitter(0.4, 0.4, 0.4), gpuseq.RandomHorizontalFlip()]


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return read_only(np.random.default_rng(3).integers(0, 256, (12, 20, 17, 3), np.uint8))


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float16"])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_each_sample_has_its_own(images: np.ndarray, data_format: str, dtype: str) -> None:
    augment = gpuseq.Compose(MODERN, seed=1, dtype=dtype, data_format=data_format)
    x = images if data_format == "channels_last" else np.moveaxis(images, 3, 1)
    batch = augment(x, epoch=2, sample_ids=range(5, 17))
    plan = augment.plan(12, (20, 17), epoch=2, sample_ids=range(5, 17))
    assert batch.dtype == dtype
    assert len({str(plan.describe(sample)) for sample in range(12)}) == 12
    for sample, steps in enumerate(plan.program):
        done = run_steps(images[sample], steps).astype(dtype)
        wanted = done if data_format == "channels_last" else np.moveaxis(done, 2, 0)
        assert_same(np.ascontiguousarray(batch[sample]), np.ascontiguousarray(wanted))
    assert_same(augment.apply(plan, x), batch)


def test_keyed_calls_depend_on_nothing_else(images: np.ndarray) -> None:
    """The same (seed, epoch, sample id) gives the same picture in any batch; without them each call draws anew."""
    augment = gpuseq.Compose(MODERN, seed=4)
    whole = augment(images, epoch=1, sample_ids=np.arange(12))
    for part in (slice(0, 5), slice(5, 12), slice(None, None, -1)):
        assert_same(augment(images[part], epoch=1, sample_ids=np.arange(12)[part]), np.ascontiguousarray(whole[part]))
    assert (augment(images, epoch=2, sample_ids=np.arange(12)) != whole).any()
    assert (gpuseq.Compose(MODERN, seed=5)(images, epoch=1, sample_ids=np.arange(12)) != whole).any()
    first, second = augment(images), augment(images)
    assert (first != second).any()
    again = gpuseq.Compose(MODERN, seed=4)
    assert_same(again(images), first)
    assert_same(again(images), second)


def test_a_generator_and_a_callable_agree(images: np.ndarray) -> None:
    """Keyed: what flow() makes of a sample is what the callable makes of it with the same seed, epoch and id."""
    iterator = gpuseq.ImageDataGenerator(augmentations=MODERN, rng="keyed", dtype="uint8", device="cpu").flow(
        images, seed=9
    )
    plan = iterator.plan_batch()
    wanted = gpuseq.Compose(MODERN, seed=9)(images[plan.indices], epoch=0, sample_ids=plan.indices)
    assert_same(iterator.replay(plan), wanted)


def test_masks(images: np.ndarray) -> None:
    masks = np.random.default_rng(0).integers(0, 9, (12, 20, 17, 1)).astype(np.int64)
    augment = gpuseq.Compose([gpuseq.RandomAffine(30, (0.1, 0.1), interpolation="bilinear"), *MODERN], seed=1)
    plan = augment.plan(12, (20, 17), epoch=0)
    done = augment.apply(plan, read_only(masks), interpolation="nearest", fill=255)
    geometry = only_geometry(plan.program, 255)
    for sample in range(12):
        assert_same(done[sample], np.ascontiguousarray(run_steps(masks[sample], geometry[sample])))
    assert (done == 255).any()


def test_video_shares_a_samples_steps(images: np.ndarray) -> None:
    """Frames of a clip go through one program: (N, T, H, W, C)."""
    clips = np.ascontiguousarray(images.reshape(4, 3, 20, 17, 3))
    augment = gpuseq.Compose(MODERN, seed=1)
    done = augment(clips, epoch=0)
    assert done.shape == clips.shape
    plan = augment.plan(4, (20, 17), epoch=0)
    for sample, steps in enumerate(plan.program):
        for frame in range(3):
            assert_same(done[sample, frame], np.ascontiguousarray(run_steps(clips[sample, frame], steps)))
    masks = augment.apply(plan, clips[..., :1], interpolation="nearest")
    assert masks.shape == (4, 3, 20, 17, 1)


def test_crops(images: np.ndarray) -> None:
    augment = gpuseq.Compose([gpuseq.RandomResizedCrop((8, 9)), *MODERN], seed=1)
    assert augment.output_size == (8, 9)
    assert augment(images).shape == (12, 8, 9, 3)
    assert gpuseq.Compose(MODERN).output_size is None


@pytest.mark.parametrize("dtype", [None, "float32"])
def test_torch(images: np.ndarray, dtype: str | None) -> None:
    torch = pytest.importorskip("torch")
    augment = gpuseq.Compose(MODERN, seed=1, dtype=dtype)
    wanted = augment(images, epoch=0)
    done = augment(torch.from_numpy(images.copy()), epoch=0)
    assert isinstance(done, torch.Tensor)
    assert_same(done.numpy(), wanted)
    views = torch.from_numpy(images.copy()).permute(0, 3, 1, 2)
    first = gpuseq.Compose(MODERN, seed=1, dtype=dtype, data_format="channels_first")
    assert_same(first(views, epoch=0).permute(0, 2, 3, 1).contiguous().numpy(), wanted)


def test_jax(images: np.ndarray) -> None:
    jax = pytest.importorskip("jax")
    augment = gpuseq.Compose(MODERN, seed=1)
    done = augment(jax.numpy.asarray(images), epoch=0)
    assert isinstance(done, jax.Array)
    assert_same(np.asarray(done), augment(images, epoch=0))


class Collate:
    """As it is usually written: a step after stacking."""

    def __init__(self) -> None:
        self.augment = gpuseq.Compose(MODERN, seed=1)

    def __call__(self, samples: list[Any]) -> Any:
        import torch

        return self.augment(torch.stack(samples))


def test_workers_of_a_dataloader_draw_apart(images: np.ndarray) -> None:
    """In a collate function without keys each worker process and each epoch has its own numbers."""
    torch = pytest.importorskip("torch")
    same = torch.from_numpy(np.repeat(images[:1], 8, axis=0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loader = torch.utils.data.DataLoader(list(same), batch_size=2, num_workers=2, collate_fn=Collate())
        pictures = {batch.numpy().tobytes() for _ in range(2) for batch in loader}
    assert len(pictures) == 8


def test_single_augmentations_are_callable(images: np.ndarray) -> None:
    assert_same(gpuseq.RandomInvert(1.0)(images), 255 - images)
    flipped = gpuseq.RandomHorizontalFlip(1.0)(images, epoch=0, sample_ids=range(12), seed=3)
    assert_same(flipped, np.ascontiguousarray(images[:, :, ::-1]))


@pytest.mark.parametrize(
    "first",
    [
        "import gpuseq; augment = gpuseq.RandomInvert(1.0)",
        f"import pickle; augment = pickle.loads({pickle.dumps(gpuseq.RandomInvert(1.0))!r})",
    ],
    ids=["attribute", "pickle"],
)
def test_a_single_augmentation_is_callable_first_thing(first: str) -> None:
    """In a process where nothing has loaded `Compose` yet."""
    code = f"import numpy; {first}; print(augment(numpy.zeros((1, 2, 2, 3), 'uint8')).min())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout == "255\n"


def test_what_numpy_has_no_dtype_for_is_named() -> None:
    torch = pytest.importorskip("torch")
    augment = gpuseq.Compose(MODERN)
    batch = torch.zeros((2, 8, 9, 1), dtype=torch.bfloat16)
    with pytest.raises(TypeError, match="torch.bfloat16 is no dtype that NumPy has: images are uint8"):
        augment.apply(augment.plan(2, (8, 9)), batch, interpolation="nearest")


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_a_batch_of_none_has_the_shape_of_others(images: np.ndarray, data_format: Any) -> None:
    """Crops give it their size, of images, clips and masks."""
    batch = images if data_format == "channels_last" else images.transpose(0, 3, 1, 2)
    for augmentations in ([gpuseq.RandomResizedCrop((7, 9)), gpuseq.RandAugment()], gpuseq.RandAugment()):
        augment = gpuseq.Compose(augmentations, seed=1, data_format=data_format)
        assert augment(batch[:0]).shape == (0, *augment(batch).shape[1:])
        assert augment(batch[:0, None]).shape == (0, 1, *augment(batch).shape[1:])
        plan = augment.plan(0, (20, 17))
        assert augment.apply(plan, batch[:0], interpolation="nearest").shape == (0, *augment(batch).shape[1:])


def test_numbers_of_any_kind_are_the_same_key(images: np.ndarray) -> None:
    """NumPy's integers and Python's, up to the largest; a plan of them is text, too."""
    largest = 2**63 - 1
    augment = gpuseq.Compose(MODERN, seed=2**64 - 1)
    plan = augment.plan(3, (20, 17), epoch=largest, sample_ids=[largest, 0, largest])
    for ids in (np.array([largest, 0, largest], np.uint64), [np.int64(largest), np.uint8(0), largest]):
        again = gpuseq.Compose(MODERN, seed=np.uint64(2**64 - 1)).plan(
            np.int32(3), np.array([20, 17]), epoch=np.uint64(largest), sample_ids=ids
        )
        assert again == plan
        assert BatchPlan.from_json(again.to_json()) == plan


def test_repr_is_the_call() -> None:
    augment = gpuseq.Compose(["rand-m9-mstd0.5-inc1", gpuseq.RandomErasing()], seed=7, dtype="float32")
    again = eval(repr(augment), {name: getattr(gpuseq, name) for name in gpuseq.__all__})
    assert repr(again) == repr(augment)
    assert again.recipe == augment.recipe


@pytest.mark.parametrize("right", literals(DataFormat))
def test_images_in_the_other_order_are_named_where_steps_would_take_them(right: DataFormat) -> None:
    """A flip of rows in the place of columns is no error of shape."""
    x = np.zeros((2, 16, 17, 3), np.uint8)
    x = x if right == "channels_last" else x.transpose(0, 3, 1, 2)
    wrong: DataFormat = "channels_first" if right == "channels_last" else "channels_last"
    flip = [gpuseq.RandomHorizontalFlip()]
    with pytest.warns(UserWarning, match=rf"images of shape .*Compose\(..., data_format='{right}'\) takes 3"):
        gpuseq.Compose(flip, seed=1, data_format=wrong)(x)
    gpuseq.Compose(flip, seed=1, data_format=right)(x)
    gpuseq.Compose(flip, seed=1)(np.zeros((2, 3, 16, 15), np.uint8))  # hyperspectral, of few rows


def _masks(x: np.ndarray, **further: Any) -> np.ndarray:
    augment = gpuseq.Compose(MODERN)
    return augment.apply(augment.plan(12, (20, 17)), x, interpolation="nearest", **further)


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda x: gpuseq.Compose([])(x), ValueError, "Compose got an empty list"),
        (lambda x: gpuseq.Compose(None)(x), ValueError, "Compose got no augmentations"),
        (lambda x: gpuseq.Compose(MODERN, sed=1), TypeError, "did you mean 'seed'"),
        (lambda x: gpuseq.Compose(MODERN, seed=-1), ValueError, "seed must be"),
        (lambda x: gpuseq.Compose(MODERN, dtype="bfloat16"), ValueError, "on 'cpu'; got 'bfloat16'"),
        (lambda x: gpuseq.Compose(MODERN)(x.astype(np.float32)), TypeError, "work on uint8 images.*got float32"),
        (lambda x: gpuseq.Compose(MODERN)(x.astype(np.int64)), TypeError, "got int64. Hand in images of dtype uint8"),
        (lambda x: gpuseq.Compose(MODERN)(x[0]), ValueError, r"one image is a batch of one, images\[None\]"),
        (lambda x: gpuseq.Compose(MODERN)(list(x)), TypeError, r"np.stack\(images\)"),
        (lambda x: gpuseq.Compose(MODERN)("x"), TypeError, "got str"),
        (lambda x: gpuseq.Compose(MODERN)(x, epoch=-1), ValueError, "epoch must be"),
        (lambda x: gpuseq.Compose(MODERN)(x, epoch=2**63), ValueError, "epoch must be below"),
        (lambda x: gpuseq.Compose(MODERN, seed=2**64), ValueError, "seed must be below"),
        (lambda x: gpuseq.Compose(MODERN)(x, sample_ids=[1]), ValueError, "sample_ids must be 12"),
        (lambda x: gpuseq.Compose(MODERN)(x, sample_ids=np.arange(12) + 0.5), ValueError, "sample_ids must be 12"),
        (lambda x: gpuseq.Compose(MODERN)(x, sample_ids=[2**63] * 12), ValueError, "sample_ids must be 12"),
        (lambda x: gpuseq.Compose(MODERN)(x, sample_ids=[2**64] * 12), ValueError, "sample_ids must be 12"),
        (lambda x: gpuseq.Compose(MODERN)(x, sample_ids=["a"] * 12), ValueError, "sample_ids must be 12"),
        (lambda x: gpuseq.Compose(MODERN)(x, sample_ids=[[1, 2], [3]]), ValueError, "sample_ids must be 12"),
        (lambda x: gpuseq.Compose(MODERN)(x[:, :0]), ValueError, r"image_size must be .* got \(0, 17\)"),
        (lambda x: gpuseq.Compose(MODERN).plan(3, 20), ValueError, "image_size must be .* got 20"),
        (lambda x: gpuseq.RandAugment()(x, sample_id=[1]), TypeError, "did you mean 'sample_ids'"),
        (lambda x: gpuseq.Compose(MODERN).apply(gpuseq.Compose(MODERN).plan(3, (20, 17)), x), ValueError, "3 images"),
        (lambda x: gpuseq.Compose(MODERN).apply(gpuseq.Compose(MODERN).plan(12, (9, 9)), x), ValueError, "(9, 9)"),
        (lambda x: gpuseq.Compose(MODERN)(x[..., :2]), ValueError, "1, 3 or 4 channels.*got 2"),
        (lambda x: gpuseq.Compose(MODERN).apply(x, x), TypeError, "apply takes a plan, .* got ndarray"),
        (lambda x: _masks(x, fill=-1), ValueError, "fill must be a non-negative integer; got -1"),
        (lambda x: _masks(x, fill=256), ValueError, "fill must be from 0 to 255; got 256"),
    ],
)
def test_what_cannot_be_is_refused(images: np.ndarray, make: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        make(images)

"""What a type checker must take: every value that the arguments accept. It is never run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from typing_extensions import assert_type

import gpuseq
from gpuseq.base.types import BatchArray

images = np.zeros((8, 16, 16, 3), np.uint8)
frame = pd.DataFrame()
device = "cuda" if frame.empty else "cpu"
generator = gpuseq.ImageDataGenerator(
    rotation_range=20,
    width_shift_range=[-3, 0, 3],
    height_shift_range=0.1,
    brightness_range=[0.5, 1.5],
    zoom_range=np.array([0.8, 1.2]),
    fill_mode="reflect",
    dtype=np.float16,
    preprocessing_function="caffe",
    augmentations=["rand-m9", gpuseq.RandomErasing(0.25)],
    device=device,
)
gpuseq.ImageDataGenerator(zoom_range=0.2, preprocessing_function=np.sqrt, augmentations="trivial", device=f"cuda:{3}")

generator.flow_from_directory("d", [8, 8], class_mode=None, cache="host", on_error=lambda path, error: None)
generator.flow_from_directory(Path("d"), shard=(0, 2), remainder="drop", rng="keyed", classes=["cats", "dogs"])
generator.flow_from_dataframe(frame, y_col=["a", "b"], class_mode="multi_output", sort=False)
generator.fit_directory("d", color_mode="grayscale")
gpuseq.load_img(Path("a.png"), color_mode="grayscale", target_size=(8, 8), interpolation="lanczos")
gpuseq.apply_affine_transform(images[0], theta=3, fill_mode="wrap")
gpuseq.random_brightness(images[0], (0.5, 1.5))
gpuseq.DirectoryIterator(Path("d"), generator, target_size=[8, 8], class_mode=None, subset="training")
gpuseq.DataFrameIterator(frame, "d", generator, class_mode="raw", rng="keyed", data_format="channels_first")
gpuseq.NumpyArrayIterator(images, None, generator, dtype=np.float32, shard="auto", remainder="exact")
gpuseq.NumpyArrayIterator(images, None, generator, dtype=np.dtype("float16"), shard=(0, 2))
gpuseq.to_device([images], device="cuda:1")

iterator: gpuseq.NumpyArrayIterator = generator.flow(images, np.arange(8), seed=1)
plan: gpuseq.BatchPlan = iterator.plan_batch()
x, y = iterator.replay(plan)
for x, y in iterator:
    print(x.shape, y.dtype)
    break

alone: np.ndarray = next(generator.flow(images))
print(alone.shape, next(generator.flow_from_directory("d", class_mode=None)).shape, generator.flow(images)[0].dtype)
on_host: np.ndarray = next(generator.flow(images)).get()

# Images alone
assert_type(next(generator.flow(images)), BatchArray)
assert_type(generator.flow(images, remainder="drop").next(), BatchArray)
assert_type(generator.flow(images, None, sample_weight=np.ones(8))[0], BatchArray)
assert_type(generator.flow_from_directory("d", class_mode=None, shard=(0, 2), remainder="pad")[0], BatchArray)
assert_type(generator.flow_from_dataframe(frame, class_mode=None).replay(plan), BatchArray)

# With labels, or with masks
assert_type(next(generator.flow(images, np.arange(8))), tuple[BatchArray, Any])
assert_type(generator.flow(images, [0, 1] * 4).replay(plan), tuple[BatchArray, Any])
assert_type(generator.flow_from_directory("d")[0], tuple[BatchArray, Any])
assert_type(generator.flow_from_directory("d", class_mode="binary").replay(plan), tuple[BatchArray, Any])
assert_type(next(generator.flow_from_directory("d", class_mode=None, mask_directory=Path("m"))), tuple[BatchArray, Any])
assert_type(next(generator.flow_from_dataframe(frame, class_mode=None, mask_col="m")), tuple[BatchArray, Any])
images_of, masks_of = next(generator.flow(images, masks=images[..., :1]))
for images_of, labels_of in generator.flow_from_directory("d"):
    print(images_of.mean(), labels_of)

# With weights
weighted = generator.flow(images, np.arange(8), sample_weight=np.ones(8))
assert_type(next(weighted), tuple[BatchArray, Any, BatchArray])
assert_type(next(generator.flow(images, shard=(0, 2), remainder="exact")), tuple[BatchArray, Any, BatchArray])
assert_type(generator.flow_from_directory("d", remainder="exact")[0], tuple[BatchArray, Any, BatchArray])
x, targets, weights = next(generator.flow_from_dataframe(frame, class_mode="raw", weight_col="w"))

# What is not typed says nothing of the batch
untyped: Any = np.arange(8)
assert_type(next(generator.flow(images, untyped)), Any)
assert_type(next(generator.flow(images, np.arange(8), sample_weight=untyped)), Any)
any_flow: gpuseq.DirectoryIterator = generator.flow_from_directory("d")
assert_type(any_flow[0], Any)
unknown: np.ndarray = next(gpuseq.DirectoryIterator("d", generator, class_mode=None))

compose = gpuseq.Compose([gpuseq.RandAugment(), gpuseq.RandomErasing(0.25)], device="cpu", dtype="float32")
moved: np.ndarray = compose(images, epoch=1)
masks: np.ndarray = compose.apply(compose.plan(8, (16, 16)), images[..., :1], interpolation="nearest")
gpuseq.Compose("rand-m9-mstd0.5-inc1")(images).astype(np.float32)

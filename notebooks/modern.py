# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Modern augmentation
#
# RandAugment, jitter and erasing: drawn for each sample, done as Pillow does them, kept in the plan. Then a small
# network is trained with them and without.

# %%
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import gpuseq
from gpuseq import ImageDataGenerator

photos = Path(gpuseq.__file__).with_name("photos")


def on_host(array):
    """Return a batch as a NumPy array, wherever it was made."""
    return array.get() if hasattr(array, "get") else np.asarray(array)


# %% [markdown]
# ## A list of values
#
# Keras' own arguments come first, then `augmentations`, on uint8; then rescaling. A string spells the same values.

# %%
generator = ImageDataGenerator(
    horizontal_flip=True,
    augmentations=[gpuseq.RandAugment(num_ops=2, magnitude=12), gpuseq.RandomErasing(p=0.5, value=0.5)],
    rescale=1 / 255,
    rng="keyed",
)
generator

# %%
print(ImageDataGenerator(augmentations="rand-m9-mstd0.5-inc1"))

# %% [markdown]
# ## What was drawn can be read, kept and replayed

# %%
batches = generator.flow_from_directory(photos, target_size=(96, 96), batch_size=9, class_mode=None, seed=1)
print(batches.explain())

# %%
plan = batches.plan_batch()
images = on_host(batches.replay(plan))
again = on_host(batches.replay(gpuseq.BatchPlan.from_json(plan.to_json())))
assert (images == again).all()
print(plan.describe(0))
Image.fromarray((np.hstack(images[:5]) * 255).clip(0, 255).astype(np.uint8))

# %% [markdown]
# ## As a callable
#
# On any batch, and on its masks: one plan for both. Arrays of NumPy, CuPy, PyTorch and JAX go in and come out.

# %%
augment = gpuseq.Compose([gpuseq.RandomAffine(20, translate=(0.1, 0.1)), gpuseq.ColorJitter(0.3, 0.3, 0.3)], seed=1)
squares = np.zeros((4, 64, 64, 3), np.uint8)
squares[:, 16:48, 16:48] = (200, 120, 40)
plan = augment.plan(4, (64, 64), epoch=0)
coloured = augment.apply(plan, squares)
masks = augment.apply(plan, squares[..., :1] > 0, interpolation="nearest")
assert masks.dtype == bool
Image.fromarray(np.hstack([*coloured, *(np.repeat(masks, 3, axis=3) * np.uint8(255))]))

# %% [markdown]
# ## A small network, with and without
#
# Which way does a bright bar lie? The pictures to learn from are few and clean; those to be tested on are turned a
# little, moved and of other colours. What the training has never shown, the network cannot know.

# %%
rng = np.random.default_rng(0)


def bars(count):
    """Return grey pictures with a bright bar that lies (0) or stands (1)."""
    labels = rng.integers(0, 2, count)
    pictures = rng.integers(90, 110, (count, 32, 32, 3)).astype(np.uint8)
    for picture, label in zip(pictures, labels, strict=True):
        picture[14:18, 6:26] = 220
        if label:
            picture[:] = picture.transpose(1, 0, 2)
    return pictures, labels


train_x, train_y = bars(48)
test_x, test_y = bars(256)
harder = gpuseq.Compose([gpuseq.RandomAffine(25, (0.25, 0.25), fill=100), gpuseq.ColorJitter(0.5, 0.5)], seed=9)
test_x = torch.from_numpy(harder(test_x).transpose(0, 3, 1, 2).astype(np.float32) / 255)


def accuracy(augmentations):
    """Train for a few epochs and return the share of test pictures that are told apart."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 5, stride=2), torch.nn.ReLU(), torch.nn.Conv2d(8, 16, 5, stride=2), torch.nn.ReLU(),
        torch.nn.Flatten(), torch.nn.LazyLinear(2),
    )  # fmt: skip
    generator = ImageDataGenerator(
        augmentations=augmentations, rescale=1 / 255, data_format="channels_first", rng="keyed", device="cpu"
    )
    batches = generator.flow(train_x.transpose(0, 3, 1, 2), train_y, batch_size=16, seed=3)
    optimizer = None
    for _ in range(40 * len(batches)):
        images, labels = next(batches)
        loss = torch.nn.functional.cross_entropy(network(torch.from_numpy(images)), torch.from_numpy(labels))
        if optimizer is None:
            optimizer = torch.optim.Adam(network.parameters(), 3e-3)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return float((network(test_x).argmax(1) == torch.from_numpy(test_y)).float().mean())


without = accuracy(None)
within = accuracy([gpuseq.RandomAffine(25, (0.25, 0.25), fill=100), gpuseq.TrivialAugmentWide(fill=100)])
print(f"without {without:.0%}, with {within:.0%}")
assert within > without

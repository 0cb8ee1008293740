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
# # Training with PyTorch and with Keras
#
# A small network learns to tell three kinds of photographs apart, by crops of the nine that ship with gpuseq. The
# point is how batches reach it, so it is small enough for a CPU.

# %%
import os

os.environ.setdefault("KERAS_BACKEND", "torch")

from pathlib import Path

import keras
import numpy as np
import torch
from torch import nn

import gpuseq
import gpuseq.keras
from gpuseq.torch import loader

device = "cuda" if torch.cuda.is_available() and gpuseq.ImageDataGenerator().device != "cpu" else "cpu"
photos = Path(gpuseq.__file__).with_name("photos")
crops, labels = [], []
for label, folder in enumerate(("everyday", "space", "texture")):
    for path in sorted((photos / folder).glob("*.jpg")):
        photo = np.asarray(gpuseq.load_img(path, target_size=(96, 96)))
        crops += [photo[row : row + 48, col : col + 48] for row in (0, 24, 48) for col in (0, 24, 48)]
        labels += [label] * 9
crops, labels = np.stack(crops), np.array(labels)
print(crops.shape, crops.dtype, np.bincount(labels))

# %% [markdown]
# ## PyTorch
#
# `gpuseq.torch.loader` makes of an iterator what a training loop iterates over: a length, one pass per `for`,
# `sampler.set_epoch`, and a state. Its batches are tensors over the memory in which they were made: images with their
# channels first, labels as the losses want them.

# %%
augmentation = {
    "rotation_range": 15,
    "zoom_range": 0.1,
    "horizontal_flip": True,
    "preprocessing_function": "torch",
    "device": device,
}
flow = gpuseq.ImageDataGenerator(rng="keyed", **augmentation).flow(crops, labels, batch_size=27, seed=1)
batches = loader(flow)


def network():
    """Return a small convolutional network, with the same weights each time."""
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 12, 5, 2),
        nn.ReLU(),
        nn.Conv2d(12, 24, 5, 2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(3),
        nn.Flatten(),
    ]
    return nn.Sequential(*layers, nn.Linear(24 * 9, 3)).to(device)


def train(model, optimizer, batches, num_epochs, losses):
    """Train, and note the mean loss of each epoch."""
    for _ in range(num_epochs):
        total = 0.0
        for images, targets in batches:
            loss = nn.functional.cross_entropy(model(images), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        losses.append(total / len(batches))


model, losses = network(), []
optimizer = torch.optim.Adam(model.parameters(), 3e-3)
train(model, optimizer, batches, 12, losses)
assert losses[-1] < losses[0]
losses

# %% [markdown]
# ### Stop in the middle of an epoch, and go on
#
# The loader's state goes into the same checkpoint as the model's. The resumed run ends with the same weights, bit
# for bit.


# %%
def fresh():
    """Return a model, its optimizer and a loader, as they are at the start of a run."""
    model = network()
    flow = gpuseq.ImageDataGenerator(rng="keyed", **augmentation).flow(crops, labels, batch_size=27, seed=1)
    return model, torch.optim.SGD(model.parameters(), 0.01), loader(flow)


def step(model, optimizer, images, targets):
    """Take one step."""
    loss = nn.functional.cross_entropy(model(images), targets)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


whole, optimizer, batches = fresh()
for _ in range(2):
    for images, targets in batches:
        step(whole, optimizer, images, targets)

part, optimizer, batches = fresh()
walk = iter(batches)
step(part, optimizer, *next(walk))
checkpoint = {"model": part.state_dict(), "data": batches.state_dict()}  # after one batch of the first epoch

resumed, optimizer, batches = fresh()
resumed.load_state_dict(checkpoint["model"])
batches.load_state_dict(checkpoint["data"])
for _ in range(2):
    for images, targets in batches:
        step(resumed, optimizer, images, targets)
if device == "cpu":
    assert all(torch.equal(*pair) for pair in zip(whole.parameters(), resumed.parameters(), strict=True))
checkpoint["data"]

# %% [markdown]
# ## Keras
#
# From `gpuseq.keras` the same classes are Keras' own kind of data set, so `fit` takes them as they are.

# %%
generator = gpuseq.keras.ImageDataGenerator(rng="keyed", **augmentation)
flow = generator.flow(crops, labels, batch_size=27, seed=1)

keras.utils.set_random_seed(0)
model = keras.Sequential(
    [
        keras.Input((48, 48, 3)),
        keras.layers.Conv2D(12, 5, 2, activation="relu"),
        keras.layers.Conv2D(24, 5, 2, activation="relu"),
        keras.layers.GlobalMaxPooling2D(),
        keras.layers.Dense(3),
    ]
)
model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
history = model.fit(flow, epochs=12, verbose=0)
assert history.history["loss"][-1] < history.history["loss"][0]
history.history["loss"]

# %% [markdown]
# Where the generator is imported from `gpuseq` itself, as in a script that was migrated by its import alone, hand
# over `to_keras()`. It also takes class weights, and applies them where the batch is made.

# %%
plain = gpuseq.ImageDataGenerator(**augmentation).flow(crops, labels, batch_size=27, seed=1)
model.fit(plain.to_keras(class_weight={0: 1.0, 1: 2.0, 2: 1.0}), epochs=1, verbose=0)

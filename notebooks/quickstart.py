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
# # Quickstart
#
# From a folder of photographs to augmented batches, and what there is beside Keras' own: plans, explanations,
# resuming. Everything here runs without a GPU; with one, the same lines make the batches there.

# %%
from pathlib import Path

import numpy as np
from PIL import Image

import gpuseq
from gpuseq import ImageDataGenerator

photos = Path(gpuseq.__file__).with_name("photos")  # nine photographs in three folders, which ship with gpuseq
sorted(str(path.relative_to(photos)) for path in photos.rglob("*.jpg"))


# %%
def on_host(array):
    """Return a batch as a NumPy array, wherever it was made."""
    return array.get() if hasattr(array, "get") else np.asarray(array)


def show(images):
    """Set a batch side by side."""
    images = on_host(images)
    scale = 255 if images.max() <= 1 else 1
    return Image.fromarray(np.hstack([np.clip(image * scale, 0, 255).astype(np.uint8) for image in images]))


# %% [markdown]
# ## One line names the augmentation, one line names the folder
#
# A generator as the last line of a cell draws itself: what was asked of it, and what it makes of one photograph.

# %%
generator = ImageDataGenerator(
    rotation_range=25, zoom_range=0.2, horizontal_flip=True, rescale=1 / 255, fill_mode="reflect"
)
generator

# %%
batches = generator.flow_from_directory(
    photos, target_size=(112, 112), interpolation="bilinear", batch_size=5, class_mode="sparse", seed=1
)
images, labels = next(batches)
print(type(images).__name__, images.shape, images.dtype, "labels", labels)
print(batches.class_indices)
show(images)

# %% [markdown]
# `batches[i]` is batch `i` of the epoch, `len(batches)` says how many there are, and `for` goes on without end, as in
# Keras.

# %% [markdown]
# ## What is coming, and by which road
#
# `explain()` draws the plan of the next batch without making it: one line per sample, and the path. The iterator
# stands where it stood.

# %%
batches.explain()

# %% [markdown]
# ## Plans
#
# Everything random about a batch is in its plan, which is a value: it can be printed, kept, and replayed. The same
# plan always gives the same batch.

# %%
plan = batches.plan_batch()
print(plan)
first, _ = batches.replay(plan)
again, _ = batches.replay(plan)
assert np.array_equal(on_host(first), on_host(again))

# %% [markdown]
# ## Arrays in memory
#
# `flow` keeps the array in its own dtype (uint8 stays uint8) and gathers by index while it augments. Nothing is
# copied to floats before.

# %%
crops = np.stack([np.asarray(gpuseq.load_img(path, target_size=(112, 112))) for path in sorted(photos.rglob("*.jpg"))])
flow = ImageDataGenerator(rotation_range=40, fill_mode="wrap").flow(crops, batch_size=5, seed=3)
print(crops.dtype, crops.nbytes, "bytes")
show(next(flow))

# %% [markdown]
# ## Stop, and go on
#
# A state is a small dictionary that JSON can hold. After `load_state_dict` the next batch is the one that would
# have come next, bit for bit; also in the middle of an epoch, and whatever was decoded ahead.

# %%
state = batches.state_dict()
expected, _ = next(batches)

resumed = generator.flow_from_directory(
    photos, target_size=(112, 112), interpolation="bilinear", batch_size=5, class_mode="sparse", seed=1, verbose=False
)
resumed.load_state_dict(state)
found, _ = next(resumed)
assert np.array_equal(on_host(found), on_host(expected))
state

# %% [markdown]
# ## A broken file does not end the night's run
#
# By default it raises an error that names the file. `on_error` says what else to do.

# %%
import shutil
import tempfile

folder = Path(tempfile.mkdtemp())
shutil.copytree(photos / "space", folder / "space")
(folder / "space" / "broken.jpg").write_bytes(b"no photograph at all")

careful = ImageDataGenerator().flow_from_directory(
    folder, target_size=(112, 112), on_error="skip", class_mode=None, seed=0, verbose=False
)
print(next(careful).shape, "of", careful.samples, "files")
print({Path(path).name: reason for path, reason in careful.bad_files.items()})

for iterator in (batches, resumed, careful):
    iterator.close()
shutil.rmtree(folder)

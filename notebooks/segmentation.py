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
# # Images and masks that cannot drift apart
#
# With Keras one makes two generators with the same seed and hopes that both are asked for the same things. Here
# images and masks share one *plan*: the same map, the same flips. Masks are resampled with the nearest neighbour,
# so no label is ever invented, and colours are left alone.

# %%
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import gpuseq
from gpuseq import ImageDataGenerator

photos = Path(gpuseq.__file__).with_name("photos")
names = ["space/astronaut.jpg", "everyday/chelsea.jpg", "everyday/coffee.jpg", "space/rocket.jpg"]
images = np.stack([np.asarray(gpuseq.load_img(photos / name, target_size=(120, 120))) for name in names])

# A stand-in for what somebody would draw: three classes by the colour of the pixels.
red, green, blue = (images[..., channel].astype(int) for channel in range(3))
masks = np.where(red > green + 40, 2, np.where(red + green + blue > 330, 1, 0)).astype(np.uint8)
print(images.shape, masks.shape, np.unique(masks))


# %%
def on_host(array):
    """Return a batch as a NumPy array, wherever it was made."""
    return array.get() if hasattr(array, "get") else np.asarray(array)


def show(images, masks):
    """Set pictures above their masks."""
    images, masks = on_host(images), on_host(masks)
    colours = np.array([(30, 34, 42), (90, 160, 200), (240, 138, 93)], np.uint8)
    rows = [np.clip(images, 0, 255).astype(np.uint8), colours[masks.reshape(len(masks), *images.shape[1:3])]]
    return Image.fromarray(np.vstack([np.hstack(list(row)) for row in rows]))


show(images, masks)

# %% [markdown]
# ## Arrays: `masks=`

# %%
generator = ImageDataGenerator(
    rotation_range=40,
    zoom_range=0.3,
    horizontal_flip=True,
    brightness_range=(0.6, 1.4),
    fill_mode="reflect",
    conventions="corrected",
)
flow = generator.flow(images, masks=masks, batch_size=4, seed=2, shuffle=False)
batch, batch_masks = next(flow)
assert set(np.unique(on_host(batch_masks))) <= {0, 1, 2}  # no label is invented
print(batch.dtype, batch_masks.dtype, batch_masks.shape)
show(batch, batch_masks)

# %% [markdown]
# That they belong together can be measured: recompute the mask from the augmented picture and count where it
# agrees. Brightness changes the rule that we drew the masks by, so leave it out for that.

# %%
check = ImageDataGenerator(rotation_range=40, horizontal_flip=True, fill_mode="reflect", interpolation_order=0)
turned, turned_masks = next(check.flow(images, masks=masks, batch_size=4, seed=2, shuffle=False))
red, green, blue = (on_host(turned)[..., channel].astype(int) for channel in range(3))
recomputed = np.where(red > green + 40, 2, np.where(red + green + blue > 330, 1, 0))
assert np.array_equal(recomputed, on_host(turned_masks).reshape(recomputed.shape))

# %% [markdown]
# ## Folders: `mask_directory=`
#
# A second folder built like the first: the mask of `cats/1.jpg` is `cats/1` with any image extension.

# %%
with tempfile.TemporaryDirectory() as folder:
    for name, image, mask in zip(names, images, masks, strict=True):
        for kind, array in (("images", image), ("masks", mask)):
            path = Path(folder, kind, name).with_suffix(".png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)
    flow = generator.flow_from_directory(
        Path(folder, "images"), mask_directory=Path(folder, "masks"), target_size=(120, 120), batch_size=4, seed=5
    )
    batch, batch_masks = next(flow)
    flow.close()
assert set(np.unique(on_host(batch_masks))) <= {0, 1, 2}
show(batch, batch_masks)

# %% [markdown]
# ## Anything else that must stay aligned: replay the plan
#
# Depth maps, second views, weights per pixel: draw a plan once, and replay it on as many iterators as you like.

# %%
colour = ImageDataGenerator(rotation_range=40, horizontal_flip=True).flow(images, batch_size=4, seed=1)
depth = ImageDataGenerator(rescale=1 / 255).flow(images.mean(axis=3, keepdims=True), batch_size=4)
plan = colour.plan_batch()
pictures, depths = colour.replay(plan), depth.replay(plan)
assert np.allclose(on_host(depths)[..., 0] * 255, on_host(pictures).mean(axis=3), atol=1e-2)

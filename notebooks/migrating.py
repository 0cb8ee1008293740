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
# # Migrating from `tf.keras.preprocessing.image`
#
# A script, line by line, with Keras itself beside it to compare: the same seed gives the same batch. Then Keras'
# quirks as pictures: they are part of the contract, so they are the default here too.

# %%
import os

os.environ.setdefault("KERAS_BACKEND", "torch")  # Keras is here only to compare with

import warnings
from pathlib import Path

import numpy as np
from keras.src.legacy.preprocessing import image as keras_image
from PIL import Image, ImageDraw, ImageFont

import gpuseq

photos = str(Path(gpuseq.__file__).with_name("photos"))


def on_host(array):
    """Return a batch as a NumPy array, wherever it was made."""
    return array.get() if hasattr(array, "get") else np.asarray(array)


def show(images, titles):
    """Set pictures side by side, a title under each."""
    pictures = [Image.fromarray(np.clip(on_host(image), 0, 255).astype(np.uint8)) for image in images]
    sheet = Image.new("RGB", (sum(p.width + 8 for p in pictures), max(p.height for p in pictures) + 22), "white")
    draw, left = ImageDraw.Draw(sheet), 0
    for picture, title in zip(pictures, titles, strict=True):
        sheet.paste(picture, (left, 0))
        draw.text((left, sheet.height - 18), title, "black", ImageFont.load_default(13))
        left += picture.width + 8
    return sheet


# %% [markdown]
# ## The import
#
# ```python
# from tensorflow.keras.preprocessing.image import ImageDataGenerator  # before
# from gpuseq.keras import ImageDataGenerator  # after; from gpuseq where no Keras is
# ```
#
# To compare, we make both.

# %%
arguments = {
    "rotation_range": 20,
    "width_shift_range": 0.1,
    "height_shift_range": 0.1,
    "zoom_range": 0.2,
    "horizontal_flip": True,
}
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # gpuseq says once what the last section shows
    before = keras_image.ImageDataGenerator(rescale=1 / 255, **arguments)
    after = gpuseq.ImageDataGenerator(rescale=1 / 255, **arguments)

# %% [markdown]
# ## The flow

# %%
flow = {"target_size": (120, 120), "batch_size": 3, "class_mode": "categorical", "seed": 7}
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    old = before.flow_from_directory(photos, **flow)
    new = after.flow_from_directory(photos, **flow)
assert new.filenames == old.filenames
assert new.class_indices == old.class_indices

# %% [markdown]
# ## The batches
#
# Order and labels are equal; pixels agree to a thousandth of a level of 255. The bound is the one that the tests
# hold.

# %%
for _step in range(2 * len(old)):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SciPy's, about how Keras 3.15 calls it
        (old_images, old_labels), (new_images, new_labels) = next(old), next(new)
    new_images, new_labels = on_host(new_images), on_host(new_labels)
    assert new_images.shape == old_images.shape
    assert new_images.dtype == old_images.dtype
    assert np.array_equal(new_labels, old_labels)
    assert np.abs(new_images - old_images).max() * 255 < 1e-3
show([*old_images * 255, *new_images * 255], ["Keras"] * len(old_images) + ["gpuseq"] * len(new_images))

# %% [markdown]
# ## `model.fit`
#
# `model.fit(batches)` wants one of Keras' own classes. Either import from `gpuseq.keras`, where they are such, or
# write `model.fit(batches.to_keras())`. The notebook *training* does both.
#
# ## `fit`, `standardize`, `random_transform` and the functions

# %%
stack = np.stack([np.asarray(gpuseq.load_img(path, target_size=(48, 48))) for path in gpuseq.list_pictures(photos)])
old_fit = keras_image.ImageDataGenerator(featurewise_center=True, featurewise_std_normalization=True)
new_fit = gpuseq.ImageDataGenerator(featurewise_center=True, featurewise_std_normalization=True)
old_fit.fit(stack)
new_fit.fit(stack)
assert np.allclose(on_host(new_fit.mean), old_fit.mean, rtol=1e-5)
assert np.allclose(on_host(new_fit.std), old_fit.std, rtol=1e-5)

parameters = after.get_random_transform((120, 120, 3), seed=5)
expected = before.get_random_transform((120, 120, 3), seed=5)
assert all(np.isclose(parameters[name], expected[name]) for name in expected if expected[name] is not None)
parameters

# %% [markdown]
# ## Quirk 1: the height shift moves columns
#
# In Keras 3, `tx` comes from `height_shift_range` and moves columns, and an image that is not square turns about a
# point off its centre (keras#17398). `conventions="corrected"` does what the names say.

# %%
wide = np.asarray(gpuseq.load_img(Path(photos) / "everyday" / "chelsea.jpg", target_size=(120, 180))).astype(np.float32)


def transformed(module, parameters, **options):
    """Apply parameters to the picture."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return on_host(module.ImageDataGenerator(fill_mode="constant", **options).apply_transform(wide, parameters))


pictures = [
    transformed(module, parameters, **options)
    for parameters in ({"tx": 30}, {"theta": 40})
    for module, options in ((keras_image, {}), (gpuseq, {}), (gpuseq, {"conventions": "corrected"}))
]
assert np.abs(pictures[0] - pictures[1]).max() < 1e-3
assert np.abs(pictures[3] - pictures[4]).max() < 1e-3
show(pictures, ["tx=30, Keras", "tx=30, gpuseq", "tx=30, corrected", "turn, Keras", "turn, gpuseq", "turn, corrected"])

# %% [markdown]
# ## Quirk 2: channel shift is one number for all channels
#
# It adds the same value to red, green and blue, and clips to the image's own range. The name promises a shift of
# colours.

# %%
values = (-80, -40, 0, 40, 80)
pictures = [on_host(gpuseq.apply_channel_shift(wide, value, channel_axis=2)) for value in values]
for value, picture in zip(values, pictures, strict=True):
    assert np.array_equal(picture, keras_image.apply_channel_shift(wide, value, channel_axis=2))
show(pictures, [f"{value:+d}" for value in values])

# %% [markdown]
# ## Quirk 3: brightness goes through eight bits
#
# Values are cut to whole levels on the way, and an image that leaves 0..255 is stretched to that range first. So
# brightness on an image that was already divided by 255 makes it black: everything is below one level. (In a
# generator `rescale` comes after brightness, and all is well.)

# %%
factors = (0.5, 1.0, 1.5)
pictures = [on_host(gpuseq.apply_brightness_shift(wide, factor, scale=False)) for factor in factors]
for factor, picture in zip(factors, pictures, strict=True):
    assert np.array_equal(picture, keras_image.apply_brightness_shift(wide, factor, scale=False))
dark = on_host(gpuseq.apply_brightness_shift(wide / 256, 1.5, scale=False))
assert not dark.any()
show([*pictures, dark * 255], [*(f"x {factor}" for factor in factors), "after / 256"])

# %% [markdown]
# ## Quirk 4: batches by index are numbered in the order of asking
#
# In Keras batch number *b*, counted since the iterator was made, is drawn from `seed + b`, whatever its index. Ask
# twice for batch 0 and you get two different ones. That is kept too, until you call `set_epoch`, or choose
# `rng="keyed"`.

# %%
flow = gpuseq.ImageDataGenerator(rotation_range=30).flow(stack, batch_size=3, seed=1)
assert not np.array_equal(on_host(flow[0]), on_host(flow[0]))
flow.set_epoch(0)
assert np.array_equal(on_host(flow[0]), on_host(flow[0]))

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
# # What a GPU does to a batch, and how to read benchmarks
#
# No figure in this notebook is typed: all are measured on your machine, or read from files that a benchmark wrote.

# %%
import json
import time
from pathlib import Path

import numpy as np

import gpuseq
from gpuseq import ImageDataGenerator

generator = ImageDataGenerator(
    rotation_range=20,
    width_shift_range=0.1,
    height_shift_range=0.1,
    shear_range=10,
    zoom_range=0.2,
    horizontal_flip=True,
    rescale=1 / 255,
    conventions="corrected",
)
print("batches are made on", generator.device)

# %% [markdown]
# ## The work, in bytes
#
# A batch of photographs is read as uint8 and written as float32. Nothing else needs to move: the random numbers of
# a sample are a few doubles. So the least that a machine can do is to move those bytes once, and that is the
# measure to compare with.

# %%
side, batch_size = 96, 32  # make them larger where you have time
photo = np.asarray(gpuseq.load_img(Path(gpuseq.__file__).with_name("photos") / "space" / "astronaut.jpg"))
photo = photo[:side, :side]
images = np.repeat(photo[None], 4 * batch_size, axis=0)
batches = generator.flow(images, batch_size=batch_size, seed=0)
batches.explain()

# %% [markdown]
# On the host a chain of NumPy operations would read and write the floats once per operation. On a GPU one *fused*
# kernel gathers the pixel, follows the affine map, flips, recolours, rescales, lays out and casts, in registers,
# and writes the result. Then three things can be the limit:
#
# - **memory**: bytes in and out, divided by what the memory can move per second. The output's dtype matters most:
#   float16 halves it.
# - **instructions**: an affine map needs some tens of them per pixel, in double precision where the result must
#   be SciPy's.
# - **the host**: each batch costs a plan and a launch. It is a fixed price, so small batches are slow for a
#   reason that no kernel can mend.
#
# ## The host's share, measured
#
# A plan is drawn by a few vector operations, without a look at single samples. So its price hardly grows with the
# batch.


# %%
def median_seconds(action, repeats=15, warm_up=3):
    """Time an action: warm up first, then the median, which one slow run cannot spoil."""
    taken = []
    for number in range(warm_up + repeats):
        started = time.perf_counter()
        action()
        synchronise()
        if number >= warm_up:
            taken.append(time.perf_counter() - started)
    return float(np.median(taken))


def synchronise():
    """Wait for the device: without this a GPU is timed at handing out work, not at doing it."""
    if generator.device != "cpu":
        import cupy

        cupy.cuda.get_current_stream().synchronize()


plan_seconds = {
    size: median_seconds(generator.flow(images, batch_size=size, seed=0).plan_batch) for size in (8, 32, 128)
}
for size, seconds in plan_seconds.items():
    print(f"plan of {size:4d} samples: {seconds * 1e6:8.1f} us, {seconds * 1e6 / size:6.2f} us per sample")

# %% [markdown]
# ## The batch, against the least it could cost

# %%
batch_seconds = median_seconds(lambda: next(batches), repeats=7, warm_up=2)
bytes_moved = batch_size * side * side * 3 * (1 + 4)

source, target = np.zeros(bytes_moved // 2, np.uint8), np.empty(bytes_moved // 2, np.uint8)
copy_seconds = median_seconds(lambda: np.copyto(target, source))
print(f"one batch:            {batch_seconds * 1e3:8.2f} ms, {batch_size / batch_seconds:10.0f} images per second")
print(f"copying its bytes:    {copy_seconds * 1e3:8.2f} ms (host memory)")
print(f"so a batch costs as much as moving its bytes {batch_seconds / copy_seconds:.0f} times")

# %% [markdown]
# ## What would change it
#
# The same batch with parts left out shows where the time goes. Take the differences, not the rows.

# %%
variants = {
    "nothing but the layout": {},
    "rescale": {"rescale": 1 / 255},
    "rescale, flip": {"rescale": 1 / 255, "horizontal_flip": True},
    "rescale, flip, rotation": {"rescale": 1 / 255, "horizontal_flip": True, "rotation_range": 20},
    "rotation, nearest neighbour": {"rotation_range": 20, "interpolation_order": 0},
    "rotation, float16 out": {"rotation_range": 20, "dtype": "float16"},
}
for name, arguments in variants.items():
    flow = ImageDataGenerator(**arguments, conventions="corrected").flow(images, batch_size=batch_size, seed=0)
    print(f"{name:30s} {median_seconds(lambda flow=flow: next(flow), repeats=5, warm_up=1) * 1e3:8.2f} ms")

# %% [markdown]
# ## Reading a benchmark
#
# `python -m benchmarks run` writes JSON files: what was measured, on what, when. Before you believe a row, ask:
#
# 1. **Which regime?** *kernel* is device time alone, *host* the host's part alone, *arrays* a whole iterator
#    over an array in memory, *folder* one over files, *feed* a training loop. A kernel's figure says nothing about
#    a folder of JPEGs, where decoding is what you wait for.
# 2. **Was the device waited for?** Launches return at once. A loop that does not synchronise measures the queue.
# 3. **Median or best?** And how wide are the quartiles: two rows whose quartiles overlap are equal.
# 4. **The same work?** Bilinear or nearest, one resampling or five, float32 or uint8 out.
# 5. **Does training wait for it?** If the step takes longer than the batch, a faster batch changes nothing.
#    `feed` answers that.
#
# The files that came with this checkout, if there are any:

# %%
results = sorted(Path(gpuseq.__file__).parents[1].glob("benchmarks/results/*.json"))
for path in results:
    result = json.loads(path.read_text())
    print(path.name, "device:", result.get("device"), "suites:", ", ".join(result.get("suites", {})))
if not results:
    print("none here: run `python -m benchmarks run --json benchmarks/results/mine.json` in a checkout")

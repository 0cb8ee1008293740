"""What a type checker must find: each line with a mark holds one mistake, and no other line any. It is never run."""

from __future__ import annotations

import numpy as np
import pandas as pd

import gpuseq
import gpuseq.keras

images = np.zeros((8, 16, 16, 3), np.uint8)
generator = gpuseq.ImageDataGenerator()

# Values that there are not
gpuseq.ImageDataGenerator(fill_mode="mirror")  # mistake: arg-type
gpuseq.ImageDataGenerator(data_format="channel_last")  # mistake: arg-type
gpuseq.ImageDataGenerator(dtype="float31")  # mistake: arg-type
gpuseq.ImageDataGenerator(rng="philox")  # mistake: arg-type
gpuseq.ImageDataGenerator(conventions="fixed")  # mistake: arg-type
gpuseq.ImageDataGenerator(preprocessing_function="keras")  # mistake: arg-type
gpuseq.keras.ImageDataGenerator(fill_mode="mirror")  # mistake: arg-type
generator.flow(images, subset="test")  # mistake: arg-type
generator.flow(images, remainder="keep")  # mistake: type-var
generator.flow_from_directory("d", class_mode="raw")  # mistake: type-var
generator.flow_from_directory("d", color_mode="grey")  # mistake: arg-type
generator.flow_from_directory("d", interpolation="cubic")  # mistake: arg-type
generator.flow_from_directory("d", cache="disk")  # mistake: arg-type
generator.flow_from_directory("d", decoder="opencv")  # mistake: arg-type
generator.flow_from_directory("d", on_error="ignore")  # mistake: arg-type
generator.flow_from_directory("d", shard="all")  # mistake: arg-type
generator.flow_from_dataframe(pd.DataFrame(), class_mode="other")  # mistake: type-var
generator.fit_directory("d", color_mode="grey")  # mistake: arg-type
gpuseq.load_img("a.png", color_mode="RGB")  # mistake: arg-type
gpuseq.load_img("a.png", interpolation="cubic")  # mistake: arg-type
gpuseq.apply_affine_transform(images[0], fill_mode="mirror")  # mistake: arg-type
gpuseq.random_rotation(images[0], 10, fill_mode="edge")  # mistake: arg-type
gpuseq.DirectoryIterator("d", generator, class_mode="raw")  # mistake: arg-type
gpuseq.DirectoryIterator("d", generator, color_mode="grey")  # mistake: arg-type
gpuseq.DirectoryIterator("d", generator, subset="test")  # mistake: arg-type
gpuseq.DataFrameIterator(pd.DataFrame(), class_mode="other")  # mistake: arg-type
gpuseq.DataFrameIterator(pd.DataFrame(), data_format="NHWC")  # mistake: arg-type
gpuseq.NumpyArrayIterator(images, None, generator, dtype="float31")  # mistake: arg-type
gpuseq.NumpyArrayIterator(images, None, generator, rng="philox")  # mistake: arg-type
gpuseq.NumpyArrayIterator(images, None, generator, shard="all")  # mistake: arg-type
gpuseq.NumpyArrayIterator(images, None, generator, shard=(0, 1, 2))  # mistake: arg-type
gpuseq.NumpyArrayIterator(images, None, generator, remainder="keep")  # mistake: arg-type
gpuseq.to_device([images], device=0)  # mistake: arg-type
gpuseq.Compose(["rand-m9"], data_format="last")  # mistake: arg-type
gpuseq.Compose(3)  # mistake: arg-type

# Values of another shape
gpuseq.ImageDataGenerator(brightness_range=0.2)  # mistake: arg-type
gpuseq.ImageDataGenerator(brightness_range=(0.5, 1.0, 1.5))  # mistake: arg-type
gpuseq.ImageDataGenerator(zoom_range=(0.5, 1.0, 1.5))  # mistake: arg-type
gpuseq.ImageDataGenerator(rotation_range=(-20, 20))  # mistake: arg-type
gpuseq.ImageDataGenerator(width_shift_range="0.1")  # mistake: arg-type
gpuseq.ImageDataGenerator(augmentations=gpuseq.RandAugment)  # mistake: arg-type
gpuseq.ImageDataGenerator(device=0)  # mistake: arg-type
generator.flow(images, seed=1.5)  # mistake: arg-type
generator.flow_from_directory("d", target_size=224)  # mistake: arg-type
generator.flow_from_directory("d", target_size=(224, 224, 3))  # mistake: arg-type
gpuseq.DirectoryIterator("d", generator, target_size=224)  # mistake: arg-type
gpuseq.DirectoryIterator("d", generator, target_size=(224, 224, 3))  # mistake: arg-type
gpuseq.random_brightness(images[0], 0.2)  # mistake: arg-type

# Arguments and attributes that there are not
gpuseq.ImageDataGenerator(rotation=20)  # mistake: call-arg
generator.flow(images, target_size=(8, 8))  # mistake: call-arg
generator.flow_from_directory("d", x_col="file")  # mistake: call-arg
generator.flow(images).next_batch()  # mistake: attr-defined
gpuseq.load_img("a.png", size=(8, 8))  # mistake: call-arg
gpuseq.NumpyArrayIterator(images)  # mistake: call-arg
gpuseq.BatchPlan(np.arange(4))  # mistake: call-arg
len(gpuseq.NumpyArrayIterator(images, None, generator).plan_batch().parameters)  # mistake: attr-defined

# What comes back
text: str = gpuseq.img_to_array(images[0])  # mistake: assignment
gpuseq.Compose("trivial")(images).numpy()  # mistake: attr-defined
gpuseq.Compose("trivial").plan(8, (16, 16)).describe("first")  # mistake: arg-type

# A batch with labels is a tuple
print(next(generator.flow(images, np.arange(8))).shape)  # mistake: attr-defined
print(generator.flow_from_directory("d")[0].shape)  # mistake: attr-defined
generator.flow_from_dataframe(pd.DataFrame(), class_mode="raw").next().astype("float32")  # mistake: attr-defined
number: int = next(generator.flow_from_directory("d", class_mode="binary"))  # mistake: assignment

# Images alone are one array
next(generator.flow(images)).numpy()  # mistake: attr-defined
text = next(generator.flow_from_directory("d", class_mode=None)).filenames  # mistake: attr-defined
loss: float = generator.flow(images)[0]  # mistake: assignment

# A batch has as many parts as were asked for
x, y, weights = next(generator.flow(images, np.arange(8)))  # mistake: misc
x, y = next(generator.flow(images, np.arange(8), sample_weight=np.ones(8)))  # mistake: misc
x, y = generator.flow_from_directory("d", remainder="exact").next()  # mistake: misc
x, y = generator.flow_from_dataframe(pd.DataFrame(), weight_col="w")[0]  # mistake: misc
for x, y, weights in generator.flow_from_directory("d"):  # mistake: misc
    print(x, y, weights)
x, y = next(generator.flow(images, np.arange(8)))
y, x = x.numpy(), y  # mistake: attr-defined

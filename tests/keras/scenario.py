"""What ``model.fit`` does with a flow, on one backend, in a process of its own: ``python keras_scenario.py jax``.

Everything is proved by weights: a model that ``fit`` trained must be, to the bit, the model that ``train_on_batch``
trained on the batches that should have come, in the order they should have come in.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections import deque
from functools import cache
from pathlib import Path
from typing import Any

BACKEND = sys.argv[1]
os.environ["KERAS_BACKEND"] = BACKEND

import keras  # noqa: E402
import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

import gpuseq  # noqa: E402
from gpuseq.keras import ImageDataGenerator, KerasDataset, SaveState, SetEpoch  # noqa: E402
from tests.feed.samples import photos  # noqa: E402

# XLA compiles a model for each size of batch: there the last batch is not a smaller one.
N, BATCH, LENGTH = (24 if BACKEND == "jax" else 22), 8, 3
IMAGES, LABELS = photos(N)
RANGES: dict[str, Any] = {"vertical_flip": True, "zoom_range": 0.1, "rescale": 1 / 255, "conventions": "corrected"}


def flow(core: bool = False, **options: Any) -> Any:
    kind = gpuseq.ImageDataGenerator if core else ImageDataGenerator
    own = kind(**RANGES, device="cpu", rng=options.pop("rng", "keras"))
    return own.flow(IMAGES, LABELS, **{"batch_size": BATCH, "seed": 3, **options})


def model(build: bool) -> Any:
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Flatten(), keras.layers.Dense(1)]
    network = keras.Sequential([keras.Input((12, 12, 3)), *layers] if build else layers)
    network.compile(keras.optimizers.SGD(0.05), keras.losses.BinaryCrossentropy(from_logits=True), metrics=["accuracy"])
    return network


@cache
def trained_by_hand(batches: tuple[tuple[int, int], ...], second_class: float = 1.0, rng: str = "keras") -> Any:
    network, source = model(True), flow(core=True, rng=rng)
    weight = None if second_class == 1 else np.array([1, second_class], np.float32)
    for epoch, index in batches:
        x, y = source.replay(source.plan_batch(index, epoch=epoch))
        network.train_on_batch(x, y, sample_weight=None if weight is None else weight[y.astype(int)])
    return list(network.get_weights())


def same(actual: Any, expected: list[np.ndarray], what: str) -> None:
    for got, wanted in zip(actual.get_weights(), expected, strict=True):
        assert np.array_equal(got, wanted), f"{what}: the weights differ by {np.abs(got - wanted).max()}"


def epochs(*numbers: int) -> tuple[tuple[int, int], ...]:
    return tuple((epoch, index) for epoch in numbers for index in range(LENGTH))


def quiet(network: Any, data: Any, **options: Any) -> Any:
    return network.fit(data, verbose=0, **options)


def check_fit() -> None:
    expected = trained_by_hand(epochs(0, 1, 2))
    for build, rng in ((True, "keras"), (False, "keras"), (False, "keyed")):
        network = model(build)
        quiet(network, flow(rng=rng), epochs=3)
        same(network, trained_by_hand(epochs(0, 1, 2), rng=rng), f"fit, {rng}, built {build}")
    network = model(False)
    quiet(network, flow(core=True).to_keras(), epochs=3)
    same(network, expected, "to_keras()")
    data = flow()
    data.workers = 4
    network = model(True)
    quiet(network, data, epochs=1)
    quiet(network, data, epochs=2, initial_epoch=1)
    quiet(network, data, epochs=3, initial_epoch=2, shuffle=False)
    same(network, expected, "three fits with workers=4")


def check_evaluate_and_predict_between() -> None:
    data, validation = flow(), flow(shuffle=False)
    network = model(True)
    quiet(network, data, epochs=2, validation_data=validation)
    network.evaluate(validation, verbose=0)
    quiet(network, data, epochs=3, initial_epoch=2, validation_data=validation)
    same(network, trained_by_hand(epochs(0, 1, 2)), "fit with validation")
    images = gpuseq.keras.ImageDataGenerator(rescale=1 / 255, device="cpu").flow(
        IMAGES, batch_size=BATCH, shuffle=False
    )
    whole = network.predict(IMAGES / np.float32(255), verbose=0)
    for steps in (None, 2, None):
        predicted = network.predict(images, steps=steps, verbose=0)
        assert np.allclose(predicted, whole[: len(predicted)], atol=1e-5), "predict is out of order"


def check_epochs_by_number() -> None:
    data = flow()
    network = model(False)
    quiet(network, data, epochs=4, initial_epoch=3, callbacks=[SetEpoch(data)])
    quiet(network, data, epochs=2, initial_epoch=1, callbacks=[SetEpoch(data)])
    same(network, trained_by_hand(epochs(3, 1)), "SetEpoch")


def check_steps() -> None:
    data = flow()
    network = model(True)
    quiet(network, data, epochs=1, steps_per_epoch=1)
    quiet(network, data, epochs=1, steps_per_epoch=2)
    quiet(network, data, epochs=1, steps_per_epoch=2)
    wanted = ((0, 0), (1, 0), (1, 1), (2, 0), (2, 1))
    same(network, trained_by_hand(wanted), "steps_per_epoch: a pass that is left is over")


def check_short_epochs() -> None:
    """An epoch of one batch or two is none of the trials with which Keras builds a model."""

    class Watch(keras.callbacks.Callback):
        def __init__(self, data: Any) -> None:
            super().__init__()
            self.walk = data._fit.progress

        def on_train_begin(self, logs: Any = None) -> None:
            self.walk.handed_out = deque()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            time.sleep(0.05)  # TensorFlow goes on reading ahead, before the next epoch begins

    for length in (1, 2, 3):
        for build in (True, False):
            for core in (False, True):
                data = flow(core=core, batch_size=-(-N // length))
                data = data.to_keras() if core else data
                network, watch = model(build), Watch(data)
                quiet(network, data, epochs=2, callbacks=[watch])
                quiet(network, data, epochs=2, callbacks=[Watch(data)])
                wanted = [(epoch, index) for epoch in (2, 3) for index in range(length)]
                handed_out = list(data._fit.progress.handed_out)
                assert handed_out[: 2 * length] == wanted, (length, build, core, handed_out)
    data = flow(batch_size=-(-N // 2))
    watch = Watch(data)
    quiet(model(False), data, epochs=4, steps_per_epoch=1, callbacks=[watch])
    assert list(watch.walk.handed_out)[:4] == [(0, 0), (0, 1), (1, 0), (1, 1)], watch.walk.handed_out
    data = flow(batch_size=-(-N // 2))
    next(data)
    watch = Watch(data)
    quiet(model(False), data, epochs=1, callbacks=[watch])
    assert list(watch.walk.handed_out)[:2] == [(0, 1), (1, 0)], watch.walk.handed_out


def check_class_weight() -> None:
    data = flow()
    data.class_weight = {1: 3.0}
    network = model(True)
    quiet(network, data, epochs=2)
    same(network, trained_by_hand(epochs(0, 1), 3.0), "class_weight")
    network = model(True)
    quiet(network, flow(core=True).to_keras(class_weight={1: 3.0}), epochs=2)
    same(network, trained_by_hand(epochs(0, 1), 3.0), "to_keras(class_weight=)")


def check_resume() -> None:
    """Killed in the second of three epochs, after the second batch; a new model, a new flow, and on from there."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "data.json")

        class Kill(keras.callbacks.Callback):
            def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
                if self.model.optimizer.iterations == LENGTH + 2:
                    self.model.save_weights(os.path.join(folder, "model.weights.h5"))
                    raise KeyboardInterrupt

        data = flow()
        network = model(False)
        try:
            quiet(network, data, epochs=3, callbacks=[SaveState(data, path, save_freq=1), Kill()])
        except KeyboardInterrupt:
            pass
        else:
            raise AssertionError("was not killed")
        with open(path) as file:
            state = json.load(file)
        assert (state["epoch"], state["batch_index"]) == (1, 2), state
        network = model(True)
        network.load_weights(os.path.join(folder, "model.weights.h5"))
        for callbacks in ((), (SetEpoch,)):
            data = flow()
            data.load_state_dict(state)
            resumed = model(True)
            resumed.set_weights(network.get_weights())
            made = [callback(data) for callback in callbacks]
            quiet(resumed, data, initial_epoch=1, epochs=3, callbacks=made)
            # Two epochs' worth of batches: the rest of epoch 1, epoch 2, and the first of epoch 3.
            batches = (*epochs(0, 1, 2), (3, 0), (3, 1))
            same(resumed, trained_by_hand(batches), f"resumed, {len(made)} callbacks")


def check_state_with_several_steps_in_one_execution() -> None:
    """Two steps per execution in epochs of three: the second execution ends beyond the epoch."""
    if BACKEND == "torch":
        return  # knows one step per execution only
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "data.json")
        for save_freq, wanted in (("epoch", (2, 0)), (4, (1, 2))):
            data = flow()
            network = model(True)
            network.compile("sgd", "mse", steps_per_execution=2)
            quiet(network, data, epochs=2, callbacks=[SaveState(data, path, save_freq=save_freq)])
            with open(path) as file:
                state = json.load(file)
            assert (state["epoch"], state["batch_index"]) == wanted, (save_freq, state)


def check_sequence() -> None:
    """A user's own batches: each once per epoch, ``on_epoch_end`` once per epoch, dicts and all."""

    class Own(gpuseq.Sequence):
        def __init__(self) -> None:
            super().__init__()
            self.asked: list[int] = []
            self.ends = 0

        def __len__(self) -> int:
            return LENGTH

        def __getitem__(self, index: int) -> Any:
            self.asked.append(index)
            part = slice(index * BATCH, (index + 1) * BATCH)
            return (IMAGES[part] / 255).astype("float32"), LABELS[part]

        def on_epoch_end(self) -> None:
            self.ends += 1

    own = Own()
    network = model(True)
    quiet(network, own.to_keras(), epochs=3)
    asked = own.asked[-3 * LENGTH :]
    for epoch in range(3):
        assert sorted(asked[epoch * LENGTH : (epoch + 1) * LENGTH]) == list(range(LENGTH)), asked
    assert own.ends == 3, own.ends
    whole = network.predict(IMAGES / np.float32(255), verbose=0)
    assert np.allclose(network.predict(own.to_keras(), verbose=0), whole, atol=1e-5)


def check_batches_of_several_parts() -> None:
    """Further inputs beside the images; an own iterator's list, which Keras takes for a tuple; nested batches."""
    further = np.linspace(0, 1, N, dtype=np.float32)[:, None]
    images, number = keras.Input((12, 12, 3)), keras.Input((1,))
    parts = keras.layers.Concatenate()([keras.layers.Flatten()(images), number])
    network = keras.Model([images, number], keras.layers.Dense(1)(parts))
    network.compile("sgd", "mse")
    own = ImageDataGenerator(rescale=1 / 255, device="cpu")
    quiet(network, own.flow((IMAGES, further), LABELS, batch_size=BATCH, seed=1), epochs=2)

    class Listed(gpuseq.keras.Iterator):
        def _get_batches_of_transformed_samples(self, index_array: np.ndarray) -> Any:
            return [IMAGES[index_array] / np.float32(255), LABELS[index_array]]

    listed, plain = model(True), model(True)
    quiet(listed, Listed(N, BATCH, False, None), epochs=2)
    for _ in range(2):
        for start in range(0, N, BATCH):
            plain.train_on_batch(IMAGES[start : start + BATCH] / np.float32(255), LABELS[start : start + BATCH])
    same(listed, list(plain.get_weights()), "a list for a batch")
    network = keras.Model([images, number], {"a": keras.layers.Dense(1)(parts)})
    network.compile("sgd", {"a": "mse"})
    nested = [((IMAGES[:4] / np.float32(255), further[:4]), {"a": LABELS[:4, None]})] * 3
    quiet(network, gpuseq.keras.to_keras(nested), epochs=2)


def check_types() -> None:
    kinds = {"torch": "torch.Tensor", "jax": "jaxlib._jax.ArrayImpl"}
    for data in (flow(), flow(core=True).to_keras()):
        assert type(data[0][0]) is type(flow(core=True)[0][0]) is np.ndarray
        data.on_epoch_begin()
        batch = data[0]
        assert isinstance(batch, tuple)
        assert len(batch) == 2
        kind = type(batch[0])
        assert f"{kind.__module__}.{kind.__name__}" == kinds.get(BACKEND, "numpy.ndarray"), kind
    own = ImageDataGenerator(device="cpu")
    assert type(own.flow(IMAGES, batch_size=2, seed=1)[0]) is np.ndarray
    assert isinstance(flow(), keras.utils.PyDataset)
    assert isinstance(flow(core=True).to_keras(), KerasDataset)


def check_no_copy_on_the_way_to_the_train_step() -> None:
    """Buffers at the step are those that the iterator wrote; TensorFlow's ``fit`` takes nothing without a copy."""
    if BACKEND == "tensorflow":
        return
    reached, made = [], []

    class Watched(keras.Sequential):
        def train_step(self, *arguments: Any) -> Any:
            x = arguments[-1][0]
            reached.append(x.data_ptr() if BACKEND == "torch" else x.unsafe_buffer_pointer())
            return super().train_step(*arguments)

    data = flow()
    replay = data.replay
    data.replay = lambda plan: made.append(replay(plan)) or made[-1]
    network = Watched([keras.Input((12, 12, 3)), keras.layers.Flatten(), keras.layers.Dense(1)])
    network.compile("sgd", "mse", run_eagerly=True)  # not traced: x is a buffer
    with keras.device("cpu:0" if BACKEND == "jax" else "cpu"):
        quiet(network, data, epochs=2)
    assert len(reached) == 2 * LENGTH
    assert reached == [x.ctypes.data for x, _ in made[-len(reached) :]]


def check_training_on_photographs() -> None:
    """Crops of the photographs that ship with the package: which of its three folders is each from?"""
    shipped = Path(gpuseq.__file__).parent / "photos"
    with tempfile.TemporaryDirectory() as folder:
        for source in sorted(shipped.glob("*/*.jpg")):
            photo = Image.open(source).convert("RGB").resize((120, 120))
            for number in range(16):
                corner = (24 * (number % 4), 24 * (number // 4))
                crop = photo.crop((*corner, corner[0] + 48, corner[1] + 48))
                path = Path(folder) / source.parent.name / f"{source.stem}-{number}.png"
                path.parent.mkdir(exist_ok=True)
                crop.save(path)
        own = ImageDataGenerator(
            rescale=1 / 255, horizontal_flip=True, rotation_range=10, conventions="corrected", device="cpu"
        )
        batches = own.flow_from_directory(folder, (24, 24), batch_size=8, seed=1, class_mode="sparse", verbose=False)
        assert (batches.n, len(batches), batches.num_classes) == (144, 18, 3)
        keras.utils.set_random_seed(0)
        network = keras.Sequential(
            [
                keras.Input((24, 24, 3)),
                keras.layers.Rescaling(4, -2),
                keras.layers.Conv2D(8, 3, strides=2, activation="relu"),
                keras.layers.Conv2D(16, 3, strides=2, activation="relu"),
                keras.layers.Flatten(),
                keras.layers.Dense(3),
            ]
        )
        network.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        history = quiet(network, batches, epochs=2, validation_data=batches_of(folder)).history
        losses = history["loss"]
        print("losses on photographs", losses, history["val_loss"])
        assert losses[1] < 0.9 * losses[0], losses
        assert history["val_loss"][1] < history["val_loss"][0], history
        batches.close()


def batches_of(folder: str) -> Any:
    own = ImageDataGenerator(rescale=1 / 255, device="cpu")
    return own.flow_from_directory(folder, (24, 24), batch_size=24, shuffle=False, class_mode="sparse", verbose=False)


if __name__ == "__main__":
    for name, check in list(globals().items()):
        if name.startswith("check_"):
            check()
            print("passed", name, flush=True)

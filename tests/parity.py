"""Random configurations of the whole generator, and calls that take Keras and gpuseq through them side by side.

A configuration is a pure function of its name and number, so ``test_arrays[041]`` is the same test on every machine.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.cases import FILL_MODES
from tests.compare import assert_same, assert_same_structure, place_of
from tests.tolerance import EXACT, NORMALISED, PIXELS, unit_of

__all__ = [
    "Config",
    "Streams",
    "assert_same_attributes",
    "assert_same_walk",
    "quiet",
    "sample_generator",
    "sample_walk",
]

Action = tuple[str, int]


@contextmanager
def quiet() -> Iterator[None]:
    """Let both sides warn as they like: what they warn about has tests of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def darken(image: np.ndarray) -> np.ndarray:
    """A `preprocessing_function` that returns a new array of the same dtype."""
    return (image * 0.75).astype(image.dtype)


def invert_in_place(image: np.ndarray) -> np.ndarray:
    """A `preprocessing_function` that works in place, as Keras allows."""
    np.subtract(255, image, out=image)
    return image


@dataclass
class Config:
    """One random configuration.

    Attributes
    ----------
    generator : dict
        Arguments of ``ImageDataGenerator``.
    flow : dict
        Arguments of the ``flow*`` call, apart from the data.
    fit : dict or None
        Arguments of ``fit`` beside the data; None where nothing is to be fitted.
    walk : list of (str, int)
        What is asked of both iterators, in order.
    """

    generator: dict[str, Any]
    flow: dict[str, Any] = field(default_factory=dict)
    fit: dict[str, Any] | None = None
    walk: list[Action] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)

    @property
    def moves_pixels(self) -> bool:
        """Whether an affine map with weights between pixels is in play."""
        g = self.generator
        names = ("rotation_range", "width_shift_range", "height_shift_range", "shear_range", "zoom_range")
        return any(g.get(name) for name in names) and g.get("interpolation_order", 1) != 0

    @property
    def normalises(self) -> bool:
        g = self.generator
        names = (
            "samplewise_center",
            "samplewise_std_normalization",
            "featurewise_center",
            "featurewise_std_normalization",
        )
        return any(g.get(name) for name in (*names, "zca_whitening"))

    def tolerance(self, expected: np.ndarray) -> float:
        """Return the largest difference that a batch may show, in its own units."""
        if self.normalises:
            return NORMALISED * unit_of(expected)
        # Keras brightens float64 images in float32.
        in_float32 = expected.dtype == np.float64 and self.generator.get("brightness_range") is not None
        if expected.dtype.kind == "f" and (self.moves_pixels or in_float32):
            return PIXELS * unit_of(expected)
        return EXACT


def _one_of(rng: random.Random, *choices: Any) -> Any:
    return choices[rng.randrange(len(choices))]


def sample_generator(
    rng: random.Random,
    *,
    channels: int,
    dtype: str,
    data_format: str,
    float_ranges_only: bool = False,
    may_whiten: bool = False,
    from_files: bool = False,
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Draw arguments for ``ImageDataGenerator`` that Keras itself accepts, and for ``fit`` where they need it.

    Parameters
    ----------
    rng : random.Random
        Where the numbers come from.
    channels : int
        Of the images; brightness is for 1, 3 and 4 only, in Keras.
    dtype : {"float32", "float64", "uint8"}
        Keras cannot normalise or rescale in uint8, so those are left out there.
    data_format : {"channels_last", "channels_first"}
        Brightness fails in Keras for channels_first.
    float_ranges_only : bool
        Leave out the shift ranges that go through ``choice``.
    may_whiten : bool
        Allow ``zca_whitening``, for tiny images only.
    from_files : bool
        Files go through floats in Keras, and its cast of floats beyond 0..255 to uint8 is undefined: leave out the
        splines, which overshoot. (Ours saturates: see ``test_deliberate_differences.py``.)
    """
    args: dict[str, Any] = {"dtype": dtype, "data_format": data_format}
    floating = dtype != "uint8"
    plain = rng.random() < 0.12  # nothing geometric at all
    if not plain:
        if rng.random() < 0.5:
            args["rotation_range"] = _one_of(rng, 10, 45.0, 90, 180, 0.5)
        for name in ("width_shift_range", "height_shift_range"):
            if rng.random() < 0.45:
                choices: list[Any] = [0.2, 0.45, 2.5, 1.0]
                if not float_ranges_only:
                    choices += [3, 1, [0.1, 0.25], [-2, 3, 5], (0.5, 1.5), [0]]
                args[name] = _one_of(rng, *choices)
        if rng.random() < 0.35:
            args["shear_range"] = _one_of(rng, 5, 20.0, 45.0)
        if rng.random() < 0.45:
            args["zoom_range"] = _one_of(rng, 0.2, 0.5, [0.7, 1.0], (0.9, 1.6), [1, 1], 0)
    if rng.random() < 0.8:
        args["fill_mode"] = _one_of(rng, *FILL_MODES)
    if rng.random() < 0.4:
        args["cval"] = _one_of(rng, 0, 17.5, 128.0, 255) if dtype == "uint8" else _one_of(rng, 0.0, 17.5, -3.0, 255)
    if rng.random() < 0.45:
        args["interpolation_order"] = _one_of(rng, 0, 0, 0, 1, 2, 3, 4, 5)
        if from_files and not floating:
            args["interpolation_order"] %= 2
    args["horizontal_flip"] = rng.random() < 0.5
    args["vertical_flip"] = rng.random() < 0.4
    if rng.random() < 0.3:
        args["channel_shift_range"] = _one_of(rng, 20.0, 60, 0.5)
    if channels in (1, 3, 4) and data_format == "channels_last" and rng.random() < 0.3:
        args["brightness_range"] = _one_of(rng, (0.5, 1.5), [0.0, 1.0], (1.0, 3.0), (0.9, 0.9))
    if rng.random() < 0.2:
        args["preprocessing_function"] = _one_of(rng, darken, invert_in_place)
    fit: dict[str, Any] | None = None
    if floating:
        if rng.random() < 0.35:
            args["rescale"] = _one_of(rng, 1.0 / 255, 1 / 127.5, 2)
        if rng.random() < 0.25:
            args["samplewise_center"] = True
        if rng.random() < 0.2:
            args["samplewise_std_normalization"] = True
        if may_whiten and rng.random() < 0.6:
            args["zca_whitening"] = True
            args["zca_epsilon"] = _one_of(rng, 1e-6, 1e-2)
        if rng.random() < 0.25:
            args["featurewise_center"] = True
        if rng.random() < 0.2:
            args["featurewise_std_normalization"] = True
        if any(args.get(name) for name in ("featurewise_center", "featurewise_std_normalization", "zca_whitening")):
            fit = {"augment": rng.random() < 0.4, "rounds": _one_of(rng, 1, 2), "seed": rng.randrange(1000)}
    return args, fit


def sample_walk(rng: random.Random, num_batches: int, *, seeded: bool) -> list[Action]:
    """Draw what is asked of the iterators: ``next``, ``getitem``, ``on_epoch_end``, ``reset``, two epochs or so."""
    order = list(range(num_batches))
    kind = _one_of(rng, "next", "getitem", "mixed", "mixed")
    if kind == "next":
        return [("next", 0)] * (2 * num_batches + 1)
    if kind == "getitem":
        walk: list[Action] = []
        for _ in range(2):
            rng.shuffle(order)
            walk += [("getitem", index) for index in order] + [("on_epoch_end", 0)]
        return [*walk, ("getitem", order[0])]
    walk = []
    for _ in range(2 * num_batches + 2):
        walk.append(
            _one_of(rng, ("next", 0), ("next", 0), ("getitem", rng.choice(order)), ("on_epoch_end", 0), ("reset", 0))
        )
    if seeded:
        # Before the first batch Keras shuffles from the global stream, whatever the seed: not a contract.
        first_batch = next((i for i, (name, _) in enumerate(walk) if name in ("next", "getitem")), len(walk))
        walk = walk[first_batch:]
    return [*walk, ("next", 0)]


class Streams:
    """Keeps NumPy's global stream apart for the two sides, and knows where each of them left it."""

    def __init__(self, seed: int) -> None:
        start = np.random.RandomState(seed).get_state()
        self._states = {"keras": start, "ours": start}

    def run(self, side: str, action: Callable[[], Any]) -> Any:
        """Call `action` with the global stream as `side` left it."""
        np.random.set_state(self._states[side])
        try:
            return action()
        finally:
            self._states[side] = np.random.get_state()

    def position(self, side: str) -> tuple[bytes, int]:
        _, keys, position, *_ = self._states[side]
        return keys.tobytes(), int(position)


def fetched(batch: Any, where: str) -> Any:
    """Return a batch on the host, after a look at where each of its arrays of numbers lived."""
    if isinstance(batch, tuple | list):
        return type(batch)(fetched(item, where) for item in batch)
    assert place_of(batch) == (where if batch.dtype.kind in "biuf" else "numpy")
    return batch.get() if place_of(batch) != "numpy" else batch


def _act(iterator: Any, action: Action) -> Any:
    name, index = action
    if name == "next":
        return next(iterator)
    if name == "getitem":
        return iterator[index]
    return getattr(iterator, name)()


def assert_same_walk(
    expected: Any,
    actual: Any,
    walk: list[Action],
    streams: Streams,
    tolerance: Callable[[np.ndarray], float],
    *,
    input_labels: bool = False,
    where: str = "numpy",
) -> None:
    """Ask the same things of Keras' iterator and of ours, and compare all they answer.

    Parameters
    ----------
    expected, actual : iterators
        Keras' and gpuseq's, fresh.
    walk : list of (str, int)
        What to ask.
    streams : Streams
        The global streams of the two sides. Ours must stand still with a seed, and where Keras' stands without one.
    tolerance : callable
        Expected images -> largest difference.
    input_labels : bool
        The labels are images too (``class_mode="input"``).
    where : {"numpy", "cupy:N"}
        Where the numbers of our batches have to live.
    """
    images_at = ("batch", "batch[0]", "batch[0][0]") + (("batch[1]",) if input_labels else ())

    def atol_of(path: str, array: np.ndarray) -> float:
        return tolerance(array) if path in images_at and array.ndim == 4 else 0.0

    seeded = expected.seed is not None
    assert len(actual) == len(expected)
    for step, action in enumerate(walk):
        wanted = streams.run("keras", lambda action=action: _act(expected, action))
        before = streams.position("ours")
        got = streams.run("ours", lambda action=action: _act(actual, action))
        label = f"step {step} {action[0]}({action[1]})"
        if wanted is None:
            assert got is None, label
        else:
            try:
                assert_same_structure(fetched(got, where), wanted, atol_of=atol_of)
            except AssertionError as error:
                raise AssertionError(f"{label} of {walk}: {error}") from None
        assert actual.batch_index == expected.batch_index, label
        assert actual.total_batches_seen == expected.total_batches_seen, label
        if expected.index_array is not None:
            assert_same(np.asarray(actual.index_array), expected.index_array, message=f"{label}: index_array")
        if seeded:
            assert streams.position("ours") == before, f"{label}: the global stream moved although a seed was given"
        else:
            assert streams.position("ours") == streams.position("keras"), f"{label}: the global stream stands elsewhere"


_ATTRIBUTES = (
    "n",
    "batch_size",
    "shuffle",
    "seed",
    "batch_index",
    "total_batches_seen",
    "white_list_formats",
    "samples",
    "class_indices",
    "num_classes",
    "filenames",
    "filepaths",
    "image_shape",
    "target_size",
    "color_mode",
    "data_format",
    "class_mode",
    "directory",
    "save_to_dir",
    "save_prefix",
    "save_format",
    "interpolation",
    "keep_aspect_ratio",
    "subset",
    "split",
)


def assert_same_attributes(expected: Any, actual: Any) -> None:
    """Compare every public attribute that Keras' iterator has: a fresh one, before the first batch."""
    for name in _ATTRIBUTES:
        if hasattr(expected, name):
            assert getattr(actual, name) == getattr(expected, name), name
    for name in ("classes", "labels", "sample_weight"):
        if not hasattr(expected, name):
            continue
        wanted, got = getattr(expected, name), getattr(actual, name)
        if isinstance(wanted, np.ndarray):
            assert_same(np.asarray(got), wanted, message=name)
        elif isinstance(wanted, list) and wanted and isinstance(wanted[0], np.ndarray):
            assert_same_structure(got, wanted, path=name)
        else:
            assert got == wanted, name


def assert_same_saved(expected: Path, actual: Path, *, levels: int) -> None:
    """Compare two folders of saved batches: the same names, the same modes, pixels within `levels`."""
    names = sorted(path.name for path in expected.iterdir())
    assert sorted(path.name for path in actual.iterdir()) == names
    assert names, "nothing was saved, so nothing was compared"
    for name in names:
        with Image.open(expected / name) as wanted, Image.open(actual / name) as got:
            assert got.mode == wanted.mode, name
            assert_same(np.asarray(got), np.asarray(wanted), atol=levels, message=name)

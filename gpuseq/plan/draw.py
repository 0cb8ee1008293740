"""What is drawn for the samples of a batch, and the numbers that it is drawn from. Pure NumPy.

Two sources of numbers: `KerasStream` is Keras' own (equal numbers, to the last bit), with a record of what was taken
from it, so that a state of a few integers brings it back; `draw_keyed` makes the numbers of a sample a function of
(seed, epoch, sample id) alone. No Python runs per sample where the ranges are floats.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from struct import Struct
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

import numpy as np

from gpuseq.base.threads import PerProcess

from .columns import dicts_to_params, identity_params, params_at_rest
from .philox import philox_uniform
from .ranges import BLOCK, ShiftRange, TransformRanges, in_pixels

if TYPE_CHECKING:
    from .policies.recipe import Recipe

__all__ = [
    "Draw",
    "Drawing",
    "KerasStream",
    "Stream",
    "draw_keyed",
    "draw_params",
    "draw_with",
    "freeze",
    "replay_cost",
]

REPLAYED = 2**12
"""How many entries and numbers a position makes a stream take again at most, permutations aside."""

# RandomState's own: 624 words, the place in them, whether a normal number is kept, and that number. 2,507 bytes, which
# `state._POSITION` expects as 5,014 hexadecimal digits.
_STATE = Struct("<624IHBd")

Draw: TypeAlias = Callable[[Any, int], np.ndarray]
"""Takes a stream and a number of samples, draws, and returns their parameters."""


class KerasStream(PerProcess):
    """Keras' numbers for one iterator: a private ``RandomState`` reseeded for each batch, or NumPy's global stream.

    Parameters
    ----------
    seed : int or None
        Batch number b is drawn from ``RandomState(seed + b)``; the global stream is never touched. None draws from the
        global stream, as Keras does.

    Notes
    -----
    The record lists what was taken since the last reseed: ``"P100"`` a permutation of 100, ``"D32"`` the parameters of
    32 samples, ``"S8:10000"`` eight file numbers below 10000. Replaying it leaves the stream where it stood. Where that
    would take long the record begins anew with the generator's own state, ``"R..."``: it holds one permutation at most,
    and `REPLAYED` entries and numbers. Without a seed nothing is recorded, as the global stream is never set back.
    """

    def __init__(self, seed: int | None) -> None:
        self.seed = seed
        self._state = None if seed is None else np.random.RandomState(seed)
        # What has to be done with the generator before it is asked: the seed that is due, and how many numbers were
        # taken unread. Nothing comes of both where the next batch begins anew.
        self._due: int | None = None
        self._unread = 0
        self._number = 0
        self._record: list[str] = []
        self._num_draws = self._cost = 0

    def _renew(self) -> None:
        # NumPy's generators hold a lock while they draw. A child that was forked while another thread drew inherits it
        # shut, and would wait for ever; so it goes on with a generator of the same numbers. NumPy's own way to ask a
        # RandomState for its numbers takes that lock; the bit generator's attribute does not.
        if "_state" not in self.__dict__:
            return  # new and still empty
        bits: Any = np.random.mtrand.get_bit_generator() if self._state is None else self._state._bit_generator
        if bits.lock.acquire(blocking=False):
            bits.lock.release()
            return
        free = type(bits)()
        free.state = bits.state
        if self._state is None:
            np.random.mtrand.set_bit_generator(free)
        else:
            self._state = np.random.RandomState(free)

    @property
    def _stream(self) -> Any:
        if self._state is None:
            return np.random
        if self._due is not None:
            # Seeding a generator that is there takes a fiftieth of the time of a new one (1.3 us and 64).
            self._state.seed(self._due)
            self._due = None
        if self._unread:
            self._state.random_sample(self._unread)
            self._unread = 0
        return self._state

    def reseed(self, number: int) -> None:
        """Start the numbers of batch `number`; without a seed the global stream just goes on."""
        if self.seed is not None:
            self._due, self._unread = self.seed + number, 0
            self._number = number
            # What came before cannot be seen from here any more, so a state need not bring it back.
            self._record = []
            self._num_draws = self._cost = 0

    def _note(self, entry: str, count: int = 0) -> None:
        """Record what is taken next, of which `count` numbers would have to be taken again."""
        if self._state is None:
            return
        self._cost += 1 + count
        # Where the record would get long, the generator's state replaces it: once in REPLAYED numbers, because it is 5
        # kB of text. A second permutation too: it takes n numbers, and `n` may be millions.
        if self._cost > REPLAYED or (entry[0] == "P" and any(noted[0] == "P" for noted in self._record)):
            self._record = [f"R{self._num_draws}:{_packed(self._stream)}"]
            self._cost = 1 + count
        self._record.append(entry)

    def permutation(self, size: int) -> np.ndarray:
        """Take a permutation of ``range(size)``: shape ``(size,)``, int64."""
        self._note(f"P{size}")
        permutation: np.ndarray = self._stream.permutation(size)
        return permutation

    def params(self, draw: Draw, num_samples: int) -> np.ndarray:
        """Take the parameters of `num_samples` samples: shape ``(num_samples,)``, dtype `PARAMS_DTYPE`."""
        self._note(f"D{num_samples}", num_samples)
        self._num_draws += 1
        return draw(self._stream, num_samples)

    def pass_over(self, num_samples: int, num_doubles: int) -> None:
        """Take the numbers of parameters that none of them changes: so many doubles for each sample, which none reads.

        Where the numbers are the stream's own they are made when something after them is asked for, which mostly the
        next batch is, and that begins anew.
        """
        self._note(f"D{num_samples}", num_samples)
        self._num_draws += 1
        if self._state is None:
            np.random.random_sample(num_samples * num_doubles)
        else:
            self._unread += num_samples * num_doubles

    def file_numbers(self, num_files: int, high: int) -> np.ndarray:
        """Take the number in the name of each saved file: shape ``(num_files,)``, int64, below `high`."""
        self._note(f"S{num_files}:{high}", num_files)
        return np.array([self._stream.randint(high) for _ in range(num_files)], np.int64)

    @property
    def key(self) -> tuple[int, int]:
        """Two words, below 2**64, for numbers that are drawn beside this stream: other ones after each draw from it.

        Nothing is taken for them, of the global stream neither, whose state they then follow from.
        """
        if self.seed is not None:
            # The low 40 bits are the batch's number and those above count the draws since: two views drawn within one
            # batch differ.
            return self.seed % 2**64, self._number + (self._num_draws << 40)
        from hashlib import blake2b

        _, words, place, *_ = np.random.get_state()
        digest = blake2b(np.asarray(words).tobytes() + bytes(str(place), "ascii"), digest_size=16).digest()
        return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")

    @property
    def position(self) -> str:
        """Where the stream stands, as a string that `restore` takes; of no use without a seed."""
        return f"{self._number} {' '.join(self._record)}".rstrip()

    def restore(self, position: str, draw: Draw) -> np.ndarray | None:
        """Go to a recorded position; return the last permutation taken on the way there."""
        number, *record = position.split()
        self.reseed(int(number))
        last = None
        # By the public methods, which record again what they take: a state taken right after this one is equal to it.
        for entry in record:
            kind, count = entry[0], entry[1:]
            if kind == "R":
                num_draws, _, packed = count.partition(":")
                self._stream.set_state(_unpacked(packed))
                self._record, self._num_draws, self._cost = [entry], int(num_draws), 1
            elif kind == "P":
                last = self.permutation(int(count))
            elif kind == "D":
                self.params(draw, int(count))
            else:
                num_files, high = count.split(":")
                self.file_numbers(int(num_files), int(high))
        return last


def replay_cost(position: str) -> int:
    """Return how many entries and numbers `KerasStream.restore` takes again for a position, permutations aside.

    Parameters
    ----------
    position : str
        From `KerasStream.position`, or of its form.
    """
    entries = position.split()[1:]
    return len(entries) + sum(int(entry[1:].partition(":")[0]) for entry in entries if entry[0] in "DS")


def _packed(generator: np.random.RandomState) -> str:
    _, words, place, has_gauss, gauss = generator.get_state(legacy=True)
    return _STATE.pack(*map(int, words), place, has_gauss, gauss).hex()


def _unpacked(text: str) -> tuple[str, np.ndarray, int, int, float]:
    *words, place, has_gauss, gauss = _STATE.unpack(bytes.fromhex(text))
    return "MT19937", np.array(words, np.uint32), place, has_gauss, gauss


class Drawing(NamedTuple):
    """What is drawn for the samples of a batch, as it stands when the batch is planned.

    Attributes
    ----------
    ranges : TransformRanges or None
        What may be drawn. None: nothing, and no number is taken.
    recipe : Recipe or None
        The augmentations. None: none, and no program is drawn.
    image_size : (int, int)
        Rows and columns of the images, for fractional shifts.
    file_number_limit : int
        The numbers in the names of saved files are below it. 0: none are drawn.
    own : callable or None
        A user's own way to draw: takes a stream and a number of samples, and returns their parameters.
    crops_by_key : bool
        Whether images are cropped where they are decoded, whose sizes are not known before.
    """

    ranges: TransformRanges | None = None
    recipe: Recipe | None = None
    image_size: tuple[int, int] = (1, 1)
    file_number_limit: int = 0
    own: Callable[[Any, int], np.ndarray] | None = None
    crops_by_key: bool = False

    @property
    def draws(self) -> bool:
        """Whether the samples of one epoch differ from those of another."""
        is_plain = self.ranges is None or self.ranges == TransformRanges()
        return not is_plain or self.recipe is not None or self.own is not None

    def params(self, stream: Any, num_samples: int) -> np.ndarray:
        """Draw the parameters of a batch in Keras' random mode.

        Parameters
        ----------
        stream : numpy.random.RandomState or module
            A private stream, or ``numpy.random`` for the global one.
        num_samples : int
            Number of rows.

        Returns
        -------
        numpy.ndarray
            Shape ``(num_samples,)``, dtype `~gpuseq.plan.columns.PARAMS_DTYPE`.
        """
        if self.own is not None:
            return self.own(stream, num_samples)
        # Without ranges Keras takes the numbers of the two flips all the same.
        return draw_params(stream, self.ranges or TransformRanges(), num_samples, *self.image_size)


class Stream(Protocol):
    """What is asked of a source of numbers: ``numpy.random.RandomState`` and the module ``numpy.random`` have it."""

    def random_sample(self, size: int) -> np.ndarray:  # noqa: D102
        ...

    def choice(self, a: object) -> float:  # noqa: D102
        ...


def draw_params(stream: Stream, ranges: TransformRanges, num_samples: int, height: int, width: int) -> np.ndarray:
    """Draw the parameters of `num_samples` images from Keras' stream, in Keras' order.

    Where all ranges are floats every sample takes the same number k of doubles, so the whole batch is one call for
    ``num_samples * k``. Integer and list shift ranges go through ``choice`` twice and keep Keras' loop.

    Parameters
    ----------
    stream : Stream
        A ``numpy.random.RandomState``, or ``numpy.random`` itself for the global stream.
    ranges : TransformRanges
        What may be drawn.
    num_samples : int
        Number of rows.
    height, width : int
        Size of the images in pixels, for fractional shifts.

    Returns
    -------
    numpy.ndarray
        Shape ``(num_samples,)``, dtype `~gpuseq.plan.columns.PARAMS_DTYPE`; read-only where nothing is drawn.

    References
    ----------
    ``ImageDataGenerator.get_random_transform`` of Keras 3.15.
    """
    # `choice` takes a number of bits that depends on what it rejects, so how many numbers a sample takes is known only
    # while it is drawn.
    spread = ranges.spread
    if spread.chosen:
        params = identity_params(num_samples)
        rest = replace(ranges, rotation=0.0, height_shift=None, width_shift=None)
        for row in range(num_samples):
            params[row] = _draw_one(stream, ranges, rest, height, width)[0]
        return params
    # In row-major order the first k doubles are those of the first sample, as in Keras' loop over samples. Measured for
    # 256 samples with all ranges: 22 us, and 3.7 ms for the loop.
    num_doubles = spread.num_doubles
    uniform = stream.random_sample(num_samples * num_doubles).reshape(num_samples, num_doubles)
    if spread.is_at_rest:
        return params_at_rest(num_samples)
    return _from_uniform(uniform, ranges, height, width)


def draw_keyed(
    ranges: TransformRanges, sample_ids: np.ndarray, height: int, width: int, *, seed: int, epoch: int
) -> np.ndarray:
    """Draw parameters that depend on (seed, epoch, sample id) only.

    Batch size, order, worker, shard and resume point cannot change a picture, because none of them enters.

    Parameters
    ----------
    ranges : TransformRanges
        What may be drawn.
    sample_ids : numpy.ndarray
        Shape ``(N,)``, int64: the samples' rows in the data set.
    height, width : int
        Size of the images in pixels.
    seed, epoch : int
        The composite key, each below 2**64.

    Returns
    -------
    numpy.ndarray
        Shape ``(N,)``, dtype `~gpuseq.plan.columns.PARAMS_DTYPE`; read-only where nothing is drawn.
    """
    if ranges.spread.is_at_rest:
        return params_at_rest(len(sample_ids))
    # A shift with choices takes a second number, for its sign; here no `choice` of Keras' stream has to be followed.
    uniform = philox_uniform(sample_ids, ranges.spread.num_doubles, seed=seed, epoch=epoch)
    return _from_uniform(uniform, ranges, height, width)


def _from_uniform(uniform: np.ndarray, ranges: TransformRanges, height: int, width: int) -> np.ndarray:
    """Turn ``(N, k)`` doubles in [0, 1) into parameters; they are overwritten."""
    spread = ranges.spread
    columns = spread.at_rest.repeat(len(uniform), axis=0)
    for start in range(0, len(uniform), BLOCK):
        block = uniform[start : start + BLOCK]
        block *= spread.widths[: len(block)]
        block += spread.lows[: len(block)]
        if spread.fractional:
            block *= in_pixels(spread.num_doubles, spread.fractional, height, width)[: len(block)]
    for source, target in spread.runs:
        columns[:, target] = uniform[:, source]
    for number, column, drawn, axis in spread.chosen:
        assert drawn.choices is not None
        table = np.arange(drawn.choices) if isinstance(drawn.choices, int) else np.asarray(drawn.choices)
        which, sign = uniform[:, number], uniform[:, number + 1]
        columns[:, column] = table[(which * len(table)).astype(np.intp)] * np.where(sign < 0.5, -1, 1)
        if drawn.fractional:
            columns[:, column] *= (height, width)[axis]
    for number, column in spread.flips:
        columns[:, column] = uniform[:, number] < 0.5
    # Fields of one dtype without gaps are a matrix. Not by `view`, which asks Python whether that is safe.
    return np.ndarray(len(uniform), spread.dtype, columns)


def _draw_one(stream: Stream, ranges: TransformRanges, rest: TransformRanges, height: int, width: int) -> np.ndarray:
    """Draw one sample call by call: Keras' loop, for shift ranges that go through ``choice``.

    `rest` is `ranges` without what comes before the shear, whose draws are uniform again.
    """

    def between(low: float, high: float) -> float:
        return low + (high - low) * float(stream.random_sample(1)[0])

    def shift(drawn: ShiftRange, side: int) -> float:
        if drawn.choices is None:
            value = between(-drawn.limit, drawn.limit)
        else:
            value = stream.choice(drawn.choices)
            value *= stream.choice((-1, 1))
        return value * side if drawn.fractional else value

    # The calls before the shear in Keras' order; what follows them is uniform, and is taken in one call.
    theta = between(-ranges.rotation, ranges.rotation) if ranges.rotation else 0.0
    tx = shift(ranges.height_shift, height) if ranges.height_shift else 0.0
    ty = shift(ranges.width_shift, width) if ranges.width_shift else 0.0
    params = _from_uniform(stream.random_sample(rest.spread.num_doubles).reshape(1, -1), rest, height, width)
    params["theta"], params["tx"], params["ty"] = theta, tx, ty
    return params


def freeze(*arrays: np.ndarray | None) -> None:
    """Make what was drawn read-only: threads that decode ahead, and users, hold plans while batches are made of them.

    Parameters
    ----------
    *arrays : numpy.ndarray or None
        Parts of a plan.
    """
    for array in arrays:
        if array is not None:
            array.setflags(write=False)


def draw_with(
    draw_one: Callable[[tuple[int, ...]], Mapping[str, Any]],
    stream: Any,
    num_samples: int,
    image_shape: tuple[int, ...],
) -> np.ndarray:
    """Draw by a function of the user's, which is asked for each image and draws from NumPy's global stream.

    Parameters
    ----------
    draw_one : callable
        Takes the shape of an image and returns its parameters: an own ``get_random_transform``.
    stream : numpy.random.RandomState or module
        A private stream stands in the place of the global one while the function is asked.
    num_samples : int
        Number of rows.
    image_shape : tuple of int
        Of one image.

    Returns
    -------
    numpy.ndarray
        Shape ``(num_samples,)``, dtype `~gpuseq.plan.columns.PARAMS_DTYPE`.

    Raises
    ------
    ValueError
        If the function returns parameters that are unknown.
    """
    if stream is np.random:
        return dicts_to_params([draw_one(image_shape) for _ in range(num_samples)])
    # An own `get_random_transform` is written for Keras, which seeds the global stream. It is lent the private one's
    # state for this call, and the global one is as it was afterwards, also where the function raises.
    outside = np.random.get_state()
    np.random.set_state(stream.get_state())
    try:
        return dicts_to_params([draw_one(image_shape) for _ in range(num_samples)])
    finally:
        stream.set_state(np.random.get_state())
        np.random.set_state(outside)

"""Which samples, in what order, per epoch and shard. Pure NumPy; nothing here knows an image.

`KerasStream` is Keras' own stream of numbers, with a record of what has been taken from it, so that a state of a few
integers brings it back. The functions below it are the algebra of epochs and shards.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from struct import Struct
from typing import Any, TypeAlias

import numpy as np

from gpuseq.base.threads import PerProcess

__all__ = [
    "Draw",
    "KerasStream",
    "epoch_permutation",
    "keyed_permutation",
    "position_of",
    "replay_cost",
    "shard_indices",
    "shard_size",
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
        return np.random if self._state is None else self._state

    def reseed(self, number: int) -> None:
        """Start the numbers of batch `number`; without a seed the global stream just goes on."""
        if self._state is not None and self.seed is not None:
            # Seeding a generator that is there takes a fiftieth of the time of a new one (1.3 us and 64).
            self._state.seed(self.seed + number)
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
            self._record = [f"R{self._num_draws}:{_packed(self._state)}"]
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


def keyed_permutation(size: int, *, seed: int, epoch: int) -> np.ndarray:
    """Return the order of an epoch as a function of (seed, epoch) alone.

    Parameters
    ----------
    size : int
        Number of samples.
    seed, epoch : int
        The composite key, each below 2**64.

    Returns
    -------
    numpy.ndarray
        Shape ``(size,)``, int64. Its counter space is apart from that of `draw_keyed`.
    """
    # The fourth word of the counter is 0 wherever parameters are drawn.
    bits = np.random.Philox(key=np.array([seed, epoch], np.uint64), counter=np.array([0, 0, 0, 1], np.uint64))
    return np.random.Generator(bits).permutation(size)


def epoch_permutation(size: int, *, seed: int, epoch: int, first_batch: int | None) -> np.ndarray:
    """Return the order of an epoch by its number.

    Parameters
    ----------
    size : int
        Number of samples.
    seed, epoch : int
        Of the iterator, and from 0.
    first_batch : int or None
        The number of the epoch's first batch, whose stream Keras draws the order from. None: `keyed_permutation`.

    Returns
    -------
    numpy.ndarray
        Shape ``(size,)``, int64.
    """
    if first_batch is None:
        return keyed_permutation(size, seed=seed, epoch=epoch)
    stream = KerasStream(seed)
    stream.reseed(first_batch)
    return stream.permutation(size)


def position_of(indices: np.ndarray, order: np.ndarray, batch_size: int) -> int | None:
    """Return which batch of an order holds these samples, one by one; None where none does.

    Parameters
    ----------
    indices, order : numpy.ndarray
        Shapes ``(N,)`` and ``(n,)``, int64.
    batch_size : int
        Samples per batch.
    """
    # More than one batch may begin with the same sample where a shard is filled up with samples of its start.
    for position in np.flatnonzero(order[::batch_size] == indices[:1]) if len(indices) else ():
        if np.array_equal(order[position * batch_size : (position + 1) * batch_size], indices):
            return int(position)
    return None


def shard_size(num_samples: int, world: int, remainder: str) -> int:
    """Return how many samples of an epoch a rank takes: the same number on each.

    Parameters
    ----------
    num_samples : int
        Size of the data set.
    world : int
        Number of ranks.
    remainder : {"pad", "drop", "exact"}
        "drop" leaves out what does not divide; the others fill up.
    """
    return num_samples // world if remainder == "drop" else -(-num_samples // world)


def shard_indices(
    permutation: np.ndarray, rank: int, world: int, remainder: str
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return one rank's part of an epoch's global order.

    Ranks take turns (rank r takes positions r, r + world, ...), so a batch of all ranks together is a contiguous piece
    of the global order.

    Parameters
    ----------
    permutation : numpy.ndarray
        Shape ``(n,)``, int64: the order of the epoch, the same on every rank.
    rank, world : int
        This process and how many there are.
    remainder : {"pad", "drop", "exact"}
        "pad" repeats samples from the start of the order; "exact" does so too, with weight 0.

    Returns
    -------
    indices : numpy.ndarray
        Shape ``(shard_size,)``, int64.
    weights : numpy.ndarray or None
        Shape ``(shard_size,)``, float32, 0 for repeated samples; None unless "exact".
    """
    num_samples = len(permutation)
    size = shard_size(num_samples, world, remainder)
    # There is nothing to take a remainder by.
    if num_samples == 0:
        return permutation, np.ones(0, np.float32) if remainder == "exact" else None
    # Positions past the end wrap around: the samples that fill up come from the start of the order.
    positions = rank + world * np.arange(size)
    weights = (positions < num_samples).astype(np.float32) if remainder == "exact" else None
    return permutation[positions % num_samples], weights

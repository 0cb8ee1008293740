"""Which batch ``model.fit`` gets next: the bookkeeping between Keras' calls and an iterator's epochs. Pure Python."""

from __future__ import annotations

import threading
from collections import deque

from gpuseq.base.threads import PerProcess

__all__ = ["FitProgress"]


class FitProgress(PerProcess):
    """Answers Keras' requests, whatever their numbers, with the next batch, epoch after epoch.

    Keras 3 asks a ``PyDataset`` for its batches one by one, in an order that ``fit(shuffle=True)``, the default, has
    permuted. The iterator has shuffled its samples already; so the number asked for does not matter, only that it is
    the next request, and what is read ahead is what is wanted next. Each pass of as many requests as there are batches
    gets each batch once.

    What Keras does, in its order: ``num_batches`` is read whenever a pass is opened, and just before one is given up;
    ``on_epoch_begin`` and ``on_epoch_end`` enclose the requests of an epoch. To build a model it opens a pass, takes a
    batch or two, and gives it up: they are put back here, so that training starts with the first batch. An epoch of one
    batch or two looks the same, but for this: between the making of Keras' iterator, which reads ``num_batches``, and
    an epoch that counts, Keras resets that iterator by an ``on_epoch_end``.

    Parameters
    ----------
    num_trial : int or None
        How many requests at most are taken for such a trial. None: any number (TensorFlow reads ahead).
    """

    def __init__(self, num_trial: int | None = 2) -> None:
        self.num_trial = num_trial
        self.epoch = 0
        self.position = 0
        self.inside = False
        self.used = False
        self.handed_out: deque[tuple[int, int]] | None = None
        # Each is one fact about Keras' calls: `_opened`, that `num_batches` was read since the last request;
        # `_unreset`, that it was read outside an epoch and no `on_epoch_end` came since; `_on_trial`, that the epoch
        # may be a trial; `_begun_by`, the thread that began it; `_start`, where the pass began.
        self._opened = False
        self._unreset = False
        self._on_trial = False
        self._begun_by: int | None = None
        self._num_served = 0
        self._pass_length = 1
        self._start = (0, 0)
        self._ended_at: tuple[int, int] | None = None

    def opened(self) -> None:
        """Note that ``num_batches`` was read."""
        self._opened = True
        self._unreset = self._unreset or not self.inside

    @property
    def is_opening(self) -> bool:
        """Whether Keras has asked for the number of batches, and no epoch has begun since."""
        return self._unreset and not self.inside

    def begin(self) -> None:
        """Note an ``on_epoch_begin``."""
        self._on_trial = self._unreset or self.inside  # inside: the last epoch was interrupted
        self._unreset = False
        self._begun_by = threading.get_ident()
        self.inside = True

    @property
    def is_reading(self) -> bool:
        """Whether a request is for the next batch of a pass, and not a look at batches by index.

        Within an epoch it is. Between the epochs of one pass, with ``steps_per_epoch``, TensorFlow goes on reading
        ahead, on a thread of its own.
        """
        if self.inside:
            return True
        under_way = not self._opened and self._num_served % self._pass_length > 0
        return under_way and self._begun_by not in (None, threading.get_ident())

    def take(self, length: int) -> tuple[int, int]:
        """Return epoch and number of the batch for the next request.

        Parameters
        ----------
        length : int
            Batches in an epoch.
        """
        # TensorFlow asks from a thread of its own.
        with self._lock:
            if self._opened:
                if self._ended_at is not None and self.inside:
                    self.epoch, self.position = self._ended_at
                elif self._num_served % self._pass_length and self.position:
                    # The last pass was left in the middle: a new one starts with a new epoch. One that went on to the
                    # end of an epoch from a place within it was not.
                    self.epoch, self.position = self.epoch + 1, 0
                self._ended_at = None if self.inside else self._ended_at
                self._opened = False
                self._num_served = 0
                self._start = (self.epoch, self.position)
            self.used = True
            self._pass_length = length
            self._num_served += 1
            taken = self._advance(length)
            if self.handed_out is not None:
                self.handed_out.append(taken)
            return taken

    def pass_over(self, place: tuple[int, int], length: int) -> tuple[int, int]:
        """Return epoch and number of the batch to hand out in the place of one of which nothing is left.

        It is the next one in order, and the pass ends that much further on, in the next epoch: Keras counts on `length`
        batches, and each is handed out once.

        Parameters
        ----------
        place : (int, int)
            What `take`, or this method, returned.
        length : int
            Batches in an epoch.
        """
        with self._lock:
            taken = self._advance(length)
            # Its place in the order stays: batches are trained on in the order in which they were handed out.
            if self.handed_out is not None and place in self.handed_out:
                self.handed_out[self.handed_out.index(place)] = taken
            return taken

    def _advance(self, length: int) -> tuple[int, int]:
        taken = self.epoch, self.position
        self.position += 1
        if self.position >= length:
            self.epoch, self.position = self.epoch + 1, 0
        return taken

    def end(self) -> bool:
        """Note an ``on_epoch_end``; return whether an epoch is over, and not a trial or nothing."""
        with self._lock:
            # A trial was opened and given up: `num_batches` was read at both ends, and hardly a batch was taken in
            # between.
            few = self.num_trial is None or self._num_served <= self.num_trial
            trial = self.inside and self._on_trial and self._opened and few
            is_over = self.inside and not trial and self._num_served > 0
            if trial and self._num_served:
                self.epoch, self.position = self._start
                self._num_served = 0
            self.inside = self._unreset = self._on_trial = False
            return is_over

    def trained(self, epoch: int) -> None:
        """Note that training has ended with the last batch of the epoch before this one.

        Whatever was read ahead since, or is yet to be, by TensorFlow's thread, the next pass begins with this epoch.

        Parameters
        ----------
        epoch : int
            Which.
        """
        with self._lock:
            self._ended_at = (epoch, 0)

    def stands_in(self, epoch: int) -> bool:
        """Return whether the next request gets a batch of this epoch, with no pass left in the middle.

        Parameters
        ----------
        epoch : int
            Which.
        """
        return self.used and self.epoch == epoch and not self._num_served % self._pass_length

    def go_to(self, epoch: int, position: int) -> None:
        """Let the next request get this batch.

        Parameters
        ----------
        epoch, position : int
            Which.
        """
        with self._lock:
            self.epoch, self.position = epoch, position
            self._start = (epoch, position)
            # As at the beginning of a pass: nothing is left in the middle.
            self._num_served = 0
            self._ended_at = None
            self.used = True

"""A short, fair comparison on a user's own folder: Keras' generator and this library, one slice each in turn."""

from __future__ import annotations

import importlib
import importlib.util
import io
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, field
from typing import Any

from tqdm import tqdm

from gpuseq.base.devices import gpu_problem, synchronize
from gpuseq.base.threads import cpu_count
from gpuseq.base.types import Device
from gpuseq.generator import ImageDataGenerator

from .engine import quiet
from .folder import Folder

__all__ = ["BenchResult", "Contender", "contenders", "format_results", "keras_generator", "race"]


@dataclass(frozen=True)
class Contender:
    """What makes batches and is timed.

    Attributes
    ----------
    name : str
        As in the table.
    open : callable
        Returns an endless iterator of ``(images, labels)``.
    device : str
        Where the work runs: ``"cpu"`` or ``"cuda:N"``; synchronised after each slice.
    """

    name: str
    open: Callable[[], Any]
    device: str = "cpu"


@dataclass
class BenchResult:
    """What was measured of one contender.

    Attributes
    ----------
    name : str
        Of the contender.
    rates : list of float
        Images per second, one value per slice, in the order they were measured.
    problem : str or None
        Why there are no (more) values.
    """

    name: str
    rates: list[float] = field(default_factory=list)
    problem: str | None = None

    @property
    def median(self) -> float | None:
        """Median of the slices, images per second; None where there is none."""
        return statistics.median(self.rates) if self.rates else None

    @property
    def quartiles(self) -> tuple[float, float] | None:
        """First and third quartile of the slices; None for fewer than two."""
        if len(self.rates) < 2:
            return None
        first, _, third = statistics.quantiles(self.rates, n=4, method="inclusive")
        return first, third

    def to_dict(self) -> dict[str, Any]:
        """Return name, slices, median, quartiles and problem as plain values."""
        return {**asdict(self), "median": self.median, "quartiles": self.quartiles}


def keras_generator() -> tuple[Any, str]:
    """Return Keras' own ``ImageDataGenerator`` class, with any backend that is installed, and its version.

    Returns
    -------
    (type, str)
        The class and Keras' version.

    Raises
    ------
    ImportError
        If Keras or every backend of it is missing.

    References
    ----------
    ``keras/src/legacy/preprocessing/image.py`` of Keras 3; Keras 2's ``keras.preprocessing.image``.
    """
    if importlib.util.find_spec("keras") is None:
        raise ImportError('Keras is not installed (pip install "gpuseq[keras,torch]")')
    if "keras" not in sys.modules and not os.environ.get("KERAS_BACKEND"):
        # The iterators are NumPy under every backend: take the first that is there rather than fail.
        for backend in ("torch", "jax", "tensorflow"):
            if importlib.util.find_spec(backend) is not None:
                os.environ["KERAS_BACKEND"] = backend
                break
        else:
            raise ImportError("Keras is installed, but none of its backends torch, jax, tensorflow")
    keras = importlib.import_module("keras")
    try:
        # Keras 3 has moved the module and exports the class under tf.keras alone.
        module = importlib.import_module("keras.src.legacy.preprocessing.image")
    except ModuleNotFoundError:
        module = importlib.import_module("keras.preprocessing.image")
    return module.ImageDataGenerator, str(keras.__version__)


def contenders(
    folder: Folder,
    augmentation: Mapping[str, Any],
    *,
    target_size: tuple[int, int] = (224, 224),
    batch_size: int = 32,
    interpolation: str = "bilinear",
) -> tuple[list[Contender], list[BenchResult]]:
    """Return what can run here, and an empty result with the reason for each contender that cannot.

    Parameters
    ----------
    folder : Folder
        The pictures.
    augmentation : mapping
        Keyword arguments that both generators take.
    target_size : (int, int), optional
        Rows and columns.
    batch_size : int, optional
        Images per batch.
    interpolation : str, optional
        Of the resize.

    Returns
    -------
    (list of Contender, list of BenchResult)
        Those present, those absent.
    """
    # The same for all, shuffling included: each reads its files in a random order.
    options: dict[str, Any] = {
        **folder.as_arguments,
        "target_size": target_size,
        "batch_size": batch_size,
        "interpolation": interpolation,
        "shuffle": True,
        "seed": 1,
    }
    present: list[Contender] = []
    absent: list[BenchResult] = []

    def ours(device: Device) -> Callable[[], Any]:
        return lambda: ImageDataGenerator(**augmentation, device=device).flow_from_directory(**options)

    try:
        theirs, version = keras_generator()
    except ImportError as error:
        absent.append(BenchResult("Keras", problem=str(error)))
    else:
        present.append(Contender(f"Keras {version}", lambda: theirs(**augmentation).flow_from_directory(**options)))
    present.append(Contender(f"gpuseq CPU ({cpu_count()} threads)", ours("cpu")))
    if problem := gpu_problem():
        absent.append(BenchResult("gpuseq GPU", problem=problem))
    else:
        present.append(Contender("gpuseq GPU", ours("cuda"), device="cuda:0"))
    return present, absent


def race(
    runners: list[Contender], *, seconds: float = 60.0, num_rounds: int = 6, show_progress: bool = True
) -> list[BenchResult]:
    """Give each contender a slice in turn, round after round, so that a slow moment of the machine hits them all.

    Parameters
    ----------
    runners : list of Contender
        What is timed.
    seconds : float, optional
        Wall time for all of them together; a slice always holds at least one whole batch, so slow ones may overrun.
    num_rounds : int, optional
        Slices per contender.
    show_progress : bool, optional
        Draw a bar on standard error where that is a terminal.

    Returns
    -------
    list of BenchResult
        In the order of `runners`. One that raised has the reason in `problem`.
    """
    results = [BenchResult(runner.name) for runner in runners]
    iterators: list[Any] = [None] * len(runners)
    # Half a round is left for what is not timed: opening, the first batch.
    slice_seconds = seconds / (num_rounds + 0.5) / max(1, len(runners))
    with tqdm(
        total=len(runners) * num_rounds,
        desc="bench",
        unit="slice",
        disable=None if show_progress else True,
        leave=False,
    ) as bar:
        for round_number in range(num_rounds):
            # Who goes first changes from round to round.
            for offset in range(len(runners)):
                index = (round_number + offset) % len(runners)
                runner, result = runners[index], results[index]
                bar.update()
                if result.problem is not None:
                    continue
                try:
                    with quiet():
                        if iterators[index] is None:
                            with redirect_stdout(io.StringIO()):  # "Found N images belonging to K classes."
                                iterators[index] = runner.open()
                            next(iterators[index])  # compiles, fills caches, starts threads
                            synchronize(runner.device)
                        result.rates.append(_slice(iterators[index], slice_seconds, runner.device))
                except Exception as error:  # one contender's failure is its result, not the end of the comparison
                    result.problem = f"{type(error).__name__}: {error}"
    return results


def _slice(iterator: Any, seconds: float, device: str) -> float:
    """Return the images per second of one slice of at least `seconds`."""
    num_images = 0
    started = time.perf_counter()
    # Whole batches, because the time of a part of one means nothing.
    while num_images == 0 or time.perf_counter() - started < seconds:
        num_images += len(next(iterator)[0])
    # A GPU's batches are handed out before they are made; the clock stops when they are there.
    synchronize(device)
    return num_images / (time.perf_counter() - started)


def format_results(results: list[BenchResult]) -> str:
    """Return a table: median, quartiles, and how many times the first measured contender's median.

    Parameters
    ----------
    results : list of BenchResult
        Measured ones first.

    Returns
    -------
    str
        Lines without a trailing newline.
    """
    # Keras where it ran: the question is how many times as fast.
    base = next((result.median for result in results if result.median), None)
    width = max(len(result.name) for result in results)
    lines = [f"{'':<{width}}  {'img/s':>9}  {'quartiles':>17}  {'times':>6}"]
    for result in results:
        if result.median is None or base is None:
            lines.append(f"{result.name:<{width}}  {'-':>9}  {result.problem or 'not measured'}")
            continue
        spread = "{:,.0f} to {:,.0f}".format(*result.quartiles) if result.quartiles else "one slice"
        stopped = f"  stopped: {result.problem}" if result.problem else ""
        lines.append(
            f"{result.name:<{width}}  {result.median:>9,.0f}  {spread:>17}  {result.median / base:>6.1f}{stopped}"
        )
    return "\n".join(lines)

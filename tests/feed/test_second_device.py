"""``device="cuda:1"`` while ``cuda:0`` is current, as it is in every thread: the CPU's batches, and all on device 1.

CuPy allocates on the current device, and the stand-in refuses whatever then meets an array of another one.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import gpuseq
from gpuseq.base import devices as compat
from gpuseq.base.errors import DeviceError
from gpuseq.decode.options import DecodeOptions
from gpuseq.feed import tensors as streams
from gpuseq.feed.lookahead import to_device
from gpuseq.ops import dispatch as ops
from gpuseq.ops.cuda import augment as ops_cuda
from gpuseq.ops.cuda import memory as device
from gpuseq.ops.options import AugmentOptions, Statistics
from gpuseq.sources.files import FileSource
from tests.cases import draw_params, images
from tests.iterators.test_on_standin import assert_equal_but_on_device, generator, leaves
from tests.parity import quiet
from tests.photos import write_broken, write_tree
from tests.standin import cupy as standin
from tests.standin.cupy import RaceError

pytestmark = pytest.mark.filterwarnings("ignore:interpolation_order")  # what splines cost on a GPU

GEOMETRY = {"rotation_range": 25, "zoom_range": 0.3}
DATA = images((8, 9, 9, 3), "uint8")


@pytest.fixture(autouse=True)
def cupy() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        standin.install(patch)
        import cupy

        yield cupy
        assert cupy.cuda.Device().id == 0, "the user's device is the current one afterwards"


def there(array: np.ndarray) -> Any:
    """Return a copy on device 1."""
    return compat.place(array, "cuda:1")


def flowing(arguments: dict[str, Any] | None = None, **flow: Any) -> Callable[[str], Any]:
    def make(device: str) -> Any:
        with quiet():
            made = generator(device, **GEOMETRY, **(arguments or {}))
            return next(made.flow(DATA, **{"batch_size": 4, "seed": 1, **flow}))

    return make


def whitened(device: str) -> Any:
    small = DATA[:, :4, :4]
    made = generator(device, zca_whitening=True)
    made.fit(small)
    return next(made.flow(small, batch_size=4, seed=1))


def with_a_mean_for_each_pixel(device: str) -> Any:
    made = generator(device, **GEOMETRY, featurewise_center=True)
    made.mean = np.linspace(0, 9, 9 * 9 * 3, dtype=np.float32).reshape(9, 9, 3)
    return next(made.flow(DATA, batch_size=4, seed=1))


def spline(device: str) -> Any:
    return next(generator(device, **GEOMETRY, interpolation_order=3).flow(DATA, batch_size=4, seed=1))


BATCHES: dict[str, Callable[[str], Any]] = {
    "plain": flowing(y=np.arange(8)),
    "a function": flowing({"preprocessing_function": lambda image: image * 0.5}),
    "a function of batches": flowing({"preprocessing_function": lambda image: image * 0.5, "rescale": 0.5}),
    "whitening": whitened,
    "a mean for each pixel": with_a_mean_for_each_pixel,
    "spline": spline,
    "int16 masks": flowing(masks=DATA[..., 0].astype(np.int16)),
    "bool masks": flowing(masks=DATA[..., :1] > 99),
    "weights of exact shards": flowing(
        y=np.arange(8), batch_size=3, shard=(0, 3), remainder="exact", sample_weight=np.arange(8.0)
    ),
    "beyond the limit": flowing(memory_limit=100),
}


@pytest.mark.parametrize("name", BATCHES)
def test_batches(name: str) -> None:
    assert_equal_but_on_device(BATCHES[name]("cuda:1"), BATCHES[name]("cpu"), "cuda:1", atol=1e-3)


@pytest.mark.parametrize("cache", [None, "host", "device"])
def test_a_callable_answers_for_bad_files(tmp_path: Path, cache: str | None) -> None:
    tree = write_tree(tmp_path / "tree")
    write_broken(next(path for path in tree.iterdir() if path.is_dir()), "empty")
    flows = []
    for name in ("cpu", "cuda:1"):
        with quiet():
            flow = generator(name, **GEOMETRY).flow_from_directory(
                tree,
                target_size=(10, 10),
                batch_size=4,
                seed=2,
                verbose=False,
                cache=cache if name != "cpu" else None,
                on_error=lambda path, error: np.full((10, 10, 3), 9, np.uint8),
            )
        flows.append(flow)
    for _ in range(2 * len(flows[0])):
        assert_equal_but_on_device(next(flows[1]), next(flows[0]), "cuda:1", atol=1e-3)
    for flow in flows:
        flow.close()


@pytest.mark.parametrize("memory_limit", [None, 900], ids=["room", "some room"])
def test_files_without_an_iterator(tmp_path: Path, memory_limit: int | None) -> None:
    paths = sorted(map(str, write_tree(tmp_path / "tree").rglob("*.jpg")))[:5]
    options = DecodeOptions(target_size=(10, 10), color_mode="rgb")
    device = FileSource(paths, options, prefetch=0, cache="device", device="cuda:1", memory_limit=memory_limit)
    host = FileSource(paths, options, prefetch=0)
    for _ in range(2):
        found, wanted = device.fetch(np.arange(5)), host.fetch(np.arange(5)).images
        assert found.images.device.id == 1
        rows = slice(None) if found.rows is None else found.rows
        np.testing.assert_array_equal(found.images.get()[rows], wanted)


@pytest.mark.parametrize("rescale", [None, 0.5])
def test_fit_on_a_device_array(rescale: float | None) -> None:
    made = [generator("cuda:1", featurewise_center=True, rescale=rescale) for _ in range(3)]
    made[0].fit(DATA)
    made[1].fit(there(DATA), augment=False)
    made[2].fit_batches(there(DATA[start : start + 4]) for start in (0, 4))
    for one in made[1:]:
        np.testing.assert_allclose(one.mean, made[0].mean, rtol=1e-6)


def test_fit_with_transforms() -> None:
    made = [generator("cuda:1", **GEOMETRY, featurewise_center=True) for _ in range(2)]
    made[0].fit(DATA, augment=True, seed=3)
    made[1].fit(there(DATA), augment=True, seed=3)
    np.testing.assert_allclose(made[1].mean, made[0].mean, rtol=1e-5)


def test_single_images() -> None:
    image = images((9, 9, 3), "float32")
    made = [generator(name, **GEOMETRY, samplewise_center=True) for name in ("cpu", "cuda:1")]
    wanted, got = made[0].random_transform(image, seed=2), made[1].random_transform(there(image), seed=2)
    assert_equal_but_on_device(got, wanted, "cuda:1", atol=1e-4)
    assert_equal_but_on_device(made[1].standardize(got), made[0].standardize(wanted), "cuda:1", atol=1e-4)
    for function, positional in (
        (gpuseq.apply_affine_transform, (30.0, 0, 0, 0, 1, 1, 0, 1, 2)),
        (gpuseq.apply_channel_shift, (12.0,)),
        (gpuseq.apply_brightness_shift, (0.5,)),
    ):
        wanted, got = function(image, *positional), function(there(image), *positional)
        assert_equal_but_on_device(got, wanted, "cuda:1", atol=1e-4)


def test_process() -> None:
    params = draw_params(4, 9, 9)
    for arguments in ({}, {"preprocessing_function": lambda image: image * 0.5}, {"interpolation_order": 3}):
        made = [generator(name, **arguments) for name in ("cpu", "cuda:1")]
        rows = np.array([3, 1, 0, 7])
        wanted, got = made[0].process(DATA, params, rows), made[1].process(there(DATA), params, rows)
        assert_equal_but_on_device(got, wanted, "cuda:1", atol=1e-3)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32"])
def test_arrays_that_are_there_already(dtype: str) -> None:
    data = DATA.astype(dtype)
    batches = [
        next(generator("cuda:1", **GEOMETRY, rescale=1 / 255).flow(x, masks=mask, batch_size=4, seed=1))
        for x, mask in ((data, data[..., 0]), (there(data), there(data[..., 0])))
    ]
    assert_equal_but_on_device(batches[1], [leaf.get() for leaf in leaves(batches[0])], "cuda:1", atol=0)


def test_an_array_of_the_other_device_moves_in_order(cupy: Any) -> None:
    with cupy.cuda.Stream(non_blocking=True) as stream:
        here = cupy.asarray(DATA)
        there = compat.place(here, "cuda:1")
        del here
        again = cupy.full(DATA.shape, 7, np.uint8)  # the same memory, once it has been read
    assert there.device.id == 1
    np.testing.assert_array_equal(there.get(), DATA)
    stream.synchronize()
    assert again.device.id == 0
    assert (again.get() == 7).all()


def test_batches_that_threads_made_have_arrived(cupy: Any) -> None:
    """The threads' stream is another one: the host has waited for it before a batch is handed over."""

    class OnStreams(gpuseq.Sequence):
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> Any:
            with cupy.cuda.Device(1):
                cupy.cuda.Stream(non_blocking=True).use()
                return cupy.full(4, float(index))

    for index, batch in enumerate(to_device(OnStreams(), device="cuda:1")):
        with cupy.cuda.Device(1):
            assert (batch + 1).get().tolist() == [index + 1.0] * 4


def test_weights_of_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("keras")
    from gpuseq import keras
    from gpuseq.keras import dataset as fitdata

    monkeypatch.setattr(fitdata, "backend", lambda: "numpy")
    batches = []
    for name in ("cpu", "cuda:1"):
        flow = keras.ImageDataGenerator(device=name).flow(DATA, np.arange(8) % 2, 4, seed=1, sample_weight=np.arange(8))
        flow.class_weight = {0: 3.0, 1: 2.0}
        batches.append(flow[0])
    for got, wanted in zip(batches[1], batches[0], strict=True):
        assert got.device.id == 1
        np.testing.assert_array_equal(got.get(), wanted)


def test_jax_is_lent_an_array_of_its_dtype(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    jax = pytest.importorskip("jax")
    lent = []
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax.dlpack, "from_dlpack", lambda array: lent.append((array, cupy.cuda.Device().id)))
    monkeypatch.setattr(streams, "_copying", lambda: lambda alias: (alias, SimpleNamespace(is_ready=lambda: True)))
    streams.jax_array(there(np.arange(4.0)))
    ((array, current),) = lent
    assert (array.dtype, array.device.id, current) == (np.float32, 1, 1)


class Capsule:
    """What was exported by DLPack, as NumPy takes it."""

    def __init__(self, capsule: Any) -> None:
        self._capsule = capsule

    def __dlpack__(self, **options: Any) -> Any:
        return self._capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0


def fake_tensorflow(from_dlpack: Any, gpus: list[str]) -> SimpleNamespace:
    """Return what a batch on a device is handed to."""
    return SimpleNamespace(
        __version__="2",
        config=SimpleNamespace(list_physical_devices=lambda kind: gpus),
        experimental=SimpleNamespace(dlpack=SimpleNamespace(from_dlpack=from_dlpack)),
        raw_ops=SimpleNamespace(DeepCopy=lambda x: x.copy()),
    )


def test_memory_is_lent_to_tensorflow_for_some_batches(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its copy is made some time after it was asked for, and nothing tells when."""
    module = fake_tensorflow(lambda capsule: np.from_dlpack(Capsule(capsule)).copy(), ["GPU:0"])
    monkeypatch.setitem(sys.modules, "tensorflow", module)
    monkeypatch.setattr(streams, "_lent_to_tensorflow", deque(maxlen=streams._lent_to_tensorflow.maxlen))
    used = cupy.get_default_memory_pool().used_bytes
    before = used()
    for number in range(1, streams.NUM_LENT + 4):
        streams.tensorflow_tensor(cupy.full(128, 1.0, np.float32))
        assert used() == before + min(number, streams.NUM_LENT) * 512


def test_tensorflow_is_lent_what_is_contiguous_and_aligned(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An array as it stands where it is both, else a copy; TensorFlow takes nothing else for an aligned tensor."""
    lent: list[np.ndarray] = []

    def from_dlpack(capsule: Any) -> np.ndarray:
        lent.append(np.from_dlpack(Capsule(capsule)))
        return lent[-1]

    gpus = ["GPU:0"]
    monkeypatch.setitem(sys.modules, "tensorflow", fake_tensorflow(from_dlpack, gpus))
    monkeypatch.setattr(streams, "_lent_to_tensorflow", deque())
    whole = there(np.arange(48, dtype=np.float32).reshape(6, 8))
    with cupy.cuda.Device(1):
        arrays = whole, whole[1:], whole[:, :4], whole.T
    for array in arrays:
        np.testing.assert_array_equal(streams.tensorflow_tensor(array), array.get())
        assert lent[-1].ctypes.data % 64 == 0
        assert lent[-1].flags.c_contiguous
        assert (lent[-1].ctypes.data == array.data.ptr) == (array is whole)
    gpus.clear()
    with pytest.raises(DeviceError, match=r"made on cuda:1, but this TensorFlow 2 sees no GPU"):
        streams.tensorflow_tensor(whole)


def test_rows_go_up_to_their_device(cupy: Any) -> None:
    got = device.upload_rows(DATA, "cuda:1", np.array([3, 1]))
    assert got.device.id == 1
    np.testing.assert_array_equal(got.get(), DATA[[3, 1]])
    assert list(device._rings) == [(1, False)]


def test_what_is_kept_is_kept_for_each_device_and_dtype(cupy: Any) -> None:
    """Means and tables of one device, stream or dtype are no good for another."""
    statistics = Statistics(np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 2.0]))
    params = draw_params(2, 9, 9)
    seen = set()
    for where in ("cuda:0", "cuda:1"):
        source = compat.place(DATA[:2], where)
        for dtype in ("float32", "float64"):
            options = AugmentOptions(dtype=dtype, featurewise_center=True, featurewise_std=True)
            got = ops.augment(source, params, options, statistics=statistics)
            wanted = ops.augment(DATA[:2], params, options, statistics=statistics)
            np.testing.assert_allclose(got.get(), wanted, rtol=0, atol=1e-3 if dtype == "float32" else 1e-9)
        resized = ops.resize(list(source), (5, 4), "bilinear")
        np.testing.assert_array_equal(resized.get(), ops.resize(list(DATA[:2]), (5, 4), "bilinear"))
        seen.add(resized.device.id)
    assert seen == {0, 1}
    assert len(ops_cuda._constants_of[statistics]) == 4


def test_the_stand_in_would_have_refused(cupy: Any) -> None:
    """What the tests above rest on."""
    array = there(DATA)
    with pytest.raises(ValueError, match="cuda:0 is current"):
        array + 1
    with pytest.raises(RaceError, match="copy between devices"):
        cupy.asarray(array)

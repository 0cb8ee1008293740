"""`device="cuda"` from the generator down, on the stand-in: the CPU's batches, and nothing left on the host."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpuseq
from gpuseq.base.errors import DeviceError
from gpuseq.ops.cuda import augment as ops_cuda
from tests.cases import images
from tests.parity import quiet
from tests.photos import write_broken, write_tree
from tests.standin import cupy as standin
from tests.standin import work

GEOMETRY = {"rotation_range": 25, "width_shift_range": 0.2, "height_shift_range": 0.2, "zoom_range": 0.3}
TOLERANCE = 2e-5
"""On values up to 255 after rescaling to about 1: the two engines store float32 at the same places."""


@pytest.fixture
def cuda() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        yield standin.install(patch)


def generator(device: str, **arguments: Any) -> gpuseq.ImageDataGenerator:
    with quiet():
        return gpuseq.ImageDataGenerator(**arguments, device=device)


def leaves(batch: Any) -> list[Any]:
    return [leaf for part in batch for leaf in leaves(part)] if isinstance(batch, (tuple, list)) else [batch]


def assert_equal_but_on_device(got: Any, wanted: Any, device: str = "cuda:0", atol: float = TOLERANCE) -> None:
    assert len(leaves(got)) == len(leaves(wanted))
    for mine, theirs in zip(leaves(got), leaves(wanted), strict=True):
        assert isinstance(mine, standin.DeviceArray), f"a {type(mine)} was handed over"
        assert f"cuda:{mine.device.id}" == device
        assert mine.flags.c_contiguous
        host = mine.get()
        assert (host.dtype, host.shape) == (theirs.dtype, theirs.shape)
        np.testing.assert_allclose(host, theirs, rtol=0, atol=atol)


CASES: dict[str, dict[str, Any]] = {
    "geometry": {**GEOMETRY, "rescale": 1 / 255, "horizontal_flip": True},
    "normalised": {**GEOMETRY, "samplewise_center": True, "samplewise_std_normalization": True, "rescale": 1 / 255},
    "colour": {"channel_shift_range": 30.0, "brightness_range": (0.5, 1.5), "vertical_flip": True},
    "fitted": {"featurewise_center": True, "featurewise_std_normalization": True, **GEOMETRY, "fill_mode": "reflect"},
    "function": {**GEOMETRY, "preprocessing_function": lambda image: image * 0.5, "rescale": 2.0},
    "function of the host": {"preprocessing_function": lambda image: getattr(image, "get", lambda: image)() * 0.5},
    "mode": {"preprocessing_function": "caffe", "horizontal_flip": True},
    "first": {**GEOMETRY, "data_format": "channels_first", "dtype": "float16", "rescale": 1 / 255},
}


@pytest.mark.parametrize(
    ("arguments", "launches"),
    [
        ({}, ["program"]),
        ({"fill_mode": "constant", "cval": 9.0, "interpolation_order": 0, "brightness_range": (0.5, 1.5)}, ["program"]),
        ({"samplewise_center": True}, ["program", "sample_moments", "augment", "erase"]),
        ({"channel_shift_range": 30.0}, ["sample_range", "augment", "program"]),
        ({"preprocessing_function": lambda image: image * 0.5}, ["program", "augment", "augment", "erase"]),
    ],
    ids=lambda arguments: "-".join(arguments) or "alone",
)
def test_augmentations_after_ranges(cuda: Any, arguments: dict[str, Any], launches: list[str]) -> None:
    """One launch for both wherever no image has to be looked at, and the CPU's levels."""
    data, batches = images((9, 13, 12, 3), "uint8"), []
    steps = [gpuseq.RandomSolarize(100), gpuseq.RandomRotation(20), gpuseq.RandomErasing(1.0, value=7)]
    for device in ("cpu", "cuda"):
        made = generator(device, **GEOMETRY, horizontal_flip=True, augmentations=steps, **arguments)
        with quiet():
            flow = made.flow(data, batch_size=9, seed=3)
        before = work.done()
        batches.append(next(flow))
    assert_equal_but_on_device(batches[1], batches[0])
    assert work.done() - before == Counter((name, work.COMPILED) for name in launches)
    if "preprocessing_function" not in arguments:
        said = dict(flow.explain().path)["engine"]
        assert said.partition("launch(es), ")[2].split(" then ") == launches


@pytest.mark.parametrize("name", CASES)
def test_arrays_labels_and_weights(cuda: Any, name: str) -> None:
    data = images((7, 9, 9, 3), "uint8")
    if CASES[name].get("data_format") == "channels_first":
        data = np.ascontiguousarray(data.transpose(0, 3, 1, 2))
    flows = []
    for device in ("cpu", "cuda"):
        made = generator(device, **CASES[name])
        if name == "fitted":
            made.fit(data, augment=True, seed=3)
        with quiet():
            flows.append(made.flow((data, np.arange(7)), np.arange(7), 3, sample_weight=np.ones(7), seed=4))
    atol = {"first": 1e-3, "colour": 0.0, "function": 1e-4, "mode": 1e-5, "fitted": 1e-3}.get(name, TOLERANCE)
    for _ in range(4):
        assert_equal_but_on_device(next(flows[1]), next(flows[0]), atol=atol)
    assert cuda.num_launches


@pytest.mark.parametrize("dtype", ["?", "i1", "<i4", ">i4", ">u2", "<f4", ">f8", "f2", "c8", ">c16"])
def test_labels_go_up_through_page_locked_memory(cuda: Any, monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    """CuPy's own way takes the host three times as long, of small arrays."""
    import cupy

    y = np.arange(21).reshape(7, 3).astype(dtype)
    flow = generator("cuda").flow(images((7, 4, 4, 3), "uint8"), y, 3, sample_weight=y[:, 0], shuffle=False)
    monkeypatch.setattr(cupy, "asarray", None)
    for rows in (slice(0, 3), slice(3, 6), slice(6, 7)):
        assert_equal_but_on_device(
            next(flow)[1:], [part.astype(y.dtype.newbyteorder("=")) for part in (y[rows], y[rows, 0])]
        )


def test_labels_that_are_no_numbers_stay_on_the_host(cuda: Any) -> None:
    words = np.array(["cat", "dog", "cow"])
    _, y = next(generator("cuda").flow(images((3, 4, 4, 3), "uint8"), words, 3, shuffle=False))
    assert isinstance(y, np.ndarray)
    assert y.tolist() == words.tolist()


def test_what_nobody_asks_for_costs_nothing(cuda: Any) -> None:
    data = images((4, 9, 9, 3), "uint8")
    next(generator("cuda", **GEOMETRY, rescale=1 / 255).flow(data, batch_size=4, seed=1))
    ((name, macros),) = cuda.variants
    assert name == "augment"
    assert {
        macro: value for macro, value in macros if macro in ("HAS_CHANNEL_SHIFT", "HAS_BRIGHTNESS", "HAS_FLIP")
    } == {
        "HAS_CHANNEL_SHIFT": "0",
        "HAS_BRIGHTNESS": "0",
        "HAS_FLIP": "0",
    }
    cuda.variants.clear()
    next(generator("cuda", rescale=1 / 255).flow(data, batch_size=4, seed=1))
    assert dict(cuda.variants[0][1])["HAS_AFFINE"] == "0"


def test_whitening_and_fit_on_device_arrays(cuda: Any) -> None:
    import cupy

    data = images((30, 4, 4, 1), "uint8")
    made = [generator(device, zca_whitening=True, featurewise_center=True) for device in ("cpu", "cuda")]
    made[0].fit(data)
    made[1].fit(cupy.asarray(data))
    np.testing.assert_allclose(made[1].zca_whitening_matrix, made[0].zca_whitening_matrix, atol=1e-6)
    batches = [one.flow(data, batch_size=5, seed=1) for one in made]
    assert_equal_but_on_device(next(batches[1]), next(batches[0]), atol=1e-3)


def test_single_images_and_free_functions(cuda: Any) -> None:
    import cupy

    image = images((9, 9, 3), "float32")
    on_device = cupy.asarray(image)
    made = [generator(device, **GEOMETRY, channel_shift_range=20.0) for device in ("cpu", "cuda")]
    assert_equal_but_on_device(made[1].random_transform(on_device, seed=2), made[0].random_transform(image, seed=2))
    pairs = [
        (gpuseq.apply_affine_transform, (30.0,), {"row_axis": 0, "col_axis": 1, "channel_axis": 2}),
        (gpuseq.apply_channel_shift, (12.0,), {"channel_axis": 2}),
        (gpuseq.apply_brightness_shift, (0.5,), {"scale": False}),
        (gpuseq.apply_brightness_shift, (0.5,), {}),
        (gpuseq.flip_axis, (1,), {}),
    ]
    for function, positional, named in pairs:
        got, wanted = function(on_device, *positional, **named), function(image, *positional, **named)
        assert isinstance(got, standin.DeviceArray), function.__name__
        np.testing.assert_allclose(got.get(), wanted, rtol=0, atol=1e-4, err_msg=function.__name__)
    scaled = [one.standardize(image.copy() if one is made[0] else on_device.copy()) for one in made]
    assert_equal_but_on_device(scaled[1], scaled[0])


@pytest.mark.parametrize(
    "options", [{}, {"cache": "device"}, {"cache": "host"}, {"cache": "auto", "memory_limit": 900}]
)
def test_folders(cuda: Any, tmp_path: Path, options: dict[str, Any]) -> None:
    tree = write_tree(tmp_path / "tree")
    arguments = {"target_size": (10, 10), "batch_size": 4, "seed": 2, "verbose": False, "interpolation": "bilinear"}
    with quiet():
        wanted = generator("cpu", **GEOMETRY, rescale=1 / 255).flow_from_directory(tree, **arguments)
        got = generator("cuda", **GEOMETRY, rescale=1 / 255).flow_from_directory(tree, **arguments, **options)
    for _ in range(2 * len(wanted) + 1):
        assert_equal_but_on_device(next(got), next(wanted))
    got.close()
    wanted.close()


@pytest.mark.parametrize("cache", [None, "device"])
@pytest.mark.parametrize("on_error", ["skip", "substitute", "answer"])
def test_bad_files(cuda: Any, tmp_path: Path, on_error: Any, cache: str | None) -> None:
    tree = write_tree(tmp_path / "tree")
    write_broken(next(path for path in tree.iterdir() if path.is_dir()), "empty")
    if on_error == "answer":
        on_error = lambda path, error: np.full((10, 10, 3), 9, np.uint8)  # noqa: E731
    arguments = {"target_size": (10, 10), "batch_size": 4, "seed": 2, "verbose": False, "on_error": on_error}
    flows = []
    for device in ("cpu", "cuda"):
        with quiet():
            made = generator(device)
            more = {} if device == "cpu" else {"cache": cache}
            flows.append(made.flow_from_directory(tree, **arguments, **more))
    for _ in range(2 * len(flows[0])):
        assert_equal_but_on_device(next(flows[1]), next(flows[0]))
    for flow in flows:
        flow.close()


@pytest.mark.filterwarnings("ignore:interpolation_order")
@pytest.mark.parametrize("order", [2, 3, 4, 5])
def test_splines_that_overshoot_saturate_as_scipys(cuda: Any, order: int) -> None:
    """cupyx rounds to 8 bits and wraps around; SciPy stops at 0 and 255."""
    data = np.zeros((3, 9, 9, 3), np.uint8)
    data[:, 3:6, 3:6] = 255
    batches = []
    for device in ("cpu", "cuda"):
        made = generator(device, **GEOMETRY, interpolation_order=order, dtype="uint8")
        batches.append(next(made.flow(data, batch_size=3, seed=1)))
    assert (batches[0] == 255).any()
    assert_equal_but_on_device(batches[1], batches[0], atol=0)


def test_what_splines_cost_is_said_once(cuda: Any) -> None:
    ops_cuda._warn_of_splines.cache_clear()
    flow = generator("cuda", **GEOMETRY, interpolation_order=3).flow(images((6, 9, 9, 3), "uint8"), batch_size=3)
    with pytest.warns(UserWarning, match="compiled anew for each size of image.*exactly on the border") as said:
        batches = [next(flow) for _ in range(3)]
    assert len(batches) == 3
    assert len(said) == 1
    assert said[0].filename == __file__


def test_masks(cuda: Any) -> None:
    data, masks = images((6, 9, 9, 3), "uint8"), images((6, 9, 9), "uint8")
    flows = [
        generator(device, **GEOMETRY, rescale=1 / 255).flow(data, masks=masks, batch_size=4, seed=5)
        for device in ("cpu", "cuda")
    ]
    for _ in range(3):
        assert_equal_but_on_device(next(flows[1]), next(flows[0]))


def test_the_second_device_is_used_while_the_first_is_current(cuda: Any, tmp_path: Path) -> None:
    import cupy

    data = images((5, 9, 9, 3), "uint8")
    assert cupy.cuda.Device().id == 0
    wanted = next(generator("cpu", **GEOMETRY).flow(data, np.arange(5), 5, seed=1))
    got = next(generator("cuda:1", **GEOMETRY).flow(data, np.arange(5), 5, seed=1))
    assert_equal_but_on_device(got, wanted, "cuda:1", atol=1e-4)
    assert cupy.cuda.Device().id == 0
    tree = write_tree(tmp_path / "tree")
    with quiet():
        flow = generator("cuda:1").flow_from_directory(tree, target_size=(8, 8), verbose=False, cache="device")
        assert all(f"cuda:{leaf.device.id}" == "cuda:1" for leaf in leaves(next(flow)))
    flow.close()
    with pytest.raises(DeviceError, match=r"cuda:2.*2 CUDA device"):
        generator("cuda:2")


def test_an_array_beyond_the_limit_stays_on_the_host(cuda: Any, caplog: pytest.LogCaptureFixture) -> None:
    data = images((8, 9, 9, 3), "uint8")
    made = generator("cuda", **GEOMETRY)
    with caplog.at_level(logging.INFO, logger="gpuseq"):
        small = made.flow(data, batch_size=3, seed=1, memory_limit=100)
        large = made.flow(data, batch_size=3, seed=1)
    assert isinstance(small.x, np.ndarray)
    assert not isinstance(small.x, standin.DeviceArray)
    assert isinstance(large.x, standin.DeviceArray)
    assert "stays on the host" in caplog.text
    assert "moves to cuda:0" in caplog.text
    for _ in range(4):
        assert_equal_but_on_device(next(small), next(large).get())


def test_a_cache_on_the_host_sends_only_the_batch(cuda: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpuseq.ops import dispatch as ops

    tree = write_tree(tmp_path / "tree")
    with quiet():
        flow = generator("cuda").flow_from_directory(
            tree, target_size=(8, 8), batch_size=4, verbose=False, cache="host", class_mode=None
        )
    sent: list[int] = []
    upload = ops.upload

    def watched(*arguments: Any) -> Any:
        sent.append(len(upload(*arguments)))
        return upload(*arguments)

    monkeypatch.setattr(ops, "upload", watched)
    for _ in range(2 * len(flow)):
        next(flow)
    assert max(sent) == 4
    flow.close()


def test_too_large_a_cache_names_bytes_and_knob(cuda: Any, tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree")
    with quiet(), pytest.raises(DeviceError, match=r"cuda:0 has no room for .* GB.*memory_limit"):
        generator("cuda").flow_from_directory(
            tree, target_size=(3000, 3000), verbose=False, cache="device", memory_limit=1 << 40
        )


def test_the_stand_in_refuses_to_mix_host_and_device() -> None:
    with pytest.MonkeyPatch.context() as patch:
        standin.install(patch)
        import cupy

        array = cupy.asarray(np.arange(3.0))
        for mix in (lambda: array + np.arange(3.0), lambda: np.stack([array, array])):
            with pytest.raises(TypeError):
                mix()
        with pytest.raises(ValueError, match="non-scalar"):
            array[:] = np.arange(3.0)

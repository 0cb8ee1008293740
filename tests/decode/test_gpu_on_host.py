"""The GPU decoder's routing, colour, orientation and buffers, on nvImageCodec's CPU decoder; no GPU runs here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpuseq.base.errors import ImageFileError
from gpuseq.base.types import ColorMode, literals
from gpuseq.decode import gpu as decode_device
from gpuseq.decode import gpu_files
from gpuseq.decode import host as decode
from gpuseq.decode import nvimgcodec as decode_nvimgcodec
from gpuseq.decode.options import DecodeOptions
from gpuseq.decode.reading import FileReader
from gpuseq.ops.compiled import library
from tests import compiled_library
from tests.compare import assert_same
from tests.decode.hostbackend import HostBackend
from tests.decode.imagefiles import broken, corpus, matrix

pytest.importorskip("nvidia.nvimgcodec")
pytestmark = pytest.mark.dali


@pytest.fixture(params=["nvimgcodec", "dali"], autouse=True)
def which(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each test with each decoder."""
    monkeypatch.setitem(DEFAULTS, "decoder", request.param)
    return request.param


DEFAULTS: dict[str, Any] = {"target_size": (20, 30), "interpolation": "bilinear", "num_threads": 2}


def decoder(**options: Any) -> decode_device.DeviceDecoder:
    asked = DecodeOptions(**{**DEFAULTS, **options})
    return decode_device.DeviceDecoder(asked, "cpu", backend=HostBackend(asked, 1))


def in_order(batch: decode_device.DeviceBatch) -> tuple[list[Any], list[str]]:
    """The images or errors of a batch, and who decoded them, in the order in which they were asked for."""
    taken = batch.take()[batch.rows]
    images = [image if error is None else error for image, error in zip(taken, batch.errors, strict=True)]
    return images, batch.decoders


@pytest.mark.parametrize("color_mode", literals(ColorMode))
@pytest.mark.parametrize("options", [{}, {"exif_orientation": True}, {"keep_aspect_ratio": True}])
def test_the_matrix_equals_pillow(color_mode: Any, options: dict[str, Any]) -> None:
    names, encoded = list(matrix()), list(matrix().values())
    options = {"color_mode": color_mode, "target_size": (29, 31), "interpolation": "bicubic", **options}
    expected = decode.decode(encoded, DecodeOptions(**options), names)
    images, decoders = in_order(decoder(**options).decode(encoded, names))
    on_device = [name for name, by in zip(names, decoders, strict=True) if by == "device"]
    # nvJPEG takes the components of jpeg_rgb for luma and chroma.
    assert on_device == [name for name in names if name.startswith("jpeg_") and name not in ("jpeg_cmyk", "jpeg_rgb")]
    dtype = decode.common_dtype([image for image in expected if isinstance(image, np.ndarray)])
    for name, got, want in zip(names, images, expected, strict=True):
        assert isinstance(want, np.ndarray), want
        assert_same(got, want.astype(dtype), message=f"{name}: ")


def test_bad_files_stand_alone(tmp_path: Path) -> None:
    good = matrix()["jpeg_420"]
    paths = []
    for number, data in enumerate([good, *broken().values(), good]):
        (tmp_path / str(number)).write_bytes(data)
        paths.append(str(tmp_path / str(number)))
    paths.insert(3, str(tmp_path / "missing"))
    images, decoders = in_order(decoder().decode_files(paths))
    assert decoders == ["device", *[""] * (len(paths) - 2), "device"]
    for path, image in zip(paths[1:-1], images[1:-1], strict=True):
        assert isinstance(image, ImageFileError)
        assert image.path == path
    assert "no such file" in images[3].reason
    (want,) = decode.decode([good], DecodeOptions(target_size=(20, 30), interpolation="bilinear"))
    assert_same(images[0], want)
    assert_same(images[-1], want)


@pytest.mark.parametrize("engine", ["compiled", "numpy"])
@pytest.mark.parametrize("options", [{}, {"exif_orientation": True}])
def test_files_become_the_images_of_their_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str, options: dict[str, Any]
) -> None:
    """Read by the compiled engine into one buffer, or one by one: also what the host decodes of them."""
    if engine == "compiled":
        compiled_library.require()
    monkeypatch.setenv(library.ENGINE, engine)
    names, encoded = list(matrix()), list(matrix().values())
    want, by_bytes = in_order(decoder(**options).decode(encoded, names))
    ring = decoder(**options)
    for _ in range(2):  # the second time into a buffer that was used before
        images, decoders = in_order(ring.decode_files(written(tmp_path, matrix())))
        assert decoders == by_bytes
        for name, got, expected in zip(names, images, want, strict=True):
            assert_same(got, expected, message=f"{name}: ")


@pytest.mark.parametrize("engine", ["compiled", "numpy"])
@pytest.mark.parametrize("options", [{}, {"color_mode": "rgba"}, {"max_pixels": 53 * 37}, {"max_pixels": 53 * 37 - 1}])
def test_files_are_chosen_as_their_bytes_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str, options: dict[str, Any]
) -> None:
    if engine == "compiled":
        compiled_library.require()
    monkeypatch.setenv(library.ENGINE, engine)
    asked = DecodeOptions(**{**DEFAULTS, **options})
    paths = [*written(tmp_path, corpus()), str(tmp_path / "missing")]
    files = gpu_files.read_files(FileReader(2), paths, asked)
    want = gpu_files.given([*corpus().values(), None], paths, asked)
    assert_same(files.sizes, want.sizes)
    assert [None if data is None else bytes(data) for data in files.data] == want.data
    assert [error is None for error in files.errors] == [data is not None for data in want.data]
    assert files.sizes[list(corpus()).index("jpeg_420")] == (0 if asked.max_pixels == 53 * 37 - 1 else 3 * 53 * 37)
    assert any(files.orientations) == (engine == "compiled")


def test_the_largest_images_that_fit_are_chosen() -> None:
    sizes = np.array([5, 0, 9, 5, 7, 0, 2])
    assert gpu_files.chosen_of(sizes, 28) == [2, 4, 0, 3, 6]
    assert gpu_files.chosen_of(sizes, 27) == [2, 4, 0, 3]
    assert gpu_files.chosen_of(sizes, 8) == [4]
    assert gpu_files.chosen_of(sizes, 1) == []
    assert gpu_files.chosen_of(np.array([3, 8, 4]), 7) == [2, 0]
    assert gpu_files.chosen_of(np.zeros(0, np.int64), 7) == []


def written(folder: Path, files: dict[str, bytes]) -> list[str]:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return [str(folder / name) for name in files]


def test_nothing_but_bad_files(tmp_path: Path) -> None:
    batch = decoder().decode_files([str(tmp_path / "a"), str(tmp_path / "b")])
    assert batch.take().shape == (2, 20, 30, 3)
    assert all(isinstance(error, ImageFileError) for error in batch.errors)


def test_damage_behind_a_good_header_stands_alone() -> None:
    good = matrix()["jpeg_progressive"]
    damaged = good[: len(good) // 2] + b"\xff\xd9"
    want = decode.decode([good, damaged, good], DecodeOptions(target_size=(20, 30), interpolation="bilinear"))
    ring = decoder()
    for _ in range(3):
        images, _ = in_order(ring.decode([good, damaged, good], ["a", "b", "c"]))
        for got, expected in zip(images, want, strict=True):
            if isinstance(expected, ImageFileError):
                assert isinstance(got, ImageFileError)
            else:
                assert_same(got, expected)


def test_a_size_over_the_limit_is_refused_by_name() -> None:
    batch = decoder(max_pixels=100).decode([matrix()["jpeg_420"]], ["big.jpg"])
    assert isinstance(batch.errors[0], ImageFileError)
    assert "53x37" in batch.errors[0].reason


def test_what_exceeds_the_memory_for_images_goes_to_the_host() -> None:
    encoded = [matrix()["jpeg_420"]] * 5
    ring = decoder()
    ring._max_bytes = 2 * 53 * 37 * 3
    images, decoders = in_order(ring.decode(encoded, list("abcde")))
    assert sorted(decoders) == ["device"] * 2 + ["host"] * 3
    for image in images:
        assert_same(image, images[0])


def test_a_block_is_filled_again_only_after_it_was_taken() -> None:
    ring = decoder()
    names = ["jpeg_444", "jpeg_420", "jpeg_grey", "jpeg_rgb"]
    alive = [ring.decode([matrix()[name]] * 3, [name] * 3) for name in names]
    assert ring.num_blocks == 0
    blocks = [batch._block for batch in alive]
    assert len({id(block) for block in blocks}) == len(names)
    options = DecodeOptions(target_size=(20, 30), interpolation="bilinear")
    taken = [batch.take() for batch in alive]
    assert ring.num_blocks == len(names)
    again = ring.decode([matrix()["jpeg_444"]] * 3, ["x"] * 3)
    assert again._block is blocks[0]
    for name, images in zip(names, taken, strict=True):  # nothing wrote into another's block, nor into a taken copy
        for image in images:
            assert_same(image, decode.decode([matrix()[name]], options)[0])


def test_a_batch_that_nobody_takes_keeps_nothing() -> None:
    ring = decoder()
    for _ in range(3):
        ring.decode([matrix()["jpeg_420"]], ["a"])
    assert ring.num_blocks == 0


def test_the_host_waits_for_its_stream_and_for_the_last_reader() -> None:
    log: list[str] = []

    class Event:
        done = False

        def synchronize(self) -> None:
            log.append("wait")

    class Logged(HostBackend):
        def read_out(self, work: Callable[[], Any]) -> tuple[Any, Any]:
            log.append("copy")
            return work(), Event()

        def synchronize(self) -> None:
            log.append("synchronize")

    asked = DecodeOptions(**DEFAULTS)
    ring = decode_device.DeviceDecoder(asked, "cpu", backend=Logged(asked, 1))
    for _ in range(3):
        ring.decode([matrix()["jpeg_420"]], ["a"]).take()
    assert log == ["synchronize", "copy", "wait", "synchronize", "copy", "wait", "synchronize", "copy"]
    assert ring.num_blocks == 1


def test_one_batch_at_a_time_whichever_thread_asks() -> None:
    """The images of a decoder are overwritten by its next call: that has to wait until they have been read."""
    log: list[str] = []
    is_waiting = threading.Event()

    class Waited:
        """A lock that says when somebody finds it taken."""

        def __init__(self) -> None:
            self.lock = threading.Lock()

        def __enter__(self) -> None:
            if not self.lock.acquire(blocking=False):
                is_waiting.set()
                self.lock.acquire()

        def __exit__(self, *_: object) -> None:
            self.lock.release()

    class Logged(HostBackend):
        def decode(self, encoded: Sequence[Any]) -> list[Any]:
            log.append("decode")
            assert is_waiting.wait(120)  # until the other one is at the door
            return super().decode(encoded)

        def synchronize(self) -> None:
            log.append("synchronize")

    asked = DecodeOptions(**DEFAULTS)
    made = decode_device.DeviceDecoder(asked, "cpu", backend=Logged(asked, 1))
    made._lock = Waited()  # type: ignore[assignment]
    some = [matrix()["jpeg_420"], matrix()["jpeg_grey"]]
    wanted, _ = in_order(decoder().decode(some, ["a", "b"]))
    with ThreadPoolExecutor(2) as pool:
        batches = list(pool.map(lambda _: made.decode(some, ["a", "b"]), range(2)))
    assert log == ["decode", "synchronize"] * 2
    for batch in batches:
        for got, want in zip(in_order(batch)[0], wanted, strict=True):
            assert_same(got, want)


def test_a_failing_call_leaves_the_decoder_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    def defect(*arguments: object) -> None:
        raise ZeroDivisionError

    ring = decoder()
    with monkeypatch.context() as patch:
        patch.setattr(decode_device, "to_color_mode", defect)
        with pytest.raises(ZeroDivisionError):
            ring.decode([matrix()["jpeg_420"]], ["a"])
    images, _ = in_order(ring.decode([matrix()["jpeg_420"]], ["a"]))
    (want,) = decode.decode([matrix()["jpeg_420"]], DecodeOptions(target_size=(20, 30), interpolation="bilinear"))
    assert_same(images[0], want)


def test_batches_may_grow_and_shrink() -> None:
    ring = decoder()
    options = DecodeOptions(target_size=(20, 30), interpolation="bilinear")
    expected = decode.decode([matrix()["jpeg_420"], matrix()["jpeg_grey"]], options)
    for count in (1, 5, 2, 0, 7):
        names = ["jpeg_420", "jpeg_grey"] * count
        images, _ = in_order(ring.decode([matrix()[name] for name in names], names))
        assert len(images) == 2 * count
        for number, image in enumerate(images):
            assert_same(image, expected[number % 2])
    assert ring.num_blocks == 1


def test_a_batch_is_one_call_whatever_came_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """In two, the batches before would choose an image's decoder: JPEG hardware takes a share of each call."""
    images = decode_nvimgcodec.DeviceImages(None, 0, 2, 0.0)
    calls: list[tuple[int, int]] = []
    original = images._decoder

    class Watched:
        def decode(self, streams: Any, *, images: Any = (), **options: Any) -> Any:
            calls.append((len(streams), len(images)))
            return original.decode(streams, **({"images": images} if images else {}), **options)

    monkeypatch.setattr(images, "_decoder", Watched())
    good, cut = matrix()["jpeg_420"], matrix()["jpeg_420"][:40]
    scan = good.index(b"\xff\xda") + 4
    damaged = good[:scan] + b"\x09" + good[scan + 1 :]  # its header is good
    assert [decode_nvimgcodec.parses(data) for data in (good, damaged, cut)] == [True, True, False]
    (want,) = decode.decode([good], DecodeOptions())
    for batch in ([good] * 2, [good] * 5, [good, damaged, good], [], [cut], [good] * 6, [good, good, damaged] * 3):
        for data, image in zip(batch, images.decode(batch), strict=True):
            assert (image is None) == (data is not good)
            if image is not None:
                assert_same(np.asarray(image.cpu()), want)
    # Of the last, three buffers fail: what there was before stays for the next batch.
    assert calls == [(2, 0), (5, 0), (3, 3), (6, 0), (9, 0)]
    images.decode([good] * 6)
    assert calls[-1] == (6, 6)
    # What has no header is none of the call.
    found = images.decode([cut, good, cut, good, good])
    assert calls[-1] == (3, 3)
    assert [image is None for image in found] == [True, False, True, False, False]


def test_two_threads_at_once() -> None:
    ring = decoder()
    names = ["jpeg_444", "jpeg_420", "jpeg_grey"]
    options = DecodeOptions(target_size=(20, 30), interpolation="bilinear")
    wanted = {name: decode.decode([matrix()[name]], options)[0] for name in names}

    def work(name: str) -> None:
        for _ in range(20):
            for image in ring.decode([matrix()[name]] * 4, [name] * 4).take():
                assert_same(image, wanted[name])

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(work, names))


@pytest.mark.parametrize("load", [-0.1, 1.1, float("nan")])
def test_the_hardware_share_is_checked(load: float) -> None:
    with pytest.raises(ValueError, match="hw_decoder_load"):
        DecodeOptions(hw_decoder_load=load)


def test_the_backends_for_a_gpu() -> None:
    from nvidia import nvimgcodec

    kinds = [backend.backend_kind.name for backend in decode_nvimgcodec._backends(nvimgcodec, 0, 0.65)]
    assert kinds == ["HW_GPU_ONLY", "GPU_ONLY", "HYBRID_CPU_GPU"]
    assert decode_nvimgcodec._backends(nvimgcodec, 0, 0.65)[0].load_hint == pytest.approx(0.65)
    pinned = [backend.backend_kind.name for backend in decode_nvimgcodec._backends(nvimgcodec, 0, 0.0)]
    assert pinned == ["GPU_ONLY", "HYBRID_CPU_GPU"]


def test_grey_is_pillows_for_every_colour() -> None:
    from PIL import Image

    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (300, 400, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(pixels).convert("L"))[:, :, None]
    assert_same(decode_device.to_color_mode(pixels, "grayscale"), expected)

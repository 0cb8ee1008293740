"""PyTorch: loaders as they are, under DataLoader, StatefulDataLoader and Lightning; no copy on the host; training."""

from __future__ import annotations

import pickle
import subprocess
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gpuseq import GpuseqError, ImageDataGenerator
from gpuseq.plan.draw import draw_params
from tests.feed.samples import GEOMETRY, generator, numbered, photos

torch = pytest.importorskip("torch")

from gpuseq.torch import TorchLoader, augment, loader  # noqa: E402


def flow(n: int = 11, **options: Any) -> Any:
    options = {"batch_size": 3, "seed": 2, **options}
    return generator(**GEOMETRY).flow(numbered(n), np.arange(n), **options)


def labels(batches: Any) -> list[int]:
    return [int(label) for batch in batches for label in batch[1]]


def test_a_pass_is_an_epoch() -> None:
    batches = loader(flow())
    assert len(batches) == 4
    first, second = labels(batches), labels(batches)
    assert sorted(first) == sorted(second) == list(range(11))
    assert first != second
    x, y = next(iter(batches))
    assert type(x) is type(y) is torch.Tensor
    assert (x.dtype, tuple(x.shape), y.dtype) == (torch.float32, (3, 3, 6, 6), torch.int64)


def image_folder(root: Any, num_classes: int = 3) -> Any:
    """Write what torchvision's ImageFolder would read."""
    rng = np.random.default_rng(5)
    for number in range(7):
        folder = root / "train" / f"class{number % num_classes}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (10 + number, 12, 3), np.uint8)).save(folder / f"{number}.png")
    return root / "train"


@pytest.mark.parametrize("kind", ["folder", "frame", "array"])
@pytest.mark.parametrize("told", [None, "channels_last", "channels_first"])
@pytest.mark.each_cpu_engine
def test_batches_are_what_layers_and_losses_take(tmp_path: Any, kind: str, told: str | None) -> None:
    """Channels first unless the generator was told otherwise, class indices as int64; the numbers are the same."""
    options = {**GEOMETRY, "rescale": 1 / 255, "device": "cpu", "data_format": told}

    def made() -> Any:
        if kind == "array":
            images = np.random.default_rng(0).integers(0, 256, (7, 9, 8, 3), np.uint8)
            images = images.transpose(0, 3, 1, 2).copy() if told == "channels_first" else images
            return ImageDataGenerator(**options).flow(images, np.arange(7, dtype=np.uint8), batch_size=3, seed=2)
        arguments = {"target_size": (9, 8), "class_mode": "sparse", "batch_size": 3, "seed": 2, "verbose": False}
        folder = image_folder(tmp_path)
        if kind == "folder":
            return ImageDataGenerator(**options).flow_from_directory(folder, **arguments)
        names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png"))
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame({"filename": names, "class": [name[:6] for name in names]})
        return ImageDataGenerator(**options).flow_from_dataframe(frame, folder, **arguments)

    own = made()
    own.set_epoch(0)
    for (x, y), _ in zip(loader(made()), range(3), strict=True):
        wanted, indices = next(own)
        wanted = wanted.transpose(0, 3, 1, 2) if told is None else wanted
        assert x.is_contiguous()
        assert np.array_equal(x.numpy(), wanted)
        assert y.dtype == torch.int64
        assert np.array_equal(y.numpy(), indices)
        if told != "channels_last":
            logits = torch.nn.Sequential(torch.nn.Conv2d(3, 7, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())(x)
            torch.nn.functional.cross_entropy(logits, y).backward()


def test_the_axis_order_is_asked_for_by_name() -> None:
    told = ImageDataGenerator(device="cpu", data_format="channels_last")
    for data_format, shape in ((None, (3, 6, 6, 3)), ("channels_first", (3, 3, 6, 6)), ("channels_last", (3, 6, 6, 3))):
        x, _ = next(iter(loader(told.flow(numbered(5), np.arange(5), batch_size=3, seed=1), data_format)))
        assert tuple(x.shape) == shape
    x, _ = next(iter(loader(flow(), "channels_last")))
    assert tuple(x.shape) == (3, 6, 6, 3)
    with pytest.raises(ValueError, match="channels_middle"):
        loader(flow(), "channels_middle")  # type: ignore[arg-type]


@pytest.mark.parametrize("batched", [False, True])
def test_a_function_of_the_users_sees_its_own_axis_order(batched: bool) -> None:
    def function(image: Any) -> Any:
        assert image.shape[-1] == 3
        return image * np.array([1, 0, 2], np.float32)

    function.batched = batched  # type: ignore[attr-defined]
    made = ImageDataGenerator(device="cpu", preprocessing_function=function)
    images = numbered(5)
    x, _ = next(iter(loader(made.flow(images, np.arange(5), batch_size=5, shuffle=False))))
    assert np.array_equal(x.numpy(), (images * np.array([1, 0, 2])).transpose(0, 3, 1, 2))
    assert x.is_contiguous()


@pytest.mark.filterwarnings("ignore:.*zca_whitening")
def test_a_subclass_and_whitening_see_their_own_axis_order() -> None:
    class Own(ImageDataGenerator):
        def apply_transform(self, x: Any, transform_parameters: Any) -> Any:
            assert x.shape[-1] == 3
            return x[::-1]

    images = np.random.default_rng(0).random((6, 5, 4, 3), np.float32)
    whitening = ImageDataGenerator(device="cpu", zca_whitening=True)
    whitening.fit(images)
    for made in (Own(device="cpu"), whitening):
        assert made._told_format is None
        wanted = next(made.flow(images, batch_size=6, shuffle=False))
        (x,) = list(loader(made.flow(images, batch_size=6, shuffle=False)))
        assert np.array_equal(x.numpy(), wanted.transpose(0, 3, 1, 2))


def test_masks_and_images_as_labels_have_the_images_axis_order(tmp_path: Any) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3), np.uint8)
    masks = images[..., 0] > 100
    made = ImageDataGenerator(device="cpu", rotation_range=20, conventions="corrected")
    wanted, wanted_masks = next(made.flow(images, masks=masks, seed=1))
    ((x, found),) = list(loader(made.flow(images, masks=masks, seed=1)))
    assert found.dtype == torch.bool
    assert np.array_equal(x.numpy(), wanted.transpose(0, 3, 1, 2))
    assert np.array_equal(found.numpy(), wanted_masks.transpose(0, 3, 1, 2))
    inputs = made.flow_from_directory(image_folder(tmp_path), (9, 8), class_mode="input", seed=1, verbose=False)
    x, y = next(iter(loader(inputs)))
    assert tuple(x.shape) == (7, 3, 9, 8)
    assert torch.equal(x, y)


def test_indices_of_many_classes_survive_a_narrow_dtype(tmp_path: Any) -> None:
    """float16 holds integers up to 2,048, and uint8 up to 255."""
    for label in range(260):
        folder = tmp_path / f"{label:03d}"
        folder.mkdir()
        if label > 256:
            Image.new("RGB", (4, 4)).save(folder / "a.png")
    made = ImageDataGenerator(device="cpu", dtype="uint8")
    with pytest.warns(UserWarning, match="no images in 257 of 260"):
        iterator = made.flow_from_directory(tmp_path, (4, 4), class_mode="sparse", shuffle=False, verbose=False)
    ((_, y),) = list(loader(iterator))
    assert y.tolist() == [257, 258, 259]


def test_planes_handed_to_a_generator_for_pixels_are_named() -> None:
    planes = torch.zeros(2, 3, 8, 8)
    with pytest.raises(ValueError, match=r'data_format="channels_first"'):
        augment(planes, ImageDataGenerator(device="cpu"), seed=1)
    assert augment(planes, ImageDataGenerator(device="cpu", data_format="channels_first"), seed=1).shape == planes.shape


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_data_loader_around_an_iterator_says_that_it_would_repeat_an_epoch(num_workers: int) -> None:
    keyed = generator(**GEOMETRY, rng="keyed").flow(numbered(7), np.arange(7), batch_size=3, seed=2)
    batches = torch.utils.data.DataLoader(keyed, batch_size=None, num_workers=num_workers)
    with pytest.raises(
        GpuseqError, match=r"epoch 0 again.*DataLoader\(gpuseq.torch.loader\(iterator\), batch_size=None"
    ):
        list(batches)
    walks = []
    for epoch in range(2):
        keyed.set_epoch(epoch)
        walks.append(labels(batches))
    assert sorted(walks[0]) == sorted(walks[1]) == list(range(7))
    assert walks[0] != walks[1]
    if not num_workers:
        with pytest.raises(GpuseqError, match="epoch 1 again"):
            list(batches)
    # By hand an iterator may be asked for anything, any number of times; and what is not random may come again.
    assert labels([keyed[0], keyed[0]]) == 2 * labels([keyed[0]])
    plain = ImageDataGenerator(device="cpu", rng="keyed").flow(numbered(7), np.arange(7), batch_size=3, shuffle=False)
    batches = torch.utils.data.DataLoader(plain, batch_size=None, num_workers=num_workers)
    assert labels(batches) == labels(batches) == list(range(7))


def test_no_copy_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tensor lies where the iterator wrote its batch."""
    iterator = flow()
    made = []
    replay = iterator.replay
    monkeypatch.setattr(iterator, "replay", lambda plan: made.append(replay(plan)) or made[-1])
    for (x, y), _ in zip(loader(iterator), range(4), strict=False):
        assert x.data_ptr() == made[-1][0].ctypes.data
        assert y.data_ptr() == made[-1][1].ctypes.data


def test_iter_has_no_side_effects() -> None:
    batches = loader(flow())
    walks = [iter(batches) for _ in range(3)]
    assert batches.state_dict()["batch_index"] == 0
    first = labels(walks[0])
    assert labels(batches) != first, "the next pass is the next epoch"
    batches.sampler.set_epoch(0)
    assert labels(batches) == first
    left = iter(batches)
    next(left)
    assert batches.epoch == 1
    assert labels(batches) == labels(loader_at(1)), "a pass that was left is begun again"


def loader_at(epoch: int) -> TorchLoader:
    batches = loader(flow())
    batches.set_epoch(epoch)
    return batches


def test_a_pass_is_over_with_its_last_batch() -> None:
    """Keras and others count the batches and never run into the end."""
    batches = loader(flow())
    first = labels(next(walk) for walk in [iter(batches)] for _ in range(4))
    assert batches.epoch == 1
    second = labels(batches)
    assert sorted(first) == sorted(second) == list(range(11))
    assert first != second


def test_set_epoch_goes_anywhere_and_back() -> None:
    whole = loader(flow())
    epochs = [labels(whole) for _ in range(3)]
    batches = loader(flow())
    for epoch in (2, 0, 1, 1):
        batches.sampler.set_epoch(epoch)
        assert labels(batches) == epochs[epoch]
    assert len(batches.sampler) == 11
    with pytest.raises(ValueError, match="non-negative"):
        batches.set_epoch(-1)


def test_a_state_is_effective_at_once() -> None:
    """torchdata calls iter() first and loads the state afterwards, on the loader or on the pass."""
    whole = labels(loader(flow()))
    batches = loader(flow())
    walk = iter(batches)
    next(walk)
    state = batches.state_dict()
    assert state == walk.state_dict()
    for where in ("loader", "pass", "loader under way", "pass under way"):
        resumed = loader(flow())
        walk = iter(resumed)
        if where.endswith("under way"):
            next(walk), next(walk)
        (walk if where.startswith("pass") else resumed).load_state_dict(state)
        assert labels(walk) == whole[3:], where
        assert resumed.epoch == 1


def test_a_pass_goes_on_with_the_seed_of_its_state_and_refuses_one_of_other_data() -> None:
    batches = loader(flow(seed=5))
    first = labels([next(iter(batches))])
    walk = iter(loader(flow()))
    walk.load_state_dict(batches.state_dict())
    assert first + labels(walk) == labels(loader(flow(seed=5)))
    walk = iter(loader(flow()))
    with pytest.raises(ValueError, match="dataset_size"):
        walk.load_state_dict(loader(flow(12)).state_dict())
    assert labels(walk) == labels(loader(flow()))


@pytest.mark.parametrize("shuffle", [False, True])
def test_without_a_seed_a_loader_draws_one(shuffle: bool) -> None:
    """Frameworks ask every loader for its state, whatever its user thought of."""
    batches = loader(generator().flow(numbered(11), np.arange(11), batch_size=3, shuffle=shuffle))
    walk = iter(batches)
    next(walk)
    state = batches.state_dict()
    resumed = loader(generator().flow(numbered(11), np.arange(11), batch_size=3, shuffle=shuffle))
    resumed.load_state_dict(state)
    assert labels(resumed) == labels(walk)


def test_set_epoch_keeps_a_resumed_place() -> None:
    whole = loader(flow())
    epochs = [labels(whole) for _ in range(3)]
    batches = loader(flow())
    batches.load_state_dict(batches.state_dict() | {"epoch": 1, "batch_index": 2})
    got = []
    for epoch in (1, 2):
        batches.sampler.set_epoch(epoch)
        got.append(labels(batches))
    assert got == [epochs[1][6:], epochs[2]]


@pytest.mark.parametrize("under_way", [0, 2, 4])
def test_set_epoch_keeps_a_place_resumed_in_the_same_process(under_way: int) -> None:
    """Of a loader that has made batches before; once a batch was made, set_epoch is a new start again."""
    whole = loader(flow())
    epochs = [labels(whole) for _ in range(2)]
    batches = loader(flow())
    walk = iter(batches)
    next(walk), next(walk)
    state = batches.state_dict()
    for _ in range(under_way):
        next(iter(batches) if under_way == 4 else walk)
    batches.load_state_dict(state)
    batches.sampler.set_epoch(0)
    batches.sampler.set_epoch(0)
    walk = iter(batches)
    assert labels([next(walk)]) == epochs[0][6:9]
    batches.sampler.set_epoch(0)
    assert labels(batches) == epochs[0]
    batches.load_state_dict(state)
    batches.sampler.set_epoch(1)
    assert labels(batches) == epochs[1]


def test_a_state_after_the_last_batch_is_the_start_of_the_next_epoch() -> None:
    whole = loader(flow())
    epochs = [labels(whole) for _ in range(2)]
    batches = loader(flow())
    batches.load_state_dict(batches.state_dict() | {"epoch": 0, "batch_index": 4})
    assert batches.epoch == 1
    assert labels(batches) == epochs[1]


def test_under_a_data_loader() -> None:
    whole = loader(flow())
    epochs = [labels(whole) for _ in range(3)]
    data_loader = torch.utils.data.DataLoader(loader(flow()), batch_size=None)
    assert len(data_loader) == 4
    assert [labels(data_loader) for _ in range(3)] == epochs


WORKERS = """
import pickle, warnings
import numpy as np, torch
from gpuseq import ImageDataGenerator
from gpuseq.torch import loader
warnings.simplefilter("ignore")

def flow():
    images = np.zeros((11, 4, 4, 3), np.uint8)
    return ImageDataGenerator(device="cpu").flow(images, np.arange(11), batch_size=3, seed=2)

def labels(batches):
    return [int(label) for batch in batches for label in batch[1]]

whole = loader(flow())
epochs = [labels(whole) for _ in range(2)]
for num_workers in (1, 2, 3):
    batches = loader(flow())
    data_loader = torch.utils.data.DataLoader(batches, batch_size=None, num_workers=num_workers)
    for epoch in range(2):
        batches.sampler.set_epoch(epoch)
        assert labels(data_loader) == epochs[epoch], num_workers
seen = []
for options in ({}, {"set_epoch": 0}):
    iterator = flow()
    if options:
        iterator.set_epoch(0)
    class Watched(torch.utils.data.Dataset):
        def __len__(self):
            return len(iterator)
        def __getitem__(self, index):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                iterator[index]
            return any("loader(iterator)" in str(warning.message) for warning in caught)
    assert not any([Watched()[index] for index in range(2)])
    seen.append(list(torch.utils.data.DataLoader(Watched(), batch_size=None, num_workers=2)))
assert seen == [[True] * 4, [False] * 4], seen
try:
    from torchdata.stateful_dataloader import StatefulDataLoader
except ImportError:
    print("without torchdata")
else:
    first = StatefulDataLoader(loader(flow()), batch_size=None, num_workers=2)
    walk = iter(first)
    done = labels([next(walk)])
    state = pickle.loads(pickle.dumps(first.state_dict()))
    second = StatefulDataLoader(loader(flow()), batch_size=None, num_workers=2)
    second.load_state_dict(state)
    assert done + labels(second) == epochs[0]
print("each once")
"""


TOLD = """
import sys, warnings
import numpy as np, torch
from gpuseq import ImageDataGenerator
from gpuseq.torch import loader
warnings.filterwarnings("ignore", message=".*worker processes in total.*")
batches = loader(ImageDataGenerator(device="cpu").flow(np.zeros((8, 4, 4, 3), np.uint8), batch_size=2, seed=2))
data_loader = torch.utils.data.DataLoader(batches, batch_size=None, num_workers=2, persistent_workers=True)
for epoch in map(int, sys.argv[1:]):
    batches.sampler.set_epoch(epoch)
    for number, _ in enumerate(data_loader):
        if epoch == 1 and number == 1:
            break
"""


@pytest.mark.parametrize(("epochs", "is_heard"), [("0 1 2 3", True), ("4 5 6", True), ("0 1 0", False), ("0 5", False)])
def test_workers_that_persist_say_what_they_do_not_hear(epochs: str, is_heard: bool, run_script: Any) -> None:
    errors = run_script(TOLD, *epochs.split()).stderr
    assert (errors.count("does not reach it") == 0) == is_heard, errors


def test_a_worker_knows_its_own_epoch_and_the_next() -> None:
    """The main process may have left a pass already that the worker is about to begin; anything else was not heard."""
    own = loader(flow())
    own.set_epoch(2)
    for epoch, is_heard in ((2, True), (1, True), (3, False), (0, False)):
        own._num_told = 0  # as in a worker that was started before
        with nullcontext() if is_heard else pytest.warns(UserWarning, match=rf"set_epoch\(2\) .* epoch {epoch},"):
            own._say_what_is_not_heard(epoch)
        own._say_what_is_not_heard(epoch if is_heard else 5)  # once is enough


def test_worker_processes_hold_each_sample_once(run_script: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    assert "each once" in run_script(WORKERS).stdout


@pytest.mark.parametrize("options", [{}, {"batch_size": 4}])
def test_batches_of_batches_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(GpuseqError, match=r"DataLoader\(loader, batch_size=None\)"):
        next(iter(torch.utils.data.DataLoader(loader(flow()), **options)))


def test_worker_processes_are_refused_with_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = loader(flow())
    batches.iterator.device = "cuda:0"
    monkeypatch.setattr(torch.utils.data, "get_worker_info", lambda: object())
    with pytest.raises(GpuseqError, match="num_workers=0"):
        iter(batches)


@pytest.mark.frameworks("torchdata")
@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")
def test_stateful_data_loader() -> None:
    from torchdata.stateful_dataloader import StatefulDataLoader

    whole = labels(loader(flow()))
    first = StatefulDataLoader(loader(flow()), batch_size=None)
    walk = iter(first)
    done = labels([next(walk), next(walk)])
    state = pickle.loads(pickle.dumps(first.state_dict()))
    second = StatefulDataLoader(loader(flow()), batch_size=None)
    second.load_state_dict(state)
    assert done + labels(second) == whole


def test_wrong_things_are_named() -> None:
    with pytest.raises(TypeError, match=r"flow_from_directory.*builtins\.list.*to_device"):
        loader([1])
    strings = generator().flow(numbered(2), np.array(["a", "b"]), batch_size=2, seed=1)
    with pytest.raises(TypeError, match="turn the labels into numbers"):
        next(iter(loader(strings)))


def test_weights_that_nobody_may_write_to_are_copied() -> None:
    batches = loader(flow(shard=(0, 2), remainder="exact"))
    batch = next(iter(batches))
    weights = batch[2].clone()
    batch[2].add_(1)
    batches.set_epoch(0)
    assert torch.equal(next(iter(batches))[2], weights)


# augment: for tensors that are there already.


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_augment_is_the_flow(data_format: str, dtype: Any) -> None:
    """Each image by its own parameters, those of RandomState(seed), as a flow over the same images draws them."""
    own = generator(**GEOMETRY, data_format=data_format, rescale=0.5)
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (5, 8, 9, 3))).to(dtype)
    if data_format == "channels_first":
        images = images.permute(0, 3, 1, 2)
    before = images.clone()
    got = augment(images, own, seed=7)
    assert torch.equal(images, before), "the user's tensor was written to"
    array = images.contiguous().to(torch.float32).numpy() if dtype != torch.float64 else images.contiguous().numpy()
    params = draw_params(np.random.RandomState(7), own._transform_ranges, 5, 8, 9)
    assert np.array_equal(got.numpy(), own.process(array, params))
    assert got.dtype == torch.float32
    assert torch.equal(got, augment(images, own, seed=7))
    assert not torch.equal(got, augment(images, own, seed=8))


def test_augment_keyed_by_sample() -> None:
    own = generator(**GEOMETRY, rng="keyed")
    images = torch.from_numpy(np.random.default_rng(0).uniform(0, 255, (6, 8, 8, 3)).astype(np.float32))
    whole = augment(images, own, seed=1, epoch=2)
    part = augment(images[2:4], own, seed=1, epoch=2, sample_ids=torch.tensor([2, 3]))
    assert torch.equal(part, whole[2:4])
    assert not torch.equal(augment(images, own, seed=1, epoch=3), whole)
    with pytest.raises(ValueError, match=r"sample_ids must have shape \(6,\)"):
        augment(images, own, seed=1, sample_ids=[1])


def test_augment_of_nothing_to_do_is_no_alias() -> None:
    images = torch.ones(2, 4, 4, 3)
    augment(images, generator(), seed=1).zero_()
    assert images.all()


def test_augment_says_what_is_wrong() -> None:
    with pytest.raises(TypeError, match="ndarray"):
        augment(np.zeros((1, 2, 2, 3)), generator(), seed=1)
    with pytest.raises(ValueError, match="four axes"):
        augment(torch.zeros(2, 2, 3), generator(), seed=1)
    for bad, kind in ((None, TypeError), (1.0, TypeError), (True, TypeError), (-1, ValueError), (2**32, ValueError)):
        for name in ("seed", "epoch"):
            with pytest.raises(kind, match=f"{name} must be"):
                augment(torch.zeros(1, 2, 2, 3), generator(), **{"seed": 1, name: bad})
    with pytest.raises(TypeError, match="sample_ids must be integers; got float64"):
        augment(torch.zeros(2, 2, 2, 3), generator(rng="keyed"), seed=1, sample_ids=[0.5, 1])
    with pytest.raises(ValueError, match=r"not augmentations='trivial': call gpuseq\.Compose"):
        augment(torch.zeros(2, 2, 2, 3), generator(augmentations="trivial"), seed=1)
    with pytest.warns(UserWarning, match="conventions"):
        augment(torch.zeros(1, 4, 6, 3), generator(rotation_range=10), seed=1)


class Turning(ImageDataGenerator):
    """A user's own draws, as Keras users write them: quarter turns only."""

    def get_random_transform(self, img_shape: Any, seed: Any = None) -> Any:
        return super().get_random_transform(img_shape, seed) | {"theta": 90 * np.random.randint(4)}


def test_augment_asks_a_subclass_for_its_draws_or_says_that_it_cannot() -> None:
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (8, 6, 6, 3), np.uint8))
    got = augment(images, Turning(rotation_range=5, device="cpu"), seed=3)
    turns = [torch.rot90(images, k, (1, 2)).to(torch.float32) for k in range(4)]
    kinds = {k for row in range(8) for k in range(4) if torch.allclose(got[row], turns[k][row], atol=1e-2)}
    assert len(kinds) > 1
    with pytest.raises(ValueError, match=r"Turning.*cannot ask the get_random_transform.*use rng=\"keras\""):
        augment(images, Turning(rotation_range=5, rng="keyed", device="cpu"), seed=3)


# Training.


def network() -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(4 * 10 * 10, 1)
    )


def training_flow() -> Any:
    images, targets = photos()
    own = ImageDataGenerator(
        rescale=1 / 255, vertical_flip=True, brightness_range=(0.8, 1.2), data_format="channels_first", device="cpu"
    )
    return own.flow(images.transpose(0, 3, 1, 2), targets, batch_size=5, seed=3)


def test_a_training_run() -> None:
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    losses = []
    batches = loader(training_flow())
    for _ in range(2):
        total = 0.0
        for x, y in batches:
            loss = torch.nn.functional.binary_cross_entropy_with_logits(model(x)[:, 0], y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(x)
        losses.append(total / 24)
    assert losses[1] < 0.8 * losses[0], losses


@pytest.mark.frameworks("lightning")
@pytest.mark.filterwarnings("ignore")
def test_lightning_trains_and_resumes_in_mid_epoch(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the checkpoint after 7 of 10 batches a new run sees the 3 that were left, and ends where the first did."""
    import lightning
    from lightning.pytorch.callbacks import ModelCheckpoint

    monkeypatch.chdir(tmp_path)

    class Model(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = network()
            self.seen: list[Any] = []
            self.validated = 0

        def training_step(self, batch: Any, batch_index: int) -> Any:
            x, y = batch
            self.seen.append(x.clone())
            return torch.nn.functional.binary_cross_entropy_with_logits(self.network(x)[:, 0], y)

        def validation_step(self, batch: Any, batch_index: int) -> None:
            self.validated += len(batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), 0.01)

    def train(checkpoint: Any = None) -> Any:
        model = Model()
        trainer = lightning.Trainer(
            max_epochs=2,
            accelerator="cpu",
            logger=False,
            callbacks=[ModelCheckpoint(tmp_path, "half", every_n_train_steps=7, save_top_k=-1)],
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(model, loader(training_flow()), loader(training_flow()), ckpt_path=checkpoint)
        return model

    whole = train()
    assert len(whole.seen) == 10
    assert whole.validated == 2 * 5 + 2 * 24, "two batches to see whether it works, then twice all"
    resumed = train(str(tmp_path / "half.ckpt"))
    assert len(resumed.seen) == 3
    for got, wanted in zip(resumed.seen, whole.seen[7:], strict=True):
        assert torch.equal(got, wanted)
    for got, wanted in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(got, wanted)

"""Train a small ResNet on a folder of images, on any number of processes, and resume exactly where a run was killed.

::

    export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
    torchrun --standalone --nproc-per-node 2 --max-restarts 3 docker/train.py --data photos/train --epochs 5

One process per GPU (or per CPU worker: then the processes talk through gloo). Every process takes its own part of each
epoch, ``shard=(rank, world)``. A checkpoint holds the model, the optimizer, the schedule and the *place in the data*, a
dictionary of a few integers that is the same on every rank; so the run that continues takes the batch that would have
come next, and ends with the weights that the uninterrupted run ends with.

``--kill-at-step N`` kills the last rank with SIGKILL right after step N, as a machine that fails would; start the same
command again without it, or let ``torchrun --max-restarts`` do that, and the run goes on from the last checkpoint.

A process whose launcher is killed gets SIGTERM from the kernel: it finishes the step, saves and ends, and keeps no GPU.

The variable is for ``--max-restarts``: without it the processes that are started again may read from torchrun's store
what those before them left there, and wait for ports that nobody listens on (pytorch/pytorch#135712).
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import gpuseq
from gpuseq import ImageDataGenerator
from gpuseq.torch import TorchLoader, loader


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    photos = Path(gpuseq.__file__).with_name("photos")
    add = parser.add_argument
    add(
        "--data",
        type=Path,
        default=photos,
        help="a folder with one subfolder per class (default: gpuseq's photographs)",
    )
    add("--epochs", type=int, default=5, help="how often all of the data are taken (default: %(default)s)")
    add("--batch-size", type=int, default=32, help="images per process and step (default: %(default)s)")
    add("--image-size", type=int, default=128, help="rows and columns of the images (default: %(default)s)")
    add("--width", type=int, default=32, help="channels of the first stage (default: %(default)s)")
    add("--learning-rate", type=float, default=0.05, help="at its peak (default: %(default)s)")
    add("--seed", type=int, default=0, help="of the weights, the order and the transforms (default: %(default)s)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to train (default: %(default)s)")
    add("--bf16", action="store_true", help="compute in bfloat16 where that is safe")
    add("--deterministic", action="store_true", help="slower kernels that give the same bits each time")
    add("--cache", choices=("host", "device", "auto"), default=None, help="keep decoded images after their first visit")
    add("--checkpoint", type=Path, default=Path("checkpoint.pt"), help="written here, resumed from here (%(default)s)")
    add("--save-every", type=int, default=50, help="steps between checkpoints (default: %(default)s)")
    add("--log-file", type=Path, default=None, help="append one line of JSON per step to this file")
    add("--kill-at-step", type=int, default=None, metavar="N", help="die right after step N, to show the resume")
    return parser.parse_args(arguments)


class Block(nn.Module):
    """Two 3x3 convolutions and a way around them: the basic block of He et al., "Deep Residual Learning" (2015)."""

    def __init__(self, num_in: int, num_out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(num_in, num_out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(num_out),
            nn.ReLU(inplace=True),
            nn.Conv2d(num_out, num_out, 3, 1, 1, bias=False),
            nn.BatchNorm2d(num_out),
        )
        self.around: nn.Module = nn.Identity()
        if stride != 1 or num_in != num_out:
            self.around = nn.Sequential(nn.Conv2d(num_in, num_out, 1, stride, bias=False), nn.BatchNorm2d(num_out))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map ``(N, num_in, H, W)`` to ``(N, num_out, H / stride, W / stride)``."""
        return torch.relu(self.body(images) + self.around(images))


def small_resnet(num_classes: int, width: int) -> nn.Module:
    """Return a ResNet of three stages with one block each: ``(N, 3, H, W)`` float32 to ``(N, num_classes)``."""
    return nn.Sequential(
        nn.Conv2d(3, width, 3, 1, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        Block(width, width, 1),
        Block(width, 2 * width, 2),
        Block(2 * width, 4 * width, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, num_classes),
    )


def open_data(options: argparse.Namespace, device: torch.device, rank: int, world: int) -> TorchLoader:
    """Return this rank's batches: tensors on `device`, images ``(N, 3, H, W)`` and class indices ``(N,)``."""
    generator = ImageDataGenerator(
        rotation_range=15,
        width_shift_range=0.1,
        height_shift_range=0.1,
        zoom_range=0.1,
        horizontal_flip=True,
        preprocessing_function="torch",  # ImageNet's mean and deviation
        data_format="channels_first",
        device=str(device),
        rng="keyed",  # a picture depends on (seed, epoch, sample) alone, so another number of ranks may resume
        conventions="corrected",
    )
    flow = generator.flow_from_directory(
        options.data,
        target_size=(options.image_size, options.image_size),
        interpolation="bilinear",
        class_mode="sparse",
        batch_size=options.batch_size,
        seed=options.seed,
        shard=(rank, world),
        cache=options.cache,
        verbose=rank == 0,
    )
    return loader(flow)


def endless(batches: TorchLoader) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield batches, epoch after epoch, from the loader's place on."""
    while True:
        yield from batches


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state` whole or not at all: whoever is killed here leaves the last checkpoint as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    torch.save(state, temporary)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def load_checkpoint(path: Path, rank: int) -> dict[str, Any] | None:
    """Return what rank 0 finds at `path`, on every rank: only one machine needs to see the file."""
    found: list[Any] = [None]
    if rank == 0 and path.exists():
        found[0] = torch.load(path, map_location="cpu", weights_only=True)
    dist.broadcast_object_list(found, src=0)
    state: dict[str, Any] | None = found[0]
    return state


def train(options: argparse.Namespace) -> None:
    """Train to the end, from the checkpoint if there is one. Needs the process group."""
    rank, world = dist.get_rank(), dist.get_world_size()
    on_gpu = dist.get_backend() == "nccl"
    device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
    if options.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)

    data = open_data(options, device, rank, world)
    num_steps = options.epochs * len(data)
    num_classes = data.iterator.num_classes
    torch.manual_seed(options.seed)
    model = small_resnet(num_classes, options.width).to(device)
    # After its first step DDP puts the gradients into other buckets, and more than two ranks may then sum in another
    # order. A resumed run has another first step, so where each bit counts the buckets must stay: DDP leaves them alone
    # when it looks for unused parameters.
    parallel = DistributedDataParallel(
        model, device_ids=[device.index] if on_gpu else None, find_unused_parameters=options.deterministic
    )
    optimizer = torch.optim.SGD(model.parameters(), options.learning_rate, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / max(1, num_steps)))
    )
    first_step = 0
    checkpoint = load_checkpoint(options.checkpoint, rank)
    if checkpoint is not None:
        model.load_state_dict(checkpoint["model"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        schedule.load_state_dict(checkpoint["schedule"])
        data.load_state_dict(checkpoint["data"])
        first_step = checkpoint["step"]
        say(rank, f"resumed {options.checkpoint} at step {first_step} of {num_steps}")

    def save(step: int) -> None:
        if rank == 0:
            state = {
                "step": step,
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "schedule": schedule.state_dict(),
                "data": data.state_dict(),
            }
            save_checkpoint(options.checkpoint, state)

    # A scheduler that wants the machine back sends SIGTERM and waits: finish the step, save, leave.
    asked_to_stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: asked_to_stop.append(number))
    end_with_launcher()
    batches = endless(data)
    for step in range(first_step + 1, num_steps + 1):
        epoch = data.epoch
        images, labels = next(batches)
        with torch.autocast(device.type, torch.bfloat16, enabled=options.bf16):
            loss = nn.functional.cross_entropy(parallel(images), labels.long())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if step == options.kill_at_step and rank == world - 1 and is_first_start():
            os.kill(os.getpid(), signal.SIGKILL)

        # The mean loss of all ranks, and whether one of them was asked to stop: all must leave at the same step.
        shared = torch.stack([loss.detach().double() / world, loss.new_tensor(len(asked_to_stop), dtype=torch.double)])
        dist.all_reduce(shared)
        mean_loss, stop = shared.tolist()
        record(options.log_file, rank, step=step, epoch=epoch, loss=mean_loss)
        if step % options.save_every == 0 or step == num_steps or stop:
            save(step)
        if stop:
            say(rank, f"asked to stop: saved {options.checkpoint} at step {step} of {num_steps}")
            break
    data.close()
    dist.barrier()


def restart_problem(environment: Mapping[str, str]) -> str | None:
    """Return why processes that torchrun starts again would not find each other, from the environment it gave them."""
    if environment.get("TORCHELASTIC_MAX_RESTARTS", "0") == "0":
        return None
    if environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    return (
        "torchrun --max-restarts may not bring this run back: processes that are started again find the addresses of "
        "those before them (pytorch/pytorch#135712). Set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 where torchrun is started"
    )


def end_with_launcher() -> None:
    """Let the kernel send SIGTERM when the launcher is gone, however it went: nobody is left to end this process then.

    Only under torchrun: a process that a shell started may outlive the shell. Linux only, as gpuseq is.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return
    launcher = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != launcher:  # it went in between
        os.kill(os.getpid(), signal.SIGTERM)


_PR_SET_PDEATHSIG = 1


def is_first_start() -> bool:
    """Return whether torchrun has not restarted this process yet: who is killed once is not killed again."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"


def record(path: Path | None, rank: int, **values: float) -> None:
    """Print a step, and append it to the log; rank 0 only."""
    if rank != 0:
        return
    line = json.dumps(values)
    print(line, flush=True)
    if path is not None:
        with path.open("a") as file:
            file.write(f"{line}\n")


def say(rank: int, text: str) -> None:
    """Print to standard error; rank 0 only."""
    if rank == 0:
        print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Join the process group that the launcher describes, and train."""
    options = parse_arguments()
    on_gpu = torch.cuda.is_available() if options.device == "auto" else options.device == "cuda"
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if "RANK" not in os.environ:  # started as `python docker/train.py`: a group of one
        os.environ.update(RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    problem = restart_problem(os.environ)
    if problem is not None:
        say(int(os.environ["RANK"]), problem)
    dist.init_process_group("nccl" if on_gpu else "gloo")
    try:
        train(options)
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
    # Leave without taking the interpreter down piece by piece. DistributedDataParallel keeps references to the group,
    # so gloo's threads outlive destroy_process_group(), and one of them may still hold a tensor of the last collective.
    # To let go of it while the interpreter ends aborts the process ("terminate called without an active exception"),
    # and torchrun then reports a finished training as failed. All that has to be written has been by now.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)

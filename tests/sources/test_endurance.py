"""Ten thousand batches with a bad file in every tenth: nothing leaks, no sample is lost or doubled."""

from __future__ import annotations

import gc
import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import gpuseq

NUM_FILES = 160
BATCH_SIZE = 4
NUM_BATCHES = 10_000


def resident_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_ten_thousand_batches_with_a_bad_file_in_every_tenth(tmp_path: Path) -> None:
    for number in range(NUM_FILES):
        path = tmp_path / "one" / f"{number:03d}.png"
        path.parent.mkdir(exist_ok=True)
        if number % (10 * BATCH_SIZE) == 7:
            path.write_bytes(b"\x89PNG\r\n\x1a\n and no more")
        else:
            Image.fromarray(np.full((5, 5, 3), number, np.uint8)).save(path)
    generator = gpuseq.ImageDataGenerator(device="cpu")
    batches = generator.flow_from_directory(
        tmp_path, target_size=(5, 5), class_mode="sparse", batch_size=BATCH_SIZE, seed=3, verbose=False, on_error="skip"
    )
    num_bad = NUM_FILES // (10 * BATCH_SIZE)
    per_epoch = NUM_FILES // BATCH_SIZE
    sizes: list[int] = []
    seen: Counter[int] = Counter()
    for number, (images, labels) in enumerate(itertools.islice(batches, NUM_BATCHES)):
        assert len(images) == len(labels)
        seen.update(int(level) for level in images[:, 0, 0, 0])
        if number % per_epoch == per_epoch - 1:
            assert set(seen.values()) == {1}, "a sample came twice in one epoch"
            assert len(seen) == NUM_FILES - num_bad, "a sample went missing"
            seen.clear()
        if number % 1000 == 999:
            gc.collect()
            sizes.append(resident_bytes())
    batches.close()
    assert len(batches.bad_files) == num_bad
    # The allocator has settled after 4,000 batches; 6,000 more must not move it. What grows stays; what another thread
    # of this process had for a moment does not.
    assert min(sizes[-3:]) < 1.02 * sizes[3], sizes

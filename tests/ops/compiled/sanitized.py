"""Runs the catalogue and the resize with the compiled engine built under a sanitizer.

A program of its own: the sanitizer's runtime has to be loaded before Python. `test_sanitizers` starts it.
"""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

import gpuseq
from gpuseq.decode.reading import RECORD, FileReader
from gpuseq.ops.compiled import augment as ops_compiled
from gpuseq.ops.compiled import library
from gpuseq.ops.compiled import program as compiled_program
from gpuseq.ops.compiled import resize as ops_resize
from gpuseq.ops.compiled import segments as compiled_segments
from gpuseq.ops.looks import KeptLooks, Known, Looked, Looks
from gpuseq.ops.options import AugmentOptions
from gpuseq.plan.policies.recipe import Recipe
from tests import compiled_library
from tests.cases import draw_params, images
from tests.compare import assert_same
from tests.decode.imagefiles import corpus
from tests.ops.compiled.test_boxes import CROPS, ERASING
from tests.ops.compiled.test_choices import POLICIES as CHOSEN
from tests.ops.cuda.catalogue import CASES
from tests.ops.cuda.test_program_on_host import POLICIES

FLAGS = {
    # -O0: every access of the text is looked at, none is left out as needless, and it compiles in a fourth of the time.
    "address": ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g1", "-O0"),
    "thread": ("-fsanitize=thread", "-g1", "-O1"),
}


def _programs() -> int:
    """Run every policy on pictures whose sides are no multiple of a vector, in each layout; return how many runs."""
    policies = ["augmix-m9-w3", [gpuseq.ColorJitter(0.4, 0.4, 0.4, 0.2), gpuseq.RandomErasing(1.0, value="random")]]
    policies += [gpuseq.RandomErasing(1.0)]
    num_runs, streamed_bytes = 0, ops_compiled.STREAMED_BYTES
    compiled_segments.LEAST_ROOM_BYTES = 64
    for policy in (*POLICIES, *policies):
        recipe = Recipe.parse("augmentations", policy)
        assert recipe is not None
        for height, width, channels in ((23, 31, 3), (9, 13, 4), (17, 5, 1)):
            program = recipe.draw(np.arange(20), (height, width), seed=1, epoch=0)
            instruction_set = library.chosen()
            looked = Looked(np.zeros(20, np.uint8), np.zeros((20, 2, 1, 256), np.uint8), np.ones(20, bool))
            assert instruction_set is not None
            for known in (None, Known(np.arange(20), looked)):
                packed = compiled_segments._packed(
                    instruction_set, program, np.arange(20), (height, width), channels == 1, None, 0.0, known
                )
                assert packed is not None, policy
                memory = np.empty(packed.begins[-1], np.uint8)
                packed.write(memory.ctypes.data)
                compiled_segments._idle.clear()  # so that no scratch is larger than what is cut there
            pictures = images((20, height, width, channels), "uint8")
            ops_compiled.STREAMED_BYTES = -1 if channels == 3 else streamed_bytes
            looks = Looks(KeptLooks(20, 1 if channels == 1 else 3))
            # Looks that are not kept, that are learned, that are known.
            for data_format, kept in (("channels_last", None), ("channels_first", looks), ("channels_first", looks)):
                options = AugmentOptions(data_format=data_format)
                compiled_program.run_program(pictures, program, options, looks=kept)
                num_runs += 1
    ops_compiled.STREAMED_BYTES = streamed_bytes
    return num_runs


def _draws() -> int:
    """Draw what the library draws, alone and in a list, into memory that ends with it; return how many runs."""
    num_runs = 0
    for policy in (*CHOSEN, *ERASING, *CROPS, gpuseq.RandAugment(512)):
        beside = (policy, gpuseq.ColorJitter(0.1)) if policy in CROPS else (gpuseq.RandomInvert(), policy)
        for recipe in (Recipe((policy,)), Recipe(beside)):
            for num_samples in (0, 1, 20):
                recipe.draw(np.arange(num_samples), (23, 31), seed=2**64 - 1, epoch=num_samples)
                num_runs += 1
    return num_runs


def _files() -> int:
    """Read cut files, each into memory that ends with it, and all together on threads; return how many runs."""
    camera = corpus()["exif_camera"]
    cut = [camera[:length] for length in [*range(200), *range(200, len(camera) + 1, 7)]]
    num_runs = 0
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder) / str(number)) for number in range(len(cut))]
        for path, data in zip(paths, cut, strict=True):
            length = len(data)
            Path(path).write_bytes(data)
            records, room = np.zeros(1, RECORD), np.empty(length + 1, np.uint8)
            found = library.instruction_sets()
            assert not isinstance(found, str), found
            found[0].functions.gpuseq_read_files(
                *(os.fsencode(path), records.ctypes.data, 1, room.ctypes.data, len(room), 0, 0, 1 << 28, 10**9, 1)
            )
            assert records["num_bytes"][0] == length
            assert room[:length].tobytes() == data
            num_runs += 1
        for num_threads in (1, 4):
            assert all(part is not None for part in FileReader(num_threads).read(paths).data)
            num_runs += 1
    return num_runs


def main(sanitizer: str, overrun: bool) -> None:
    """Run all cases; with `overrun`, read one image past the end, which has to be fatal."""
    built = compiled_library.build(FLAGS[sanitizer])
    assert built is not None
    os.environ[library.PATH] = str(built)
    found = library.instruction_sets()
    assert not isinstance(found, str), found
    if overrun:
        run = next(CASES["copy"].runs())
        ops_compiled.augment(run.images.copy(), run.params, CASES["copy"].options, indices=np.array([len(run.images)]))
        return
    ops_compiled.SOLO_PIXELS, ops_compiled.CALL_PIXELS = 0, 500  # every thread gets something to do
    ops_compiled.SHARED_PIXELS = 0
    num_runs = _files() + _draws()
    for instruction_set in found:
        os.environ[library.ENGINE] = f"compiled:{instruction_set.name}"
        num_runs += _programs()
        if instruction_set.name == "avx512":  # which has a text of its own for programs alone
            continue
        for case in CASES.values():
            if case.options.dtype == "bfloat16":
                continue
            for run in case.runs(num_seeds=1):
                if case.standardize_only:
                    ops_compiled.standardize(run.images.copy(), case.options, run.statistics)
                else:
                    ops_compiled.augment(
                        run.images.copy(), run.params, case.options, indices=run.indices, statistics=run.statistics
                    )
                num_runs += 1
        for fill_mode in ("nearest", "constant", "reflect", "wrap"):  # large enough for windows and rows' own taps
            batch, params = images((2, 450, 330, 3), "uint8"), draw_params(2, 450, 330, colour=True)
            params["zx"] = (0.1, 7.0)
            options = CASES["affine_1_" + fill_mode].options
            ops_compiled.augment(batch, params, options)
            reduced = replace(options, has_channel_shift=True, samplewise_center=True, samplewise_std=True)
            ops_compiled.augment(batch[:1], params[:1], reduced)  # which threads share
            num_runs += 2
        for interpolation in ("nearest", "box", "lanczos"):
            for channels in (1, 2, 3, 4):
                pictures = [np.full((h, w, channels), 200, np.uint8) for h, w in ((1, 1), (31, 23), (9, 40))]
                boxes = np.array([(0, 0, 1, 1), (0.5, 20, 23, 31), (3, 0, 40, 8.25)], np.float32)
                first = ops_resize.resize(pictures, (7, 9), interpolation)
                assert_same(ops_resize.resize(pictures, (7, 9), interpolation), first)
                ops_resize.resize(pictures, (30, 41), interpolation, boxes=boxes)
                num_runs += 3
    print(f"{num_runs} runs under the sanitizer")


if __name__ == "__main__":
    main(sys.argv[1], "--overrun" in sys.argv)

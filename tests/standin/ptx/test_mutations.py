"""The interpreter and the comparison see what is wrong: kernels with one instruction changed go red.

Each barrier of every kernel is taken out in turn. Each instruction of the everyday variant and of the resize is changed
in the ways of `mutations.MUTATIONS`: what stays green is named below with the reason why nothing could see it, and
anything else that stays green is a failure. Of the programs' kernels and of other variants one instruction in so many
is changed, and how many of the changes show is held.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

import gpuseq
from gpuseq.ops.cuda import augment as ops_cuda
from gpuseq.ops.cuda import compile as kernels
from gpuseq.ops.cuda import program as cuda_program
from gpuseq.ops.cuda import resize as ops_cuda_resize
from gpuseq.ops.numpy import augment as ops_numpy
from gpuseq.ops.numpy import program as numpy_program
from gpuseq.ops.options import AugmentOptions
from gpuseq.plan.policies.recipe import Recipe
from tests.cases import draw_params, identity, images
from tests.compare import assert_same
from tests.ops.cuda.catalogue import CASES, MOVES, Case, Run, sums_on_the_edge
from tests.ops.cuda.test_augment_on_host import compute, near_twin
from tests.ops.cuda.test_resize_on_host import by_pillow
from tests.ops.cuda.variants import cut
from tests.ops.pillow_steps import step
from tests.standin.host_runner import Launch
from tests.standin.ptx import compiler, machine, runner
from tests.standin.ptx.errors import LaunchError
from tests.standin.ptx.machine import Program
from tests.standin.ptx.mutations import MUTATIONS, Mutant, Place, compiled, mutants
from tests.standin.ptx.runner import PtxRun

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.skipif(not compiler.is_installed(), reason="NVRTC is not installed"),
]

TILE_COLS = 8
GEOMETRIES = ((64, 2, 5, (2, 11)), (32, 1, None, (3, 60)))
"""Threads, groups across, rows of a band, grid: bands, tiles and turns of every loop; blocks without work."""


def a_hard_batch(case: Case) -> Run:
    """Return samples that ask for one thing each, for all, and for anything; more columns than a block has."""
    alone = [*MOVES.values(), *({name: 1.25} for name in ("theta", "tx", "ty", "shear", "zx", "zy"))]
    alone += [{"flip_vertical": 1.0}, {"flip_horizontal": 1.0}, {"flip_horizontal": 1.0, "tx": 0.5}, {}]
    alone += [{"channel_shift_intensity": value} for value in (37.3, -300.0)]
    alone += [{"brightness": value} for value in (0.3, 1.75)] + [{"brightness": 1.5, "channel_shift_intensity": 9.7}]
    params = np.concatenate([identity(len(alone)), draw_params(9, 17, 21, seed=3, colour=True)])
    for row, asked in zip(params, alone, strict=False):
        for name, value in asked.items():
            row[name] = value
    batch = images((len(params) + 1, 17, 21, case.channels), case.dtype, seed=2)
    statistics = next(case.runs(1)).statistics
    indices = np.arange(len(params))[::-1] + 1
    return Run(f"{case.name}/hard", batch, params, None if case.standardize_only else indices, statistics)


def kernels_of(case: Case) -> dict[str, kernels.Macros]:
    options = case.options
    fitted = (case.statistics and options.featurewise_center, case.statistics and options.featurewise_std)
    with pytest.MonkeyPatch.context() as patch:
        cut(patch, block=64, tile_cols=TILE_COLS, across=1, rows_per_band=None)
        variant = ops_cuda._variant(options, np.dtype(case.dtype), case.channels, not case.standardize_only, *fitted)
    found = {name: getattr(variant, name) for name in ("sample_range", "sample_moments", "augment")}
    return {name: macros for name, macros in found.items() if macros is not None}


class Trial:
    """One case on a small grid, to be run with programs in its kernels' places."""

    def __init__(self, case: Case, run: PtxRun) -> None:
        self.case, self.run = case, run
        self._inputs = [a_hard_batch(case)]
        for width in (18, 23):  # the last tile of a row ends elsewhere
            batch = images((2, 4, width, case.channels), case.dtype, seed=width)
            params = draw_params(2, 4, width, seed=width, colour=True)
            self._inputs.append(Run(f"{case.name}/{width}", batch, params, None, self._inputs[0].statistics))
        if case.options.has_affine and case.dtype == "uint8" and case.channels == 3:
            self._inputs.append(Run(f"{case.name}/edge", *sums_on_the_edge(200, 3)[:2]))
        self._wanted = [compute(ops_numpy, case, one) for one in self._inputs]

    def sees(self, kernel: str, program: Program) -> bool:
        """Return whether a program shows that it is wrong."""
        self.run.replaced = {kernel: program}
        try:
            for block, across, rows_per_band, grid in GEOMETRIES:
                with pytest.MonkeyPatch.context() as patch:
                    size = {"block": block, "tile_cols": TILE_COLS, "across": across, "rows_per_band": rows_per_band}
                    cut(patch, grid=grid, **size)
                    self._compare()
        except (AssertionError, LaunchError):
            return True
        return False

    def _compare(self) -> None:
        for one, wanted in zip(self._inputs, self._wanted, strict=True):
            assert_same(compute(ops_cuda, self.case, one), wanted, **near_twin(self.case))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> PtxRun:
    monkeypatch.setattr(machine, "MAX_STEPS", 3_000_000)  # a loop's wrong end must not take minutes
    return runner.install(monkeypatch)


NEEDLESS_BARRIERS = {
    (
        "open_band",
        "the block may still work on its last band",
    ): "where a reduction ends a band, it ends with barriers of its own",
    ("open_band", ""): "where moments follow, theirs comes before the rows are read",
    ("block_reduce", "`scratch` may still be read from the call before"): "the first fold after a barrier of open_band",
}
"""(Function, what its comment says) -> why a copy of a barrier stands beside another that puts the same in order."""

WITH_BARRIERS = ("layout_last_last", "channels_19", "shift", "samplewise", "everything")


def test_every_barrier_is_missed(run: PtxRun) -> None:
    """The watch finds the race that each barrier prevents, though the threads run in the order that was meant."""
    missed: Counter[tuple[Place, bool]] = Counter()
    for name in WITH_BARRIERS:
        trial = Trial(CASES[name], run)
        for kernel, macros in kernels_of(CASES[name]).items():
            assert not trial.sees(kernel, Program(compiled(kernel, macros)[0])), f"{kernel} of {name} as it is"
            for mutant in mutants(kernel, macros, ("no barrier",)):
                missed[mutant.place, trial.sees(kernel, mutant.program)] += 1
    places = {place for place, _ in missed}
    for place in places:
        assert missed[place, True], f"{place}: nothing shows that it is needed"
    assert len(places) == num_barriers("augment.cu", "reduce.cu")
    assert {(place.function, place.comment) for place, is_seen in missed if not is_seen} == set(NEEDLESS_BARRIERS)
    assert sum(missed.values()) > 70


def num_barriers(*files: str) -> int:
    """Return how many barriers stand in kernel files and in what is pasted before them."""
    names = {name for file in files for name in (file, *kernels.HEADERS[file])}
    texts = [(kernels.kernel_folder() / name).read_text(encoding="utf-8") for name in names]
    return sum(len(re.findall(r"__sync(?:threads|warp)\(\)", text)) for text in texts)


def test_every_barrier_of_programs_is_missed(run: PtxRun) -> None:
    recipe = Recipe.parse("augmentations", gpuseq.RandAugment(4, 14))
    assert recipe is not None
    batch, rows = images((7, 13, 11, 3), seed=1), np.arange(40) % 7
    program = recipe.draw(np.arange(40), (13, 11), seed=5, epoch=0)
    options = AugmentOptions(dtype="uint8")
    wanted = numpy_program.run_program(batch, program, options, indices=rows)
    macros = cuda_program._macros(options, 3, False, False)
    run.how = Launch((2,))  # a block does several jobs
    missed: Counter[tuple[Place, bool]] = Counter()
    for kernel in ("prepare", "program"):
        for mutant in mutants(kernel, macros, ("no barrier",)):
            run.replaced = {kernel: mutant.program}
            try:
                assert_same(cuda_program.run_program(batch, program, options, indices=rows), wanted)
                missed[mutant.place, False] += 1
            except (AssertionError, LaunchError):
                missed[mutant.place, True] += 1
    places = {place for place, _ in missed}
    assert len(places) == len(re.findall(r"__syncthreads\(\)", (kernels.kernel_folder() / "program.cu").read_text()))
    # Two stand beside others: a level that measured or drew has ended with a barrier before the next one begins, and
    # what it measures, each thread has drawn by itself.
    assert sum(not missed[place, True] for place in places) == 2


UNSEEN = (
    ("for_each_band", "index", "a band too many has no rows"),
    ("", "", "the first test of a loop that runs at least once"),
    ("step_down_band", "const int (tile|col) =|for ", "a turn more has no pixels"),
    ("step_down_band", "groups_down", "how the groups of a warp lie is for the caches"),
    ("step_down_band", "local < band.num_rows", "a row or a column too many is worked out and not written"),
    ("open_band", "for ", "a row too many is worked out and not read"),
    ("open_band", "channel_shift|brightness", "of no use in a variant without colour"),
    ("open_band", "has_affine|ZX", "the map of nothing asked for changes nothing"),
    ("split_near|find_taps|is_within", "", "the inside takes a shorter way to the same taps"),
    ("fold_tap", "", "a tap that is folded where the other fold, or a weight of zero, makes up for it"),
    ("read_channels", "NEAR_TIE", "both sums round alike but exactly at the edge of what counts as near"),
)
"""(Function, what stands on the line, why no result shows a change there)."""


def reason(mutant: Mutant) -> str | None:
    place = mutant.place
    for function, text, why in UNSEEN:
        if re.fullmatch(function, place.function) and (re.search(text, place.text) if text else True):
            return why
    return None


def test_every_changed_instruction_is_seen(run: PtxRun) -> None:
    """Of the everyday variant: SciPy's border that fills, channels last through shared memory."""
    case = CASES["affine_1_constant"]
    case = replace(case, options=replace(case.options, cval=-7.3))  # no float: the cast of it must show
    trial = Trial(case, run)
    (macros,) = kernels_of(case).values()
    program = Program(compiled("augment", macros)[0])
    assert not trial.sees("augment", program)
    executed = run.counts["augment", len(program.code.rows)].copy()
    seen: Counter[tuple[str, bool]] = Counter()
    unexplained = []
    for mutant in mutants("augment", macros, tuple(name for name in MUTATIONS if name != "no barrier")):
        if executed[mutant.index]:
            is_seen = trial.sees("augment", mutant.program)
            seen[mutant.mutation, is_seen] += 1
            if not is_seen and reason(mutant) is None:
                unexplained.append(f"{mutant.mutation}: {mutant.instruction} ({mutant.place})")
    assert not unexplained, "\n".join(unexplained)
    num_seen = sum(number for (_, is_seen), number in seen.items() if is_seen)
    assert num_seen >= 0.85 * sum(seen.values()), dict(seen)
    assert sum(seen.values()) > 300
    assert {name for name, is_seen in seen if is_seen} >= set(MUTATIONS) - {"no barrier", "to nearest for truncation"}
    assert (executed > 0).mean() > 0.9


# The other kernels: no list of reasons but for the resize; how many of the changes show is held.

ALL = tuple(name for name in MUTATIONS if name != "no barrier")


def survey(
    run: PtxRun, kernel: str, macros: kernels.Macros, sees: Callable[[Program], bool], every: int = 1
) -> tuple[int, list[str]]:
    """Change what a kernel executes in each way, one instruction in `every`; return how often, and what stays green."""
    program = Program(compiled(kernel, macros)[0])
    run.counts.clear()
    assert not sees(program), f"{kernel} as it is"
    executed = run.counts[kernel, len(program.code.rows)].copy()
    tried = [mutant for mutant in mutants(kernel, macros, ALL) if executed[mutant.index]][::every]
    green = [f"{mutant.instruction} ({mutant.place})" for mutant in tried if not sees(mutant.program)]
    return len(tried), green


UNSEEN_OF_RESIZE = (
    r"resize.cu.*(kind == HORIZONTAL \|\| kind == VERTICAL|source -= pass\[ORIGIN\])",  # a second pass that begins at 0
    r"pixel\[channel\] < 0 \?",  # 0 for 0
    r"row < rows",  # a pixel too many is beyond the last block's
    r"int tap = 0|row \* pitch|Place\(file='', line=0",  # a loop's other half: taps of which no line has so many
)


@pytest.mark.parametrize("channels", [3, 4])
def test_changed_instructions_of_the_resize_are_seen(
    channels: int, run: PtxRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    batch = [rng.integers(0, 256, (*size, channels), np.uint8) for size in ((5, 7), (9, 4), (6, 8), (6, 5), (11, 8))]
    boxes = np.array([(0, 0, image.shape[1], image.shape[0]) for image in batch], np.float32)
    boxes[0], boxes[-1] = (1.5, 1.0, 6.25, 4.75), (2, 3, 8, 11)
    if channels == 4:
        for image in batch:
            image[..., 3].flat[::3], image[..., 3].flat[1::5] = 0, 255
    wanted = {name: by_pillow(batch, (6, 8), name, boxes) for name in ("nearest", "bicubic")}
    monkeypatch.setattr(ops_cuda_resize, "BLOCK", 5)  # 15 threads take images 8 across in strides

    def sees(program: Program) -> bool:
        run.replaced = {"resample_pass": program}
        try:
            for grid in ((3, 2), (1, 7)):
                run.how = Launch(grid)
                for name, pixels in wanted.items():
                    monkeypatch.setattr(ops_cuda_resize, "_kept", type(ops_cuda_resize._kept)())
                    assert_same(ops_cuda_resize.resize(batch, (6, 8), name, boxes=boxes), pixels)
        except (AssertionError, LaunchError):
            return True
        return False

    number, green = survey(run, "resample_pass", (("CHANNELS", str(channels)),), sees)
    assert number > 250
    assert len(green) < 0.12 * number
    if channels == 3:
        unexplained = [one for one in green if not any(re.search(pattern, one) for pattern in UNSEEN_OF_RESIZE)]
        assert not unexplained, "\n".join(unexplained)


def test_changed_instructions_of_programs_are_seen(run: PtxRun) -> None:
    recipe = Recipe.parse("augmentations", gpuseq.RandAugment(3, 12, interpolation="bilinear", fill=(7, 8, 9)))
    assert recipe is not None
    program = recipe.draw(np.arange(24), (11, 9), seed=5, epoch=0)
    alone = np.zeros((6, program.shape[1]), program.dtype)
    for row, one in enumerate(
        (
            *(
                step("Hue", 0.3),
                step("PermuteChannels", 2, 0, 1),
                step("GaussianBlur", 3, 3, 1.0),
                step("Rotate", 33.0),
            ),
            *(step("Perspective", 1, 0, 8, 1, 7, 10, 0, 9), step("Color", 1.7)),
        )
    ):
        alone[row, :1] = one
    program = np.concatenate([program, alone])
    batch, rows = images((5, 11, 9, 3), seed=1), np.arange(len(program)) % 5
    options = AugmentOptions(rescale=1 / 255, data_format="channels_first")
    wanted = numpy_program.run_program(batch, program, options, indices=rows)
    run.how = Launch((3,))
    for kernel, every, share in (("program", 10, 0.7), ("prepare", 15, 0.6)):

        def sees(mutant: Program, kernel: str = kernel) -> bool:
            run.replaced = {kernel: mutant}
            try:
                assert_same(cuda_program.run_program(batch, program, options, indices=rows), wanted)
            except (AssertionError, LaunchError):
                return True
            return False

        number, green = survey(run, kernel, cuda_program._macros(options, 3, False, False), sees, every)
        assert number > 40
        assert number - len(green) >= share * number, "\n".join(green)


@pytest.mark.parametrize("name", ["shift", "layout_first_first_19", "both_half"])
def test_changed_instructions_of_other_variants_are_seen(name: str, run: PtxRun) -> None:
    case = CASES[name]
    trial = Trial(case, run)
    for kernel, macros in kernels_of(case).items():
        number, green = survey(run, kernel, macros, lambda program, kernel=kernel: trial.sees(kernel, program), 9)  # type: ignore[misc]
        assert number > 25
        assert number - len(green) >= 0.75 * number, "\n".join([kernel, *green])

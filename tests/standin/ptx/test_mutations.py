"""The interpreter and the comparison see what is wrong: kernels with one instruction changed go red.

Each barrier of every kernel is taken out in turn. Each instruction of the everyday variant is changed in the ways of
`mutations.MUTATIONS`, of other variants one in so many: what stays green is named below with the reason why nothing
could see it, and anything else that stays green is a failure (`survivors`). `test_mutations_of_programs` and
`test_mutations_of_resize` do the same.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

import gpuseq
from gpuseq.ops.cuda import augment as ops_cuda
from gpuseq.ops.cuda import compile as kernels
from gpuseq.ops.cuda import program as cuda_program
from gpuseq.ops.numpy import augment as ops_numpy
from gpuseq.ops.numpy import program as numpy_program
from gpuseq.ops.options import AugmentOptions
from gpuseq.plan.policies.recipe import Recipe
from tests.cases import draw_params, identity, images
from tests.compare import assert_same
from tests.ops.cuda.catalogue import CASES, MOVES, Case, Run, sums_on_the_edge
from tests.ops.cuda.test_augment_on_host import compute, near_twin
from tests.ops.cuda.variants import cut
from tests.standin.host_runner import Launch
from tests.standin.ptx import compiler, machine, runner
from tests.standin.ptx.errors import LaunchError
from tests.standin.ptx.machine import Program
from tests.standin.ptx.mutations import MUTATIONS, Place, compiled, mutants
from tests.standin.ptx.runner import PtxRun
from tests.standin.ptx.survivors import Rule, check, survey

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
    alone += [{"flip_vertical": 1.0, **asked} for asked in ({"brightness": 0.7}, {"channel_shift_intensity": 21.5})]
    params = np.concatenate([identity(len(alone)), draw_params(9, 17, 21, seed=3, colour=True)])
    for row, asked in zip(params, alone, strict=False):
        for name, value in asked.items():
            row[name] = value
    batch = images((len(params) + 1, 17, 21, case.channels), case.dtype, seed=2)
    statistics = next(case.runs(1)).statistics
    indices = np.arange(len(params))[::-1] + 1
    return Run(f"{case.name}/hard", batch, params, None if case.standardize_only else indices, statistics)


def one_pixel_stands_out(case: Case) -> Run:
    """Return samples whose range one pixel decides, here and there, and that are shifted to its end."""
    places = ((0, 0), (0, 20), (16, 0), (16, 20), (8, 0), (0, 10), (5, 7), (4, 8), (5, 16), (11, 13), (10, 19), (12, 3))
    batch = 100 + images((4 * len(places), 17, 21, case.channels), "uint8", seed=5).astype(case.dtype) % 10
    params = identity(len(batch))
    for sample, (row, col) in enumerate(places * 4):
        is_high = sample // len(places) % 2 == 0
        batch[sample, row, col, sample % case.channels] = 250 if is_high else 3
        params[sample]["channel_shift_intensity"] = 200.0 if is_high else -200.0
        if sample >= 2 * len(places):
            params[sample]["theta"] = 180.0
    return Run(f"{case.name}/range", batch, params, None, next(case.runs(1)).statistics)


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
        for height, width in ((4, 18), (4, 23), (1, 5), (5, 1)):  # the last tile of a row ends elsewhere
            batch = images((4, height, width, case.channels), case.dtype, seed=width)
            params = np.concatenate([draw_params(2, height, width, seed=width, colour=True), identity(2)])
            params[3]["flip_vertical"] = 1.0
            self._inputs.append(Run(f"{case.name}/{height}x{width}", batch, params, None, self._inputs[0].statistics))
        if ("IN_WORDS", "1") in kernels_of(case)["augment"]:  # an array's last image is read byte by byte
            batch, rows = images((1, 9, 13, case.channels), case.dtype, seed=4), np.zeros(6, np.int64)
            params = draw_params(6, 9, 13, seed=6, colour=True)
            self._inputs.append(Run(f"{case.name}/last", batch, params, rows, self._inputs[0].statistics))
        if case.options.has_affine and case.dtype == "uint8" and case.channels == 3:
            self._inputs.append(Run(f"{case.name}/edge", *sums_on_the_edge(200, 3)[:2]))
        if case.options.has_channel_shift:
            self._inputs.append(one_pixel_stands_out(case))
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
    """Return how many barriers and fences stand in kernel files and in what is pasted before them."""
    names = {name for file in files for name in (file, *kernels.HEADERS[file])}
    texts = [(kernels.kernel_folder() / name).read_text(encoding="utf-8") for name in names]
    return sum(len(re.findall(r"__(?:syncthreads|syncwarp|threadfence)\(\)", text)) for text in texts)


def test_every_barrier_of_programs_is_missed(run: PtxRun, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = [gpuseq.RandAugment(4, 14), gpuseq.RandomErasing(1.0, (0.3, 0.6)), gpuseq.RandomErasing(1.0, (0.3, 0.6))]
    recipe = Recipe.parse("augmentations", chain)
    assert recipe is not None
    batch, rows = images((7, 13, 11, 3), seed=1), np.arange(40) % 7
    program = recipe.draw(np.arange(40), (13, 11), seed=5, epoch=0)
    options = AugmentOptions(dtype="uint8")
    wanted = numpy_program.run_program(batch, program, options, indices=rows)
    macros = cuda_program._macros(options, 3, False, False)
    run.how = Launch((2,))  # a block does several jobs, and
    monkeypatch.setattr(cuda_program, "PREPARE_BLOCK", 64)
    monkeypatch.setattr(cuda_program, "PREPARE_PIXELS", 1)  # several blocks an image
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
    assert len(places) == num_barriers("program.cu") - 6  # no program calls `open_band` or `block_reduce`
    assert {place for place in places if not missed[place, True]} == set()


UNSEEN = (
    Rule("for_each_band", "index", "", "a band too many has no rows"),
    Rule("", "", "", "the first test of a loop that runs at least once"),
    Rule("step_down_band", "const int (tile|col) =|for ", "", "a turn more has no pixels"),
    Rule("step_down_band", "groups_down", "", "how the groups of a warp lie is for the caches"),
    Rule("step_down_band", "local < band.num_rows", "", "a row or a column too many is worked out and not written"),
    Rule("open_band", "for ", "", "a row too many is worked out and not read"),
    Rule("open_band", "channel_shift|brightness", "", "of no use in a variant without colour"),
    Rule("open_band|set_geometry", "has_affine|ZX", "", "the map of nothing asked for changes nothing"),
    Rule("split_near|find_taps|is_within", "", "", "the inside takes a shorter way to the same taps"),
    Rule("fold_tap", "", "", "a tap that is folded where the other fold, or a weight of zero, makes up for it"),
    Rule("read_channels", "NEAR_TIE", "", "both sums round alike but exactly at the edge of what counts as near"),
)
"""What stays green of the everyday variant."""

UNSEEN_IN_WORDS = (
    Rule("start_of|start_in", "", "", "words or bytes, the taps are the same; test_words_lie_within_the_array sees it"),
)
"""What stays green of variants that read words."""


EDGE, TO_ZERO = "edge on the other side", "to zero"
UNSEEN_OF_OTHERS = {
    "shift": (
        *UNSEEN_IN_WORDS,
        Rule("set_geometry|open_band", "flip", "", "a range does not depend on flips"),
        Rule("load_taps", "pixel", "a load of the next", "few pixels of an array's last image decide its range"),
        Rule("read_channels", "above_tie", "", "both sums round alike but next to a tie, which one value in 10^7 is"),
        Rule("lesser|greater", r"fm(in|ax)f", "min for max", "what `set_colour` clips is of no use without brightness"),
        Rule("lesser|greater", r"\?", EDGE, "of two equal values either is the lesser"),
        Rule("set_colour", "shifted|is_outside|stretch", "", "of no use in a variant without brightness"),
    ),
    "layout_first_first_19": (
        Rule(
            "copy_tap", "", EDGE, "four channels, of a variant with one loop for any number", r"^setp\.lt\.u32 .*, 3$"
        ),
        Rule("map_coordinate", "value", EDGE, "on the edge itself both ways lead to the pixel at the border"),
        Rule("map_coordinate", "value > size - 1", "and for or", "what is inside stays as it is on either way"),
        Rule(
            "above_tie|read_channels",
            "above_tie|in_order",
            "",
            "both sums round alike but next to a tie, which one value in 10^7 is",
        ),
    ),
    "both_half": (
        Rule("lesser|greater", r"\?", EDGE, "of two equal values either is the lesser"),
        Rule("nearest_float", "", TO_ZERO, "the last bit of a float is gone in a level, and in a half"),
        Rule("read_channels", "in_order", "", "both sums round alike but next to a tie, which one value in 10^7 is"),
    ),
}
"""What stays green of variants with colours, many channels or planes of the source."""


def test_every_changed_instruction_is_seen(run: PtxRun) -> None:
    """Of the everyday variant: SciPy's border that fills, channels last through shared memory."""
    case = CASES["affine_1_constant"]
    case = replace(case, options=replace(case.options, cval=-7.3))  # no float: the cast of it must show
    trial = Trial(case, run)
    (macros,) = kernels_of(case).values()
    found = survey(run, "augment", macros, lambda program: trial.sees("augment", program))
    check([found], (*UNSEEN, *UNSEEN_IN_WORDS), 0.85)
    assert found.number > 300
    assert set(found.seen) >= set(MUTATIONS) - {"no barrier", "to nearest for truncation"}
    assert found.covered > 0.9


@pytest.mark.parametrize("name", ["shift", "layout_first_first_19", "both_half"])
def test_changed_instructions_of_other_variants_are_seen(name: str, run: PtxRun) -> None:
    case = CASES[name]
    trial = Trial(case, run)
    surveys = []
    for kernel, macros in kernels_of(case).items():
        surveys.append(survey(run, kernel, macros, lambda program, kernel=kernel: trial.sees(kernel, program), 9))  # type: ignore[misc]
    assert min(each.number for each in surveys) > 25
    check(surveys, (*UNSEEN, *UNSEEN_OF_OTHERS[name]), 0.75)

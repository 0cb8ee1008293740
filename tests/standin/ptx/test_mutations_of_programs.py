"""The comparison sees what is wrong with the kernels of programs: see `test_mutations`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

import gpuseq
from gpuseq.ops.cuda import program as cuda_program
from gpuseq.ops.numpy import program as numpy_program
from gpuseq.ops.options import AugmentOptions
from gpuseq.plan.policies.recipe import Recipe
from tests.cases import images
from tests.compare import assert_same
from tests.ops.cuda.test_program_on_host import FURTHER, plain_program
from tests.ops.pillow_steps import CASES, FAR, step
from tests.standin.host_runner import Launch
from tests.standin.ptx import compiler, machine, runner
from tests.standin.ptx.errors import LaunchError
from tests.standin.ptx.machine import Program
from tests.standin.ptx.runner import PtxRun
from tests.standin.ptx.survivors import Rule, Survey, check, survey

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.skipif(not compiler.is_installed(), reason="NVRTC is not installed"),
]

OPTIONS = AugmentOptions(rescale=1 / 255, data_format="channels_first")
MACROS = cuda_program._macros(OPTIONS, 3, False, False)


@dataclass(frozen=True)
class Part:
    """A batch, and how many blocks share it."""

    batch: np.ndarray
    rows: np.ndarray
    program: np.ndarray
    how: Launch

    def run(self, engine: object) -> np.ndarray:
        return engine.run_program(self.batch, self.program, OPTIONS, indices=self.rows)  # type: ignore[attr-defined, no-any-return]


def part(batch: np.ndarray, *samples: np.ndarray, blocks: int = 3) -> Part:
    """Return a batch of samples, each the steps of one; shorter ones end with steps of nothing."""
    program = np.zeros((len(samples), max(map(len, samples))), samples[0].dtype)
    for row, steps in enumerate(samples):
        program[row, : len(steps)] = steps
    return Part(batch, np.arange(len(samples)) % len(batch), program, Launch((blocks,)))


def chain(*steps: tuple[object, ...], **how: bool) -> np.ndarray:
    return np.concatenate([step(*one, **how) for one in steps])  # type: ignore[arg-type]


def parts() -> list[Part]:
    """Return batches, the cheapest and most telling first: each is asked only where those before it saw nothing."""
    drawn = []
    for policy in (gpuseq.RandAugment(3, 12, interpolation="bilinear", fill=(7, 8, 9)), gpuseq.RandAugment(2, 9)):
        recipe = Recipe.parse("augmentations", policy)
        assert recipe is not None
        drawn.append(recipe.draw(np.arange(24), (11, 9), seed=5, epoch=0))
    small = images((5, 11, 9, 3), seed=1)
    alone = [
        step("Hue", 0.3),
        step("PermuteChannels", 2, 0, 1),
        step("GaussianBlur", 3, 3, 1.0),
        step("Rotate", 33.0),
        step("Perspective", 1, 0, 8, 1, 7, 10, 0, 9),
        step("Color", 1.7),
        step("Invert")[:0],
    ]
    found = [part(small, *drawn[0], *alone), part(small, *drawn[1], blocks=1)]
    # Pixels that go four at once: in words where they stay in place; a thread's second may be the first of no image.
    in_words = images((2, 16, 20, 3), seed=3)
    found.append(part(in_words, *map(trimmed, plain_program(3))))
    looks = (("Equalize",), ("AutoContrast",), ("Contrast", 1.3), ("Sharpness", 1.6))
    colours = ((), (("Posterize", 5), ("Color", 0.3)))
    found.append(part(in_words, *(chain(*before, look) for look in looks for before in colours)))
    # The mean of its light lies between two levels: one pixel less decides.
    halves = np.where(np.indices((16, 20)).sum(0) % 2, 100, 101).astype(np.uint8)
    found.append(part(np.stack([halves] * 3, axis=-1)[None], step("Contrast", 0.3)))
    # Each step of the grid by itself, on few levels: those that are reached exactly are on an edge.
    few = images((2, 9, 11, 3), seed=4) // 64 * 85
    singles = [case.steps for case in CASES if case.name != "ResizedCrop"]
    found += [part(some, *singles, *FURTHER) for some in (images((1, 9, 11, 3)), few)]
    # Positions that lie exactly on an edge of the image, or of a pixel.
    edges = [
        step(name, shift, bilinear=bilinear)
        for name in ("TranslateX", "TranslateY")
        for shift in (0.5, -0.5, 1.0, -1.0, 3.0, -3.0)
        for bilinear in (False, True)
    ]
    edges += [step("Affine", 0, shift, 0, 1, 0, 0, bilinear=True) for shift in (-0.5, 0.5, 8.5, -8.5)]
    for down, across in ((0.5, 0), (-0.5, 0), (0, 0.5), (0, -0.5)):
        ends = ((across, down), (8 + across, down), (8 + across, 10 + down), (across, 10 + down))
        edges.append(step("Perspective", *sum(ends, ())))
    edges += [step("PermuteChannels", *order) for order in ((2, 0, 1), (1, 2, 0))]
    edges += [step("Perspective", *ends) for ends in ((0, 0, 8, 3, 8, 6, 0, 10), (1, 0, 8, 1, 7, 10, 0, 9))]
    found.append(part(small, *edges, *(steps for (height, _), steps in FAR if height < 1000)))
    edges.append(chain(("Rotate", 12.0), ("Perspective", 1, 0, 8, 1, 7, 10, 0, 7)))
    found.append(part(small, *(np.concatenate([steps, step("Sharpness", 1.6)]) for steps in edges)))
    # Several units of one sample, and noise and values in rectangles, one over another.
    erased = [
        chain(("Erase", 3, 2, 30, 20, 5.5, -1, 300), ("Erase", 10, 12, 5, 9, 1, 2, 3)),
        chain(("EraseNoise", 0, 0, 53, 39, 12345), ("Erase", 10, 12, 5, 9, 1, 2, 3)),
        chain(("Rotate", 12.0), ("EraseNoise", 40, 24, 6, 15, 2**52 + 3)),
    ]
    # Of fewer than 255 pixels Equalize changes nothing.
    measured = [*(step(name) for name in ("Equalize", "AutoContrast") for _ in range(2)), step("Contrast", 1.3)]
    several = [chain(("Rotate", 12.0), ("Color", 0.3)), chain(("Sharpness", 1.6), ("ShearY", 0.2))]
    large = images((2, 53, 39, 3), seed=2)  # the last part is a shorter one
    large[1] = large[1] // 4 + 30
    found.append(part(large, *measured, *erased, step("Invert")[:0], *several, blocks=2))
    found.append(part(large, *measured, blocks=9))  # no block draws two tickets of an image
    return found


def trimmed(program: np.ndarray) -> np.ndarray:
    return program[: int((program["op"] != 0).sum())]  # type: ignore[no-any-return]


class Trial:
    """The batches, with a program in a kernel's place."""

    def __init__(self, run: PtxRun) -> None:
        self.run = run
        self._parts = [(one, one.run(numpy_program)) for one in parts()]

    def sees(self, kernel: str, mutant: Program) -> bool:
        self.run.replaced = {kernel: mutant}
        try:
            for one, wanted in self._parts:
                self.run.how = one.how
                assert_same(one.run(cuda_program), wanted)
        except (AssertionError, LaunchError):
            return True
        return False

    def survey(self, kernel: str, every: int) -> Survey:
        return survey(self.run, kernel, MACROS, lambda mutant: self.sees(kernel, mutant), every)


EDGE, OTHER_WAY = "edge on the other side", "the other way"
WHOLE = r"\((int|unsigned|long long)\)(step|steps|numbers|jobs|erase|source_row|from|floor_col|floor_row|level|whole)\b"
RULES = (
    Rule(".*", WHOLE, "to nearest for truncation", "a double that holds a whole number"),
    Rule(".*", r"[<>]=? (0|255|1)(\.0f?)? \?", EDGE, "what is clipped to the edge is the edge"),
    Rule(".*", "^for |^while ", EDGE + "|add for sub", "a turn more has nothing to do; a loop that runs at least once"),
    Rule("", "", EDGE + "|add for sub|no negation", "the same, of a loop that was unrolled or turned round"),
    # How a batch is shared out.
    Rule("program", r"for \(long long unit", OTHER_WAY, "how 64 bits are divided where 32 would do"),
    Rule(
        "program",
        "UNIT_PIXELS",
        "add for sub|" + EDGE,
        "signs of a division of no negative number; a full unit",
    ),
    Rule("program", r"num_steps == 0|own_erases", "", "no steps begin with the source; no erasing reads none"),
    Rule("image_of", "from < 0.0", EDGE, "the source is -1"),
    Rule("load_steps", "", "", "a number too many is copied and not read"),
    Rule("whole_of", "9e18", EDGE + "|and for or|to nearest", "whole numbers, none of which is as large"),
    Rule("erase_pixels", "within = ", EDGE + "|to nearest", "what is cut off at an edge is the edge; whole numbers"),
    Rule("erase_pixels", "end_row", "add for sub", "a row of the next unit: its pixels are left out"),
    Rule("erase_pixels", "position < start", EDGE + "|and for or", "pixels that the next unit erases in the same way"),
    # Steps.
    Rule("trace_back", "at_col >= 0.0", EDGE, "the pixel that begins at the far edge is outside too", r"^setp\.geu"),
    Rule("read_bilinear", r"step\[7\] != 0.0", "", "a depth of 1 divides to no effect"),
    Rule("clamped", "", EDGE, "the tap at the border itself, and taps that are no farther than one outside"),
    Rule(
        "reflected",
        "",
        EDGE + "|add for sub",
        "the border is its own reflection; sides below a kernel's",
    ),
    Rule("read_sharpened", "26", "add for sub", "the sign of a division of no negative number"),
    Rule("read_sharpened|recolour(_plain)?", r"\(float\)(step|segment)", "to zero", "the last bit of a factor"),
    Rule("recolour", "rotate_hue", "add for sub", "the sign of a division of no negative number"),
    Rule("rotate_hue", r"[<>] (green|blue) \?|clipped|>= 1.0f|whole % 6", "", "equal colours; sides of a full turn"),
    Rule("read_blurred", "channel", "no negation|add for sub|of the next", "halves of odd numbers, equal weights"),
    Rule("run_segment", "", "multiply-add", "the steps lie where shared memory begins, at 0"),
    Rule("run_segment", "has_front", EDGE, "there is no step between the last of a pixel and the first of several"),
    Rule("run_segment", "^for ", OTHER_WAY, "the first test of a loop"),
    # How pixels are made: one by one, or four at once.
    Rule("plain_of|make_pixels", "code|is_in_place", "", "the pixels are the same either way"),
    Rule("prepare", r"is_kept \?", "add for sub|" + EDGE, "the alignment alone is asked for; the first test of a loop"),
    # Looks at an image.
    Rule("look_at", "light", "add for sub", "the first pixel of a thread's only four"),
    Rule("prepare|write_.*", "", EDGE, "the first test of a loop", r"setp\.gt\.s32 .*, (767|255)$"),
    Rule("prepare", "part_pixels", "add for sub|" + EDGE, "signs of a division of no negative number; a full part"),
    Rule("prepare", "measure != MEASURE_NOTHING", "and for or", "counters of nothing are cleared"),
    Rule("write_equalized", "/ 255", "add for sub", "the sign of a division of no negative number", r"^add\."),
    Rule("write_autocontrast", "high > low", EDGE, "one level alone: stretched by nothing or not at all"),
)
"""Why nobody sees a change of these."""


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> PtxRun:
    monkeypatch.setattr(machine, "MAX_STEPS", 3_000_000)  # a loop's wrong end must not take minutes
    # Some pixels to each thread of small images, and more parts of the large ones than a loop adds at once.
    monkeypatch.setattr(cuda_program, "PREPARE_BLOCK", 64)
    monkeypatch.setattr(cuda_program, "PREPARE_PIXELS", 4)
    return runner.install(monkeypatch)


@pytest.mark.parametrize(("kernel", "every", "share"), [("program", 10, 0.7), ("prepare", 8, 0.55)])
def test_changed_instructions_are_seen(kernel: str, every: int, share: float, run: PtxRun) -> None:
    found = Trial(run).survey(kernel, every)
    assert found.number > 45
    check([found], RULES, share, room=2)

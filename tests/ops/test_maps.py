"""Where pixels come from: turns rounded as Pillow rounds them, and the maps of a batch equal to those of one step."""

from __future__ import annotations

import math

import numpy as np

from gpuseq.ops.maps import coefficients, write_maps


def test_turns_are_rounded_as_python_rounds() -> None:
    """Pillow's `rotate` rounds to 15 digits, of which NumPy's function gives others. Known turns are the same again."""
    rng = np.random.default_rng(0)
    degrees = [
        *rng.uniform(-720, 720, 500).tolist(),
        *np.arange(-720.0, 721.0, 7.5).tolist(),
        1e-9,
        -1e-14,
        -0.0,
        1e300,
    ]
    for _ in range(2):
        maps = np.zeros((8, len(degrees)))
        write_maps(maps, [("Rotate", 0, len(degrees))], np.array(degrees)[:, None], 40, 60)
        for given, (cos, sin, _, minus_sin, same, _) in zip(degrees, maps[:6].T.tolist(), strict=True):
            angle = -math.radians(given % 360.0)
            assert (cos, same) == (round(math.cos(angle), 15),) * 2
            assert (sin, minus_sin) == (round(math.sin(angle), 15), round(-math.sin(angle), 15))


def test_each_step_of_a_run_is_as_alone() -> None:
    rng = np.random.default_rng(1)
    names = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Affine", "HorizontalFlip", "VerticalFlip")
    args = rng.uniform(0.1, 30.0, (3 * len(names), 8))
    maps = np.zeros((8, len(args)))
    write_maps(maps, [(name, 3 * number, 3 * number + 3) for number, name in enumerate(names)], args, 24, 31)
    for place, row in enumerate(args.tolist()):
        assert tuple(maps[:6, place]) == coefficients(names[place // 3], row, 24, 31)

"""Where pixels come from: turns rounded as Pillow rounds them, and the maps of a batch equal to those of one step."""

from __future__ import annotations

import math

import numpy as np
import pytest

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
    names += ("RotateAbout", "AffineAbout")
    args = rng.uniform(0.1, 30.0, (3 * len(names), 8))
    maps = np.zeros((8, len(args)))
    write_maps(maps, [(name, 3 * number, 3 * number + 3) for number, name in enumerate(names)], args, 24, 31)
    for place, row in enumerate(args.tolist()):
        assert tuple(maps[:6, place]) == coefficients(names[place // 3], row, 24, 31)


@pytest.mark.parametrize(("height", "width"), [(24, 31), (7, 1), (40, 40)])
def test_about_the_middle_is_the_map_without_a_centre(height: int, width: int) -> None:
    rng = np.random.default_rng(3)
    middle = width / 2, height / 2
    for args in rng.uniform((-180, -9, -9, 0.5, -40, -40), (180, 9, 9, 2, 40, 40), (50, 6)).tolist():
        size = height, width
        assert coefficients("AffineAbout", (*args, *middle), *size) == coefficients("Affine", args, *size)
        assert coefficients("RotateAbout", (args[0], *middle), *size) == coefficients("Rotate", args, *size)


def test_an_affine_map_is_the_inverse_of_a_product() -> None:
    """About the middle of the image: shears along rows and columns, a turn, a scale; then a shift."""

    def shifted(x: float, y: float) -> np.ndarray:
        return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]])

    rng = np.random.default_rng(2)
    height, width = 24, 31
    for degrees, shift_x, shift_y, scale, shear_x, shear_y in rng.uniform(
        (-180, -9, -9, 0.5, -40, -40), (180, 9, 9, 2, 40, 40), (50, 6)
    ):
        angle, along_x, along_y = np.deg2rad((degrees, shear_x, shear_y))
        turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1 / scale]])
        shear = np.array([[1, 0, 0], [-np.tan(along_y), 1, 0], [0, 0, 1]]) @ np.array(
            [[1, -np.tan(along_x), 0], [0, 1, 0], [0, 0, 1]]
        )
        middle = shifted(width / 2, height / 2)
        forward = shifted(shift_x, shift_y) @ middle @ turn @ shear @ np.linalg.inv(middle)
        wanted = np.linalg.inv(forward / forward[2, 2])
        got = coefficients("Affine", (degrees, shift_x, shift_y, scale, shear_x, shear_y), height, width)
        np.testing.assert_allclose(np.reshape(got, (2, 3)), wanted[:2], rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("size", "corners"),
    [
        ((8, 8), (1, 1, 7, 0, 5, 5, 0, 7)),
        # The pixel (0, 0) looks at infinity: no map does of which the ninth number is 1.
        ((8, 8), (2, 2, 6, 1, 6, 6, 0, 5)),
        ((5, 9), (0, 1, 8, 1, 5, 4, 3, 2)),
    ],
)
def test_a_projective_map_brings_its_corners_back(size: tuple[int, int], corners: tuple[int, ...]) -> None:
    height, width = size
    # The second is in a batch with the first, of which it takes nothing.
    maps = np.zeros((8, 2))
    write_maps(maps, [("Perspective", 0, 2)], np.array([(1, 1, 4, 0, 3, 3, 0, 4), corners], np.float64), *size)
    assert tuple(maps[:, 1]) == coefficients("Perspective", corners, *size)
    a, b, c, d, e, f, g, h = maps[:, 1].tolist()
    wanted = (0, 0), (width - 1, 0), (width - 1, height - 1), (0, height - 1)
    for (x, y), corner in zip(np.reshape(corners, (4, 2)).tolist(), wanted, strict=True):
        depth = g * x + h * y + 1
        found = (a * x + b * y + c) / depth, (d * x + e * y + f) / depth
        np.testing.assert_allclose(found, corner, rtol=0, atol=1e-4)

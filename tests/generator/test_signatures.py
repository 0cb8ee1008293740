"""Every public name has Keras' arguments, in Keras' order, with Keras' defaults; ours come after, keyword-only."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

import gpuseq

PUBLIC = (
    "Sequence",
    "Iterator",
    "NumpyArrayIterator",
    "DirectoryIterator",
    "DataFrameIterator",
    "ImageDataGenerator",
    "load_img",
    "img_to_array",
    "array_to_img",
    "save_img",
    "validate_filename",
    "list_pictures",
    "flip_axis",
    "apply_affine_transform",
    "apply_channel_shift",
    "apply_brightness_shift",
    "random_rotation",
    "random_shift",
    "random_shear",
    "random_zoom",
    "random_channel_shift",
    "random_brightness",
    "transform_matrix_offset_center",
)

FUNCTIONS = tuple(name for name in PUBLIC if name[0].islower() and name != "list_pictures")
FILE_FUNCTIONS = ("load_img", "img_to_array", "array_to_img", "save_img")

METHODS = {
    "ImageDataGenerator": (
        "__init__",
        "flow",
        "flow_from_directory",
        "flow_from_dataframe",
        "fit",
        "standardize",
        "get_random_transform",
        "apply_transform",
        "random_transform",
    ),
    "Iterator": ("__init__", "__getitem__", "__len__", "__iter__", "__next__", "reset", "on_epoch_end"),
    "NumpyArrayIterator": ("__init__",),
    "DirectoryIterator": ("__init__", "set_processing_attrs"),
    "DataFrameIterator": ("__init__", "set_processing_attrs", "get_classes"),
}

OURS = {
    "ImageDataGenerator.__init__": {"device": "auto", "rng": "keras", "conventions": "keras"},
    "ImageDataGenerator.flow": {"shard": None, "remainder": "pad"},
    "ImageDataGenerator.flow_from_directory": {"on_error": "raise", "shard": None, "remainder": "pad"},
    "ImageDataGenerator.flow_from_dataframe": {"on_error": "raise", "shard": None, "remainder": "pad"},
}

POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def keras_module(name: str) -> Any:
    if name in FILE_FUNCTIONS:
        return pytest.importorskip("keras.src.utils.image_utils")
    return pytest.importorskip("keras.src.legacy.preprocessing.image")


def assert_same_signature(ours: Callable[..., Any], theirs: Callable[..., Any]) -> None:
    """Fail unless all of Keras' parameters stand first, with their defaults, and all others are keyword-only."""
    wanted = list(inspect.signature(theirs).parameters.values())
    got = list(inspect.signature(ours).parameters.values())
    wanted_positional = [(p.name, p.default) for p in wanted if p.kind in POSITIONAL]
    got_positional = [(p.name, p.default) for p in got if p.kind in POSITIONAL]
    assert [name for name, _ in got_positional[: len(wanted_positional)]] == [name for name, _ in wanted_positional]
    for (name, default), (_, keras_default) in zip(got_positional, wanted_positional, strict=False):
        assert type(default) is type(keras_default), f"{name}={default!r}, in Keras {keras_default!r}"
        assert default == keras_default, f"{name}={default!r}, in Keras {keras_default!r}"
    assert len(got_positional) == len(wanted_positional), "arguments of ours must be keyword-only"
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in wanted):
        assert any(p.kind is inspect.Parameter.VAR_KEYWORD for p in got), "Keras takes **kwargs here"


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_import_from_the_top(name: str) -> None:
    assert hasattr(gpuseq, name)
    assert name in gpuseq.__all__
    assert getattr(gpuseq, name).__doc__


def test_all_is_sorted_complete_and_true() -> None:
    assert list(gpuseq.__all__) == sorted(gpuseq.__all__, key=lambda name: (name.lower(), name)) or list(
        gpuseq.__all__
    ) == sorted(gpuseq.__all__)
    for name in gpuseq.__all__:
        assert getattr(gpuseq, name) is not None
    assert set(PUBLIC) <= set(gpuseq.__all__)
    assert set(gpuseq.__all__) <= set(dir(gpuseq))


@pytest.mark.keras
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_have_keras_arguments(name: str) -> None:
    assert_same_signature(getattr(gpuseq, name), getattr(keras_module(name), name))


@pytest.mark.keras
@pytest.mark.parametrize(("owner", "method"), [(owner, method) for owner, names in METHODS.items() for method in names])
def test_methods_have_keras_arguments(owner: str, method: str) -> None:
    theirs = getattr(getattr(keras_module(owner), owner), method)
    ours = getattr(getattr(gpuseq, owner), method)
    if method in ("__getitem__",):  # positional in practice: the name of the index is free
        assert len(inspect.signature(ours).parameters) == len(inspect.signature(theirs).parameters)
        return
    assert_same_signature(ours, theirs)


@pytest.mark.parametrize("qualified", OURS)
def test_our_own_arguments_are_keyword_only_with_neutral_defaults(qualified: str) -> None:
    owner, _, method = qualified.partition(".")
    parameters = inspect.signature(getattr(getattr(gpuseq, owner), method)).parameters
    for name, default in OURS[qualified].items():
        assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY, name
        assert parameters[name].default == default, name


def test_list_pictures_has_the_arguments_of_keras_2() -> None:
    parameters = inspect.signature(gpuseq.list_pictures).parameters
    assert list(parameters)[:2] == ["directory", "ext"]
    assert set(parameters["ext"].default) == {"jpg", "jpeg", "bmp", "png", "ppm", "tif", "tiff"}


def test_iterators_have_keras_2s_next_and_ours() -> None:
    for owner in ("NumpyArrayIterator", "DirectoryIterator", "DataFrameIterator"):
        for name in ("next", "state_dict", "load_state_dict", "set_epoch", "close"):
            assert callable(getattr(getattr(gpuseq, owner), name)), f"{owner}.{name}"
        assert issubclass(getattr(gpuseq, owner), gpuseq.Iterator)
        assert issubclass(getattr(gpuseq, owner), gpuseq.Sequence)


def test_importing_gpuseq_imports_nothing_heavy() -> None:
    """Not one of the frameworks, not the decoders, not pandas or SciPy, until something needs it."""
    heavy = ["cupy", "keras", "tensorflow", "torch", "jax", "nvidia.dali", "pandas", "scipy", "ray"]
    code = (
        "import sys, gpuseq\n"
        "[getattr(gpuseq, name) for name in gpuseq.__all__]\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.strip() == "[]"

"""What a caller wrote: the nearest right name for a wrong one, and warnings that point at the caller's own line."""

from __future__ import annotations

import functools
import inspect
import os
import sys
import warnings
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any, TypeVar, cast

import numpy as np

from .types import DataFormat, DTypeName, literals
from .version import PACKAGE

__all__ = [
    "caller",
    "check_choice",
    "check_count",
    "check_flag",
    "checked_arguments",
    "checked_data_format",
    "checked_dtype",
    "did_you_mean",
    "warn",
]

Function = TypeVar("Function", bound=Callable[..., Any])

# The whole package by its root, not one folder by equality: the rooms are subfolders, and a warning would point into
# one of them. The separator keeps a package whose name begins with ours outside.
_INSIDE = f"{PACKAGE}{os.sep}"


def did_you_mean(given: object, accepted: Iterable[object]) -> str:
    """Return ``"; did you mean ...?"`` for the end of a message, or nothing where no accepted value is near.

    Parameters
    ----------
    given : object
        What the caller wrote. Only text can be misspelt.
    accepted : iterable of object
        What there is; compared as text, whatever the case, so that "None" is near None.

    References
    ----------
    Ratcliff and Metzener, "Pattern matching: the gestalt approach", 1988, by `difflib.get_close_matches`.
    """
    known = {str(value).lower(): value for value in accepted}
    if not isinstance(given, str) or given in known.values():
        return ""
    import difflib  # for mistakes alone

    # difflib distinguishes case, and a part of a longer name ("zoom" of "zoom_range") is below its cutoff of 0.6.
    word = given.lower()
    near = [word] if word in known else difflib.get_close_matches(word, known, n=1)
    if not near and len(word) > 3:
        near = [name for name in known if word in name or name in word][:2]
    return f"; did you mean {' or '.join(repr(known[name]) for name in near)}?" if near else ""


def check_choice(name: str, value: object, accepted: tuple[object, ...]) -> None:
    """Raise a ValueError that names the value and the accepted ones, unless `value` is one of them."""
    # Not `value in accepted`: "==" is elementwise for an array, and 1 would pass for True.
    if not any(value is choice or (isinstance(value, str) and value == choice) for choice in accepted):
        listed = ", ".join(map(repr, accepted))
        raise ValueError(f"{name} must be one of {listed}; got {value!r}{did_you_mean(value, accepted)}")


def check_count(name: str, value: object, *, least: int = 1, unit: str = "", or_none: bool = True) -> None:
    """Raise a ValueError that names the value, unless it is an integer from `least` on, or None where that is allowed.

    Parameters
    ----------
    name : str
        Of the argument.
    value : object
        What the caller gave.
    least : int
        The smallest accepted value.
    unit : str
        What is counted.
    or_none : bool
        Whether None is accepted.
    """
    if value is None and or_none:
        return
    # A bool has `__index__` as well, and True would count as 1. NumPy's integers have it and are accepted.
    if isinstance(value, bool) or not hasattr(value, "__index__") or value.__index__() < least:
        kind = "positive" if least else "non-negative"
        raise ValueError(f"{name} must be a {kind} integer{f', in {unit}' if unit else ''}; got {value!r}")


def check_flag(name: str, value: object) -> None:
    """Raise a ValueError where text stands for True or False: "False" would count as true."""
    if isinstance(value, str):
        raise ValueError(f"{name} must be True or False; got {value!r}")


def checked_dtype(dtype: Any, device: str) -> DTypeName:
    """Return the name of an accepted output dtype, "float32" for None.

    Raises
    ------
    ValueError
        If `dtype` is not accepted on this device.
    """
    if dtype is None:
        return "float32"
    try:
        # NumPy has no bfloat16 of its own, so `np.dtype` knows the name only where ml_dtypes was imported.
        name = "bfloat16" if dtype == "bfloat16" else np.dtype(dtype).name
    except TypeError:
        name = str(dtype)
    # For the same reason there is no bfloat16 batch on the host.
    accepted = tuple(item for item in literals(DTypeName) if item != "bfloat16" or device != "cpu")
    if name not in accepted:
        listed = ", ".join(accepted)
        raise ValueError(f"dtype must be one of {listed} on {device!r}; got {dtype!r}{did_you_mean(name, accepted)}")
    return cast(DTypeName, name)


def checked_data_format(data_format: str | None) -> DataFormat:
    """Return `data_format`, "channels_last" for None.

    Raises
    ------
    ValueError
        If it is neither of the two.
    """
    accepted = literals(DataFormat)
    if data_format not in (None, *accepted):
        raise ValueError(
            '`data_format` should be `"channels_last"` (channel after row and column) or `"channels_first"` '
            f"(channel before row and column). Received: {data_format}{did_you_mean(data_format, accepted)}"
        )
    return cast(DataFormat, data_format or "channels_last")


def checked_arguments(*further: str) -> Callable[[Function], Function]:
    """Let a call that does not fit a public function's signature fail with the public name and the nearest argument.

    Parameters
    ----------
    *further : str
        Names that the function takes by its ``**kwargs``. All others are refused.

    Returns
    -------
    callable
        A decorator. The function keeps its signature; a call that fits costs next to nothing more.
    """

    def decorate(function: Function) -> Function:
        parameters = inspect.signature(function).parameters.values()
        names = {parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD} | {*further}
        is_open = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            # A function without **kwargs refuses by itself; binding the signature before every call would cost more
            # than many calls do. Only an unknown name that **kwargs would swallow has to be found beforehand.
            refusal = _refusal(function, further, args, kwargs) if is_open and not kwargs.keys() <= names else None
            if refusal is None:
                try:
                    return function(*args, **kwargs)
                except TypeError:
                    refusal = _refusal(function, further, args, kwargs)
                    if refusal is None:
                        raise  # the arguments fit: the error comes from deeper down
            raise refusal from None

        return call  # type: ignore[return-value]

    return decorate


def _refusal(
    function: Callable[..., Any], further: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> TypeError | None:
    """Return the error for arguments that do not fit, None where they do."""
    signature = inspect.signature(function)
    closed = [item for item in signature.parameters.values() if item.kind is not item.VAR_KEYWORD]
    names = [item.name for item in closed if item.name != "self"] + list(further)
    owner = type(args[0]) if args and "self" in signature.parameters else None
    shown = function.__name__
    if owner is not None:
        shown = owner.__name__ if shown == "__init__" else f"{owner.__name__}.{shown}"
    # The names come before the binding, because `bind` names one unknown argument without advice and stops there.
    unknown = [name for name in kwargs if name not in names]
    if unknown:
        clauses = [f"{name!r}{_advice(name, names, owner)}" for name in unknown]
        return TypeError(f"{shown}() got an unexpected keyword argument {', and '.join(clauses)}")
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        return TypeError(f"{shown}(): {error}")
    return None


def _advice(name: str, names: list[str], owner: type | None) -> str:
    """Say what an unknown argument was meant to be: a method of the same class may take it, or one is spelt alike."""
    # `flow(rotation_range=...)` is the usual case: the argument belongs to the constructor.
    members = inspect.getmembers(owner, inspect.isfunction) if owner is not None else []
    takers = [
        f"{owner.__name__ if owner is not None and method == '__init__' else method}()"
        for method, function in members
        # Decorated by `checked_arguments`: what users call. Private methods take such names, too.
        if hasattr(function, "__wrapped__") and name in inspect.signature(function).parameters
    ]
    if takers:
        return f": it belongs to {' or '.join(takers)}"
    return did_you_mean(name, names) or f"; it takes {', '.join(names)}"


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line of the caller's own that led here, however many frames of this package lie between.

    Parameters
    ----------
    message : str
        The text.
    category : type
        Of the warning.
    """
    # `stacklevel` counts frames. Level 1 is this function, 2 the one that called it, and so on outwards.
    frame, outer, level = sys._getframe(1), caller(), 2
    while frame is not outer and frame.f_back is not None:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def caller() -> FrameType:
    """Return the nearest frame outside this package."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_INSIDE):
        frame = frame.f_back
    return frame

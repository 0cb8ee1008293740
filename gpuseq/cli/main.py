"""The command ``gpuseq``: its arguments, its help and its exit codes. What each command does stands in `commands`."""

from __future__ import annotations

import argparse
import math
import os
import re
import signal
import sys
import textwrap
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, TextIO

from gpuseq.base.arguments import did_you_mean
from gpuseq.base.errors import DeviceError, GpuseqError, ImageFileError
from gpuseq.base.types import ColorMode, FillMode, Interpolation, literals
from gpuseq.base.version import __version__

from . import commands
from .commands import EXIT_FINDINGS, EXIT_INTERRUPTED, EXIT_OK, EXIT_TERMINATED, EXIT_USAGE

__all__ = ["build_parser", "main"]

_EXIT_CODES = (
    "exit codes: 0 done; 1 it failed or found something; 2 wrong arguments; 130 interrupted and 143 ended by SIGTERM, "
    "with nothing half-written"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    Parameters
    ----------
    argv : sequence of str or None
        Arguments after the command's name. None takes the process's own.

    Returns
    -------
    int
        0 done; 1 it failed or found something; 130 interrupted, 143 by SIGTERM.

    Raises
    ------
    SystemExit
        With 2 for wrong arguments, with 0 for ``--help`` and ``--version``, as argparse does.
    """
    # `parse_known_args`, so that an unknown option is refused by the command's own parser, which knows the near ones.
    parser = build_parser()
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:
        arguments.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    run: Callable[[argparse.Namespace], int] = arguments.run
    try:
        with warnings.catch_warnings(), _ending_at_sigterm():
            warnings.showwarning = _show_warning
            return run(arguments)
    except _TerminatedError:
        print("\ngpuseq: ended by SIGTERM; nothing was left half-written", file=sys.stderr)
        return EXIT_TERMINATED
    except KeyboardInterrupt:
        print("\ngpuseq: interrupted; nothing was left half-written", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has gone; point stdout elsewhere so that the interpreter's last flush is quiet.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    # From the special to the general: each adds the command that helps.
    except DeviceError as error:
        print(f"gpuseq: {error}. Run `gpuseq doctor` to see what is there", file=sys.stderr)
        return EXIT_FINDINGS
    except ImageFileError as error:
        print(
            f"gpuseq: {error}. `gpuseq check` names all files that cannot be decoded, and "
            "--on-error skip goes on past them",
            file=sys.stderr,
        )
        return EXIT_FINDINGS
    except (GpuseqError, OSError) as error:
        print(f"gpuseq: {error}", file=sys.stderr)
        return EXIT_FINDINGS
    # What the library refuses of an argument is a wrong argument of the command, which argparse could not know.
    except ValueError as error:
        print(f"gpuseq: {error}", file=sys.stderr)
        return EXIT_USAGE


class _TerminatedError(KeyboardInterrupt):
    """Raised where SIGTERM arrives, so that what is half-written is removed, as with Ctrl-C."""


@contextmanager
def _ending_at_sigterm() -> Iterator[None]:
    def end(number: int, frame: object) -> None:
        raise _TerminatedError

    if threading.current_thread() is not threading.main_thread():  # which alone may say what a signal does
        yield
        return
    # An exception in the main thread, as Ctrl-C is: `replacing` then removes what is half-written.
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning as a sentence for the user of a command, without the line of code that gave it."""
    # The line that gave it is one of this package, and tells the user of a command nothing.
    print(f"gpuseq: {message}", file=sys.stderr)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors name the nearest right word, and the way to the help in place of the whole usage."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and end with 2."""
        # argparse has no hook for its messages, so the words are taken out of them.
        wrong = re.search(r"invalid choice: '?([^\s']+)'? \(choose from (.*)\)", message)
        if wrong:
            message += did_you_mean(wrong[1], re.findall(r"[\w-]+", wrong[2]))
        elif unknown := re.search(r"unrecognized arguments: (--[\w-]+)", message):
            message += did_you_mean(unknown[1], self._option_string_actions)
        self.exit(EXIT_USAGE, f"{self.prog}: {message}\nusage: {self.prog} --help shows what there is, with examples\n")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command, for `main`, for the documentation and for tests."""
    parser = _Parser(
        prog="gpuseq",
        description="Keras' image generators with the work on the GPU: see it, check your data, measure it.",
        epilog=_epilog(
            """
            start here:
              gpuseq demo                     two epochs of photographs that ship with gpuseq, and a contact sheet
              gpuseq doctor                   what was found on this machine, and what each missing piece would bring

            on your own folder of pictures:
              gpuseq check photos/            which files cannot be decoded, and why
              gpuseq preview photos/          what an augmentation does to them
              gpuseq fit photos/ --out stats.json     mean and standard deviation per channel
              gpuseq bench photos/            Keras' generator against this library, one minute

            `gpuseq COMMAND --help` has examples for each.
            """
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"gpuseq {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (_add_demo, _add_doctor, _add_preview, _add_check, _add_fit, _add_bench):
        add(subparsers)
    return parser


def _epilog(text: str) -> str:
    return f"{textwrap.dedent(text).strip()}\n\n{_EXIT_CODES}"


def _command(
    subparsers: Any, name: str, run: Callable[[argparse.Namespace], int], summary: str, examples: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name,
        help=summary[0].lower() + summary[1:].rstrip("."),
        description=summary,
        epilog=_epilog(examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run, parser=parser)
    return parser


# Arguments that several commands share


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output, for scripts")


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device",
        default="auto",
        help='"auto" (default: a GPU if one answers), "cpu", "cuda" or "cuda:N"; GPUSEQ_DEVICE sets what auto means',
    )


def _add_on_error(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--on-error",
        choices=("raise", "skip"),
        default="raise",
        help="at a file that cannot be decoded: stop (default), or name it and go on; "
        "the notes of macOS (._cat.jpg) are named and passed over by both",
    )


def _add_size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--size",
        nargs=2,
        type=_positive,
        default=(224, 224),
        metavar=("ROWS", "COLS"),
        help="resize every picture to this first (default: 224 224)",
    )


def _positive(text: str) -> int:
    # A ValueError is argparse's to report, as "invalid value".
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more; got {text}")
    return value


def _variants(text: str) -> int:
    value = _positive(text)
    if value > 1000:
        raise argparse.ArgumentTypeError(f"must be 1000 or less, as all of them are in one picture; got {text}")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    # Python reads "nan" and "inf" as floats too: a race of the second would not end.
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0; got {text}")
    return value


def _seed(text: str) -> int:
    value = int(text)
    # What `numpy.random.RandomState` takes.
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError(f"must be from 0 to 2**32 - 1; got {text}")
    return value


def _add_augmentation(parser: argparse.ArgumentParser, *, modern: bool = False) -> None:
    group = parser.add_argument_group(
        "augmentation", "the arguments of ImageDataGenerator, by their names; none given: some of everything"
    )
    names = []

    def add(option: str, **how: Any) -> None:
        # The names are kept apart from the parser's other options: `commands.augmentation` hands on these and no
        # others.
        names.append(group.add_argument(option, **how).dest)

    add("--rotation-range", type=float, metavar="DEGREES", help="turn by up to this, either way")
    add("--width-shift-range", type=float, metavar="FRACTION", help="of the width if below 1, else pixels")
    add("--height-shift-range", type=float, metavar="FRACTION", help="of the height if below 1, else pixels")
    add("--shear-range", type=float, metavar="DEGREES", help="shear by up to this, either way")
    # argparse has no "one or two": `commands.augmentation` counts them.
    add("--zoom-range", type=float, nargs="+", metavar="Z", help="one value z: 1-z to 1+z; or two: lowest and highest")
    add("--channel-shift-range", type=float, metavar="LEVELS", help="added to every channel, of 255")
    add("--brightness-range", type=float, nargs=2, metavar=("LOW", "HIGH"), help="factor, 1 is unchanged")
    # None and not False where it is not given: `commands.augmentation` tells the two apart.
    add("--horizontal-flip", action="store_true", default=None, help="mirror half of them left to right")
    add("--vertical-flip", action="store_true", default=None, help="mirror half of them top to bottom")
    add("--fill-mode", choices=literals(FillMode), help="what comes in from outside (default: nearest)")
    add("--cval", type=float, metavar="LEVEL", help="the level that --fill-mode constant fills in")
    add("--conventions", choices=("keras", "corrected"), help="which axis the shift arguments move")
    if modern:  # which Keras has not, so that a race with it has none
        add(
            "--augment",
            dest="augmentations",
            metavar="POLICY",
            help="a modern policy after the ranges: rand-m9-mstd0.5-inc1, augmix-m3-w3, trivial, imagenet, ...",
        )
    parser.set_defaults(augmentation_names=tuple(names))


# The commands


def _add_demo(subparsers: Any) -> None:
    parser = _command(
        subparsers,
        "demo",
        commands.demo,
        "Stream two epochs of augmented photographs, say which engine ran and how fast, and write a contact sheet.",
        """
        examples:
          gpuseq demo                           the photographs that ship with gpuseq
          gpuseq demo photos/                   your own, in class folders or in one flat folder
          gpuseq demo photos/ --out sheet.html  a page instead of a picture
          gpuseq demo --device cuda             fail rather than fall back to the CPU
        """,
    )
    parser.add_argument("directory", nargs="?", metavar="DIR", help="a folder of pictures (default: those that ship)")
    parser.add_argument(
        "--out", default="gpuseq-demo.png", metavar="FILE", help="the sheet (default: ./gpuseq-demo.png)"
    )
    parser.add_argument("--batch-size", type=_positive, default=32, help="images per batch (default: 32)")
    parser.add_argument("--seed", type=_seed, default=1, help="same seed, same batches (default: 1)")
    parser.add_argument(
        "--augment",
        dest="augmentations",
        metavar="POLICY",
        help="a modern policy in the place of Keras' ranges, such as rand-m9-mstd0.5-inc1 or trivial",
    )
    _add_on_error(parser)
    _add_size(parser)
    _add_device(parser)
    _add_json(parser)


def _add_doctor(subparsers: Any) -> None:
    parser = _command(
        subparsers,
        "doctor",
        commands.doctor,
        "Show what gpuseq found on this machine, and what each missing piece would bring.",
        """
        examples:
          gpuseq doctor
          gpuseq doctor --json | jq .engine
          gpuseq doctor --require-gpu           exit code 1 where no GPU can be used: a health check
        """,
    )
    parser.add_argument("--require-gpu", action="store_true", help="exit with 1 where no GPU can be used")
    _add_json(parser)


def _add_preview(subparsers: Any) -> None:
    parser = _command(
        subparsers,
        "preview",
        commands.preview,
        "Draw what given augmentation arguments do to pictures, each with the parameters that were drawn for it.",
        """
        examples:
          gpuseq preview photos/ --rotation-range 30 --horizontal-flip
          gpuseq preview cat.jpg --brightness-range 0.5 1.5 --variants 8
          gpuseq preview photos/ --augment rand-m9-mstd0.5-inc1
          gpuseq preview photos/ --zoom-range 0.8 1.2 --fill-mode reflect --format html --out zoom.html
        """,
    )
    parser.add_argument("path", metavar="DIR|FILE", help="a folder of pictures, or one picture")
    parser.add_argument("--out", metavar="FILE", help="where to (default: ./gpuseq-preview.png, or .html)")
    parser.add_argument("--format", choices=("png", "html"), help="default: by the suffix of --out, else png")
    parser.add_argument("--images", type=_positive, default=4, help="how many pictures of a folder (default: 4)")
    parser.add_argument("--variants", type=_variants, default=5, help="how many variants of each (default: 5)")
    parser.add_argument("--seed", type=_seed, default=1, help="same seed, same variants (default: 1)")
    _add_on_error(parser)
    _add_size(parser)
    _add_device(parser)
    _add_json(parser)
    _add_augmentation(parser, modern=True)


def _add_check(subparsers: Any) -> None:
    parser = _command(
        subparsers,
        "check",
        commands.check,
        "Decode every picture of a folder and name the files that fail, each with the reason.",
        """
        examples:
          gpuseq check photos/
          gpuseq check photos/ --json > bad.json
          gpuseq check photos/ --quiet                       the bad paths alone, one per line
          gpuseq check photos/ --null | xargs -0 -o rm -i    asks for each whether to delete it
        """,
    )
    parser.add_argument("directory", metavar="DIR", help="a folder of pictures, or a URL such as s3://bucket/train")
    parser.add_argument("--quiet", action="store_true", help="print the paths of bad files and nothing else")
    parser.add_argument("--null", action="store_true", help="as --quiet, for xargs -0: a null byte after each path")
    _add_json(parser)


def _add_bench(subparsers: Any) -> None:
    parser = _command(
        subparsers,
        "bench",
        commands.bench,
        "Measure Keras' generator and this library on your own folder, in turn, about a minute in all.",
        """
        Slices of the contenders alternate, so that a busy moment hits all of them; medians and quartiles are printed.
        The first epoch decodes files; a folder that fits the page cache stays there after it.

        examples:
          gpuseq bench photos/
          gpuseq bench photos/ --rotation-range 20 --horizontal-flip --size 299 299 --batch-size 64
          gpuseq bench photos/ --seconds 20 --json
        """,
    )
    parser.add_argument("directory", metavar="DIR", help="a folder of pictures")
    parser.add_argument("--seconds", type=_seconds, default=60.0, help="wall time in all (default: 60)")
    parser.add_argument("--rounds", type=_positive, default=6, help="slices per contender (default: 6)")
    parser.add_argument("--batch-size", type=_positive, default=32, help="images per batch (default: 32)")
    _add_on_error(parser)
    _add_size(parser)
    _add_json(parser)
    _add_augmentation(parser)


def _add_fit(subparsers: Any) -> None:
    parser = _command(
        subparsers,
        "fit",
        commands.fit,
        "Compute mean and standard deviation per channel over a folder, in one pass, whatever its size.",
        """
        The values are those that ImageDataGenerator(featurewise_center=True, featurewise_std_normalization=True).fit
        would find: on 0 to 255, before any rescaling. generator.load_statistics("stats.json") reads the file.

        examples:
          gpuseq fit photos/ --out stats.json
          gpuseq fit photos/ --size 299 299 --out stats.json --json | jq .mean
          gpuseq fit /data/photos --out stats.json --ray --workers 64     on a Ray cluster that sees the folder
        """,
    )
    parser.add_argument("directory", metavar="DIR", help="a folder of pictures")
    parser.add_argument("--out", required=True, metavar="FILE", help="the JSON file to write, whole or not at all")
    parser.add_argument("--color-mode", choices=literals(ColorMode), default="rgb", help="default: rgb")
    parser.add_argument(
        "--interpolation", choices=literals(Interpolation), default="nearest", help="of the resize (default: nearest)"
    )
    parser.add_argument(
        "--workers",
        type=_positive,
        metavar="N",
        help="threads that decode (default: one per core), or Ray's actors (2)",
    )
    parser.add_argument("--ray", action="store_true", help="decode on Ray's workers; the result is the same")
    _add_on_error(parser)
    _add_size(parser)
    _add_device(parser)
    _add_json(parser)

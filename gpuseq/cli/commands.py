"""What the commands of ``gpuseq`` do: each takes the parsed arguments and returns the exit code."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

__all__ = [
    "EXIT_FINDINGS",
    "EXIT_INTERRUPTED",
    "EXIT_OK",
    "EXIT_TERMINATED",
    "EXIT_USAGE",
    "augmentation",
    "bench",
    "check",
    "demo",
    "doctor",
    "fit",
    "preview",
]

EXIT_OK, EXIT_FINDINGS, EXIT_USAGE, EXIT_INTERRUPTED, EXIT_TERMINATED = 0, 1, 2, 130, 143


def augmentation(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the keyword arguments of `ImageDataGenerator` that were given, or some of everything where none was.

    Parameters
    ----------
    arguments : argparse.Namespace
        With `augmentation_names`, the options that stand for arguments of `ImageDataGenerator`.

    Raises
    ------
    ValueError
        If ``--zoom-range`` has more than two values.
    """
    from .preview import AUGMENTATION

    asked = {name: getattr(arguments, name) for name in arguments.augmentation_names}
    # None and not falsy: a range of 0 was given.
    given = {name: value for name, value in asked.items() if value is not None}
    if zoom := given.get("zoom_range"):
        if len(zoom) > 2:
            raise ValueError(f"--zoom-range takes one or two values; got {zoom}")
        given["zoom_range"] = zoom[0] if len(zoom) == 1 else tuple(zoom)
    if "brightness_range" in given:
        given["brightness_range"] = tuple(given["brightness_range"])
    return given or dict(AUGMENTATION)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, default=str))


def demo(arguments: argparse.Namespace) -> int:
    """Stream two epochs, draw the contact sheet."""
    from .demo import run_demo
    from .passed_over import PassedOver

    passed_over = PassedOver(arguments.on_error)
    result = run_demo(
        arguments.directory,
        out=arguments.out,
        device=arguments.device,
        target_size=tuple(arguments.size),
        batch_size=arguments.batch_size,
        seed=arguments.seed,
        augmentations=arguments.augmentations,
        passed_over=passed_over,
        say=(lambda line: None) if arguments.json else print,
    )
    if arguments.json:
        _print_json({**result.to_dict(), "passed_over": passed_over.reasons})
    return EXIT_OK


def doctor(arguments: argparse.Namespace) -> int:
    """Print what is on this machine."""
    from .doctor import examine, format_report

    report = examine()
    if arguments.json:
        _print_json(report.to_dict())
    else:
        print(format_report(report))
    # By what could be used and not by the engine: GPUSEQ_DEVICE=cpu does not make a machine with a GPU fail.
    return EXIT_FINDINGS if arguments.require_gpu and not report.has_gpu else EXIT_OK


def preview(arguments: argparse.Namespace) -> int:
    """Draw what an augmentation does."""
    # Imports stand within the commands, so that each loads its own modules alone.
    from .engine import quiet
    from .folder import open_folder
    from .passed_over import PassedOver
    from .preview import format_arguments, preview_rows
    from .sheet import check_sheet, write_sheet

    suffix = f".{arguments.format or 'png'}"
    out = Path(arguments.out or f"gpuseq-preview{suffix}")
    if arguments.format and out.suffix.lower() not in ((".html", ".htm") if arguments.format == "html" else (".png",)):
        raise ValueError(f"--format {arguments.format} and --out {out} contradict each other")
    # Before the pictures are opened: a wrong suffix costs nothing then.
    check_sheet(out)
    folder = open_folder(arguments.path, or_file=True)
    chosen = augmentation(arguments)
    passed_over = PassedOver(arguments.on_error)
    shown = passed_over.pick(folder.files, arguments.images)
    passed_over.report(len(folder.files))
    with quiet():
        rows = preview_rows(
            chosen,
            shown,
            root=folder.path,
            num_variants=arguments.variants,
            target_size=tuple(arguments.size),
            seed=arguments.seed,
            device=arguments.device,
        )
    notes = [format_arguments(chosen), f"seed={arguments.seed}"]
    written = write_sheet(out, rows, heading="gpuseq preview", notes=notes)
    if arguments.json:
        pictures = [
            {"title": row.original.title, "variants": [dict(tile.lines) for tile in row.variants]} for row in rows
        ]
        drawn = {"sheet": written, "arguments": chosen, "seed": arguments.seed, "pictures": pictures}
        _print_json({**drawn, "passed_over": passed_over.reasons})
    else:
        print(f"Sheet {written}")
    return EXIT_OK


def check(arguments: argparse.Namespace) -> int:
    """Decode every file; 1 where one fails."""
    from gpuseq.base.text import printable
    from gpuseq.decode.host import check_files
    from gpuseq.files.folders import few, list_images
    from gpuseq.files.reading import is_url

    from .folder import SUFFIXES, ignored_pictures, open_folder
    from .levels import saturating

    # Folders on a disk go by the commands' own listing, which takes one file as well; stores by the iterators' listing.
    if is_url(arguments.directory):
        root = arguments.directory.rstrip("/")
        paths = [f"{root}/{name}" for name in list_images(root, tuple(sorted(SUFFIXES)), follow_links=False)]
        if not paths:
            raise FileNotFoundError(f"no picture in {root!r} or below")
    else:
        paths = [str(file) for file in open_folder(arguments.directory, or_file=True).files]
    outcomes = check_files(paths, progress=sys.stderr.isatty())
    bad = {path: reason for path, reason in outcomes if reason is not None}
    alone = arguments.null or arguments.quiet
    ignored = {} if alone or is_url(arguments.directory) else ignored_pictures(arguments.directory)
    # Good files alone, and on a disk: a store would be asked for each file once more.
    cut = {} if alone or is_url(arguments.directory) else saturating([path for path in paths if path not in bad])
    if arguments.json:
        found = {"bad": bad, "ignored": ignored, "saturating": cut}
        _print_json({"folder": arguments.directory, "num_files": len(paths), **found})
    elif arguments.null:
        # Bytes as the system has them: a name need not be text, and `rm` has to find it.
        sys.stdout.buffer.write(b"".join(os.fsencode(path) + b"\0" for path in bad))
    elif arguments.quiet:
        odd = [path for path in bad if "\n" in path or printable(path) != path]
        if odd:
            print(
                f"gpuseq: {few(odd)}: such names are no lines of text. --null prints all of them for xargs -0",
                file=sys.stderr,
            )
        print("".join(f"{printable(path)}\n" for path in bad), end="")
    else:
        for path, reason in bad.items():
            print(f"{printable(path)}: {reason}")
        whole = "the file decodes" if len(paths) == 1 else f"all {len(paths)} files decode"
        print(f"{len(bad)} of {len(paths)} files cannot be decoded" if bad else whole)
        for path, reason in cut.items():
            print(f"note: {printable(path)}: {reason}")
        if ignored:
            kinds = ", ".join(f"{count} {suffix}" for suffix, count in ignored.items())
            print(f"note: not looked at, as Keras does not: {kinds}. extensions=[...] takes what Pillow reads of them")
    return EXIT_FINDINGS if bad else EXIT_OK


def bench(arguments: argparse.Namespace) -> int:
    """Race Keras and this library; 1 where a contender failed."""
    from .bench import contenders, format_results, race
    from .folder import open_folder
    from .passed_over import PassedOver, without
    from .preview import format_arguments

    folder = open_folder(arguments.directory)
    # Rescaled, as for training: Keras takes a pass over each image for it.
    chosen = {**augmentation(arguments), "rescale": 1 / 255}
    passed_over = PassedOver(arguments.on_error)
    # Keras' generator stops at a file that it cannot read, so neither gets one.
    with without(folder, passed_over.look(folder.files)) as good:
        passed_over.report(len(folder.files))
        num_files, size = len(good.streamed), tuple(arguments.size)
        if not arguments.json:
            print(f"{num_files} files in {folder.path}, {size}, batches of {arguments.batch_size}")
            print(format_arguments(chosen))
        present, absent = contenders(good, chosen, target_size=size, batch_size=arguments.batch_size)
        results = race(present, seconds=arguments.seconds, num_rounds=arguments.rounds)
    if arguments.json:
        setting = {"size": arguments.size, "batch_size": arguments.batch_size, "arguments": chosen}
        _print_json(
            {
                "folder": folder.path,
                "num_files": num_files,
                "passed_over": passed_over.reasons,
                **setting,
                "results": [r.to_dict() for r in results + absent],
            }
        )
    else:
        print(format_results(results + absent))
    # Of what ran: a library that is not installed is no finding.
    return EXIT_FINDINGS if any(result.problem for result in results) else EXIT_OK


def fit(arguments: argparse.Namespace) -> int:
    """Write mean and standard deviation of a folder."""
    from gpuseq.base.atomic import replacing
    from gpuseq.base.version import __version__
    from gpuseq.generator import ImageDataGenerator

    from .engine import quiet
    from .folder import open_folder
    from .passed_over import PassedOver

    folder = open_folder(arguments.directory)
    passed_over = PassedOver(arguments.on_error)
    # Refused before the folder is read: Ray's workers answer with the first bad file and go no further.
    if arguments.ray and arguments.on_error == "skip":
        raise ValueError(
            "--on-error skip does not go with --ray: `gpuseq check` names the files, to be moved away first"
        )
    generator = ImageDataGenerator(featurewise_center=True, featurewise_std_normalization=True, device=arguments.device)
    height, width = arguments.size
    options = {
        **folder.as_arguments,
        "target_size": (height, width),
        "color_mode": arguments.color_mode,
        "interpolation": arguments.interpolation,
    }
    # The file is opened first, so that hours of decoding do not end at a folder that cannot be written to.
    with quiet(logging.ERROR), replacing(arguments.out) as temporary:
        if arguments.ray:
            from gpuseq.ray import fit_directory

            fit_directory(generator, **options, num_workers=arguments.workers or 2)
        else:
            generator.fit_directory(
                **options, on_error=passed_over, num_threads=arguments.workers, progress=sys.stderr.isatty()
            )
        generator.save_statistics(
            temporary,
            num_images=len(folder.streamed) - len(passed_over.reasons),
            size=[height, width],
            color_mode=arguments.color_mode,
            interpolation=arguments.interpolation,
            folder=str(folder.path),
            gpuseq=__version__,
        )
        # Read back and not put together again: what is printed is what `load_statistics` will read.
        found = json.loads(temporary.read_text(encoding="utf-8"))
    passed_over.report(len(folder.streamed))
    if arguments.json:
        _print_json(found)
    else:
        print(f"mean {found['mean']}")
        print(f"std  {found['std']}")
        print(f"over {found['num_images']} images, in {Path(arguments.out).absolute()}")
        print("load them with generator.load_statistics(path)")
    return EXIT_OK

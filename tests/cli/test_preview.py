"""Contact sheets: what is drawn where, what the captions say, and that a file is there whole or not at all."""

from __future__ import annotations

import base64
import io
import os
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gpuseq.base.atomic import replacing
from gpuseq.cli.folder import open_folder, pick, shipped_photos
from gpuseq.cli.preview import AUGMENTATION, format_arguments, preview_rows, to_pictures
from gpuseq.cli.sheet import Row, Tile, draw_sheet, html_page, write_sheet
from gpuseq.plan.columns import captions, identity_params

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def flat(color: tuple[int, int, int], height: int = 32, width: int = 32) -> np.ndarray:
    return np.full((height, width, 3), color, np.uint8)


def colored_area(sheet: Image.Image, color: tuple[int, int, int]) -> tuple[int, tuple[int, int, int, int]]:
    """Return how many pixels of a colour there are, and their bounding box: left, top, right, bottom."""
    rows, cols = np.nonzero((np.asarray(sheet) == color).all(axis=2))
    return len(rows), (cols.min(), rows.min(), cols.max() + 1, rows.max() + 1)


ROWS = [
    Row(Tile(flat(RED), "one.jpg"), (Tile(flat(GREEN), "variant 1", (("rotate", "+1.0°"),)), Tile(flat(BLUE), "two"))),
    Row(Tile(flat((255, 255, 0), 16, 32), "wide.jpg"), (Tile(flat((255, 0, 255), 32, 16), "variant 1"),)),
]


def test_pictures_stand_in_rows_at_the_tile_size() -> None:
    sheet = draw_sheet(ROWS, heading="title", tile_size=64)
    red, red_box = colored_area(sheet, RED)
    green, green_box = colored_area(sheet, GREEN)
    blue, blue_box = colored_area(sheet, BLUE)
    assert (red, green, blue) == (64 * 64,) * 3
    assert red_box[1] == green_box[1] == blue_box[1]
    assert red_box[2] < green_box[0] < green_box[2] < blue_box[0]
    # The original stands apart: its gap is wider than the one between variants.
    assert green_box[0] - red_box[2] > blue_box[0] - green_box[2]
    yellow, yellow_box = colored_area(sheet, (255, 255, 0))
    assert (yellow, yellow_box[0]) == (64 * 32, red_box[0])
    assert yellow_box[1] > red_box[3]
    magenta, magenta_box = colored_area(sheet, (255, 0, 255))
    assert magenta == 64 * 32
    # A tall picture is centred in its tile.
    assert magenta_box[0] == green_box[0] + 16


def gaps(is_empty: np.ndarray) -> list[int]:
    """Return the lengths of the runs of True, those at the ends included."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], is_empty, [False]])))
    return (edges[1::2] - edges[::2]).tolist()


def test_cards_stand_in_a_grid() -> None:
    """The same margin on three sides, the same gap below as beside, and each text within its card."""
    sheet = draw_sheet([*ROWS, ROWS[0]], heading="title", notes=["a note"])
    pixels = np.asarray(sheet)
    paper = (pixels == pixels[-1, -1]).all(axis=2)
    first_card = colored_area(sheet, RED)[1][1] - 4  # within the first card, above its picture
    above = np.flatnonzero(paper[:first_card].all(axis=1))[-1]
    body = paper[above:]
    left, *between, right = gaps(body.all(axis=0))
    assert left == right == gaps(body.all(axis=1))[-1]
    assert len(between) == 2
    assert between[0] > between[1]
    assert gaps(body.all(axis=1))[1:-1] == [between[1]] * 2


def test_each_line_of_a_caption_has_a_place_of_its_own() -> None:
    lines = tuple(("mm", "mm") for _ in range(4))
    sheet = np.asarray(draw_sheet([Row(Tile(flat(RED), "mm", lines), ())], heading="title"))
    _, (left, _, right, bottom) = colored_area(Image.fromarray(sheet), RED)
    below = sheet[bottom:, left:right]
    is_card = (below == 255).all(axis=(1, 2))
    card = below[: np.flatnonzero(is_card)[-1] + 1]  # without its outline, and the paper under it
    is_ink = (card != 255).any(axis=(1, 2))
    starts = np.flatnonzero(np.diff(is_ink.astype(int)) == 1)
    assert len(starts) == 5, "the title and four lines, none of which touches another"
    assert len(set(np.diff(starts[1:]))) == 1
    for start in starts[1:]:
        inked = np.flatnonzero((card[start + 2] != 255).any(axis=1))
        assert inked[0] < 10
        assert inked[-1] > 80, "the values stand in a column beside the names"


@pytest.mark.parametrize("name", ["Rotate", "AutoContrast", "5:PermuteChannels"])
def test_values_stand_behind_the_longest_name(name: str) -> None:
    """The names of the modern steps are as long as they are: none runs into its value."""
    lines = ((name, "yes"), ("Color", "1.27"))
    alone = ((name, ""), ("Color", ""))
    drawn = [np.asarray(draw_sheet([Row(Tile(flat(RED), "m", each), ())], heading="title")) for each in (lines, alone)]
    _, (left, _, right, bottom) = colored_area(Image.fromarray(drawn[0]), RED)
    # What the values add, and the ink that is there without them, in the two lines under the title.
    both, names_alone = (sheet[bottom + 24 : bottom + 62, left:right].astype(int) for sheet in drawn)
    values = (both != names_alone).any(axis=(0, 2)).nonzero()[0]
    names = (names_alone < 200).any(axis=(0, 2)).nonzero()[0]
    assert values[0] >= names[-1] + 4


def test_long_notes_are_broken_and_make_the_sheet_higher_not_wider() -> None:
    short = draw_sheet(ROWS, heading="title", notes=["short"])
    long = draw_sheet(ROWS, heading="title", notes=["word " * 200])
    assert long.width == short.width
    assert long.height > short.height


def test_each_note_has_a_line_of_its_own() -> None:
    sheet = np.asarray(draw_sheet(ROWS, heading="mm", notes=["mm", "mm", "mm"]))
    is_ink = (sheet != sheet[-1, -1]).any(axis=(1, 2))
    heading, *notes = np.flatnonzero(np.diff(is_ink.astype(int)) == 1)[:4]
    assert len({*np.diff(notes)}) == 1
    cards = np.flatnonzero(is_ink[notes[-1] + 16 :])[0] + notes[-1] + 16
    assert heading < notes[0] < notes[-1] < cards < colored_area(Image.fromarray(sheet), RED)[1][1]


def test_gray_pictures_are_drawn() -> None:
    sheet = draw_sheet([Row(Tile(np.full((8, 8, 1), 77, np.uint8), "gray"), ())], heading="title", tile_size=40)
    assert colored_area(sheet, (77, 77, 77))[0] == 1600


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 2), np.uint8)]
)
def test_other_arrays_are_refused_with_their_shape(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match=re.escape(str(image.shape))):
        draw_sheet([Row(Tile(image, "bad"), ())], heading="title")


def test_no_rows_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        draw_sheet([], heading="title")
    with pytest.raises(ValueError, match="at least one row"):
        html_page([], heading="title")


class Page(HTMLParser):
    """Collects what a page loads and how its tags are nested."""

    VOID = frozenset({"meta", "img", "link", "br", "wbr"})

    def __init__(self) -> None:
        super().__init__()
        self.images: list[str] = []
        self.references: list[str] = []
        self.open: list[str] = []
        self.alts: list[str | None] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "img":
            self.images.append(values["src"] or "")
            self.alts.append(values.get("alt"))
        self.references += [values[name] or "" for name in ("src", "href", "srcset", "action") if name in values]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parsed(page: str) -> Page:
    parser = Page()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def test_a_page_needs_nothing_beside_itself() -> None:
    page = html_page(ROWS, heading="title", notes=["a note"])
    found = parsed(page)
    assert len(found.images) == 5
    assert all(reference.startswith("data:image/jpeg;base64,") for reference in found.references)
    assert "http" not in page.replace("data:image", "")
    assert "@import" not in page
    assert "url(" not in page
    decoded = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))) for source in found.images
    ]
    np.testing.assert_allclose(decoded[0].astype(int), flat(RED), atol=3)
    assert [picture.shape for picture in decoded] == [(32, 32, 3)] * 3 + [(16, 32, 3), (32, 16, 3)]
    assert found.alts[1] == "variant 1, rotate +1.0°"
    original = ' class="original"'
    assert re.findall("<figure(.*?)>", page) == [original, "", "", original, ""]


def test_a_page_suits_light_and_dark_screens() -> None:
    page = html_page(ROWS, heading="title")
    assert "color-scheme: light dark" in page
    assert "@media (prefers-color-scheme: dark)" in page


def test_a_file_name_cannot_break_out_of_the_page() -> None:
    evil = '"><script>alert(1)</script>.jpg'
    page = html_page([Row(Tile(flat(RED), evil, ((evil, evil),)), ())], heading=evil, notes=[evil])
    parsed(page)
    assert "<script" not in page


KERAS_IDENTITY = {"theta": 0, "tx": 0, "ty": 0, "shear": 0, "zx": 1, "zy": 1, "flip_horizontal": False}


def test_identity_has_no_caption() -> None:
    assert captions(KERAS_IDENTITY | {"channel_shift_intensity": None, "brightness": None}) == ()
    assert captions(identity_params(1)[0]) == ()


def test_captions_name_every_parameter() -> None:
    row = identity_params(1)[0]
    drawn = {
        "theta": -12.34,
        "tx": 3.0,
        "ty": -4.5,
        "shear": 2.0,
        "zx": 0.9,
        "zy": 1.1,
        "flip_horizontal": 1.0,
        "flip_vertical": 1.0,
        "channel_shift_intensity": 7.0,
        "brightness": 0.5,
    }
    for name, value in drawn.items():
        row[name] = value
    lines = captions(drawn)
    assert lines == captions(row)
    assert dict(lines) == {
        "rotate": "-12.3°",
        "shift tx": "+3.0 px",
        "shift ty": "-4.5 px",
        "shear": "+2.0°",
        "zoom": "0.90 x 1.10",
        "flip": "horizontal + vertical",
        "channels": "+7.0",
        "brightness": "0.50",
    }


def test_every_drawn_parameter_changes_the_caption() -> None:
    for name in identity_params(1).dtype.names or ():
        row = identity_params(1)[0]
        row[name] = 0.7
        assert captions(row), name


def test_rows_show_what_the_captions_say(tmp_path: Path) -> None:
    picture = flat(RED, 24, 24)
    picture[:, :12] = BLUE
    Image.fromarray(picture).save(tmp_path / "half.png")
    files = open_folder(tmp_path).files
    rows = preview_rows(
        {"horizontal_flip": True}, files, root=tmp_path, num_variants=16, target_size=(24, 24), seed=3, device="cpu"
    )
    assert len(rows) == 1
    np.testing.assert_array_equal(rows[0].original.image, picture)
    assert rows[0].original.title == "half.png"
    flipped = [dict(tile.lines) == {"flip": "horizontal"} for tile in rows[0].variants]
    assert 0 < sum(flipped) < 16
    for tile, is_flipped in zip(rows[0].variants, flipped, strict=True):
        np.testing.assert_array_equal(tile.image, picture[:, ::-1] if is_flipped else picture)


def test_the_same_seed_gives_the_same_sheet(tmp_path: Path) -> None:
    files = pick(open_folder(shipped_photos()).files, 2)
    sheets = [
        np.asarray(
            draw_sheet(
                preview_rows(
                    AUGMENTATION,
                    files,
                    root=shipped_photos(),
                    num_variants=2,
                    target_size=(40, 40),
                    seed=seed,
                    device="cpu",
                ),
                heading="title",
            )
        )
        for seed in (1, 1, 2)
    ]
    assert np.array_equal(sheets[0], sheets[1])
    assert sheets[0].shape != sheets[2].shape or not np.array_equal(sheets[0], sheets[2])


def test_pictures_are_rounded_and_clipped() -> None:
    batch = np.array([-3.0, 0.4, 0.6, 254.6, 300.0], np.float32).reshape(1, 1, 5, 1)
    np.testing.assert_array_equal(to_pictures(batch).ravel(), [0, 0, 1, 255, 255])
    assert to_pictures(batch).dtype == np.uint8


def test_arguments_print_as_they_are_typed() -> None:
    assert eval(f"dict({format_arguments(AUGMENTATION)})") == AUGMENTATION


@pytest.mark.parametrize(
    ("suffix", "start"), [(".png", b"\x89PNG"), (".jpg", b"\xff\xd8"), (".webp", b"RIFF"), (".html", b"<!DOC")]
)
def test_the_suffix_chooses_the_format(tmp_path: Path, suffix: str, start: bytes) -> None:
    target = tmp_path / f"sheet{suffix}"
    assert write_sheet(target, ROWS, heading="title") == target
    assert target.read_bytes().startswith(start)
    assert os.listdir(tmp_path) == [target.name]


def test_an_unknown_suffix_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.png.*sheet\.gif"):
        write_sheet(tmp_path / "sheet.gif", ROWS, heading="title")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("failure", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, failure: type[BaseException]) -> None:
    target = tmp_path / "stats.json"
    target.write_text("old")

    def write() -> None:
        with replacing(target) as temporary:
            temporary.write_text("half of the n")
            raise failure

    with pytest.raises(failure):
        write()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["stats.json"]


def test_a_finished_write_replaces_the_file_with_usual_rights(tmp_path: Path) -> None:
    target = tmp_path / "stats.json"
    target.write_text("old")
    (tmp_path / "usual").touch()
    with replacing(target) as temporary:
        assert target.read_text() == "old"
        temporary.write_text("new")
    assert target.read_text() == "new"
    assert target.stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_link_is_followed_and_stays(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "stats.json").write_text("old")
    for name, there in (("to a file", "real/stats.json"), ("to nothing yet", "real/new.json")):
        link = tmp_path / name
        link.symlink_to(there)
        with replacing(link) as temporary:
            temporary.write_text("new")
        assert link.is_symlink()
        assert (tmp_path / there).read_text() == "new"
    assert sorted(os.listdir(tmp_path / "real")) == ["new.json", "stats.json"]


def test_a_pipe_is_written_into_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_text)
        with replacing(pipe) as temporary:
            temporary.write_text("through")
        assert read.result(120) == "through"
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert os.listdir(tmp_path) == ["pipe"]


def test_a_long_name_has_room(tmp_path: Path) -> None:
    target = tmp_path / ("n" * 250 + ".json")
    with replacing(target) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "new"


def test_a_target_that_cannot_be_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"), replacing(tmp_path / "nowhere" / "file"):
        pass
    with pytest.raises(IsADirectoryError, match="folder"), replacing(tmp_path):
        pass


def make(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(flat(RED, 4, 4)).save(path)
    return root


def test_folders_are_listed_sorted_and_known_as_flat(tmp_path: Path) -> None:
    nested = open_folder(make(tmp_path / "nested", "b/2.png", "a/1.JPG", "a/deep/3.png"))
    assert [str(file.relative_to(nested.path)) for file in nested.files] == ["a/1.JPG", "a/deep/3.png", "b/2.png"]
    assert not nested.is_flat
    (nested.path / "notes.txt").write_text("no picture")
    assert open_folder(nested.path) == nested
    assert open_folder(make(tmp_path / "flat", "b.png", "a.png")).is_flat
    mixed = open_folder(make(tmp_path / "mixed", "beside.png", "class/a.png"))
    assert not mixed.is_flat
    assert [file.name for file in mixed.streamed] == ["a.png"]
    assert len(mixed.files) == 2
    single = open_folder(tmp_path / "flat" / "a.png", or_file=True)
    assert single.files == (tmp_path / "flat" / "a.png",)
    with pytest.raises(ValueError, match=r"a\.png' is one picture"):
        open_folder(tmp_path / "flat" / "a.png")


def test_what_is_no_folder_of_pictures_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing"):
        open_folder(tmp_path / "missing")
    with pytest.raises(FileNotFoundError, match="no picture .*accepted suffixes: bmp jpeg jpg png ppm tif tiff$"):
        open_folder(tmp_path)
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(ValueError, match=r"notes\.txt"):
        open_folder(tmp_path / "notes.txt", or_file=True)


def test_a_choice_is_spread_over_the_folders(tmp_path: Path) -> None:
    root = make(tmp_path, *(f"a/{number}.png" for number in range(6)), "b/0.png", "c/0.png", "c/1.png")
    files = open_folder(root).files
    names = [str(file.relative_to(root)) for file in pick(files, 5)]
    assert names == ["a/0.png", "a/3.png", "b/0.png", "c/0.png", "c/1.png"]
    assert pick(files, 100) == files


def test_every_shipped_photo_has_its_source_and_all_are_small() -> None:
    photos = open_folder(shipped_photos())
    sources = (shipped_photos() / "SOURCES.md").read_text(encoding="utf-8")
    assert not photos.is_flat
    assert len({file.parent.name for file in photos.files}) == 3
    listed = re.findall(r"^\| `([^`]+)` \|.*\| ([^|]+) \|$", sources, re.MULTILINE)
    assert [name for name, _ in listed] == [str(file.relative_to(photos.path)) for file in photos.files]
    assert all(re.search(r"CC0|public domain", licence) for _, licence in listed)
    assert sum(file.stat().st_size for file in photos.files) < 1_000_000


def test_a_modern_policy_is_drawn_with_its_steps() -> None:
    """Each variant's caption holds the steps of its own program."""
    folder = open_folder(shipped_photos())
    rows = preview_rows(
        {"augmentations": "rand-m9-mstd0.5-inc1-p1"},
        pick(folder.files, 2),
        root=folder.path,
        num_variants=3,
        target_size=(48, 48),
        seed=1,
        device="cpu",
    )
    captions_of = [tile.lines for row in rows for tile in row.variants]
    assert all(len(lines) == 2 for lines in captions_of)
    assert len(set(captions_of)) == 6
    assert all((tile.image != row.original.image).any() for row in rows for tile in row.variants)

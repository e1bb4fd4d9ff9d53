"""Decoding: modes as people expect them, the model's own preprocessing, damage told apart, order kept by workers."""

from __future__ import annotations

import hashlib
import io
import multiprocessing.spawn
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import open_clip
import pytest
from images import die_at_150, encoded, picture, write
from PIL import Image

from flora_secure.data.checking import Finding, check
from flora_secure.data.files import decoding
from flora_secure.data.files.decoding import decode
from flora_secure.data.files.pixels import Shape, fitted, open_rgb
from flora_secure.data.files.values import UnreadableImageError
from flora_secure.data.images import EncodedFile, EncodedImages
from flora_secure.errors import DataError


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def rgb(raw: bytes) -> np.ndarray:
    image = open_rgb(raw)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def test_modes_become_the_rgb_that_people_see() -> None:
    colour = Image.fromarray(picture(0))
    grey = np.asarray(colour.convert("L")).astype(int)[..., None].repeat(3, 2)
    assert np.array_equal(rgb(saved(colour)), picture(0))
    assert np.array_equal(rgb(saved(colour.convert("L"))), grey)
    quantised = colour.quantize(32)
    assert np.array_equal(rgb(saved(quantised)), np.asarray(quantised.convert("RGB")))
    assert np.abs(rgb(saved(colour.convert("CMYK"), "TIFF")) - picture(0)).max() <= 1
    assert set(np.unique(rgb(saved(colour.convert("1"))))) <= {0, 255}


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_and_not_clipped_to_white(kind: str) -> None:
    wide = np.linspace(0, 65535, 600).astype(np.uint16).reshape(20, 30)
    assert np.abs(rgb(saved(Image.fromarray(wide), kind))[..., 0] - wide / 257).max() <= 1


def test_what_is_transparent_shows_black() -> None:
    image = Image.fromarray(np.dstack([picture(0), np.full((24, 32), 255, np.uint8)]))
    image.putpixel((3, 2), (200, 100, 50, 0))
    shown = rgb(saved(image))
    assert shown[2, 3].tolist() == [0, 0, 0]
    assert np.array_equal(np.delete(shown.reshape(-1, 3), 2 * 32 + 3, 0), np.delete(picture(0).reshape(-1, 3), 67, 0))
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([9, 9, 9, 200, 0, 0])
    assert rgb(saved(palette, transparency=1)).max() == 0


def test_exif_orientation_is_followed() -> None:
    image = Image.fromarray(picture(0))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side: turn by a quarter, clockwise
    assert np.array_equal(rgb(saved(image, "PNG", exif=exif)), np.rot90(picture(0), -1))


@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("filter_", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(90, 61), (61, 90), (30, 200), (40, 40)])
def test_pixels_are_those_of_open_clip(mode: str, filter_: str, size: tuple[int, int]) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8))
    transform = open_clip.image_transform(
        48, is_train=False, mean=(0, 0, 0), std=(1, 1, 1), resize_mode=mode, interpolation=filter_
    )
    wanted = (transform(image).numpy().transpose(1, 2, 0) * 255).round()
    ours = np.asarray(fitted(image, Shape((48, 48), mode, filter_)))  # type: ignore[arg-type]
    assert np.array_equal(ours, wanted)


def png_header(width: int, height: int) -> bytes:
    """A PNG whose header promises that size, and which holds next to nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "empty file"),
        (b"not an image at all", "no image"),
        (encoded(0)[:400], "corrupt or cut short"),
        (encoded(0, "PNG")[:-60], "corrupt or cut short"),
        (png_header(20_000, 20_000), "more than 100 million pixels"),
        (png_header(2_000_000, 2_000_000), "more than 100 million pixels"),
        (png_header(100, 100), "corrupt or cut short"),
    ],
)
def test_damage_is_told_apart(raw: bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError, match=f"^{reason}$"):
        open_rgb(raw)
    (tmp_path / "x").write_bytes(raw)
    assert check(EncodedFile("x", tmp_path / "x")).damage == reason


def test_a_bomb_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(self: Image.Image) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", load)
    with pytest.raises(UnreadableImageError, match="more than"):
        open_rgb(png_header(10_001, 10_000))


def test_good_files_have_no_damage_and_missing_ones_say_so(tmp_path: Path) -> None:
    assert check(EncodedFile("a", write(tmp_path / "a.jpg", 1))) == Finding()
    assert check(EncodedFile("b", tmp_path / "b.jpg")).damage == "cannot be read: No such file or directory"


def files_of(folder: Path, count: int) -> EncodedImages:
    files = tuple(EncodedFile(f"{i}.png", write(folder / f"{i}.png", i, "PNG")) for i in range(count))
    digests = b"".join(hashlib.sha256(file.read()).digest() for file in files)
    return EncodedImages(files, np.frombuffer(digests, np.uint8).reshape(-1, 32))


def test_workers_keep_the_order_and_give_the_same_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = files_of(tmp_path, 150)
    shape = Shape((24, 32), "squash")
    monkeypatch.setattr(decoding.os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    parts = list(decode(files, shape, chunk=60))
    assert [len(part) for part in parts] == [60, 60, 30]
    monkeypatch.setattr(decoding, "_FEW", 1000)
    (here,) = decode(files, shape, chunk=1000)
    assert np.array_equal(np.concatenate(parts), here)
    assert np.array_equal(here, np.stack([picture(i) for i in range(150)]))


def test_a_file_that_changed_meanwhile_ends_the_run(tmp_path: Path) -> None:
    files = files_of(tmp_path, 3)
    write(tmp_path / "1.png", 99, "PNG")
    with pytest.raises(DataError, match=r"image '1\.png' has changed since it was checked"):
        list(decode(files, Shape((8, 8)), chunk=2))


@pytest.mark.parametrize("moment", ["before", "while"])
def test_a_killed_worker_ends_the_run_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    monkeypatch.setattr(decoding.os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    if moment == "before":  # it ends before it has read what it is to do
        monkeypatch.setattr(multiprocessing.spawn, "_python_exe", b"/bin/false")
    with pytest.raises(DataError, match="a worker that decodes images was ended") as caught:
        list(decoding_of(die_at_150, 200))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        BrokenPipeError(32, "Broken pipe"),
        OSError(11, "Resource temporarily unavailable"),
        ValueError("bad value(s) in fds_to_keep"),  # where the first worker ended while the second was being started
    ],
)
def test_workers_that_cannot_be_started_end_the_run_in_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: object) -> None:
        raise error

    monkeypatch.setattr(decoding.os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    monkeypatch.setattr(decoding._Process, "start", fail)
    with pytest.raises(
        DataError, match=f"a worker that decodes images was ended: {re.escape(getattr(error, 'strerror', str(error)))}"
    ):
        list(decoding_of(abs, 200))


def decoding_of(function: Callable[[int], int], count: int) -> Iterator[int]:
    with decoding.mapper(count) as over:
        yield from over(function, iter(range(count)))


def test_an_unknown_resize_mode_is_misuse() -> None:
    with pytest.raises(ValueError, match="shortest, squash or longest"):
        partial(fitted, shape=Shape((8, 8), "stretch"))(Image.fromarray(picture(0)))

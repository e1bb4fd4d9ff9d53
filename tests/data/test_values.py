"""Values that are no 0 to 255 yet: one rule for a data set, told, and asked for where nothing says what is black."""

from __future__ import annotations

import math
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from wide import FLOAT, SIGNED, UNSIGNED, floats, saved, signed, sixteen, tiff, write_raw

from flora_secure.data.cache import ArrayCache
from flora_secure.data.checking import check
from flora_secure.data.dataset import Dataset
from flora_secure.data.files.decoding import decode
from flora_secure.data.files.pixels import Shape, open_rgb
from flora_secure.data.files.values import OddValuesError, UnreadableImageError
from flora_secure.data.images import HeldImage
from flora_secure.data.rendering import Rendering
from flora_secure.data.sources import load_dataset
from flora_secure.errors import DataError

RAMP = np.arange(256).reshape(16, 16)
FULL = np.rint(np.linspace(0, 65_535, 256)).reshape(16, 16)


def grey(raw: bytes, window: str = "auto", background: str = "black") -> np.ndarray:
    pixels = np.asarray(open_rgb(raw, Rendering(window, background))).astype(int)
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0]


def packed12(values: np.ndarray) -> bytes:
    bits = "".join(f"{value:012b}" for value in values.ravel().astype(int))
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


# each file holds a ramp from what its kind promises to be black to what it promises to be white
CLEAR: dict[str, bytes] = {
    "8 bits": saved(Image.fromarray(RAMP.astype(np.uint8))),
    "16 bits, PNG": sixteen(FULL),
    "16 bits, TIFF": tiff((16, 16), 16, FULL.astype("<u2").tobytes()),
    "16 bits, PGM": saved(Image.fromarray(FULL.astype(np.uint16)), "PPM"),
    "12 bits, PGM": b"P5\n16 16\n4095\n" + np.rint(RAMP * (4095 / 255)).astype(">u2").tobytes(),
    "12 bits, TIFF": tiff((16, 16), 12, packed12(np.rint(RAMP * (4095 / 255)))),
    "whole numbers with a sign": tiff((16, 16), 32, RAMP.astype("<i4").tobytes(), SIGNED),
    "whole numbers without": tiff((16, 16), 32, RAMP.astype("<u4").tobytes(), UNSIGNED),
    "16 bits with a sign": signed(RAMP),
    "floats": floats(RAMP / 255),
    "floats a little beyond": floats(RAMP / 255 * 1.000001 - 1e-7),
    "doubles' kin": tiff((16, 16), 32, (RAMP / 255).astype("<f4").tobytes(), FLOAT),
}


@pytest.mark.parametrize("raw", CLEAR.values(), ids=CLEAR)
def test_what_a_kind_promises_is_shown(raw: bytes) -> None:
    assert np.abs(grey(raw) - RAMP).max() <= 1


@pytest.mark.parametrize("raw", [value for key, value in CLEAR.items() if key != "8 bits"])
def test_a_window_of_ones_own_wins(raw: bytes) -> None:
    low, high = grey(raw, "image").min(), grey(raw, "image").max()
    assert (low, high) == (0, 255)
    assert set(np.unique(grey(raw, "1e9:2e9"))) == {0}
    assert set(np.unique(grey(raw, "-2e9:-1e9"))) == {255}


def test_one_bit_is_black_and_white_and_eight_bits_are_left_alone() -> None:
    assert set(np.unique(grey(saved(Image.fromarray(RAMP > 99))))) == {0, 255}
    assert np.array_equal(grey(CLEAR["8 bits"], "0:15"), RAMP)


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_white_may_be_zero(bits: int) -> None:
    raw = {8: RAMP.astype("<u1"), 16: FULL.astype("<u2"), 32: (RAMP / 255).astype("<f4")}[bits].tobytes()
    shown = grey(tiff((16, 16), bits, raw, FLOAT if bits == 32 else UNSIGNED, white_is_zero=True))
    assert np.abs(shown - (255 - RAMP)).max() <= 1


CT = np.linspace(-1000, 3000, 256).reshape(16, 16)
ODD: dict[str, tuple[bytes, str]] = {
    "CT": (signed(CT), "-1000:3000"),
    "floats to 300": (floats(RAMP * (300 / 255)), "0:300"),
    "floats below 0": (floats(RAMP / 127.5 - 1), "-1:1"),
    "int32": (tiff((16, 16), 32, (RAMP * 1000).astype("<i4").tobytes(), SIGNED), "0:255000"),
    "uint32": (tiff((16, 16), 32, (RAMP * 16_843_009).astype("<u4").tobytes(), UNSIGNED), "0:4294967295"),
    "int8": (tiff((16, 16), 8, (RAMP - 128).astype("<i1").tobytes(), SIGNED), "-128:127"),
}


@pytest.mark.parametrize(("raw", "window"), ODD.values(), ids=ODD)
def test_what_no_kind_promises_is_not_guessed(raw: bytes, window: str) -> None:
    with pytest.raises(OddValuesError, match="nothing says what is black"):
        open_rgb(raw)
    assert check(HeldImage("x", raw)).odd
    assert np.abs(grey(raw, window) - RAMP).max() <= 1
    assert np.abs(grey(raw, "image") - RAMP).max() <= 1


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("window", ["auto", "image", "0:1"])
def test_what_is_no_number_is_no_image(wrong: float, window: str) -> None:
    values = RAMP / 255
    values[3, 4] = wrong
    with pytest.raises(UnreadableImageError, match="values that are no numbers"):
        open_rgb(floats(values), Rendering(window))
    assert (
        check(HeldImage("x", floats(values)), Rendering(window)).damage
        == "values that are no numbers (NaN or infinite)"
    )


def pictures(number: int) -> np.ndarray:
    """0 to 1, (16, 16): two classes that a mirror tells apart, brightness of one's own."""
    ramp = RAMP / 255 if number % 2 else RAMP[::-1] / 255
    return ramp * (0.3 + 0.7 * (number % 10) / 9)


def folder(root: Path, write: Callable[[np.ndarray], bytes], suffix: str = ".tif", count: int = 20) -> Path:
    for number in range(count):
        write_raw(root / ("up" if number % 2 else "down") / f"{number}{suffix}", write(pictures(number)))
    return root


def eight(picture: np.ndarray) -> bytes:
    return saved(Image.fromarray(np.rint(picture * 255).astype(np.uint8)))


def shown(data: Dataset) -> np.ndarray:
    images = data.private.images
    assert not isinstance(images, np.ndarray)
    return np.concatenate(list(decode(images, Shape((16, 16), "squash"), 100))).astype(int)


# how the same pictures are written, and what says so; the first is refused without it
WRITERS: dict[str, tuple[Callable[[np.ndarray], bytes], str | None, str]] = {
    "12 bits in 16": (lambda p: sixteen(np.rint(p * 4095)), "0:4095", "16-bit values from 0 to 4095.*all are dark"),
    "8 bits in 16": (lambda p: sixteen(np.rint(p * 255)), "0:255", "16-bit values from 0 to 255.*all are dark"),
    "CT": (lambda p: signed(p * 4000 - 1000), "-1000:3000", "whole numbers from -1000 to 3000, such as"),
    "bytes as floats": (lambda p: floats(p * 255), "0:255", "floats from 0 to 255"),
    "16 bits": (
        lambda p: sixteen(np.rint(p * 65_535)),
        None,
        "16-bit values from 0 to 65535; 0 is black and 65535 white",
    ),
    "floats": (floats, None, "floats from 0 to 1; 0 is black and 1 white"),
}


@pytest.mark.parametrize(("write", "window", "line"), WRITERS.values(), ids=WRITERS)
def test_a_whole_data_set_goes_by_one_rule(
    tmp_path: Path, write: Callable[[np.ndarray], bytes], window: str | None, line: str
) -> None:
    wanted = shown(load_dataset("folder", folder(tmp_path / "8", eight)))
    root = folder(tmp_path / "wide", write)
    if window is None:
        data = load_dataset("folder", root)
        assert any(re.search(line, one) for one in data.warnings), data.warnings
    else:
        with pytest.raises(DataError, match=rf"{line}.*data\.window LOW:HIGH \({window} may be right\)") as caught:
            load_dataset("folder", root)
        assert "\n" not in str(caught.value)
        data = load_dataset("folder", root, rendering=Rendering(window))
        assert data.warnings == ()
    assert np.abs(shown(data) - wanted).max() <= 1


def test_colours_of_16_bits_are_read_at_8_and_dark_ones_are_asked_about(tmp_path: Path) -> None:
    def colour(scale: float) -> Callable[[np.ndarray], bytes]:
        def write(picture: np.ndarray) -> bytes:
            values = np.rint(picture * scale).astype("<u2")[..., None].repeat(3, 2)
            rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
            return png16(16, 16, rows)

        return write

    bright = folder(tmp_path / "bright", colour(65_535), ".png")
    data = load_dataset("folder", bright)
    assert shown(data).max() > 220
    with pytest.raises(DataError, match=r"of which 8 bits are read.*leave out"):
        load_dataset("folder", bright, rendering=Rendering("0:4095"))
    dark = folder(tmp_path / "dark", colour(4095), ".png")
    with pytest.raises(DataError, match=r"16-bit colours from 0 to .*0:65535 takes them as they are"):
        load_dataset("folder", dark)
    assert shown(load_dataset("folder", dark, rendering=Rendering("0:65535"))).max() in (14, 15)


def png16(width: int, height: int, rows: bytes) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def icon(picture: np.ndarray) -> bytes:
    """Black strokes on a transparent ground, whose colours differ from file to file and are not to be seen."""
    alpha = np.where(np.arange(16) % 4 == int(picture[0, 0] > 0), 255, 0) * np.ones((16, 1))
    hidden = np.where(alpha == 0, np.rint(picture * 255), 0)[..., None].repeat(3, 2)
    return saved(Image.fromarray(np.dstack([hidden, alpha]).astype(np.uint8)))


def test_icons_on_a_transparent_ground_are_told_of_and_shown_on_another(tmp_path: Path) -> None:
    root = folder(tmp_path, icon, ".png")
    data = load_dataset("folder", root)
    assert set(np.unique(shown(data))) == {0}
    reason = "almost one value all over (deviation below 4 of 255), used all the same"
    assert [(one.reason, one.count) for one in data.skipped] == [(reason, 20)]
    assert [
        line
        for line in data.warnings
        if "20 of 20 images show almost one value" in line and "`data.background`" in line
    ]
    white = load_dataset("folder", root, rendering=Rendering(background="white"))
    assert set(np.unique(shown(white))) == {0, 255}
    assert (white.skipped, white.warnings) == ((), ())
    assert white.data_hash != data.data_hash


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P", "L", "RGB"])
@pytest.mark.parametrize(
    ("background", "seen"), [("black", [0, 0, 0]), ("white", [255] * 3), ("#10fF80", [16, 255, 128])]
)
def test_the_background_shows_in_all_modes_that_can_be_transparent(mode: str, background: str, seen: list[int]) -> None:
    options: dict[str, object] = {}
    if mode in ("P", "L", "RGB"):  # a colour that stands for nothing
        image = Image.new(mode, (4, 4), 7 if mode != "RGB" else (7, 8, 9))
        options["transparency"] = 7 if mode != "RGB" else (7, 8, 9)
        if mode == "P":
            image.putpalette([200] * 768)
    else:
        image = Image.new("RGBA", (4, 4), (90, 90, 90, 0)).convert(mode)
    kind = "TIFF" if mode == "PA" else "PNG"
    raw = saved(image.convert("RGBA") if mode == "PA" else image, kind, **options)
    assert np.asarray(open_rgb(raw, Rendering(background=background)))[1, 1].tolist() == seen


def test_few_flat_images_are_counted_and_not_warned_of(tmp_path: Path) -> None:
    root = folder(tmp_path, eight, ".png", 40)
    write_raw(root / "up" / "blank.png", saved(Image.new("RGB", (9, 9), (200, 10, 10))))
    data = load_dataset("folder", root)
    assert [(one.count, one.names) for one in data.skipped] == [(1, ("up/blank.png",))]
    assert data.warnings == ()


def test_a_fine_pattern_is_not_flat_though_jpeg_is_looked_at_small() -> None:
    board = np.kron(np.indices((64, 64)).sum(0) % 2 * 60 + 90, np.ones((2, 2))).astype(np.uint8)
    assert not check(HeldImage("x", saved(Image.fromarray(board), "JPEG", quality=95))).flat
    assert check(HeldImage("x", saved(Image.new("L", (99, 99), 77), "JPEG"))).flat


def test_settings_that_change_nothing_are_told_of(tmp_path: Path) -> None:
    root = folder(tmp_path, eight, ".png")
    data = load_dataset("folder", root, rendering=Rendering("0:4095", "white"))
    assert [line.split(":")[0] for line in data.warnings] == [
        "`data.window` 0",
        "`data.background` white changes nothing",
    ]
    for name in ("clothes", "digits"):
        with pytest.raises(DataError, match=r"leave out data\.window and data\.background"):
            load_dataset(name, rendering=Rendering("0:4095"))


@pytest.mark.parametrize("window", ["", "1", "5:5", "9:1", "a:b", "0:inf", "nan:1", "0:1:2", "Image"])
def test_windows_that_are_none(window: str) -> None:
    with pytest.raises(DataError, match=r"data\.window must be LOW:HIGH"):
        Rendering(window)


@pytest.mark.parametrize("background", ["", "red", "#fff", "#12345g", "0,0,0"])
def test_backgrounds_that_are_none(background: str) -> None:
    with pytest.raises(DataError, match=r"data\.background must be black, white or #rrggbb"):
        Rendering(background=background)


def test_what_was_found_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folder(tmp_path / "images", floats)
    write_raw(root / "up" / "blank.tif", floats(np.zeros((9, 9))))
    write_raw(root / "up" / "nan.tif", floats(np.full((9, 9), np.nan)))
    cache = ArrayCache(tmp_path / "cache", lambda line: pytest.fail(line))
    first, plain = load_dataset("folder", root, cache=cache), load_dataset("folder", root)
    monkeypatch.setattr("flora_secure.data.files.samples.check", lambda *_, **__: pytest.fail("checked again"))
    second = load_dataset("folder", root, cache=cache)
    for data in (first, second):
        assert (data.skipped, data.warnings, data.data_hash) == (plain.skipped, plain.warnings, plain.data_hash)
    with pytest.raises(pytest.fail.Exception, match="checked again"):
        load_dataset("folder", root, cache=cache, rendering=Rendering("0:2"))

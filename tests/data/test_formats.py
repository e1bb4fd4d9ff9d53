"""Formats of scanners and phones, files of several images, and metadata that is broken where the pixels are not."""

from __future__ import annotations

import io
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from images import picture
from listings import lines, skipped
from PIL import Image
from wide import dicom, floats, saved, write_raw

from flora_secure.data.checking import Finding, check
from flora_secure.data.files import decoding
from flora_secure.data.files.decoding import decode
from flora_secure.data.files.pixels import Shape, open_rgb
from flora_secure.data.files.values import OddValuesError, UnreadableImageError
from flora_secure.data.images import EncodedFile, HeldImage
from flora_secure.data.rendering import Rendering
from flora_secure.data.sources import load_dataset

RAMP = np.arange(256, dtype=np.int16).reshape(16, 16)


def grey(raw: bytes, window: str = "auto") -> np.ndarray:
    pixels = np.asarray(open_rgb(raw, Rendering(window))).astype(int)
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0]


CT = (RAMP * 16 + 24).astype(np.int16)  # with intercept -1024: -1000 to 3080 Hounsfield units
HOUNSFIELD = {"RescaleSlope": "1", "RescaleIntercept": "-1024"}


def test_dicom_is_shown_through_its_own_window() -> None:
    raw = dicom(CT, **HOUNSFIELD, WindowCenter="1040", WindowWidth="4081")
    assert np.abs(grey(raw) - RAMP).max() <= 1
    # soft tissue: what is outside is black or white, as on a viewer
    shown = grey(dicom(CT, **HOUNSFIELD, WindowCenter=["40", "600"], WindowWidth=["400", "1500"]))
    units = CT.astype(int) - 1024
    assert np.array_equal(shown == 0, units <= 40 - 0.5 - 199.5 + 0.5)
    assert set(np.unique(shown[units > 240])) == {255}


def test_dicom_without_a_window_is_asked_about_and_a_given_one_wins() -> None:
    raw = dicom(CT, **HOUNSFIELD)
    with pytest.raises(OddValuesError, match="DICOM values without a window from -1000 to 3080"):
        open_rgb(raw)
    assert np.abs(grey(raw, "-1000:3080") - RAMP).max() <= 1
    assert np.abs(grey(raw, "image") - RAMP).max() <= 1
    windowed = dicom(CT, **HOUNSFIELD, WindowCenter="40", WindowWidth="400")
    assert np.abs(grey(windowed, "-1000:3080") - RAMP).max() <= 1


def test_dicom_of_bytes_of_colours_and_of_many_frames() -> None:
    plain = RAMP.astype(np.uint8)
    assert np.array_equal(grey(dicom(plain)), RAMP)
    assert np.array_equal(grey(dicom(plain, PhotometricInterpretation="MONOCHROME1")), 255 - RAMP)
    assert np.array_equal(np.asarray(open_rgb(dicom(picture(0)))), picture(0))
    several = dicom(np.stack([plain, plain[::-1]]))
    assert np.array_equal(grey(several), RAMP)
    assert check(HeldImage("x", several)).more
    assert not check(HeldImage("x", dicom(plain))).more


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"\0" * 128 + b"DICM", "corrupt or cut short|DICOM without an image"),
        (dicom(CT)[:-40], "corrupt or cut short"),
        (dicom(CT, Rows=20_000, Columns=20_000), "more than 100 million pixels"),
        (dicom(CT).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99"), "DICOM that is compressed as a whole"),
    ],
)
def test_damaged_dicom(raw: bytes, reason: str) -> None:
    with pytest.raises(UnreadableImageError, match=f"^({reason})$"):
        open_rgb(raw)


@pytest.mark.parametrize(("kind", "suffix"), [("HEIF", ".heic"), ("AVIF", ".avif"), ("DICOM", ".dcm")])
def test_a_folder_of_them_is_a_data_set_in_workers_too(
    kind: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    for number in range(12):
        image = picture(number, (64, 64))
        raw = dicom(image) if kind == "DICOM" else saved(Image.fromarray(image), kind, quality=95)
        write_raw(tmp_path / ("a" if number % 2 else "b") / f"{number:02}{suffix}", raw)
    monkeypatch.setattr(decoding, "_FEW", 2)
    monkeypatch.setattr(decoding.os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    data = load_dataset("folder", tmp_path)
    assert data.skipped == ()
    images = data.private.images
    assert not isinstance(images, np.ndarray)
    shown = np.concatenate([*decode(images, Shape((64, 64)), 99)]).astype(int)
    wanted = [picture(int(Path(file.name).stem), (64, 64)) for file in images.files]
    assert np.abs(shown - np.stack(wanted)).mean() < 4


@pytest.mark.parametrize(
    ("package", "reason"),
    [
        ("pydicom", "DICOM, which needs pip install 'flora-secure[medical]'"),
        ("pillow_heif", "HEIC, which needs pip install 'flora-secure[heic]'"),
    ],
)
def test_without_the_extra_files_are_left_out_and_the_remedy_is_named(
    package: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = dicom(CT) if package == "pydicom" else b"\0\0\0\x1cftypheic\0\0\0\0mif1heic" + bytes(99)
    for number in range(10):
        folder = tmp_path / ("a" if number % 2 else "b")
        write_raw(folder / f"{number}.png", saved(Image.fromarray(picture(number))))
    write_raw(tmp_path / "a" / "x.dcm", raw)
    monkeypatch.setitem(sys.modules, package, None)
    assert skipped(load_dataset("folder", tmp_path)) == {reason: (1, ("a/x.dcm",))}


def test_without_avif_in_pillow_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = saved(Image.fromarray(picture(0)), "AVIF")
    monkeypatch.setattr("PIL.features.check", lambda name: name != "avif")
    with pytest.raises(
        UnreadableImageError, match=r"AVIF, which this Pillow does not read: pip install 'pillow>=11.3'"
    ):
        open_rgb(raw)


def test_formats_that_are_not_listed_are_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of them, PostScript, is handed to a program that runs it."""
    raw = saved(Image.fromarray(picture(0)), "EPS")
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: pytest.fail("a program was run"))
    with pytest.raises(UnreadableImageError, match=r"^no image$"):
        open_rgb(raw)


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP", "PNG"])
def test_the_first_of_several_images_is_used_and_told_of(kind: str, tmp_path: Path) -> None:
    frames = [Image.fromarray(picture(number)) for number in range(3)]
    several = saved(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
    alone = saved(frames[0], kind, lossless=True)
    assert np.array_equal(np.asarray(open_rgb(several)), np.asarray(open_rgb(alone)))
    assert check(HeldImage("x", several)) == Finding(more=True)
    assert check(HeldImage("x", alone)) == Finding()
    for number in range(10):
        folder = tmp_path / ("a" if number % 2 else "b")
        write_raw(folder / f"{number}.png", saved(Image.fromarray(picture(number))))
    write_raw(tmp_path / "a" / "x.tif", several)
    found = skipped(load_dataset("folder", tmp_path))
    assert found == {"first of several images in a file, used alone": (1, ("a/x.tif",))}


def test_cmyk_of_adobe_which_is_inverted_looks_as_it_should() -> None:
    image = Image.fromarray(picture(0))
    raw = saved(image.convert("CMYK"), "JPEG", quality=95)
    assert b"Adobe" in raw[:200]
    assert np.abs(np.asarray(open_rgb(raw)).astype(int) - picture(0)).mean() < 4


@pytest.mark.parametrize("mode", ["LAB", "YCbCr", "CMYK"])
def test_other_colour_spaces_are_converted(mode: str) -> None:
    from PIL import ImageCms

    image = Image.fromarray(picture(0))
    if mode == "LAB":
        to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
        other = ImageCms.applyTransform(image, to_lab)
        assert other is not None
    else:
        other = image.convert(mode)
    assert np.abs(np.asarray(open_rgb(saved(other, "TIFF"))).astype(int) - picture(0)).mean() < 4


def with_exif(exif: bytes, kind: str) -> bytes:
    return saved(Image.fromarray(picture(0)), kind, exif=exif)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0" + b"II*\0\x08\0\0\0\xff\xff",  # more entries than there are
        b"Exif\0\0" + b"II*\0\xff\xff\xff\x7f",  # a directory behind the end
        b"Exif\0\0" + b"nothing of the kind",
        b"Exif\0\0",
        # an orientation that is none: a text, and a number beyond eight
        b"Exif\0\0" + b"II*\0\x08\0\0\0\1\0" + struct.pack("<HHI4s", 0x112, 2, 4, b"up\0\0") + bytes(4),
        b"Exif\0\0" + b"II*\0\x08\0\0\0\1\0" + struct.pack("<HHIHH", 0x112, 3, 1, 9, 0) + bytes(4),
        b"Exif\0\0" + b"II*\0\x08\0\0\0\1\0" + struct.pack("<HHIHH", 0x112, 99, 1, 6, 0) + bytes(4),
    ],
)
def test_broken_exif_is_no_fault_of_the_pixels(exif: bytes, kind: str) -> None:
    raw = with_exif(exif, kind)
    assert check(HeldImage("x", raw)).damage == ""
    assert open_rgb(raw).size == (32, 24)


def test_all_eight_orientations_are_those_of_pillow() -> None:
    from PIL import ImageOps

    for value in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = value
        raw = saved(Image.fromarray(picture(0)), "PNG", exif=exif)
        wanted = ImageOps.exif_transpose(Image.open(io.BytesIO(raw)))
        assert np.array_equal(np.asarray(open_rgb(raw)), np.asarray(wanted))
    tall = floats(np.linspace(0, 1, 12).reshape(3, 4))
    image = Image.open(io.BytesIO(tall))
    exif = Image.Exif()
    exif[0x0112] = 6
    assert open_rgb(saved(image, "TIFF", exif=exif)).size == (3, 4)


def chunk(kind: bytes, body: bytes, right: bool = True) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body) ^ (not right))


@pytest.mark.parametrize(
    "odd",
    [
        chunk(b"tEXt", b"Comment\0hello", right=False),
        chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(99_000_000))),
        chunk(b"iCCP", b"name\0\0no zlib at all"),
        chunk(b"pHYs", b"1"),
        chunk(b"tIME", b"", right=False),
    ],
)
def test_broken_texts_in_a_png_are_no_fault_of_the_pixels(odd: bytes) -> None:
    raw = saved(Image.fromarray(picture(0)))
    odd_one = raw[:33] + odd + raw[33:]
    assert check(HeldImage("x", odd_one)).damage == ""
    assert np.array_equal(np.asarray(open_rgb(odd_one)), picture(0))
    assert check(HeldImage("x", odd_one[:-60])).damage == "corrupt or cut short"


def test_files_that_are_too_large_to_be_an_image_are_not_read(tmp_path: Path) -> None:
    for number in range(10):
        folder = tmp_path / ("a" if number % 2 else "b")
        write_raw(folder / f"{number}.png", saved(Image.fromarray(picture(number))))
    with (tmp_path / "a" / "large.jpg").open("wb") as stream:
        stream.truncate(20 << 30)
    (tmp_path / "a" / "zero.jpg").symlink_to("/dev/zero")
    found = skipped(load_dataset("folder", tmp_path))
    assert found == {
        "cannot be read: more than 512 MiB": (1, ("a/large.jpg",)),
        "link that leaves the data root": (1, ("a/zero.jpg",)),
    }
    assert EncodedFile("x", tmp_path / "a" / "large.jpg", 5 << 30, 7).read() == bytes(7)
    with pytest.raises(OSError, match="more than 512 MiB"):
        EncodedFile("x", tmp_path / "a" / "large.jpg", 0, 1 << 40).read()


def test_a_table_may_name_them(tmp_path: Path) -> None:
    for number in range(10):
        write_raw(tmp_path / f"{number}.dcm", dicom(picture(number)))
    rows = [f"{number}.dcm,{'ab'[number % 2]}" for number in range(10)]
    assert load_dataset("table", lines(tmp_path / "t.csv", "path,label", *rows)).skipped == ()

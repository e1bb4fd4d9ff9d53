"""Fitting: the pixels of open_clip's formula, and never an image far larger than what is cut out of it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from images import picture
from PIL import Image

from flora_secure.data.files import pixels
from flora_secure.data.files.pixels import Shape, fitted, open_rgb
from flora_secure.data.files.values import UnreadableImageError


def scaled_then_cut(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """Mode "shortest" by its definition, whatever memory it takes."""
    height, width = size
    if height == width:
        short, long = sorted(image.size)
        inner = (height, int(height * long / short))
        inner = inner if image.width <= image.height else inner[::-1]
    else:
        scale = max(height / image.height, width / image.width)
        inner = max(width, round(image.width * scale)), max(height, round(image.height * scale))
    top, left = round((inner[1] - height) / 2.0), round((inner[0] - width) / 2.0)
    whole = image.resize(inner, Image.Resampling.BICUBIC)
    return np.asarray(whole.crop((left, top, left + width, top + height)))


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


@pytest.mark.parametrize("size", [(56, 56), (24, 40)])
@pytest.mark.parametrize(
    "of", [(1, 1), (7, 300), (300, 7), (56, 56), (57, 56), (55, 230), (640, 480), (1, 2000), (333, 90)]
)
def test_usual_images_have_the_pixels_of_the_whole_image_scaled(of: tuple[int, int], size: tuple[int, int]) -> None:
    image = noise(*of)
    assert np.array_equal(np.asarray(fitted(image, Shape(size))), scaled_then_cut(image, size))


@pytest.mark.parametrize("size", [(56, 56), (24, 40)])
@pytest.mark.parametrize("of", [(7, 300), (300, 7), (55, 230), (640, 480), (2000, 3)])
def test_strips_have_the_same_pixels_but_for_rounding(
    of: tuple[int, int], size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = Image.fromarray(picture(3, of[::-1]))  # smooth: noise is cut off at 0 and 255 between two passes
    monkeypatch.setattr(pixels, "_MOST_SCALED", 0)
    off = np.asarray(fitted(image, Shape(size))).astype(int) - scaled_then_cut(image, size)
    assert np.abs(off).max() <= 2


@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("size", [(1, 60_000), (60_000, 1), (65_535, 3)])
def test_a_strip_takes_no_more_memory_than_it_has(
    size: tuple[int, int], mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    resize = Image.Image.resize

    def watched(self: Image.Image, to: tuple[int, int], *rest: object) -> Image.Image:
        made.append(to[0] * to[1])
        if made[-1] > 1 << 24:
            pytest.fail(f"{made[-1]:,} pixels")
        return resize(self, to, *rest)

    monkeypatch.setattr(Image.Image, "resize", watched)
    assert fitted(Image.new("RGB", size, (9, 8, 7)), Shape((224, 224), mode)).size == (224, 224)
    assert made


def test_longer_than_any_image_is_refused() -> None:
    stream = io.BytesIO()
    Image.new("L", (1, 70_000)).save(stream, "PNG")
    with pytest.raises(UnreadableImageError, match="more than 65,535 pixels in a row or a column"):
        open_rgb(stream.getvalue())

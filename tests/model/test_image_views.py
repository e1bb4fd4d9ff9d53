"""ImageViews of images: how many, in which order, and that crops show the whole image, a little elsewhere."""

import pytest
import torch

from flora_secure.model.image_views import ImageViews
from flora_secure.planning.sections import Crops


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("crops", [1, 2, 4])
def test_the_image_comes_first_and_mirrors_follow_their_own(mirror: bool, crops: Crops) -> None:
    pixels = torch.rand(2, 3, 56, 40, generator=torch.Generator().manual_seed(0))
    views = ImageViews(mirror, crops)
    found = views.of(pixels)
    assert len(found) == views.count == (1 + mirror) * crops
    assert torch.equal(found[0], pixels)
    assert all(view.shape == pixels.shape for view in found)
    assert all(not torch.equal(one, other) for one in found for other in found if one is not other)
    if mirror:
        assert all(torch.equal(found[i + 1], found[i].flip(-1)) for i in range(0, len(found), 2))


def test_the_second_crop_is_the_image_shrunk_about_its_centre() -> None:
    """A disc of radius r becomes one of radius r · 28 ÷ 30, in the same place; a constant stays as it is."""
    rows, columns = torch.meshgrid(torch.arange(56.0), torch.arange(56.0), indexing="ij")
    disc = ((rows - 27.5) ** 2 + (columns - 27.5) ** 2 <= 20**2).float()[None, None].expand(1, 3, -1, -1)
    smaller = ImageViews(crops=2).of(disc)[1]
    assert smaller.sum() / disc.sum() == pytest.approx((28 / 30) ** 2, rel=0.01)
    assert torch.allclose(smaller, smaller.flip(-1), atol=1e-6)
    assert torch.allclose(smaller, smaller.flip(-2), atol=1e-6)
    grey = torch.full((1, 3, 8, 8), 0.25)  # also where a twenty-eighth is less than a pixel
    assert all(torch.allclose(view, grey) for view in ImageViews(crops=4).of(grey))


def test_the_last_two_crops_are_moved_down_and_up_by_a_twenty_eighth() -> None:
    pixels = torch.rand(1, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    down, up = ImageViews(crops=4).of(pixels)[2:]
    assert torch.equal(down[:, :, 2:], pixels[:, :, :-2])
    assert torch.equal(down[:, :, :2], pixels[:, :, :1].expand(-1, -1, 2, -1))
    assert torch.equal(up[:, :, :-2], pixels[:, :, 2:])
    assert torch.equal(up[:, :, -2:], pixels[:, :, -1:].expand(-1, -1, 2, -1))

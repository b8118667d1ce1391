"""Look-alikes: pictures of different places that a measure of the error cannot tell apart."""
import numpy as np
import pytest

from worldplay.eval.lookalikes import coarse, lookalikes


def test_lookalikes_are_counted_among_different_places_only():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (4, 16, 16, 3), np.uint8)
    frames[2] = frames[0]  # far away, alike
    frames[3] = frames[0]  # in the same place and direction as 0, alike
    poses = np.array([[0, 0, 0, 179], [1000, 0, 0, 0], [2000, 0, 0, 0], [100, 0, 0, -160]], np.float32)
    figures = lookalikes(frames, poses)
    assert figures["pairs"] == 5 and figures["share"] == pytest.approx(2 / 5)
    assert figures["poses_share"] == pytest.approx(3 / 4) and set(figures["worst"]) in ({0, 2}, {2, 3})
    turned = np.array([[0, 0, 0, 0], [0, 0, 0, 90]], np.float32)
    assert lookalikes(frames[[0, 3]], turned)["share"] == 1
    with pytest.raises(ValueError, match="no two"):
        lookalikes(frames[:2], turned * 0)


def test_coarse_pictures_forget_what_is_fine():
    stripes = np.zeros((2, 16, 16, 3), np.uint8)
    stripes[0, :, ::2], stripes[1, :, 1::2] = 200, 200
    assert np.array_equal(*coarse(stripes)) and coarse(stripes).shape == (2, 2, 2, 3)

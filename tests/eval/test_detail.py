"""Sharpness by scale: blur shows at its scale, and a pattern that is fixed to the screen does not count."""
import numpy as np
import pytest

from tests.eval.turning import HEIGHT, WIDTH, TurningWorld, material, smeared, texture
from worldplay.eval import detail


def _turning(num=16, blur=0):
    return np.stack([smeared(np.roll(texture(5), 3 * i, axis=1), blur) for i in range(num)])


def _with_weave(frames, rows=slice(None), levels=24):
    weave = np.zeros((HEIGHT, WIDTH, 1))
    weave[::2, ::2], weave[1::2, 1::2] = levels, -levels
    added = frames.astype(np.int16)
    added[:, rows] += weave[rows].astype(np.int16)
    return added.clip(0, 255).astype(np.uint8)


def test_blur_costs_the_finest_scale_most():
    sharp, blurred = detail.energies(_turning()), detail.energies(_turning(blur=3))
    ratios = np.sqrt(blurred / sharp)
    assert ratios[0] < 0.7 and ratios[-1] > 0.8 and (np.diff(ratios) > 0).all()


@pytest.mark.parametrize("rows", [slice(None), slice(HEIGHT // 2, None)], ids=["everywhere", "on the floor"])
def test_a_weave_fixed_to_the_screen_does_not_raise_the_figure(rows):
    blurred = _turning(blur=4) // 2 + 64  # away from black and white, where adding is cut off
    woven = _with_weave(blurred, rows)
    plain, measured = detail.energies(blurred), detail.energies(woven)
    assert measured == pytest.approx(plain, rel=0.02)
    assert np.square(detail.bands(woven)[0]).mean() > 2 * np.square(detail.bands(blurred)[0]).mean(), \
        "a measure that does not take out what is fixed would have been deceived"


def test_a_weave_that_moves_with_the_world_is_detail():
    blurred = _turning(blur=4) // 2 + 64
    fixed = _with_weave(blurred)
    moving = np.stack([np.roll(_with_weave(np.roll(frame, -3 * i, axis=1)[None])[0], 3 * i, axis=1)
                       for i, frame in enumerate(blurred)])
    assert detail.energies(moving)[0] > 2 * detail.energies(fixed)[0]


def test_the_true_world_has_all_detail_and_a_melting_one_lost_it(streams):
    true, melting = (detail.sharpness(material(streams, TurningWorld(blur=blur)), "explorer")["sharpness"]
                     for blur in (0, 1))
    for scale in map(str, detail.SCALES):
        assert true[scale]["dream"] == pytest.approx(1) and true[scale]["codec"] == pytest.approx(1, abs=0.01)
    assert melting["1"]["dream"] < 0.6


def test_odd_sizes_have_all_bands():
    assert [band.shape for band in detail.bands(np.zeros((2, 15, 21, 3), np.uint8))] == [
        (2, 15, 21), (2, 8, 11), (2, 4, 6), (2, 2, 3)]

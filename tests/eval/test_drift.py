"""Long walks: blur, darkness and other colours are seen, and a world that stays true has none."""
import numpy as np
import pytest

from tests.eval.turning import TurningWorld, material, smeared, texture
from worldplay.action import ActionSpace
from worldplay.eval import drift
from worldplay.eval.statistics import compare, statistics


def test_drift_of_the_real_frames_themselves_is_none():
    stats = [statistics(texture(seed)) for seed in range(5)]
    assert compare(stats, stats) == {"sharpness_ratio": 1, "brightness_ratio": 1,
                                           "histogram_distance": 0}


def test_drift_sees_blur_darkness_and_other_colours():
    frame = texture(3)
    real = [statistics(frame)]
    assert compare([statistics(smeared(frame, 4))], real)["sharpness_ratio"] < 0.8
    dark = compare([statistics(frame // 2)], real)
    assert dark["brightness_ratio"] == pytest.approx(0.5, abs=0.01) and dark["histogram_distance"] > 0.3
    black, white = (statistics(frame // 32 + level) for level in (0, 248))
    assert compare([black], [white])["histogram_distance"] == pytest.approx(1)


def test_a_melting_world_drifts_and_a_true_one_does_not(streams):
    true, melting = (drift.drift(material(streams, TurningWorld(blur=blur)), "explorer")["drift"]["100"]
                     for blur in (0, 1))
    of_walk = {name: true[name] for name in true["real"]}
    assert of_walk == pytest.approx(true["real"]), "it walks as the real one does"
    assert melting["sharpness_ratio"] < 0.5 * melting["real"]["sharpness_ratio"]
    assert true["n"] == 25 and set(true) >= {"sharpness_ratio", "brightness_ratio", "histogram_distance"}


def test_a_world_of_other_keys_is_walked_the_same_way(streams):
    other, given = TurningWorld(), []
    other.action_space, follow = ActionSpace(("mouse_left", "w"), 12.0, look_axes=1), other.follow

    def record(frames, actions, *arguments, **options):
        given.append(actions)
        return follow(frames, actions, *arguments, **options)
    other.follow = record
    made = material(streams, other)
    assert drift.drift(made, "explorer") == drift.drift(material(streams, TurningWorld()), "explorer")
    (actions,), (walk,) = given, [made.source.walk(0, 100, 4)]
    assert not actions[..., 0].any() and np.array_equal(actions[0, :, 1], walk.actions[:, 0])


def test_walks_of_one_length_are_those_walked_one_by_one(streams):
    """What is measured of several walks at once is the mean over them alone."""
    both = drift.drift(material(streams, TurningWorld(), walks=(100, 100)), "explorer")["drift"]["100"]
    assert both["n"] == 50
    rows, _ = drift._walks(material(streams, TurningWorld(), walks=(100, 100)), 4)
    alone, _ = drift._walks(material(streams, TurningWorld(), walks=(100,)), 4)
    assert np.array_equal(rows[0], alone[0]) and not np.array_equal(rows[1], alone[0])

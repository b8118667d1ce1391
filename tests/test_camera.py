"""The camera rig: what keys and mouse do to a camera, and what of it the training data knows."""
import numpy as np
import pytest

from worldplay.action import Action, parse_script
from worldplay.camera import CAMERA_SPACE, REACH, STEP, CameraRig, is_trained, viewmats


def after(*actions):
    rig = CameraRig()
    for action in actions:
        rig = rig.step(action)
    return rig


def turn_of(rig):
    """Degrees by which a rig has turned from its anchor."""
    return np.degrees(np.arccos(np.clip((np.trace(rig.pose[:3, :3]) - 1) / 2, -1, 1)))


@pytest.mark.parametrize("key, place", [("w", (0, 0, 1)), ("s", (0, 0, -1)), ("d", (1, 0, 0)),
                                        ("a", (-1, 0, 0)),
                                        ("u", (0, -1, 0)), ("down", (0, 1, 0))])
def test_keys_move(key, place):
    np.testing.assert_allclose(after(Action({key})).pose[:3, 3], STEP * np.array(place), atol=1e-15)


@pytest.mark.parametrize("key, look, axis, sign",
                         [("l", (3, 0), 0, 1), ("j", (-3, 0), 0, -1), ("k", (0, 3), 1, 1),
                                                   ("i", (0, -3), 1, -1)])
def test_keys_turn_as_the_mouse_does(key, look, axis, sign):
    """Right and down are positive, as for every look."""
    by_key, by_mouse = after(Action({key})), after(Action(look=look))
    assert np.array_equal(by_key.pose, by_mouse.pose)
    forward = by_key.pose[:3, 2]
    assert forward[axis] == pytest.approx(sign * np.sin(np.radians(3)))
    assert turn_of(by_key) == pytest.approx(3)


def test_a_turn_comes_before_the_move_along_the_new_axes():
    rig = after(Action({"w", "l"}))
    np.testing.assert_allclose(rig.pose[:3, 3], STEP * rig.pose[:3, 2])


def test_limits():
    assert turn_of(after(Action({"l"}, (90, 0)))) == pytest.approx(3)
    assert turn_of(after(Action({"l"}, (-3, 0)))) == pytest.approx(0, abs=1e-6)
    for action in (Action(), Action({"w", "s"}), Action({"i", "k", "space"})):
        assert np.array_equal(after(action).pose, np.eye(4))


def test_motions_at_once_add_up_along_every_axis():
    """As published: forward, right and up are added, each a full step, in the axes after both turns."""
    rig = after(Action({"w", "d", "u", "l", "i"}))
    turned = after(Action({"l", "i"}))
    np.testing.assert_allclose(rig.pose[:3, :3], turned.pose[:3, :3])
    np.testing.assert_allclose(rig.pose[:3, 3], turned.pose[:3, :3] @ (STEP, -STEP, STEP), atol=1e-15)
    assert not is_trained(Action({"w", "d"}))


def test_viewmats_are_the_inverse_in_float32():
    rig = after(*parse_script("w*9, l+d*5, look(1,-2)+s*7", CAMERA_SPACE))
    assert rig.viewmat.dtype == np.float32
    np.testing.assert_allclose(rig.viewmat @ rig.pose, np.eye(4), atol=1e-6)


@pytest.mark.parametrize("action, expected", [
    *((Action({key}), True) for key in CAMERA_SPACE.keys), (Action(look=(3, 0)), True),
    (Action(look=(0, -9)), True),
    (Action({"l"}, (3, 0)), True), (Action({"w", "s", "j"}), True), (Action(), False),
    (Action({"w", "s"}), False),
    (Action({"w", "d"}), False), (Action({"w", "l"}), False), (Action(look=(3, 3)), False),
    (Action(look=(1, 0)), False), (Action({"u"}), False), (Action({"down"}), False)])
def test_what_the_training_data_knows(action, expected):
    assert is_trained(action) == expected


def test_a_new_anchor_keeps_relative_poses():
    rig, camera, passed = CameraRig(), CameraRig(), np.eye(4)
    actions = [Action({"w"} if i % 3 else {"l", "w"}, (0.1, -0.2)) for i in range(2000)]
    anchors = 0
    for action in actions:
        rig, motion = rig.step(action).rebased()
        camera = camera.step(action)
        if motion is not None:
            anchors += 1
            assert np.linalg.norm(motion[:3, 3]) == pytest.approx(REACH, abs=STEP)
            passed = passed @ motion
        assert np.linalg.norm(rig.pose[:3, 3]) <= REACH
        # viewmats T of the first anchor are T @ passed of the latest one
        np.testing.assert_allclose(rig.viewmat, np.linalg.inv(camera.pose) @ passed, atol=1e-6)
    assert anchors >= 2


def test_a_rig_is_its_own_snapshot():
    rig = after(Action({"w"}))
    before = rig.pose.copy()
    assert np.array_equal(rig.step(Action({"l"})).pose, rig.step(Action({"l"})).pose)
    rig.step(Action({"d"})).rebased()
    assert np.array_equal(rig.pose, before)


def test_viewmats_begin_at_rest():
    assert np.array_equal(viewmats([]), np.eye(4)[None])

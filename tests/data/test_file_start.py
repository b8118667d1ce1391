"""Files to begin from: a clip's past with its motion, other sizes cropped, what does not fit in one line."""
import numpy as np
import pygame
import pytest

from tests.client.fake_worlds import SPACE, FakeWorld, keys_shown
from tests.client.session import QUIT, Session
from tests.client.test_devices import key
from worldplay.action import Action, ActionSpace
from worldplay.data.clip import read_clip
from worldplay.data.file_start import SUFFIXES, file_scene, is_clip
from worldplay.data.video import H264Writer
from worldplay.errors import WorldError


@pytest.fixture(scope="module", params=[1, 2])
def clip(request, tmp_path_factory):
    """A clip in which w is pressed and then let go, of a world with so many frames a step."""
    folder = tmp_path_factory.mktemp("clips")
    Session(FakeWorld(fps=50.0, frames=request.param), [
        (8, key(pygame.K_w)), (12, key(pygame.K_w, False), key(pygame.K_d)), (12, QUIT)],
        record_in=folder).run()
    [path] = folder.glob("*.mp4")
    return read_clip(path)


@pytest.mark.parametrize("at", [3, 14, 22, None, 10_000])
def test_the_past_of_a_frame_is_the_frames_before_it_with_the_actions_that_caused_them(clip, at):
    scene = file_scene(clip.path, (96, 128), SPACE, at=at, num=9)
    last = clip.step_end(clip.num_frames - 1 if at is None else min(at, clip.num_frames - 1))
    frames = list(clip.frames())[max(0, last - 8):last + 1]
    assert scene.frames.dtype == np.uint8 and np.array_equal(scene.frames, np.stack(frames))
    assert [action.keys for action in scene.actions] == [keys_shown(frame) for frame in frames]


def test_the_turn_of_a_step_is_shared_among_its_frames(tmp_path, clip):
    steps = [record["step"] for record in clip.sidecar["frames"]]
    clip.sidecar["actions"][steps[20]] = [["w"], 6.0, 0.0]
    from worldplay.data.file_start import _past
    scene = _past(clip, (96, 128), SPACE, 20, 50)
    turned = sum(action.look[0] for action, step in zip(scene.actions, steps) if step == steps[20])
    assert turned == pytest.approx(6.0)


def test_a_clip_of_another_size_is_scaled_and_cropped(clip):
    scene = file_scene(clip.path, (48, 48), SPACE, num=4)
    assert scene.frames.shape == (4, 48, 48, 3) and len(scene.actions) == 4
    still = list(clip.frames())[-1][:, 16:112].astype(float)
    assert np.abs(still.reshape(48, 2, 48, 2, 3).mean((1, 3)) - scene.frames[-1]).mean() < 6


@pytest.mark.parametrize("space", [
    ActionSpace(("w", "a"), 12.0, 1), ActionSpace((*SPACE.keys, "e"), 12.0, 1),
    ActionSpace(SPACE.keys, 3.0, 2)])
def test_a_clip_of_other_keys_is_refused_in_one_line(clip, space):
    with pytest.raises(WorldError, match="does not fit: it was played with w, a, s, d, mouse_left, turns, "
                                         "this world has") as error:
        file_scene(clip.path, (96, 128), space)
    assert error.value.kind == "bad_scene" and "\n" not in str(error.value)


def test_other_videos_and_pictures_stand_still_and_others_are_refused(tmp_path):
    with H264Writer(tmp_path / "walk.mp4", (96, 128), 20) as writer:
        for i in range(30):
            writer.add(np.full((96, 128, 3), 8 * i, np.uint8))
    assert not is_clip(tmp_path / "walk.mp4") and ".png" in SUFFIXES
    scene = file_scene(tmp_path / "walk.mp4", (48, 64), SPACE, num=5)
    assert scene.frames.shape == (1, 48, 64, 3) and abs(scene.frames.mean() - 8 * 29) < 6
    assert scene.actions == [Action()]
    (tmp_path / "torn.mp4").write_bytes(b"no video")
    for name, words in (("torn.mp4", "cannot be begun from"), ("gone.mp4", "does not exist"),
                        ("gone.png", "does not exist")):
        with pytest.raises(WorldError, match=words) as error:
            file_scene(tmp_path / name, (48, 64), SPACE)
        assert "\n" not in str(error.value)

"""Files to share: true times, whole steps, keys burnt in, the last seconds, pictures with their origin."""
import json

import av
import numpy as np
import pygame
import pytest
from PIL import Image

from tests.client.fake_worlds import BLOCK, FakeWorld, keys_shown
from tests.client.session import QUIT, Session
from tests.client.test_devices import key
from tests.client.test_travel import own_folders  # noqa: F401
from worldplay.action import Action, ActionSpace
from worldplay.client import export, recording
from worldplay.client.export import draw_action, export_clip, shown_at
from worldplay.client.settings import Settings
from worldplay.data.clip import beside, read_clip
from worldplay.data.picture import read_origin
from worldplay.worlds.scene import image_scene


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A clip of 12 frames, the sixth of which was late and the ninth after a pause."""
    folder = tmp_path_factory.mktemp("clip")
    Session(FakeWorld(fps=20.0), [(3, key(pygame.K_w)), (9, QUIT)], record_in=folder).run()
    [video] = folder.glob("*.mp4")
    sidecar = json.loads(beside(video.with_suffix(""), ".json").read_text())
    flips = np.cumsum([0, 50, 50, 50, 50, 173, 50, 50, 9000, 50, 50, 50, *[50] * 100])
    for record, at in zip(sidecar["frames"], flips):
        record["flipped_ms"] = float(at)
    beside(video.with_suffix(""), ".json").write_text(json.dumps(sidecar))
    return read_clip(video)


def lengths(path):
    """Milliseconds of every frame of an animation, but the last one of a video."""
    if path.suffix == ".mp4":
        with av.open(str(path)) as container:
            times = [1000 * float(frame.pts * frame.time_base) for frame in container.decode(video=0)]
        return [round(length) for length in np.diff(times)]
    found, image = [], Image.open(path)
    for i in range(image.n_frames):
        image.seek(i)
        image.load()
        found.append(image.info["duration"])
    return found


@pytest.mark.parametrize("suffix", export.FORMATS)
def test_frames_stay_as_long_as_they_were_seen(clip, tmp_path, suffix):
    made = export_clip(clip.path, tmp_path / f"a{suffix}", scale=2)
    assert made["frames"] == clip.num_frames
    assert lengths(tmp_path / f"a{suffix}")[:9] == pytest.approx([50] * 4 + [173] + [50] * 4, abs=10)
    assert shown_at(clip)[-1] == pytest.approx(made["seconds"])
    height, width = clip.sidecar["frame_size"]
    assert made["size"] == [2 * width, 2 * height]
    assert [path.name for path in tmp_path.iterdir()] == [f"a{suffix}"]


def test_pixels_become_squares_and_a_part_can_be_taken(clip, tmp_path):
    made = export_clip(clip.path, tmp_path / "a.webp", scale=3, begin=0.1, end=0.2)
    assert made["frames"] == 2
    image = Image.open(tmp_path / "a.webp")
    picture = np.asarray(image.convert("RGB"))
    assert keys_shown(picture[1::3, 1::3]) == clip.actions[clip.sidecar["frames"][2]["step"]].keys
    assert picture.shape[1] == 3 * clip.sidecar["frame_size"][1]


def test_keys_are_lit_while_they_are_down():
    pygame.font.init()
    space = ActionSpace(("w", "a", "s", "d", "mouse_left"), 12.0, look_axes=1)

    def picture(*keys, yaw=0.0):
        surface = pygame.Surface((640, 480))
        draw_action(surface, space, Action(frozenset(keys), (yaw, 0.0)))
        return pygame.surfarray.array3d(surface).astype(int)
    still = picture()
    for action in (picture("w"), picture("mouse_left"), picture(yaw=6.0)):
        assert (action != still).any()
    lit = np.argwhere((picture("w") != picture("s")).any(2))
    assert lit[:, 1].min() > 200 and lit[:, 0].max() < 320, "in the lower left corner"


def test_what_cannot_be_exported_is_said(clip, tmp_path):
    (tmp_path / "there.gif").touch()
    for out, options, says in (
            ("a.avi", {}, "ends in .gif"), ("there.gif", {}, "there already"),
            ("a.gif", {"scale": 0}, "expected 1 to"), ("a.gif", {"begin": 99.0}, "no frame")):
        with pytest.raises((ValueError, OSError), match=says) as error:
            export_clip(clip.path, tmp_path / out, **options)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "a.gif").exists() and BLOCK


def test_f12_keeps_what_was_played_before_it_also_while_recording(tmp_path, monkeypatch):
    settings = Settings(record_folder=str(tmp_path))
    session = Session(FakeWorld(fps=50.0), [
        (10, key(pygame.K_w)), (10, key(pygame.K_F12)), (lambda: session.notice.startswith("Saved"),),
        (5, QUIT)], settings=settings)
    session.run()
    [video] = tmp_path.glob("*.mp4")
    clip = read_clip(video)
    assert clip.sidecar["recorded"][0] == 0 and clip.num_frames >= 20
    for record, frame in zip(clip.sidecar["frames"], clip.frames(), strict=True):
        assert keys_shown(frame) == clip.actions[record["step"]].keys
    assert recording.MIN_FRAMES == 3


def test_a_picture_says_where_it_comes_from_and_can_be_begun_from(tmp_path):
    settings = Settings(record_folder=str(tmp_path))
    session = Session(FakeWorld(fps=50.0), [
        (5, key(pygame.K_F4)), (lambda: session.notice.startswith("Saved"),), (2, QUIT)], settings=settings)
    session.run()
    [path] = tmp_path.glob("*.png")
    origin = read_origin(path)
    assert (origin["world"], origin["scene"]) == ("fake", FakeWorld().scenes[0])
    assert {"world_hash", "seed", "env", "versions"} <= origin.keys()
    size = tuple(origin["frame_size"])
    frame = image_scene(path, size).frames[0]
    shown = session.frames[origin["frame"]]
    assert np.abs(frame.astype(int) - shown).mean() < 12, "scaled back it is the frame"
    Image.fromarray(shown).save(tmp_path / "other.png")
    with pytest.raises(ValueError, match="no picture that worldplay took"):
        read_origin(tmp_path / "other.png")

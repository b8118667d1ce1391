"""Scenes and pictures to start from: as written, as a viewer shows them, or refused in one line."""
import json

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from worldplay.action import Action, ActionSpace
from worldplay.data.frame_cache import write_frame_cache
from worldplay.envs import open_env
from worldplay.envs.collect import play_actions
from worldplay.envs.twin import Twin
from worldplay.errors import WorldError
from worldplay.worlds.scene import Scene, export_scenes, image_scene, load_scene, save_scene

SIZE = 24, 32  # (H, W) of the world's frames
SPACE = ActionSpace(("w", "d"), 10.0, look_axes=1)
RAMP = np.tile(np.linspace(0, 255, 64, dtype=np.uint8), (48, 1))  # grey, from black at the left to white
COLOURS = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]], axis=-1)


def shown(path):
    """uint8 [H W 3] of the picture in a file, as a world starts from it."""
    frame, = image_scene(path, SIZE).frames
    return frame


def assert_alike(frame, expected, tolerance=3):
    difference = np.abs(frame.astype(int) - expected.astype(int))
    assert difference.max() <= tolerance, f"differs by {difference.max()}"


@pytest.fixture
def plain(tmp_path):
    Image.fromarray(COLOURS).save(tmp_path / "plain.png")
    return shown(tmp_path / "plain.png")


@pytest.fixture
def grey(tmp_path):
    Image.fromarray(RAMP).save(tmp_path / "grey.png")
    return shown(tmp_path / "grey.png")


@pytest.mark.parametrize("origin", [[1], "doom-maze", {"environment": 3, "seed": 1}, {"environment": None},
                                    {"environment": "doom-maze", "seed": "4"}, {"seed": -1}, {"seed": True}])
def test_an_origin_that_names_no_game_is_refused_in_one_line(tmp_path, origin):
    frames = np.zeros((1, *SIZE, 3), np.uint8)
    save_scene(tmp_path, Scene(name="s", frames=frames, actions=[Action()], poses=None, origin=origin), SPACE)
    with pytest.raises(WorldError, match="names no environment and seed"):
        load_scene(tmp_path / "s.safetensors", SIZE)


def test_a_scene_is_read_as_it_was_written(tmp_path):
    frames = np.random.default_rng(1).integers(0, 256, (3, *SIZE, 3), np.uint8)
    actions = [Action({"w"}, (float(i), 0)) for i in range(3)]
    saved = Scene(name="s", frames=frames, actions=actions, poses=np.ones((3, 4)), origin={"seed": 4})
    save_scene(tmp_path, saved, SPACE)
    scene = load_scene(tmp_path / "s.safetensors", SIZE)
    assert np.array_equal(scene.frames, frames) and scene.origin == saved.origin
    assert np.array_equal(scene.poses, saved.poses)
    assert [a.keys for a in scene.actions] == [a.keys for a in actions]
    assert {path.name for path in tmp_path.iterdir()} == {"s.safetensors", "s.png"}
    with pytest.raises(WorldError, match="this world shows"):
        load_scene(tmp_path / "s.safetensors", (8, 8))


@pytest.mark.parametrize("name, value, words", [
    ("frames", np.zeros((0, *SIZE, 3), np.uint8), "holds 0 frames"),
    ("actions", np.zeros((2, 3), np.float32), "holds 3 frames, and not as many actions"),
    ("actions", np.full((3, 3), np.nan, np.float32), "no finite numbers"),
    ("actions", np.zeros(3, np.float32), "cannot be read"),
    ("poses", np.full((3, 4), np.inf, np.float32), "no finite numbers"),
    ("poses", np.zeros((3, 2), np.float32), "not as many actions and poses"),
    ("frames", np.zeros((3, *SIZE), np.uint8), "this world shows"),
    ("frames", np.array(3, np.uint8), "this world shows"),
    ("actions", np.array(3, np.float32), "cannot be read"),
    ("frames", np.zeros((3, *SIZE, 3), np.float32), "this world shows")])
def test_a_scene_of_other_tensors_is_refused_in_one_line(tmp_path, name, value, words):
    tensors = {"frames": np.zeros((3, *SIZE, 3), np.uint8), "actions": np.zeros((3, 3), np.float32)}
    header = {"origin": "{}", "action_space": json.dumps(SPACE.to_json())}
    save_file(tensors | {name: value}, tmp_path / "s.safetensors", metadata=header)
    with pytest.raises(WorldError, match=words) as error:
        load_scene(tmp_path / "s.safetensors", SIZE)
    assert error.value.kind == "bad_scene" and "\n" not in str(error.value)


def test_a_picture_covers_the_frame_and_its_action_is_none(tmp_path):
    Image.fromarray(np.full((50, 90, 3), 200, np.uint8)).save(tmp_path / "wide.png")
    scene = image_scene(tmp_path / "wide.png", SIZE)
    assert scene.frames.shape == (1, *SIZE, 3) and (scene.frames == 200).all() and scene.actions == [Action()]


@pytest.mark.parametrize("orientation, stored", [
    (1, lambda x: x), (2, np.fliplr), (3, lambda x: np.rot90(x, 2)), (4, np.flipud),
    (5, lambda x: x.transpose(1, 0, 2)), (6, np.rot90), (7, lambda x: np.rot90(x.transpose(1, 0, 2), 2)),
    (8, lambda x: np.rot90(x, -1))])
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_a_picture_is_turned_as_its_camera_says(tmp_path, plain, orientation, stored, suffix):
    exif, path = Image.Exif(), tmp_path / f"photo.{suffix}"
    exif[0x0112] = orientation
    quality = {"jpg": {"quality": 100, "subsampling": 0}, "webp": {"lossless": True}}.get(suffix, {})
    Image.fromarray(np.ascontiguousarray(stored(COLOURS))).save(path, exif=exif, **quality)
    assert_alike(shown(path), plain)


@pytest.mark.parametrize("name, mode", [
    ("glass.png", "RGBA"), ("glass.webp", "RGBA"), ("glass.tif", "RGBA"), ("deep.png", "I;16"),
    ("deep.tif", "I;16"), ("float.tif", "F"), ("palette.png", "P")])
def test_a_picture_of_any_kind_is_turned_as_its_camera_says(tmp_path, name, mode):
    def picture(grey):
        if mode in ("I;16", "F"):
            return Image.fromarray(grey.astype(np.uint16) * 257 if mode == "I;16" else np.float32(grey / 255))
        return Image.fromarray(grey).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn to the right shows it upright
    picture(RAMP).save(tmp_path / f"upright_{name}")
    picture(np.ascontiguousarray(np.rot90(RAMP))).save(tmp_path / name, exif=exif)
    assert_alike(shown(tmp_path / name), shown(tmp_path / f"upright_{name}"))


@pytest.mark.parametrize("name, numbers", [
    ("grey16.png", RAMP.astype(np.uint16) * 257), ("grey16.tif", RAMP.astype(np.uint16) * 257),
    ("float.tif", RAMP.astype(np.float32) / 255), ("bits.png", RAMP)])
def test_the_bits_of_a_picture_do_not_change_its_brightness(tmp_path, grey, name, numbers):
    Image.fromarray(numbers).save(tmp_path / name)
    assert_alike(shown(tmp_path / name), grey)


def test_a_portable_picture_of_16_bits_is_as_bright(tmp_path, grey):
    (tmp_path / "grey.pgm").write_bytes(b"P5 64 48 65535 " + (RAMP.astype(">u2") * 257).tobytes())
    assert_alike(shown(tmp_path / "grey.pgm"), grey)


@pytest.mark.parametrize("name, numbers", [
    ("int.tif", RAMP.astype(np.int32)), ("bright.tif", RAMP.astype(np.float32)),
    ("nan.tif", np.full((48, 64), np.nan, np.float32))])
def test_numbers_that_may_mean_any_brightness_are_refused(tmp_path, name, numbers):
    Image.fromarray(numbers).save(tmp_path / name)
    words = f"{name} cannot be read .*any brightness; save it with 8 or 16 bits"
    with pytest.raises(WorldError, match=words) as error:
        shown(tmp_path / name)
    assert error.value.kind == "bad_scene" and "\n" not in str(error.value)


@pytest.mark.parametrize("alpha, under", [(0, 255), (128, None), (255, None)])
def test_what_shows_through_a_picture_is_white(tmp_path, alpha, under):
    picture = np.dstack([np.full((48, 64, 3), (200, 40, 0), np.uint8), np.full((48, 64), alpha, np.uint8)])
    Image.fromarray(picture).save(tmp_path / "glass.png")
    expected = under if under is not None else np.array([200, 40, 0]) * alpha / 255 + 255 - alpha
    assert_alike(shown(tmp_path / "glass.png"), np.broadcast_to(expected, (*SIZE, 3)), tolerance=1)


@pytest.mark.parametrize("name, mode, options", [
    ("grey.png", "LA", {}), ("palette.png", "P", {"transparency": 0}),
    ("palette.gif", "P", {"transparency": 0}), ("key.png", "RGB", {"transparency": (0, 0, 0)}),
    ("grey_key.png", "L", {"transparency": 0})])
def test_every_kind_of_transparency_is_white(tmp_path, name, mode, options):
    Image.new(mode, (64, 48), 0).save(tmp_path / name, **options)
    assert (shown(tmp_path / name) == 255).all()


@pytest.mark.parametrize("mode, name", [("CMYK", "print.jpg"), ("CMYK", "print.tif"), ("RGB", "plain.bmp")])
def test_a_picture_for_print_has_its_colours(tmp_path, plain, mode, name):
    options = {"quality": 100, "subsampling": 0} if name.endswith("jpg") else {}
    Image.fromarray(COLOURS).convert(mode).save(tmp_path / name, **options)
    assert_alike(shown(tmp_path / name), plain, tolerance=6)


@pytest.mark.parametrize("size", [(1, 3000), (3000, 1), (1, 1), (9000, 12000)])
def test_a_picture_may_have_any_shape_and_a_large_size(tmp_path, size, recwarn):
    Image.new("RGB", size, (9, 200, 30)).save(tmp_path / "picture.jpg")
    assert_alike(shown(tmp_path / "picture.jpg"), np.broadcast_to((9, 200, 30), (*SIZE, 3)))
    assert not recwarn


def test_a_picture_that_cannot_be_read_is_one_line(tmp_path):
    Image.fromarray(COLOURS).save(tmp_path / "whole.png")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    (tmp_path / "torn.png").write_bytes((tmp_path / "whole.png").read_bytes()[:60])
    (tmp_path / "huge.ppm").write_bytes(b"P6 100000 100000 255 ")  # a header of 10^10 pixels
    (tmp_path / "value.ppm").write_bytes(b"P6 2 2 99999 ")
    unreadable = "bad.png", "torn.png", "value.ppm", ""
    for name, words in (("none.png", "not exist"), ("huge.ppm", "more than .* million pixels; scale it down"),
                        *((name, f"{name} cannot be read") for name in unreadable)):
        with pytest.raises(WorldError, match=words) as error:
            shown(tmp_path / name)
        assert error.value.kind == "bad_scene" and "\n" not in str(error.value)


@pytest.mark.parametrize("is_lossy", [False, True])
def test_a_scene_in_mid_play_of_a_gymnasium_game_is_found_again_there(tmp_path, is_lossy):
    """Play that was collected can be made again by its seed and actions; clips, which are lossy, cannot."""
    game = open_env("gym:tests.envs.corridor:Corridor?actions=idle=0,a=1,d=2", trusted=True)
    rng = np.random.default_rng(2)
    walk = [game.action_space.encode(Action({("a", "d")[k]})) for k in rng.integers(0, 2, 11)]
    rollouts = [play_actions(game, walk, seed=seed) for seed in (19, 39, 1)]
    cache = write_frame_cache(rollouts, tmp_path / "cache", world=game, num_frames=36, has_poses=False,
                              is_lossy=is_lossy)
    export_scenes(cache, tmp_path / "scenes", game.name, num=5)
    twin = Twin("dream", tmp_path, action_space=game.action_space, frame_size=game.frame_size, fps=game.fps,
                env=game.name)
    assert len(twin.scenes) == 5
    for name in twin.scenes:
        scene = load_scene(tmp_path / f"scenes/{name}.safetensors", game.frame_size)
        if is_lossy:
            assert not scene.origin and not scene.before
            continue
        assert np.array_equal(twin.reset(name), scene.frames) and twin.difference == 0
    assert is_lossy or any(twin.start(name).before for name in twin.scenes)
    twin.close()

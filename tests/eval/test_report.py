"""Metrics against known values, the suites on a synthetic world, and the real game's own ceilings."""
import importlib.util
import json
import math

import numpy as np
import pytest

from worldplay.action import Action, ActionSpace
from worldplay.data.clip_writer import ClipWriter, describe
from worldplay.data.frame_cache import is_held_out
from worldplay.envs import open_env
from worldplay.envs.collect import play_rollout
from worldplay.errors import WorldError
from worldplay.eval import control, drift, fidelity, pictures, replay, report
from worldplay.eval.streams import Material, Streams, dream, held_out_seeds, stack, told_in
from worldplay.world import check_world

SPACE = ActionSpace(("w", "a", "s", "d"), 12.0, look_axes=1)
HEIGHT, WIDTH = 48, 96
PIXELS_PER_DEGREE = 1


class TurningWorld:
    """A round picture that turns by whole pixels; as a dream it turns the frame it is given, exactly.

    blur      pixels over which a dreamed frame is smeared more at every step, so that it melts
    is_deaf   it dreams that nobody turns
    """

    def __init__(self, blur=0, is_deaf=False):
        self.name, self.action_space, self.frame_size, self.fps = "turning", SPACE, (HEIGHT, WIDTH), 17.5
        self.scenes, self.info = ("start",), {"env": "turning", "window": 4, "device": "cpu", "seed": 0, "steps": 2,
                                              "world_hash": "f00d", "dtype": "float32"}
        self.blur, self.is_deaf, self._frame, self._is_mid_step = blur, is_deaf, None, False
        self.pose = np.zeros(4, np.float32)

    def reset(self, scene=None, *, frames=None, actions=None, seed=None):
        self._is_mid_step, self.pose = False, np.zeros(4, np.float32)
        if frames is None:
            frames = _texture(0 if seed is None else seed)[None]
        self._frame = frames[-1]
        return frames

    def step(self, action):
        if self._is_mid_step:
            raise WorldError("unfinished_step", "the previous step was not run to its end")
        self._is_mid_step = True
        self.pose = self.pose - np.float32([0, 0, 0, _pixels(action.look[0])])
        self._frame = _smeared(self._turned(self._frame, action.look[0]), self.blur)
        yield self._frame
        self._is_mid_step = False

    def walk(self, actions):
        for action in actions:
            yield from self.step(action)

    def follow(self, frames, actions, others=(), *, start):
        for i in range(start, frames.shape[1]):
            yield [np.stack([self._turned(frame, degrees * SPACE.look_limit)
                             for frame, degrees in zip(frames[:, i - 1], given[:, i, -1])])
                   for given in (actions, *others)]

    def reconstruct(self, frames):
        return frames ^ 1

    def close(self):
        self._frame = None

    def _turned(self, frame, yaw):
        return frame if self.is_deaf else np.roll(frame, -_pixels(yaw), axis=1)


def _pixels(yaw):
    return round(float(yaw) * PIXELS_PER_DEGREE)


def _texture(seed):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (HEIGHT // 4, WIDTH // 4, 3), np.uint8).repeat(4, 0).repeat(4, 1)


def _smeared(frame, pixels):
    if not pixels:
        return frame
    return np.mean([np.roll(frame, i, 1) for i in range(pixels + 1)], axis=0).astype(np.uint8)


@pytest.fixture(scope="module")
def streams():
    world = TurningWorld()
    return {player: stack((play_rollout(world, num_frames=4 + 24, seed=seed, player=player)
                           for seed in held_out_seeds(6)), context=4) for player in report.PLAYERS}


def material(streams, world):
    return Material(world=world, streams=streams, open_real=TurningWorld, num_dreams=4, walks=(100,),
                    num_targets=16)


# Metrics ----------------------------------------------------------------------------------------------------


def test_psnr_known_values():
    black = np.zeros((3, 8, 8, 3), np.uint8)
    grey = black + np.array([0, 1, 255], np.uint8).reshape(3, 1, 1, 1)
    assert fidelity.psnr(black, grey) == pytest.approx([fidelity.PSNR_CAP, 20 * math.log10(255), 0], abs=1e-6)


def test_ssim_is_the_published_one():
    from skimage.metrics import structural_similarity
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (2, 32, 40, 3), np.uint8)
    b = np.clip(a + rng.normal(0, 30, a.shape), 0, 255).astype(np.uint8)
    expected = [structural_similarity(x, y, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
                                      channel_axis=-1, data_range=255) for x, y in zip(a, b)]
    assert fidelity.ssim(a, b) == pytest.approx(expected, abs=1e-4)  # float32 against float64


@pytest.mark.parametrize("metric", [fidelity.psnr, fidelity.ssim])
def test_identity_scores_best_and_noise_worst(metric):
    rng = np.random.default_rng(1)
    real = np.stack([_texture(seed) for seed in range(4)])
    scores = [metric(np.clip(real + rng.normal(0, sigma, real.shape), 0, 255).astype(np.uint8), real).mean()
              for sigma in (0, 5, 20, 80)]
    scores.append(metric(rng.integers(0, 256, real.shape, np.uint8), real).mean())
    assert scores == sorted(scores, reverse=True) and len(set(scores)) == len(scores)
    assert metric(real, real) == pytest.approx(fidelity.PSNR_CAP if metric is fidelity.psnr else 1.0)


@pytest.mark.parametrize("pixels", [-17, -3, 0, 2, 24])
def test_shift_is_measured(pixels):
    frame = _texture(2)[None]
    assert control.shift(frame, np.roll(frame, pixels, axis=2)) == pytest.approx(pixels)


def test_turn_sign_both_ways():
    frame = np.stack([_texture(seed) for seed in range(4)])
    to_the_left = np.roll(frame, -5, axis=2)
    right, left = np.full(4, 3.0), np.full(4, -3.0)
    assert control.sign_accuracy(frame, to_the_left, right) == 1
    assert control.sign_accuracy(frame, to_the_left, left) == 0
    assert control.sign_accuracy(to_the_left, frame, left) == 1
    assert control.sign_accuracy(frame, frame, right) == 0, "a picture that stands still does not obey"


def test_drift_of_the_real_frames_themselves_is_none():
    stats = [drift.statistics(_texture(seed)) for seed in range(5)]
    assert drift.compare(stats, stats) == {"sharpness_ratio": 1, "brightness_ratio": 1, "histogram_distance": 0}


def test_drift_sees_blur_darkness_and_other_colours():
    frame = _texture(3)
    real = [drift.statistics(frame)]
    assert drift.compare([drift.statistics(_smeared(frame, 4))], real)["sharpness_ratio"] < 0.8
    dark = drift.compare([drift.statistics(frame // 2)], real)
    assert dark["brightness_ratio"] == pytest.approx(0.5, abs=0.01) and dark["histogram_distance"] > 0.3
    black, white = (drift.statistics(frame // 32 + level) for level in (0, 248))
    assert drift.compare([black], [white])["histogram_distance"] == pytest.approx(1)


# Suites on a synthetic world --------------------------------------------------------------------------------


def test_the_synthetic_world_obeys_the_contract():
    check_world(TurningWorld())


def test_an_obedient_world_beats_its_baselines_where_the_player_turns(streams):
    figures = fidelity.next_frame(material(streams, TurningWorld()), "explorer")
    every, moving = figures["next_frame"], figures["moving"]
    assert every["n"] == 6 * 16 and 0 < moving["n"] < every["n"]
    assert every["psnr"] == moving["psnr"] == pytest.approx(fidelity.PSNR_CAP) and every["ssim"] == pytest.approx(1)
    assert moving["repeat_last_psnr"] < 30 and moving["shuffled_actions_psnr"] < 30
    assert every["codec_psnr"] == pytest.approx(20 * math.log10(255))
    assert every["repeat_last_psnr"] > moving["repeat_last_psnr"], "frames of an idle player repeat"


def test_a_deaf_world_is_no_better_than_its_baselines(streams):
    moving = fidelity.next_frame(material(streams, TurningWorld(is_deaf=True)), "explorer")["moving"]
    assert moving["psnr"] == pytest.approx(moving["repeat_last_psnr"])
    assert moving["psnr"] == pytest.approx(moving["shuffled_actions_psnr"])


def test_free_play_of_the_true_world_is_the_real_stream(streams):
    made = dream(TurningWorld(), streams["tester"], 2)
    assert np.array_equal(made, streams["tester"].frames[2])
    figures = fidelity.rollout_psnr(material(streams, TurningWorld()), "tester")
    assert figures == {"rollout_psnr": {"1": fidelity.PSNR_CAP, "4": fidelity.PSNR_CAP, "16": fidelity.PSNR_CAP},
                       "rollout_n": 4}


@pytest.mark.parametrize("is_deaf", [False, True])
def test_turn_sign_tells_obedient_from_deaf(streams, is_deaf):
    figures = control.turn_sign(material(streams, TurningWorld(is_deaf=is_deaf)), "explorer")
    assert figures["turn_sign"]["n"] > 10 and figures["turn_sign"]["real"] == 1
    assert figures["turn_sign_accuracy"] == (0 if is_deaf else 1)


def test_a_melting_world_drifts_and_a_true_one_does_not(streams):
    true, melting = (drift.drift(material(streams, TurningWorld(blur=blur)), "explorer")["drift"]["100"]
                     for blur in (0, 1))
    assert {name: true[name] for name in true["real"]} == pytest.approx(true["real"]), "it walks as the real one does"
    assert melting["sharpness_ratio"] < 0.5 * melting["real"]["sharpness_ratio"]
    assert true["n"] == 25 and set(true) >= {"sharpness_ratio", "brightness_ratio", "histogram_distance"}


def test_a_world_of_other_keys_is_walked_the_same_way(streams):
    other, asked = TurningWorld(), []
    other.action_space, step = ActionSpace(("mouse_left", "w"), 12.0, look_axes=1), other.step
    other.step = lambda action: asked.append(action) or step(action)
    assert drift.drift(material(streams, other), "explorer") == drift.drift(material(streams, TurningWorld()), "explorer")
    assert len(asked) == 100 and set().union(*(action.keys for action in asked)) == {"w"}


def test_moves_are_seen_from_the_player():
    poses = np.zeros((1, 3, 4), np.float32)
    poses[0, :, :2] = [[0, 0], [0, 5], [3, 5]]
    poses[0, :, 3] = [355, 90, 90]  # looking along +y in the last two
    moves = Streams(np.zeros(0), np.zeros(0), poses, np.zeros(0), 1).moves
    assert moves[0, 1] == pytest.approx([5, 0, -95], abs=1e-5) and moves[0, 2] == pytest.approx([0, 3, 0], abs=1e-5)


def test_seeds_belong_to_evaluation():
    seeds = held_out_seeds(60) + held_out_seeds(20, skip=60)
    assert len(set(seeds)) == 80 and all(map(is_held_out, seeds))


# The report -------------------------------------------------------------------------------------------------


def test_report_has_the_names_scripts_rely_on(streams, tmp_path):
    made = material(streams, TurningWorld())
    figures = report.evaluate(made)
    names = {"psnr", "ssim", "n", "repeat_last_psnr", "shuffled_actions_psnr", "codec_psnr"}
    for part in (figures, figures["tester"]):
        assert set(part["next_frame"]) == set(part["moving"]) == names
        assert set(part["rollout_psnr"]) == {"1", "4", "16"}
    assert 0 <= figures["turn_sign_accuracy"] <= 1 and "100" in figures["drift"] and "drift" not in figures["tester"]
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    table = report.markdown(figures | {"quick": True, "compare": figures, "device_name": "", "context_sigma": 0.1})
    assert table.count("turning, explorer") == 2 and "| moving shuffled_actions_psnr |" in table
    figures["tester"]["turn_sign_accuracy"] = None
    assert "| turn_sign_accuracy | 1.000 |  |" in report.markdown(figures | {"device_name": "", "context_sigma": 0.1})
    report._write_pictures(made, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"contact_sheet.png", "side_by_side.mp4"}


def test_contact_sheet_holds_its_frames():
    frames = np.stack([_texture(seed) for seed in range(3)])
    sheet = pictures.contact_sheet([("real", frames), ("dream", frames[::-1])], ["1", "4", "16"])
    assert np.array_equal(sheet[-HEIGHT - 2:-2, -WIDTH - 2:-2], frames[0])
    assert np.array_equal(sheet[14:14 + HEIGHT, 64:64 + WIDTH], frames[0])


def test_only_worlds_that_show_the_same_frames_are_compared():
    other = TurningWorld()
    other.fps = other.fps / 2
    with pytest.raises(ValueError, match="differ in frame rate"):
        report.prepare([TurningWorld(), other], report.QUICK, report.track)


def test_a_compared_world_is_told_the_actions_in_its_own_keys():
    mine, theirs = ActionSpace(("a", "mouse_left", "w"), 12.0, look_axes=1), ActionSpace(("w", "a"), 6.0, look_axes=1)
    done = [Action({"w", "mouse_left"}, (6.0, 0.0)), Action({"a"}, (-3.0, 0.0)), Action(), Action({"w"}, (12.0, 0.0))]
    vectors = np.stack([mine.encode(action) for action in done]).reshape(2, 2, -1)
    streams = Streams(np.zeros((2, 2, 4, 4, 3), np.uint8), vectors, np.zeros((2, 2, 4), np.float32), np.arange(2), 1)
    told = told_in(streams, mine, theirs)
    assert [theirs.decode(vector) for vector in told.actions.reshape(4, -1)] == [
        Action({"w"}, (6.0, 0.0)), Action({"a"}, (-3.0, 0.0)), Action(), Action({"w"}, (6.0, 0.0))]
    assert told_in(streams, mine, mine) is streams


def test_compared_worlds_share_the_streams_of_the_first_ones_environment(streams, monkeypatch):
    other, asked = TurningWorld(), []
    other.action_space, other.info = ActionSpace(("w", "q"), 12.0, look_axes=1), other.info | {"env": "another", "window": 9}

    def real_streams(env, *, player, context, **_):
        asked.append((env, context))
        return streams[player]
    monkeypatch.setattr(report, "open_env", lambda env: TurningWorld())
    monkeypatch.setattr(report, "real_streams", real_streams)
    ours, theirs = report.prepare([TurningWorld(), other], report.QUICK, report.track)
    assert asked == [("turning", 9)] * 2, "as many frames before as the larger window holds"
    for player in report.PLAYERS:
        assert ours.streams[player] is streams[player] and theirs.streams[player].frames is streams[player].frames
        assert np.array_equal(theirs.streams[player].actions[..., 0], streams[player].actions[..., 0])
        assert not theirs.streams[player].actions[..., 1].any()
        np.testing.assert_allclose(theirs.streams[player].actions[..., 2], streams[player].actions[..., 4], atol=1e-6)


# The real game ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def maze():
    world = open_env("doom-maze")
    yield world
    world.close()


def test_the_real_game_reaches_the_ceiling_of_turn_sign(maze):
    real = stack((play_rollout(maze, num_frames=64, seed=seed) for seed in held_out_seeds(8)), context=4)
    made = Material(world=maze, streams={"explorer": real}, open_real=None, num_targets=0, num_dreams=8, walks=())
    made._dreams["explorer"] = real.frames
    figures = control.turn_sign(made, "explorer")
    assert figures["turn_sign"]["n"] > 50 and figures["turn_sign_accuracy"] >= 0.97


def test_a_clip_that_cannot_be_compared_is_said_before_it_is_played(tmp_path, monkeypatch):
    monkeypatch.setattr(replay, "open_for", lambda *arguments: pytest.fail("the world was opened"))
    frame = _texture(0)
    header = describe(TurningWorld(), scene="start")
    writer = ClipWriter(tmp_path / "a", header, actions=[Action()] * 9, first=0)
    for i in range(9):
        writer.add(frame, i, Action(), {})
    writer.finish()
    writer.wait()
    whole = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "b.mp4").mkdir()
    for out, kind, words in (("a.mp4", ValueError, "the clip itself"), ("b.mp4", OSError, "it is a folder")):
        with pytest.raises(kind, match=words):
            replay.run_replay(tmp_path / "a", out=tmp_path / out)
    for kept in (0, 0.5, 0.9):
        (tmp_path / "a.mp4").write_bytes(whole[:round(kept * len(whole))])
        with pytest.raises(WorldError, match="a.mp4: its video is damaged"):
            replay.run_replay(tmp_path / "a", out=tmp_path / "c.mp4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.mp4", "b.mp4"]


def test_a_clip_of_the_real_game_replays_bit_equal(maze, tmp_path):
    maze.reset(seed=7)
    actions = [Action(), *[Action(frozenset({"w"}), (3.0, 0.0))] * 12]
    header = describe(maze, scene="start") | {"seed": 7}

    def record(path, actions, played):
        frames = [maze.reset(seed=7)[-1], *(frame for action in played[1:] for frame in maze.step(action))]
        writer = ClipWriter(path, header, actions=actions[:4], first=3)
        for i in range(3, len(frames)):
            writer.add(frames[i], i, actions[i], {})
        writer.finish()
        writer.wait()

    record(tmp_path / "true", actions, actions)
    figures = replay.run_replay(tmp_path / "true", out=tmp_path / "again.mp4")
    assert figures["is_equal"] and figures["frames"] == 10 and figures["psnr"]["min"] == fidelity.PSNR_CAP
    assert (tmp_path / "again.mp4").is_file() and (tmp_path / "again.json").is_file()
    with pytest.raises(ValueError, match="--vae: true.mp4 is of the real game, which no codec shows; leave it out"):
        replay.run_replay(tmp_path / "true", vae=True)

    other = [*actions[:8], Action(frozenset({"w"}), (-3.0, 0.0)), *actions[9:]]
    record(tmp_path / "false", actions, other)
    figures = replay.run_replay(tmp_path / "false")
    assert not figures["is_equal"] and figures["first_difference_frame"] == 8 - 3


def test_evaluation_needs_no_scikit_image():
    source = [importlib.util.find_spec(f"worldplay.eval.{name}").loader.get_source(f"worldplay.eval.{name}")
              for name in ("fidelity", "control", "drift", "latency", "streams", "report", "pictures")]
    assert not any("skimage" in text for text in source)

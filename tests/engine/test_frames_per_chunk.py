"""Chunk-wise worlds: several frames made together, by the number that makes frame-wise ones with 1."""
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import train_world
from tests.engine.test_dream import CONFIG, SPACE, WALK, context, networks
from tests.train.stages.test_stages import MODEL, call_of, data, decode, spread
from worldplay import runtime
from worldplay.action import Action
from worldplay.cli import play
from worldplay.diffusion import (
    add_noise,
    euler_step,
    frame_noise,
    sample_frame,
    shifted_sigmas,
    warped_sigmas,
)
from worldplay.engine.dream import DreamWorld
from worldplay.engine.sampler import CONTEXT_STEP
from worldplay.errors import WorldError
from worldplay.train.stages.causal_cd import CausalCDConfig, CausalCDStage
from worldplay.train.stages.causal_ode import causal_trajectories
from worldplay.train.stages.context import Context, ContextConfig
from worldplay.train.stages.dmd import recompute, self_rollout
from worldplay.train.stages.draws import Draws
from worldplay.train.stages.teacher_forcing import TeacherForcingConfig, TeacherForcingStage
from worldplay.world import check_world

CHUNK = 2
CONTEXT = ContextConfig(window=4, frames_per_chunk=CHUNK, own_steps=0.5)


def chunk_world(**fields):
    transformer, codec = networks()
    return DreamWorld(replace(CONFIG, **{"frames_per_chunk": CHUNK} | fields), transformer, codec,
                      device=torch.device("cpu"), dtype=torch.float32, dtype_reason="test")


def encoded(actions):
    return torch.from_numpy(np.stack([SPACE.encode(action) for action in actions]))


def batch_and_draws(length=8):
    draws = Draws(0, 0, range(2))
    return data(length).batch(draws), draws


def test_contract():
    check_world(chunk_world())


@pytest.mark.parametrize("num_real", [2, 4])
def test_play_equals_the_training_forward_over_whole_sequences(num_real):
    """Over three windows, with the dense mask: frames of a step share an action, each moves the camera's
    column on.
    """
    world = chunk_world()
    frames, actions = context(num_real)
    world.reset(frames=frames, actions=actions)
    made = np.stack([frame for action in WALK[:5] for frame in world.step(action)])
    assert len(made) == 5 * CHUNK

    transformer, codec = networks()
    vectors = encoded([*actions, *(action.share(CHUNK) for action in WALK[:5] for _ in range(CHUNK))])
    yaw = vectors[:, 2].double() * 10 * CONFIG.columns_per_degree
    yaw[0] = 0
    columns, known = yaw.cumsum(0)[None], torch.arange(len(vectors))[None] > 0
    with torch.inference_mode():
        latents = codec.encode_uint8(torch.from_numpy(frames))[None]
        for i in range(5):
            now, end = latents.shape[1], latents.shape[1] + CHUNK
            spoiling = [frame_noise(0, j, CONTEXT_STEP, latents[:, j].shape) for j in range(now)]
            past = add_noise(latents, torch.stack(spoiling, dim=1), 0.1)

            def velocity(x, sigma):
                clean = torch.cat([past, torch.zeros_like(x)], dim=1)
                noisy = torch.cat([torch.zeros_like(past), x], dim=1)
                return transformer(noisy, sigma, clean=clean, clean_sigma=0.1, window=CONFIG.window,
                                   frames_per_chunk=CHUNK, actions=vectors[None, :end], attention="plain",
                                   action_mask=known[:, :end], columns=columns[:, :end])[:, -CHUNK:]

            def noise(step):
                return torch.stack([frame_noise(0, j, step, latents[:, 0].shape) for j in range(now, end)], 1)
            x0 = sample_frame(velocity, noise, warped_sigmas(4 if i == 0 else 2))
            latents = torch.cat([latents, x0], dim=1)
            # uint8 frames may round differently by one level; the latents behind them agree to 1e-5
            shown = codec.decode_uint8(x0[0]).numpy().astype(int)
            assert np.abs(shown - made[now - num_real:end - num_real]).max() <= 1


@pytest.mark.parametrize("yaw, told", [(5, 5), (-10, -10), (20, 20), (50, 20)])
def test_a_movement_of_the_mouse_counts_once_for_a_chunk_and_a_key_in_all_of_it(yaw, told):
    """Up to the look limit, 10 degrees here, in each of its frames."""
    worlds = [chunk_world() for _ in range(2)]
    for world in worlds:
        world.reset(seed=1)
    stepped = np.stack(list(worlds[0].step(Action({"w"}, (yaw, 0)))))
    walked = np.stack(list(worlds[1].walk([Action({"w"}, (told / CHUNK, 0))] * CHUNK)))
    assert np.array_equal(stepped, walked)
    columns = [world.state.controls.item() for world in worlds]
    assert columns[0] == columns[1] == pytest.approx(told * CONFIG.columns_per_degree)


@pytest.mark.parametrize("given, used", [(1, [0, 0]), (2, [0, 1]), (3, [1, 2]), (5, [1, 2, 3, 4])])
def test_a_start_of_any_length_is_brought_to_whole_chunks(given, used):
    """A start of one frame stands still for a chunk; a longer one loses its oldest frames."""
    frames, actions = context(given)
    whole = [Action(), *(actions[i] if given > 1 else Action() for i in used[1:])]
    shown = []
    for start in ((frames, actions), (frames[used], whole)):
        world = chunk_world()
        world.reset(frames=start[0], actions=start[1])
        shown.append(np.stack([frame for action in WALK[:3] for frame in world.step(action)]))
    assert np.array_equal(*shown)


def test_following_real_frames_equals_a_walk_from_them_with_the_actions_of_every_frame():
    frames, actions = context(7)
    world = chunk_world()
    made = list(world.follow(frames[None], encoded(actions)[None].numpy(), start=3))
    assert len(made) == 4
    for chunk, last in ((0, 3), (2, 5)):  # frame 0 is left out, because a chunk begins at frame 3
        world.reset(frames=frames[1:last], actions=actions[1:last])
        world.state.first_generated = None  # the first frames of play take more sampling steps
        for (follow,), alone in zip(made[chunk:chunk + 2], world.walk(actions[last:last + 2]), strict=True):
            assert np.abs(follow[0].astype(int) - alone).max() <= 1


def test_free_play_in_a_batch_equals_the_walk_of_each():
    frames, actions = context(4)
    world, given = chunk_world(), encoded([*actions, *WALK[:5]]).numpy()
    starts = np.stack([frames, frames[::-1]])
    followed = world.follow(starts, np.stack([given, given]), start=4, is_free=True)
    made = np.stack([both for (both,) in followed])
    assert len(made) == 5, "the last chunk is cut where the actions end"
    for i, start in enumerate(starts):
        world.reset(frames=start, actions=actions)
        alone = np.stack(list(world.walk(WALK[:5])))
        assert np.abs(made[:, i].astype(int) - alone).max() <= 1


def test_a_walk_ends_where_its_actions_end_and_an_unfinished_step_is_refused():
    world = chunk_world()
    frames, actions = context(2)
    world.reset(frames=frames, actions=actions)
    assert len(list(world.walk(WALK[:3]))) == 3
    step = world.step(WALK[0])
    next(step)
    with pytest.raises(WorldError, match="not run to its end"):
        next(world.step(WALK[0]))
    assert len(list(step)) == CHUNK - 1
    world.snapshot()


@pytest.mark.parametrize("leave", ["restore", "reset"])
def test_a_step_left_by_a_reset_or_a_snapshot_changes_nothing_of_what_follows(leave):
    """Its iterator may still be held, and advanced later: it ends, and commits nothing to the new past."""
    world = chunk_world()
    frames, actions = context(2)
    world.reset(frames=frames, actions=actions)
    state = world.snapshot()
    expected = np.stack(list(world.walk(WALK)))
    world.restore(state)
    left = world.step(Action({"d"}))
    next(left)
    if leave == "restore":
        world.restore(state)
    else:
        world.reset(frames=frames, actions=actions)
    assert list(left) == [] and world.state.frame == 2
    assert np.array_equal(np.stack(list(world.walk(WALK))), expected)


def test_frames_of_a_chunk_see_each_other_and_no_later_chunk():
    torch.manual_seed(0)
    stage = TeacherForcingStage(TeacherForcingConfig(), MODEL, CONTEXT, decode)
    stage.models["student"].load_state_dict(spread().state_dict())
    batch, draws = batch_and_draws()
    x, sigma = draws.normal("x", 8, 2, 4, 4), torch.full((2, 8), 0.7)
    later, within = ({name: value.clone() for name, value in batch.items()} for _ in range(2))
    later["latents"][:, 4:] += 1
    later["actions"][:, 4:] = 0.5
    later["columns"][:, 4:] += 2
    within["actions"][:, 3] = 0.5
    outputs = []
    for part in (batch, later, within):
        context = Context(CONTEXT, part, draws).augment(call_of(stage), "student", draws)
        outputs.append(context.predict(call_of(stage), "student", x, sigma))
    plain, later, within = outputs
    assert torch.equal(plain[:, :4], later[:, :4]) and not torch.equal(plain[:, 4:], later[:, 4:])
    assert torch.equal(plain[:, :2], within[:, :2]) and not torch.equal(plain[:, 2], within[:, 2])


def test_all_frames_of_a_chunk_train_at_one_noise_level():
    asked = []

    def call(role, function, x, sigma, **conditions):
        asked.append(sigma)
        return torch.zeros_like(x)
    torch.manual_seed(0)
    batch, draws = batch_and_draws()
    for stage in (TeacherForcingStage(TeacherForcingConfig(), MODEL, CONTEXT, decode),
                  CausalCDStage(CausalCDConfig(), MODEL, CONTEXT, spread().state_dict(), decode)):
        asked.clear()
        stage.loss("student", batch, draws, call)
        levels = asked[-1]
        assert torch.equal(levels[:, ::2], levels[:, 1::2]) and len(levels[:, ::2].unique()) == 8


def test_trajectories_on_the_cache_equal_whole_sequences():
    teacher, (batch, draws) = spread(), batch_and_draws()
    noise = draws.normal("start", 8, 2, 4, 4)
    made = causal_trajectories(teacher, batch, noise, CONTEXT, num_timesteps=8)
    whole = Context(CONTEXT, batch, draws).keep()
    whole.conditions["action_mask"] = torch.arange(8).expand(2, 8) > 0
    x, levels = noise, [*shifted_sigmas(8).tolist(), 0.0]
    with torch.no_grad():
        for sigma, lower in zip(levels, levels[1:]):
            sigmas = torch.full((2, 8), sigma)
            velocity = whole.predict(lambda _, function, *args, **kwargs: function(teacher, *args, **kwargs),
                                     "", x, sigmas)
            x = euler_step(x, velocity, sigma, lower)
    torch.testing.assert_close(made[:, :, -1], x, atol=2e-5, rtol=1e-5)


class PlayDraws:
    """Draws that give a rollout the noise of play, and let every chunk take all its steps."""

    def normal(self, purpose, *shape):
        if purpose == "context noise":
            return torch.zeros(1, *shape)
        frame, step = map(int, purpose.split()[1:])
        return frame_noise(0, frame, step, (1, *shape))

    def shared_integer(self, purpose, below):
        return below - 1


def test_a_rollout_is_what_the_engine_plays():
    world = chunk_world(context_sigma=0.0)
    frames, actions = context(2)
    world.reset(frames=frames, actions=actions)
    played = np.stack([frame for action in WALK[:4] for frame in world.step(action)])

    transformer, codec = networks()
    vectors = encoded([*actions, *(action.share(CHUNK) for action in WALK[:4] for _ in range(CHUNK))])[None]
    yaw = vectors[..., 2].double() * 10 * CONFIG.columns_per_degree
    yaw[:, 0] = 0
    latents = torch.zeros(1, vectors.shape[1], *CONFIG.latent_shape)
    with torch.no_grad():
        latents[:, :2] = codec.encode_uint8(torch.from_numpy(frames))
        batch = {"latents": latents, "actions": vectors, "columns": yaw.cumsum(1)}
        made = self_rollout(transformer, batch, PlayDraws(), CONTEXT, num_steps=2, first_steps=4,
                            num_real=2).frames
        shown = codec.decode_uint8(made[0, 2:]).numpy()
    assert np.abs(shown.astype(int) - played).max() <= 1


def test_recomputed_chunks_are_the_rollout_and_no_later_chunk_reaches_an_earlier_one():
    student, (batch, draws) = spread(), batch_and_draws()
    asked, denoise = [], student.denoise

    def watched(x, sigma, cache, chunk, *text):
        asked.append((chunk.frame, x.shape[1]))
        return denoise(x, sigma, cache, chunk, *text)
    student.denoise = watched
    played = self_rollout(student, batch, draws, CONTEXT, num_steps=2, num_real=2)
    assert {frame for frame, _ in asked} == {2, 4, 6} and {size for _, size in asked} == {CHUNK}
    played.past.requires_grad_()
    again = recompute(student, played, batch, CONTEXT)
    torch.testing.assert_close(again, played.frames, atol=1e-5, rtol=1e-5)

    def gradient(frames, by):
        made = recompute(student, played, batch, CONTEXT, num_trained=3, trains_past=by is played.past)
        return torch.autograd.grad(made[:, frames].square().sum(), by)[0]
    weight = student.head.head.weight
    assert not gradient(slice(0, 5), weight).any() and gradient(slice(5, 8), weight).any()
    reach = gradient(slice(6, 7), played.past).flatten(2).abs().amax(dim=(0, 2)) > 0
    assert reach.tolist() == [False] * 2 + [True] * 4 + [False] * 2  # two layers look two windows back


@pytest.fixture
def uncompiled(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(runtime, "pick_compile", lambda device: (False, "this is a test"))


def test_the_chain_makes_a_chunk_wise_world_that_plays(tmp_path, uncompiled, capsys):
    out = tmp_path / "run"
    assert train_world.main([
        "tiny-maze", "--out", str(out), "--steps", "1", "--dmd-loop.share", "0.1",
        "--bidirectional-loop.share", "0.1", "--decoder-loop.share", "0", "--context-walk", "0",
        "--num-frames", "800", "--rollout-frames", "40", "--context.frames-per-chunk", "4",
        "--dmd.num-real", "4", "--transformer.num-layers", "1"]) == 0
    assert json.loads((out / "config.json").read_text())["frames_per_chunk"] == 4
    capsys.readouterr()
    assert play.main([str(out), "--headless", "--script", "w*2, w+look(4,0)*3", "--device", "cpu", "--json",
                      "--out", str(tmp_path / "clip.mp4")]) == 0
    # a script says what leads to every latent
    assert json.loads(capsys.readouterr().out)["frames"] == 5


@pytest.mark.parametrize("flags, words", [
    (("--length", "18"), "--length 18: expected whole chunks of 4"),
    (("--dmd-loop.share", "0.1", "--bidirectional-loop.share", "0.1"),
     "--dmd.num-real 1: expected whole chunks"),
    (("--context.window", "3"), "window 3 has no room"),
])
def test_numbers_that_are_no_whole_chunks_are_refused_in_one_line(tmp_path, flags, words, uncompiled, capsys):
    assert train_world.main(["tiny-maze", "--out", str(tmp_path / "run"), "--steps", "1",
                             "--context.frames-per-chunk", "4", *flags]) == 2
    assert words in capsys.readouterr().err.strip().splitlines()[-1]

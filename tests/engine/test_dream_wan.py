"""Worlds of the Wan shape at toy size, played as published ones are: text, camera, chunks, video codecs."""
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.parity import video_codec
from worldplay.action import Action, ActionSpace, parse_script
from worldplay.camera import CAMERA_SPACE, REACH, TRAINING_INTRINSICS, viewmats
from worldplay.diffusion import frame_noise, sample_frame, warped_sigmas
from worldplay.engine.dream import DreamWorld
from worldplay.errors import WorldError
from worldplay.models import conditioning
from worldplay.models.attention.prope import Cameras
from worldplay.models.codecs.image import to_float, to_uint8
from worldplay.models.configs import TransformerConfig
from worldplay.models.transformer import Transformer
from worldplay.world import check_world
from worldplay.worlds.config import VideoWorldConfig

SIZE = (32, 48)
MODEL = TransformerConfig(dim=32, ffn_dim=64, num_heads=2, num_layers=2, in_channels=16, out_channels=16,
                          freq_dim=32,
                          text_dim=8, text_len=6, has_camera=True)
TEXT_SPACE = ActionSpace((), 1.0, look_axes=0)
CONFIG = VideoWorldConfig(name="toy-wan", env=None, action_space=CAMERA_SPACE, frame_size=SIZE, fps=16.0,
                          transformer=MODEL,
                     parts={"codec": "taew2_1", "vae": "wan-vae", "text": "umt5-xxl"}, steps=2, window=5,
                     sink=0, sink_position="absolute", context_sigma=0.0, intrinsics=TRAINING_INTRINSICS,
                     prompt="a hall")
ROWS = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
WALK = [Action({"w"}), Action({"l"}), Action({"d"}), Action(look=(2.0, 0.0)), Action({"w", "j"}),
        Action({"w"})] * 2


def spread(config, seed=0):
    """A transformer none of whose weights is zero, so that everything matters."""
    torch.manual_seed(seed)
    model = Transformer(config)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.2)
    return model.requires_grad_(False)


def world_of(config=CONFIG, **fields):
    config = replace(config, **fields)
    if config.intrinsics is None:
        config = replace(config, transformer=replace(config.transformer, has_camera=False))
    world = DreamWorld(config, spread(config.transformer), video_codec("taehv"), device=torch.device("cpu"),
                       dtype=torch.float32, dtype_reason="test", seed=3)
    world.set_prompt("a hall", ROWS)
    return world


def text_only():
    return world_of(replace(CONFIG, transformer=replace(MODEL, has_camera=False), intrinsics=None,
                            action_space=TEXT_SPACE))


def play(world, actions):
    return [np.stack(list(world.step(action))) for action in actions]


@pytest.mark.parametrize("make", [world_of, text_only, lambda: world_of(frames_per_chunk=2, window=6),
                                  lambda: world_of(sink=1, sink_position="before_window")],
                         ids=["camera", "text", "chunks", "sink"])
def test_contract(make):
    check_world(make())


def test_frame_counts_are_those_of_the_latents():
    world = world_of()
    assert world.scenes == ("text",) and len(world.reset()) == 1
    assert [len(frames) for frames in play(world, WALK[:3])] == [4, 4, 4]
    chunked = world_of(frames_per_chunk=2, window=6)
    assert len(chunked.reset()) == 5 and [len(frames) for frames in play(chunked, WALK[:2])] == [8, 8]


@pytest.mark.parametrize("size", [1, 2])
def test_play_equals_whole_sequences(size):
    """Over three windows: the cache, the rig and the codec's stream against one dense pass a step over all
    latents.
    """
    world = world_of(frames_per_chunk=size, window=3 * size)
    shown = [world.reset(), *play(world, WALK[:8])]
    model, codec = spread(MODEL), video_codec("taehv")
    walked = [action.share(size) for action in WALK[:8] for _ in range(size)]
    poses = viewmats([Action()] * (size - 1) + walked)
    latents = torch.zeros(1, 0, 16, SIZE[0] // 8, SIZE[1] // 8)
    for chunk in range(9):
        start = chunk * size
        cameras = Cameras.of(torch.from_numpy(poses[:start + size])[None], TRAINING_INTRINSICS)

        def velocity(x, sigma):
            sigmas = torch.tensor([[0.0] * start + [sigma] * size])
            return model(torch.cat([latents, x], dim=1), sigmas, text=ROWS[None], cameras=cameras,
                         window=3 * size,
                         frames_per_chunk=size, attention="plain")[:, start:]

        def noise(step):
            return torch.stack([frame_noise(3, start + i, step,
                                            (1, *latents.shape[2:])) for i in range(size)], dim=1)
        made = sample_frame(velocity, noise, warped_sigmas(2 if chunk else 4))
        latents = torch.cat([latents, made], dim=1)
    whole = to_uint8(codec.decode(latents))[0].numpy()
    assert np.abs(whole.astype(int) - np.concatenate(shown)).max() <= 1


def test_keys_and_text_decide_what_is_seen():
    world = world_of()
    world.reset()
    start = world.snapshot()

    def after(action=Action({"w"}), rows=ROWS):
        world.restore(start)
        world.set_prompt("other" if rows is not ROWS else "a hall", rows)
        return play(world, [action])[0]
    assert np.array_equal(after(), after())
    assert not np.array_equal(after(), after(Action({"s"}))) and not np.array_equal(after(),
                                                                                    after(rows=-ROWS))
    world.restore(start)
    assert world.info["prompt"] == "a hall" and np.array_equal(play(world, [Action({"w"})])[0], after())


def test_a_text_given_within_a_step_counts_from_the_next_one_on():
    """The frames of a chunk are committed under the text that they were sampled by."""
    ahead = []
    for is_within in (True, False):
        world = world_of()
        world.reset()
        frames = world.step(Action({"w"}))
        next(frames)
        if is_within:
            world.set_prompt("other", -ROWS)
        assert len(list(frames)) == 3
        world.set_prompt("other", -ROWS)
        ahead.append(play(world, WALK[:2]))
    assert all(np.array_equal(a, b) for a, b in zip(*ahead))


def test_a_snapshot_holds_the_codec_and_the_camera():
    world = world_of()
    world.reset()
    play(world, WALK[:4])
    state, ahead = world.snapshot(), play(world, WALK[4:])
    play(world, WALK)
    world.restore(state)
    assert all(np.array_equal(a, b) for a, b in zip(ahead, play(world, WALK[4:])))


def test_an_unusual_movement_is_noted():
    world = world_of()
    world.reset()
    notes = [list(world.step(action)) and world.info["note"] for action in
             (Action({"w"}), Action(), Action({"w", "d"}), Action({"j"}))]
    assert [bool(note) for note in notes] == [False, True, True, False]
    list(world.step(Action()))
    world.reset()
    assert not world.info["note"], "it was of the time before"


def test_the_mouse_turns_a_chunk_as_far_as_the_hand_did_and_the_keys_as_long_as_they_are_held():
    world = world_of(frames_per_chunk=4, window=8)
    for action, degrees, is_noted in ((Action(look=(3, 0)), 3, True), (Action(look=(12, 0)), 12, False),
                                      (Action(look=(90, 0)), 12, False), (Action({"l"}), 12, False)):
        world.reset()
        play(world, [action])
        forward = world.state.controls.pose[:3, 2]
        assert np.degrees(np.arctan2(forward[0], forward[2])) == pytest.approx(degrees), action
        assert bool(world.info["note"]) == is_noted, "full speed is what the networks have seen"


def test_it_goes_on_past_the_window_and_far_from_where_it_began():
    world = world_of()
    world.reset()
    for _ in range(int(REACH / 0.08) + 20):  # a new anchor on the way
        frames, = play(world, [Action({"w"})])
    assert frames.std() > 0 and np.linalg.norm(world.state.controls.pose[:3, 3]) < REACH


@pytest.mark.parametrize("script, num_latents", [("w*19", 20), ("w*9,j*10", 20), ("l*2", 4), ("d*5", 8)])
def test_a_script_leads_to_the_latents_of_published_poses(script, num_latents, monkeypatch):
    """Action by action from the first chunk on; only what fills the last chunk up is more."""
    world, told, of = world_of(frames_per_chunk=4, window=8), [], Cameras.of

    def listen(viewmats, focal):
        told.append(viewmats[0].numpy())
        return of(viewmats, focal)
    monkeypatch.setattr(conditioning.Cameras, "of", listen)
    actions = parse_script(script, CAMERA_SPACE)
    shown = list(world.rollout(actions))
    poses, made = viewmats(actions), np.concatenate(told)
    assert len(made) == num_latents and np.array_equal(made[:len(poses)], poses)
    assert [len(frames) for frames in shown] == [1] + [4] * len(actions)


def test_steps_and_a_rollout_of_the_same_actions_are_one_world():
    world = world_of(frames_per_chunk=2, window=6)
    stepped = np.concatenate([world.reset(), *play(world, WALK[:4])])
    rolled = list(world.rollout([Action(), *(action.share(2) for action in WALK[:4] for _ in range(2))]))
    assert np.array_equal(stepped, np.concatenate(rolled))


@pytest.mark.parametrize("size", [1, 2])
def test_an_image_start_is_its_latent_and_a_chunk_is_filled_standing_still(size):
    world = world_of(frames_per_chunk=size, window=3 * size)
    frames = np.random.default_rng(0).integers(0, 256, (1, *SIZE, 3), np.uint8)
    assert np.array_equal(world.reset(frames=frames, actions=[Action()]), frames)
    assert (world.state.frame, world.state.first_generated) == (size, size)
    shown, = play(world, [Action({"w"})])
    assert len(shown) == 4 * size  # the codec remembers the start: no latent is its first one again
    codec = video_codec("taehv")
    still = codec.encode(to_float(torch.from_numpy(frames.repeat(4 * size - 3, axis=0)))[None])
    other = world_of(frames_per_chunk=size, window=3 * size)
    other.reset(frames=frames.repeat(4 * size - 3, axis=0), actions=[Action()] * (4 * size - 3))
    assert still.shape[1] == size and np.array_equal(play(other, [Action({"w"})])[0], shown)


def test_a_world_without_a_text_says_so():
    world = DreamWorld(CONFIG, spread(MODEL), video_codec("taehv"), device=torch.device("cpu"),
                       dtype=torch.float32,
                       dtype_reason="test")
    with pytest.raises(WorldError, match="give it one"):
        world.reset()

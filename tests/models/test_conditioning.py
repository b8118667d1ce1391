"""Play and training give the transformer the same bits: actions, hidden first action, columns, cameras."""
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.engine import test_dream_wan
from tests.engine.test_dream import CONFIG, SPACE, context
from tests.engine.test_frames_per_chunk import chunk_world
from worldplay.action import Action
from worldplay.camera import CAMERA_SPACE
from worldplay.models.attention.prope import Cameras
from worldplay.models.conditioning import frame_conditions, yaw_columns
from worldplay.train.stages.context import Context, ContextConfig, chunk_conditions
from worldplay.train.stages.draws import Draws
from worldplay.train.video_windows import Cut, latent_viewmats
from worldplay.train.windows import LatentWindows


def random_actions(space, count, seed=0):
    rng = np.random.default_rng(seed)
    return [space.fit(Action({key for key in space.keys if rng.random() < 0.3}, rng.uniform(-9, 9, 2)))
            for _ in range(count)]


def listen(world, monkeypatch):
    """A list that receives what the world's transformer is given for every chunk, besides its index."""
    given, prepare = [], world.transformer.prepare

    def listening(cache, shape, *, frame, **conditions):
        given.append(conditions)
        return prepare(cache, shape, frame=frame, **conditions)
    monkeypatch.setattr(world.transformer, "prepare", listening)
    return given


def joined(chunks, name):
    return torch.cat([chunk[name] for chunk in chunks], dim=1)


def masks(chunks):
    """The action masks of chunks; None hides nothing."""
    return torch.cat([torch.ones(chunk["actions"].shape[:2], dtype=torch.bool) if chunk["action_mask"] is None
                      else chunk["action_mask"] for chunk in chunks], dim=1)


@pytest.mark.parametrize("size", [1, 2])
def test_actions_and_columns(size, monkeypatch):
    """A clip of which play is given the first frames, and then the actions of the others."""
    frames, _ = context(8)
    actions = random_actions(SPACE, 20)
    world = chunk_world(frames_per_chunk=size)
    play = listen(world, monkeypatch)
    world.reset(frames=frames, actions=actions[:8])
    list(world.walk(actions[8:]))

    encoded = np.stack([SPACE.encode(action) for action in actions])
    episodes = np.array([[0, 20, 0]])
    windows = LatentWindows(np.zeros((20, *CONFIG.latent_shape)), encoded, episodes, episodes, 20, SPACE,
                            CONFIG.columns_per_degree)
    batch = windows.at([0])
    whole = Context(ContextConfig(frames_per_chunk=size, null_actions=0.0), batch,
                    Draws(0, 0, [0])).conditions
    rollout = [chunk_conditions(batch, slice(i, i + size)) for i in range(0, 20, size)]
    for train in ([whole], rollout):
        assert torch.equal(joined(play, "columns"), joined(train, "columns"))
        assert torch.equal(masks(play), masks(train)) and masks(play).tolist() == [[False] + [True] * 19]
        known = masks(play)[..., None]  # no value of a hidden action counts
        assert torch.equal(joined(play, "actions") * known, joined(train, "actions") * known)
    assert joined(play, "columns")[0, 0] == 0 and joined(play, "columns").abs().max() > 1
    assert joined(play, "columns").dtype == torch.float64


@pytest.mark.parametrize("size", [1, 2])
def test_cameras(size, monkeypatch):
    """Frames of a start have an action each, four lead to a latent; later ones are steps of a latent."""
    world = test_dream_wan.world_of(frames_per_chunk=size, window=6)
    led, later = random_actions(CAMERA_SPACE, 1 + 4 * 3), random_actions(CAMERA_SPACE, 6, seed=1)
    led = [action.share(2) for action in led]  # so slow that no turn of a latent meets the limit of a step
    later = [Action(action.keys - set("ijkl"), action.look) for action in later]
    play = listen(world, monkeypatch)
    frames = np.random.default_rng(0).integers(0, 256, (len(led), *world.frame_size, 3), np.uint8)
    world.reset(frames=frames, actions=led)
    list(world.walk(later))

    rows = [*led, *(action.share(4) for action in later for _ in range(4))]
    cache = SimpleNamespace(action_space=CAMERA_SPACE,
                            actions=np.stack([CAMERA_SPACE.encode(row) for row in rows]))
    viewmats = latent_viewmats(cache, Cut(1.0, 10), 0)
    batch = {"latents": torch.zeros(1, 10, 16, 4, 6), "viewmats": torch.from_numpy(viewmats)[None],
             "focal": torch.tensor(world.config.intrinsics).expand(1, 10, 2)}
    whole = Context(ContextConfig(frames_per_chunk=size), batch, Draws(0, 0, [0])).conditions["cameras"]
    rollout = [chunk_conditions(batch, slice(i, i + size))["cameras"] for i in range(0, 10, size)]
    for train in (whole, Cameras(*(torch.cat(parts, dim=1) for parts in zip(*rollout)))):
        for field in Cameras._fields:
            given = torch.cat([getattr(chunk["cameras"], field) for chunk in play], dim=1)
            assert torch.equal(given, getattr(train, field)), field
    assert torch.equal(whole.matrices[0, 0].diagonal(), torch.tensor([*world.config.intrinsics, 1.0, 1.0]))


def test_columns_add_up_and_leave_out_what_led_to_the_first_frame():
    actions = torch.tensor([[[1.0, 0.0, 0.5], [0.0, 0.0, 0.5], [0.0, 1.0, -0.25]]])
    assert yaw_columns(actions, SPACE, 0.2).tolist() == [[0.0, 1.0, 0.5]]
    before = torch.tensor([[4.0]], dtype=torch.float64)
    assert yaw_columns(actions, SPACE, 0.2, frame=7, before=before).tolist() == [[5.0, 6.0, 5.5]]
    assert not yaw_columns(actions, SPACE, 0.0).any()


def test_the_first_action_of_a_sequence_is_hidden_whatever_else_is_known():
    inputs = {"actions": torch.ones(2, 3, 3), "columns": torch.zeros(2, 3)}
    known = torch.tensor([[True, False, True], [True, True, True]])
    assert frame_conditions(inputs)["action_mask"].tolist() == [[False, True, True]] * 2
    assert frame_conditions(inputs, known=known)["action_mask"].tolist() == [[False, False, True],
                                                                             [False, True, True]]
    assert frame_conditions(inputs, frame=3)["action_mask"] is None
    assert torch.equal(frame_conditions(inputs, frame=3, known=known)["action_mask"], known)

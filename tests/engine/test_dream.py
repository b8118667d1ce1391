"""The engine: the World contract, equality with the plain loop, order of work, messages for broken files."""
import json
import math
import shutil

import numpy as np
import pytest
import torch

from worldplay.action import Action, ActionSpace
from worldplay.diffusion import add_noise, frame_noise, sample_frame, warped_sigmas
from worldplay.engine.dream import DreamWorld
from worldplay.engine.loading import hash_of, load_world, random_configs, random_world
from worldplay.engine.sampler import CONTEXT_STEP
from worldplay.errors import WorldError
from worldplay.files import write_json
from worldplay.models.codecs.image import ImageCodec
from worldplay.models.configs import CodecConfig, TransformerConfig
from worldplay.models.transformer import Transformer
from worldplay.world import check_world
from worldplay.worlds.config import ImageWorldConfig
from worldplay.worlds.scene import Scene, save_scene
from worldplay.worlds.weights import save_weights

SPACE = ActionSpace(("w", "d"), 10.0, look_axes=1)
CONFIG = ImageWorldConfig(
    name="toy", env="doom-maze", action_space=SPACE, frame_size=(24, 32), fps=17.5, window=4,
    context_sigma=0.1,
    columns_per_degree=0.1,
    transformer=TransformerConfig(dim=32, ffn_dim=64, num_heads=2, num_layers=2, in_channels=4,
                                  out_channels=4,
                                  patch_size=(1, 3, 2), action_channels=3),
    codec=CodecConfig(channels=4, widths=(8, 8, 8), enc_blocks=(1, 1, 1), dec_blocks=(1, 1, 1)))


def networks():
    torch.manual_seed(0)
    transformer, codec = Transformer(CONFIG.transformer), ImageCodec(CONFIG.codec)
    for parameter in (*transformer.parameters(), *codec.parameters()):
        torch.nn.init.normal_(parameter, std=0.2)
    return transformer, codec.eval()


def context(n=3):
    rng = np.random.default_rng(1)
    return rng.integers(0, 256, (n, 24, 32, 3), np.uint8), [Action({"w"}, (float(i), 0)) for i in range(n)]


@pytest.fixture
def folder(tmp_path):
    transformer, codec = networks()
    folder = tmp_path / "toy"
    save_weights(_made(folder) / "model.safetensors", transformer.state_dict())
    save_weights(folder / "codec.safetensors", codec.state_dict())
    write_json(folder / "config.json", CONFIG.to_json())
    frames, actions = context()
    for name in ("b-second", "a-first"):
        save_scene(folder / "scenes", Scene(name=name, frames=frames, actions=actions, poses=None,
                                            origin={}), SPACE)
    return folder


def _made(folder):
    folder.mkdir()
    return folder


def float32_world(**options):
    transformer, codec = networks()
    return DreamWorld(CONFIG, transformer, codec, device=torch.device("cpu"), dtype=torch.float32,
                      dtype_reason="test",
                      **options)


WALK = [Action({"w"}, (5, 0)), Action({"d"}, (-10, 0)), Action(), Action({"w", "d"}, (2, 0)),
        Action({"w"})] * 2


def walk(world, actions=WALK):
    return np.stack([frame for action in actions for frame in world.step(action)])


def test_contract(folder):
    world = load_world(folder, device="cpu")
    check_world(world)
    assert world.scenes == ("a-first", "b-second")
    assert world.info["world_hash"] == hash_of(folder) and world.info["steps"] == 2


def test_the_engine_equals_the_plain_loop_over_whole_sequences():
    """Every frame once more by the training forward with its dense mask over the whole history."""
    world = float32_world()
    frames, actions = context()
    world.reset(frames=frames, actions=actions)
    made = walk(world)

    transformer, codec = networks()
    with torch.inference_mode():
        latents = list(codec.encode_uint8(torch.from_numpy(frames)))
        vectors = [torch.from_numpy(SPACE.encode(action)) for action in [*actions, *WALK]]
        yaw = torch.tensor([0.0] + [float(v[2]) * 10 * CONFIG.columns_per_degree for v in vectors[1:]])
        columns = yaw.double().cumsum(0)[None]
        known = torch.ones(1, len(vectors), dtype=torch.bool)
        known[:, 0] = False
        for i in range(len(WALK)):
            now = len(latents)
            past = torch.stack([add_noise(x[None], frame_noise(0, j, CONTEXT_STEP, (1, *x.shape)), 0.1)[0]
                                for j, x in enumerate(latents)])

            def velocity(x, sigma):
                clean = torch.cat([past, torch.zeros_like(past[:1])])[None]
                noisy = torch.cat([torch.zeros_like(past)[None], x], dim=1)
                return transformer(noisy, sigma, clean=clean, clean_sigma=0.1, window=CONFIG.window,
                                   actions=torch.stack(vectors[:now + 1])[None],
                                   action_mask=known[:, :now + 1],
                                   columns=columns[:, :now + 1], attention="plain")[:, -1:]
            x0 = sample_frame(velocity, lambda step: frame_noise(0, now, step, (1, 1, *latents[0].shape)),
                              warped_sigmas(4 if i == 0 else 2))
            latents.append(x0[0, 0])
            # uint8 frames may round differently by one level; the latents behind them agree to 1e-5
            difference = np.abs(codec.decode_uint8(x0[0])[0].numpy().astype(int) - made[i].astype(int))
            assert difference.max() <= 1, f"frame {i} differs by {difference.max()} levels"


def test_the_frame_comes_before_its_commit_and_an_unfinished_step_is_refused():
    world = float32_world()
    frames, actions = context()
    world.reset(frames=frames, actions=actions)
    before = world.state.cache.num_frames
    step = world.step(Action({"w"}))
    next(step)
    assert world.state.cache.num_frames == before
    with pytest.raises(WorldError) as error:
        next(world.step(Action()))
    assert error.value.kind == "unfinished_step"
    assert list(step) == [] and world.state.cache.num_frames == before + 1


def test_the_cache_neither_grows_nor_moves_over_many_windows():
    world = float32_world()
    frames, actions = context()
    world.reset(frames=frames, actions=actions)
    walk(world)
    before = world.state.cache._slots.data_ptr(), world.state.cache._slots.shape
    walk(world, WALK * 3)
    assert (world.state.cache._slots.data_ptr(), world.state.cache._slots.shape) == before


def test_actions_matter_and_seeds_matter():
    world = float32_world()
    frames, actions = context()

    def play(action, seed):
        world.reset(frames=frames, actions=actions, seed=seed)
        return walk(world, [action])
    assert np.array_equal(play(Action({"w"}), 1), play(Action({"w"}), 1))
    assert not np.array_equal(play(Action({"w"}), 1), play(Action({"d"}), 1))
    assert not np.array_equal(play(Action({"w"}), 1), play(Action({"w"}), 2))


def test_a_restored_snapshot_goes_on_the_same_way_twice_and_over_several_windows():
    world = float32_world()
    frames, actions = context()
    world.reset(frames=frames, actions=actions)
    walk(world)
    state = world.snapshot()
    first = walk(world)
    for _ in range(2):
        world.reset(frames=frames, actions=actions, seed=99)
        world.restore(state)
        assert world.info["seed"] == world.state.seed == state.seed != 99, "a clip says which seed to replay"
        assert np.array_equal(walk(world), first)


def test_a_restored_snapshot_from_before_the_first_reset_cannot_be_stepped_either():
    world = float32_world()
    state = world.snapshot()
    frames, actions = context()
    world.reset(frames=frames, actions=actions)
    world.restore(state)
    with pytest.raises(WorldError, match="reset the world before the first step"):
        next(world.step(Action()))


def test_a_start_that_fails_is_none_to_go_on_from():
    """Actions are encoded after the old state was given up; whatever fails then, no step may follow."""
    world = float32_world()
    frames, actions = context()
    world.reset(frames=frames, actions=actions)
    with pytest.raises(WorldError, match="no key 'q'"):
        world.reset(frames=frames, actions=[*actions[:-1], Action({"q"})])
    with pytest.raises(WorldError, match="reset the world before the first step"):
        next(world.step(Action()))
    world.reset(frames=frames, actions=actions)
    assert len(walk(world)) == len(WALK)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("find", [lambda world: world.transformer.head.head.bias,
                                  lambda world: world.codec.decoder[-2].bias], ids=["transformer", "codec"])
def test_a_frame_that_is_not_finite_is_not_shown_and_a_reset_or_a_snapshot_goes_on(find, value):
    world = float32_world()
    frames, actions = context()
    world.reset(frames=frames, actions=actions)
    walk(world, WALK[:2])
    state, expected = world.snapshot(), walk(world, WALK[2:4])
    weight = find(world)
    right = weight.clone()
    weight.fill_(value)
    with pytest.raises(WorldError, match="toy: a frame came out .* not finite; start again") as error:
        next(world.step(Action()))
    assert error.value.kind == "not_finite" and "\n" not in str(error.value)
    weight.copy_(right)
    with pytest.raises(WorldError, match="reset the world"):
        next(world.step(Action()))
    world.restore(state)
    assert np.array_equal(walk(world, WALK[2:4]), expected)
    world.reset(frames=frames, actions=actions)
    assert len(walk(world)) == len(WALK)


def test_following_real_frames_equals_steps_of_a_world_reset_to_them():
    world = float32_world()
    frames, actions = context(5)
    vectors = np.stack([SPACE.encode(action) for action in actions])
    turned = vectors.copy()
    turned[-1] = SPACE.encode(Action(look=(9.0, 0.0)))
    both = np.stack([frames, frames[::-1]]), np.stack([vectors, vectors]), [np.stack([turned, turned])]
    first, (made, misled) = world.follow(*both, start=3)
    assert made.shape == (2, 24, 32, 3)
    assert np.array_equal(*first), "other actions begin to differ at the last frame"
    for frames, batched in ((frames, 0), (frames[::-1], 1)):
        for last, given in ((actions[-1], made), (Action(look=(9.0, 0.0)), misled)):
            world.reset(frames=frames[:-1], actions=actions[:-1])
            world.state.first_generated = None  # the first frame of play takes more sampling steps
            [alone] = world.step(last)
            assert np.abs(given[batched].astype(int) - alone).max() <= 1
    assert not np.array_equal(made[0], misled[0])


def test_free_play_in_a_batch_equals_the_walk_of_each():
    world = float32_world()
    frames, actions = context(5)
    later = [*WALK, *WALK[::-1]]
    vectors = np.stack([SPACE.encode(action) for action in (*actions, *later)])
    starts = np.stack([frames, frames[::-1]])
    batched = [made for (made,) in world.follow(starts, np.stack([vectors, vectors]), start=5, is_free=True)]
    assert len(batched) == len(later)
    for start, both in zip(starts, zip(*batched)):
        world.reset(frames=start, actions=actions)
        alone = np.stack(list(world.walk(later)))
        assert np.abs(np.stack(both).astype(int) - alone).max() <= 1


def test_free_play_takes_the_noise_of_the_seed_asked_for_and_else_its_own():
    world = float32_world()
    frames, actions = context(5)
    vectors = np.stack([SPACE.encode(action) for action in (*actions, *WALK)])[None]
    alone = {}
    for seed in (7, 3):
        world.reset(frames=frames, actions=actions, seed=seed)
        alone[seed] = np.stack(list(world.walk(WALK))).astype(int)
    world.reset(frames=frames, actions=actions, seed=3)
    assert np.abs(alone[7] - alone[3]).max() > 1
    for seed, expected in ((7, alone[7]), (None, alone[3])):
        made = world.follow(frames[None], vectors, start=5, is_free=True, seed=seed)
        assert np.abs(np.stack([batch[0] for (batch,) in made]) - expected).max() <= 1


def test_random_worlds_have_the_shape_and_no_weights(folder):
    for file in folder.glob("*.safetensors"):
        file.unlink()
    check_world(random_world(*random_configs(folder), device="cpu"))


@pytest.mark.parametrize("harm, words", [
    (lambda f: (f / "model.safetensors").unlink(), "model.safetensors is missing"),
    (lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:1000]),
     "truncated"),
    (lambda f: (f / "codec.safetensors").write_bytes(b"pickle"), "codec.safetensors cannot be read"),
    (lambda f: _edit(f, transformer={"dim": 64}), "wrong shapes"),
    (lambda f: _edit(f, transformer={"num_layers": 3}), "misses"),
    (lambda f: _edit(f, transformer={"num_layers": 1}), "unknown"),
    (lambda f: _edit(f, format=2), "newer"),
    (lambda f: (f / "config.json").write_text("{"), "not valid JSON"),
    (lambda f: (f / "model.safetensors.index.json").write_text("[]"), "index.json is no table of weights"),
    *((lambda f, text=text: (f / "config.json").write_text(text), "the file holds .*expected an object")
      for text in ("3", "[]", "null", '"action_space"')),
    *((lambda f, name=name: _edit(f, remove=name), f"'{name}' is missing|required .*argument: '{name}'")
      for name in ("format", "name", "fps", "frame_size", "action_space", "transformer", "codec")),
    *((lambda f, name=name, value=value: _edit(f, **{name: value}), f"{name} .*: expected")
      for name, value in (("name", None), ("name", ""), ("env", 3), ("fps", 0), ("fps", math.nan),
                          ("fps", "9"),
                          ("steps", 3), ("steps", True), ("first_steps", 3), ("first_steps", [4]),
                          ("window", 0), ("window", "a"), ("sink", -1), ("context_sigma", "a"),
                          ("context_sigma", 1),
                          ("context_sigma", -0.1), ("columns_per_degree", None), ("frame_size", [24]),
                          ("frame_size", 24), ("frame_size", [24, 33]), ("action_space", []), ("codec", 1))),
    *((lambda f, name=name, value=value: _edit(f, transformer={name: value}), f"transformer {name} .*: exp")
      for name, value in (("num_heads", 0), ("num_heads", "a"), ("dim", -32), ("eps", 0),
                          ("patch_size", [1, 0, 2]), ("patch_size", 2), ("num_layers", 1.5), ("text_dim", 0),
                          ("action_channels", -1),
                          ("has_camera", 1), ("has_camera", "no"))),
    (lambda f: _edit(f, window=2, sink=2), "window 2 has no room for 2 sink frames"),
    (lambda f: _edit(f, sink_position="left"), "sink_position 'left'"),
    (lambda f: _edit(f, frame_size=[32, 32]), "no whole number of patches"),
    (lambda f: _edit(f, transformer={"action_channels": 4}), "channels of .* differ"),
    (lambda f: _edit(f, action_space={"keys": 3, "look_limit": 1.0, "look_axes": 1}),
     "action_space keys 3: expected a list"),
    (lambda f: _edit(f, colour="red"), "unexpected keyword argument 'colour'"),
])
def test_a_broken_folder_is_refused_in_one_line(folder, harm, words):
    harm(folder)
    with pytest.raises(WorldError, match=words) as error:
        load_world(folder, device="cpu")
    said = str(error.value)
    assert error.value.kind == "bad_checkpoint" and "\n" not in said and str(folder) in said
    assert any(remedy in said for remedy in ("restore it", "update this one", "belongs to other weights"))


def _edit(folder, transformer=None, remove=None, **fields):
    config = json.loads((folder / "config.json").read_text())
    config |= fields
    config["transformer"] |= transformer or {}
    config.pop(remove, None)
    (folder / "config.json").write_text(json.dumps(config))


def test_a_world_without_scenes_says_so_and_plays_from_a_picture(folder):
    shutil.rmtree(folder / "scenes")
    world = load_world(folder, device="cpu")
    with pytest.raises(WorldError, match="toy has no scenes: .*missing or empty; .*--image") as error:
        world.reset()
    assert error.value.kind == "bad_scene"
    frames, actions = context()
    world.reset(frames=frames, actions=actions)
    assert len(list(world.step(Action()))) == 1


def test_what_other_programs_leave_among_the_scenes_is_no_scene(folder):
    (folder / "scenes" / "._a-first.safetensors").write_bytes(b"Mac OS X")
    assert load_world(folder, device="cpu").scenes == ("a-first", "b-second")


def test_wrong_arguments_are_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="--steps 3"):
        load_world(folder, device="cpu", steps=3)
    with pytest.raises(ValueError, match="--device tpu"):
        load_world(folder, device="tpu")
    world = load_world(folder, device="cpu")
    for arguments in ({"scene": "nowhere"},
                      {"frames": np.zeros((2, 8, 8, 3), np.uint8), "actions": [Action()] * 2},
                      {"frames": context()[0], "actions": [Action()]}):
        with pytest.raises(WorldError) as error:
            world.reset(**arguments)
        assert error.value.kind == "bad_scene"
    world.reset()
    with pytest.raises(WorldError, match="no key 'q'"):
        next(world.step(Action({"q"})))
    list(world.step(Action({"w"})))  # the refused action left the world usable
    (folder / "scenes" / "a-first.safetensors").write_bytes(b"nothing")
    with pytest.raises(WorldError, match="cannot be read"):
        world.reset("a-first")

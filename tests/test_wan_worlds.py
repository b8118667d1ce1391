"""Worlds of the Wan shape at toy size, played as published ones are: text, camera, chunks, video codecs, no end."""
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from parity import video_codec, weights
from PIL import Image
from safetensors.torch import save_file

import worldplay
from worldplay import app, checkpoint, controls
from worldplay.__main__ import main
from worldplay.action import Action, ActionSpace, parse_script
from worldplay.camera import CAMERA_SPACE, REACH, TRAINING_INTRINSICS, parse_poses, viewmats
from worldplay.checkpoint import WorldConfig
from worldplay.client.recorder import Recorder
from worldplay.client.worker import Reset
from worldplay.clip import read_clip
from worldplay.diffusion import frame_noise, sample_frame, warped_sigmas
from worldplay.engine import DreamWorld
from worldplay.eval.replay import run_replay
from worldplay.models.codec import to_float, to_uint8
from worldplay.models.prope import Cameras
from worldplay.models.transformer import Transformer, TransformerConfig
from worldplay.opening import load_world
from worldplay.world import WorldError, check_world

ROOT = Path(worldplay.__file__).parent.parent
SIZE = (32, 48)
MODEL = TransformerConfig(dim=32, ffn_dim=64, num_heads=2, num_layers=2, in_channels=16, out_channels=16, freq_dim=32,
                          text_dim=8, text_len=6, has_camera=True)
TEXT_SPACE = ActionSpace((), 1.0, look_axes=0)
CONFIG = WorldConfig(name="toy-wan", env=None, action_space=CAMERA_SPACE, frame_size=SIZE, fps=16.0, transformer=MODEL,
                     codec=None, parts={"codec": "taew2_1", "vae": "wan-vae", "text": "umt5-xxl"}, steps=2, window=5,
                     sink=0, sink_position="absolute", context_sigma=0.0, intrinsics=TRAINING_INTRINSICS, prompt="a hall")
ROWS = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
WALK = [Action({"w"}), Action({"l"}), Action({"d"}), Action(look=(2.0, 0.0)), Action({"w", "j"}), Action({"w"})] * 2


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
    return world_of(replace(CONFIG, transformer=replace(MODEL, has_camera=False), intrinsics=None, action_space=TEXT_SPACE))


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
    """Over three windows: the cache, the rig and the codec's stream against one dense pass a step over all latents."""
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
            return model(torch.cat([latents, x], dim=1), sigmas, text=ROWS[None], cameras=cameras, window=3 * size,
                         frames_per_chunk=size, attention="plain")[:, start:]

        def noise(step):
            return torch.stack([frame_noise(3, start + i, step, (1, *latents.shape[2:])) for i in range(size)], dim=1)
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
    assert not np.array_equal(after(), after(Action({"s"}))) and not np.array_equal(after(), after(rows=-ROWS))
    world.restore(start)
    assert world.info["prompt"] == "a hall" and np.array_equal(play(world, [Action({"w"})])[0], after())


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
        forward = world.told.pose[:3, 2]
        assert np.degrees(np.arctan2(forward[0], forward[2])) == pytest.approx(degrees), action
        assert bool(world.info["note"]) == is_noted, "full speed is what the networks have seen"


def test_it_goes_on_past_the_window_and_far_from_where_it_began():
    world = world_of()
    world.reset()
    for _ in range(int(REACH / 0.08) + 20):  # a new anchor on the way
        frames, = play(world, [Action({"w"})])
    assert frames.std() > 0 and np.linalg.norm(world.told.pose[:3, 3]) < REACH


@pytest.mark.parametrize("script, num_latents", [("w*19", 20), ("w*9,j*10", 20), ("l*2", 4), ("d*5", 8)])
def test_a_script_leads_to_the_latents_of_published_poses(script, num_latents, monkeypatch):
    """Action by action from the first chunk on; only what fills the last chunk up is more."""
    world, told, of = world_of(frames_per_chunk=4, window=8), [], Cameras.of

    def listen(viewmats, focal):
        told.append(viewmats[0].numpy())
        return of(viewmats, focal)
    monkeypatch.setattr(controls.Cameras, "of", listen)
    actions = parse_script(script, CAMERA_SPACE)
    shown = list(world.rollout(actions))
    poses, made = parse_poses(script), np.concatenate(told)
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
    assert (world.frame, world.first_made) == (size, size)
    shown, = play(world, [Action({"w"})])
    assert len(shown) == 4 * size  # the codec remembers the start: no latent is its first one again
    codec = video_codec("taehv")
    still = codec.encode(to_float(torch.from_numpy(frames.repeat(4 * size - 3, axis=0)))[None])
    other = world_of(frames_per_chunk=size, window=3 * size)
    other.reset(frames=frames.repeat(4 * size - 3, axis=0), actions=[Action()] * (4 * size - 3))
    assert still.shape[1] == size and np.array_equal(play(other, [Action({"w"})])[0], shown)


def test_a_world_without_a_text_says_so():
    world = DreamWorld(CONFIG, spread(MODEL), video_codec("taehv"), device=torch.device("cpu"), dtype=torch.float32,
                       dtype_reason="test")
    with pytest.raises(WorldError, match="give it one"):
        world.reset()


# From a folder, by the commands -----------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A world's folder, its codec among the parts of a user cache of its own, and a file of text rows beside it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    folder, part = tmp_path / "toy-wan", tmp_path / "cache" / "worldplay" / "parts" / "taew2_1"
    folder.mkdir()
    part.mkdir(parents=True)
    checkpoint.write_json(folder / "config.json", CONFIG.to_json())
    checkpoint.save_weights(folder / "model.safetensors", spread(MODEL).state_dict(), torch.bfloat16)
    save_file({name: x.contiguous() for name, x in weights("taehv").items()}, part / "model.safetensors")
    save_file({"prompt_embeds": ROWS}, tmp_path / "rows.safetensors")
    return folder


def command(*args):
    return subprocess.run([sys.executable, ROOT / "play.py", *map(str, args)], cwd=ROOT, capture_output=True, text=True,
                          timeout=300)


@pytest.mark.parametrize("frames_per_chunk, start", [(1, ()), (4, ()), (4, ("--image", "red.png"))],
                         ids=["frames", "chunks", "chunks from an image"])
def test_a_script_plays_it_into_a_clip_that_replays(frames_per_chunk, start, folder, tmp_path):
    config = replace(CONFIG, frames_per_chunk=frames_per_chunk, window=8)
    checkpoint.write_json(folder / "config.json", config.to_json())
    Image.new("RGB", (64, 64), (200, 40, 40)).save(tmp_path / "red.png")
    start = [tmp_path / word if word.endswith(".png") else word for word in start]
    out = tmp_path / "clip.mp4"
    done = command(folder, "--headless", "--script", "w*2,j*1, w+look(2,0)*1", "--prompt", tmp_path / "rows.safetensors",
                   "--device", "cpu", "--out", out, "--json", *start)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["frames"] == 16 and ("small codec" in done.stderr) == bool(start)
    sidecar = json.loads(out.with_suffix(".json").read_text())
    assert sidecar["info"]["prompt"] == str(tmp_path / "rows.safetensors")
    assert sidecar["scene"] == (None if start else "text")
    assert [record["step"] for record in sidecar["frames"]] == [0, *(i for i in (1, 2, 3, 4) for _ in range(4))]
    replayed = subprocess.run([sys.executable, "-m", "worldplay", "replay", out, "--world", folder, "--json"], cwd=ROOT,
                              capture_output=True, text=True, timeout=300)
    assert replayed.returncode == 0, replayed.stderr
    assert json.loads(replayed.stdout)["is_equal"]


def test_a_replay_says_that_another_codec_encodes_the_start(folder, tmp_path, monkeypatch, caplog):
    Image.new("RGB", (64, 64), (200, 40, 40)).save(tmp_path / "red.png")
    clip, rows = tmp_path / "clip.mp4", str(tmp_path / "rows.safetensors")
    assert app.main([str(folder), "--headless", "--script", "w*1", "--prompt", rows, "--device", "cpu", "--image",
                     str(tmp_path / "red.png"), "--out", str(clip)]) == 0
    assert read_clip(clip).sidecar["info"]["start_codec"] == "small"
    assert run_replay(clip, world=str(folder), device="cpu")["is_equal"] and "began from a picture" not in caplog.text

    class Darker:
        def encode(self, frames):
            return video_codec("taehv").encode(frames / 2)
    monkeypatch.setattr("worldplay.opening.Parts.encoder", lambda *_: Darker())
    assert not run_replay(clip, world=str(folder), device="cpu")["is_equal"]
    assert "picture that the small codec encoded, here the full one did" in caplog.text


def test_a_clip_of_a_script_that_breaks_off_within_a_chunk_replays(folder, tmp_path, monkeypatch):
    """The actions that were to come had a part in the chunk's frames that were shown."""
    checkpoint.write_json(folder / "config.json", replace(CONFIG, frames_per_chunk=4, window=8).to_json())
    rows, clip, decode, made = tmp_path / "rows.safetensors", tmp_path / "clip.mp4", DreamWorld._decode, []

    def breaking(world, latent):
        if len(made) == 6:
            raise WorldError("device", "the device went away; plug it in again")
        made.append(latent)
        return decode(world, latent)
    with monkeypatch.context() as patch:
        patch.setattr(DreamWorld, "_decode", breaking)
        assert app.main([str(folder), "--headless", "--script", "w*4,l*1,d*2,j*20", "--prompt", str(rows), "--device",
                         "cpu", "--out", str(clip)]) == 1
    cut = read_clip(clip)
    assert cut.num_frames == 1 + 5 * 4 and cut.actions == [Action(), *parse_script("w*4,l*1,d*2,j*20", CAMERA_SPACE)]
    monkeypatch.setattr(DreamWorld, "_decode", lambda world, latent: made.append(latent) or decode(world, latent))
    made.clear()
    again = tmp_path / "again.mp4"
    assert run_replay(clip, world=str(folder), device="cpu", out=str(again))["is_equal"]
    assert len(made) == 6, "what lies beyond its end is not made"
    assert read_clip(again).actions == cut.actions

    sidecar = clip.with_suffix(".json")
    fields = json.loads(sidecar.read_text())
    sidecar.write_text(json.dumps(fields | {"actions": fields["actions"][:6]}))  # those of the frames alone
    assert not run_replay(clip, world=str(folder), device="cpu")["is_equal"]


def test_a_recording_under_several_texts_replays(folder, tmp_path):
    """One text before it began, one during it, one more after a reset; replayed without them it is another world."""
    files = [tmp_path / f"{name}.safetensors" for name in ("rows", "before", "during")]
    for sign, file in zip((-1, 2), files[1:]):
        save_file({"prompt_embeds": sign * ROWS}, file)
    world = load_world(folder, device="cpu", prompt=str(files[0]))
    recorder = Recorder(world)

    def go(actions):
        for action in actions:
            recorder.step(action)
            for frame in world.step(action):
                recorder.frame(frame, {})

    def give(file):
        world.set_prompt(str(file))
        recorder.prompt(str(file))
    recorder.branch(Reset(), world.reset())
    go(WALK[:2])
    give(files[1])
    go(WALK[2:3])
    recorder.start(tmp_path / "first")
    go(WALK[3:4])
    give(files[2])
    go(WALK[4:6])
    recorder.stop()
    recorder.branch(Reset(), world.reset())
    recorder.start(tmp_path / "second")
    go(WALK[:1])
    recorder.close()
    first, second = (read_clip(tmp_path / name) for name in ("first", "second"))
    assert first.prompts == {3: str(files[1]), 5: str(files[2])} and first.sidecar["info"]["prompt"] == str(files[0])
    assert not second.prompts and second.sidecar["info"]["prompt"] == str(files[2])
    assert all(run_replay(clip.path, world=str(folder), device="cpu")["is_equal"] for clip in (first, second))
    again = run_replay(first.path, world=str(folder), device="cpu", out=str(tmp_path / "again.mp4"))
    assert again["is_equal"] and read_clip(tmp_path / "again").prompts == first.prompts

    sidecar = first.path.with_suffix(".json")
    fields = json.loads(sidecar.read_text())
    files[2].unlink()
    with pytest.raises(WorldError, match="during.safetensors does not exist"):
        run_replay(first.path, world=str(folder), device="cpu")
    sidecar.write_text(json.dumps({name: fields[name] for name in fields if name != "prompts"}))  # as older clips are
    assert not run_replay(first.path, world=str(folder), device="cpu")["is_equal"]


@pytest.mark.parametrize("remove, words", [
    (("cache", "worldplay", "parts", "taew2_1", "model.safetensors"), "fetch"),
    (("rows.safetensors",), "does not exist"), (("toy-wan", "model.safetensors"), "model.safetensors is missing")])
def test_what_is_missing_is_said_in_one_line(folder, tmp_path, remove, words):
    tmp_path.joinpath(*remove).unlink()
    done = command(folder, "--headless", "--script", "w*1", "--prompt", tmp_path / "rows.safetensors", "--device", "cpu",
                   "--out", tmp_path / "clip.mp4")
    assert done.returncode == 1 and words in done.stderr.strip().splitlines()[-1] and "Traceback" not in done.stderr


def test_opening_needs_no_compiler(folder, tmp_path):
    """torch loads its own for one normal number on the meta device, which takes longer than all else here."""
    code = ("import sys; from worldplay import load_world\n"
            f"world = load_world({str(folder)!r}, device='cpu', prompt={str(tmp_path / 'rows.safetensors')!r})\n"
            "world.reset(); print('torch._dynamo' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout == "False\n", done.stderr


@pytest.fixture
def fetched(folder, tmp_path):
    """Function (name, **fields of its config) that puts the world among the fetched ones."""
    def fetched(name, **fields):
        target = tmp_path / "cache" / "worldplay" / "worlds" / name
        shutil.copytree(folder, target)
        checkpoint.write_json(target / "config.json", replace(CONFIG, name=name, **fields).to_json())
        checkpoint.write_json(target / "lock.json", {"name": name, "files": {}})
        return target
    return fetched


@pytest.mark.parametrize("damage, file", [(b"\x00" * 50, "model.safetensors"), (b"{", "config.json")])
def test_a_damaged_file_that_was_fetched_is_to_be_fetched_again(damage, file, fetched, tmp_path):
    (fetched("wan-action") / file).write_bytes(damage)
    with pytest.raises(WorldError, match="; delete it, then python -m worldplay fetch wan-action loads it") as caught:
        worldplay.load_world("wan-action", prompt=str(tmp_path / "rows.safetensors"))
    assert file in str(caught.value) and "repository" not in str(caught.value)


def test_worlds_tell_what_plays_from_what_is_trained_from(fetched, tmp_path, capsys):
    fetched("wan-action")
    fetched("wan-action-bidirectional")
    arguments = ["--headless", "--script", "w*1", "--prompt", str(tmp_path / "rows.safetensors"), "--device", "cpu",
                 "--out", str(tmp_path / "clip.mp4")]
    assert app.main(["wan-action", *arguments]) == 0
    assert app.main(["wan-action-bidirectional", *arguments]) == 1
    assert "published to train from" in capsys.readouterr().err.splitlines()[-1]
    assert main(["worlds"]) == 0
    lines = {line.split(":")[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "to train from" in lines["wan-action-bidirectional"] and "to train from" not in lines["wan-action"]


def test_a_picture_is_said_to_be_nothing_it_was_trained_on(fetched, tmp_path, caplog):
    fetched("wan-action", frames_per_chunk=4, window=8)
    world = worldplay.load_world("wan-action", device="cpu", prompt=str(tmp_path / "rows.safetensors"))
    with caplog.at_level("INFO", "worldplay"):
        world.reset(frames=np.zeros((1, *SIZE, 3), np.uint8), actions=[Action()])
    assert "not trained to go on from a picture" in caplog.text


@pytest.mark.parametrize("arguments, words", [
    (["eval", "wan-action", "--quick"], "wan-action was trained on no environment"),
    (["eval", "--compare", "wan-action", "--quick"], "wan-action was trained on no environment"),
    (["bench", "wan-action", "--frames", "10"], "umt5-xxl/model.safetensors is missing")])
def test_what_it_cannot_be_asked_is_one_line(arguments, words, fetched, capsys):
    fetched("wan-action")
    assert main(arguments) in (1, 2)
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and words in said[0]


def test_a_scene_or_key_it_has_not_is_said(folder, tmp_path, capsys):
    def play(*arguments):
        status = app.main([str(folder), "--headless", "--prompt", str(tmp_path / "rows.safetensors"), "--device", "cpu",
                           "--out", str(tmp_path / "clip.mp4"), *arguments])
        return status, capsys.readouterr().err.strip().splitlines()[-1]
    status, said = play("--script", "w*1", "--scene", "start-1")
    assert status == 1 and "no scene 'start-1'; it has text" in said
    config = replace(CONFIG, transformer=replace(MODEL, has_camera=False), intrinsics=None, action_space=TEXT_SPACE)
    checkpoint.write_json(folder / "config.json", config.to_json())
    checkpoint.save_weights(folder / "model.safetensors", spread(config.transformer).state_dict())
    status, said = play("--script", "w*1")
    assert status == 2 and "unknown key 'w'; this world has no keys" in said


def test_rows_of_another_width_are_refused(folder, tmp_path):
    save_file({"prompt_embeds": torch.randn(4, 9)}, tmp_path / "wide.safetensors")
    with pytest.raises(WorldError, match=r"\[4, 9\]: expected floating point \[1 to 6, 8\]"):
        worldplay.load_world(folder, prompt=str(tmp_path / "wide.safetensors"))


def test_a_prompt_for_a_world_that_reads_none_is_refused(tmp_path):
    done = command("--headless", "--script", "w*1", "--prompt", "a hall", "--out", tmp_path / "clip.mp4")
    assert done.returncode == 2 and "--prompt: doom-maze reads no text" in done.stderr.strip().splitlines()[-1]

"""Folders of worlds of the Wan shape, by the commands: clips that replay, messages for what they lack."""
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import worldplay
from tests.client.tape import Tape
from tests.engine.test_dream_wan import CONFIG, MODEL, ROWS, SIZE, TEXT_SPACE, WALK, spread
from tests.parity import video_codec, weights
from worldplay.action import Action, parse_script
from worldplay.camera import CAMERA_SPACE
from worldplay.cli import play
from worldplay.cli.commands import main
from worldplay.client.worker import Reset
from worldplay.data.clip import read_clip
from worldplay.engine.dream import DreamWorld
from worldplay.engine.loading import load_world
from worldplay.errors import WorldError
from worldplay.eval.replay import run_replay
from worldplay.files import write_json
from worldplay.worlds.weights import save_weights

ROOT = Path(worldplay.__file__).parent.parent


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A world's folder, its codec among the parts of a user cache of its own, and a file of text rows beside
    it.
    """
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    folder, part = tmp_path / "toy-wan", tmp_path / "cache" / "worldplay" / "parts" / "taew2_1"
    folder.mkdir()
    part.mkdir(parents=True)
    write_json(folder / "config.json", CONFIG.to_json())
    save_weights(folder / "model.safetensors", spread(MODEL).state_dict(), torch.bfloat16)
    save_file({name: x.contiguous() for name, x in weights("taehv").items()}, part / "model.safetensors")
    save_file({"prompt_embeds": ROWS}, tmp_path / "rows.safetensors")
    return folder


def command(*args):
    return subprocess.run([sys.executable, ROOT / "play.py", *map(str, args)], cwd=ROOT, capture_output=True,
                          text=True,
                          timeout=300)


@pytest.mark.parametrize("frames_per_chunk, start", [(1, ()), (4, ()), (4, ("--image", "red.png"))],
                         ids=["frames", "chunks", "chunks from an image"])
def test_a_script_plays_it_into_a_clip_that_replays(frames_per_chunk, start, folder, tmp_path):
    config = replace(CONFIG, frames_per_chunk=frames_per_chunk, window=8)
    write_json(folder / "config.json", config.to_json())
    Image.new("RGB", (64, 64), (200, 40, 40)).save(tmp_path / "red.png")
    start = [tmp_path / word if word.endswith(".png") else word for word in start]
    out = tmp_path / "clip.mp4"
    done = command(folder, "--headless", "--script", "w*2,j*1, w+look(2,0)*1", "--prompt",
                   tmp_path / "rows.safetensors",
                   "--device", "cpu", "--out", out, "--json", *start)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["frames"] == 16 and ("small codec" in done.stderr) == bool(start)
    sidecar = json.loads(out.with_suffix(".json").read_text())
    assert sidecar["info"]["prompt"] == str(tmp_path / "rows.safetensors")
    assert sidecar["scene"] == (None if start else "text")
    assert [record["step"] for record in sidecar["frames"]] == [0,
                                                                *(i for i in (1, 2, 3, 4) for _ in range(4))]
    replayed = subprocess.run([sys.executable, "-m", "worldplay", "replay", out, "--world", folder,
                               "--json"], cwd=ROOT,
                              capture_output=True, text=True, timeout=300)
    assert replayed.returncode == 0, replayed.stderr
    assert json.loads(replayed.stdout)["is_equal"]


def test_a_replay_says_that_another_codec_encodes_the_start(folder, tmp_path, monkeypatch, caplog):
    Image.new("RGB", (64, 64), (200, 40, 40)).save(tmp_path / "red.png")
    clip, rows = tmp_path / "clip.mp4", str(tmp_path / "rows.safetensors")
    assert play.main([str(folder), "--headless", "--script", "w*1", "--prompt", rows, "--device", "cpu",
                      "--image",
                     str(tmp_path / "red.png"), "--out", str(clip)]) == 0
    assert read_clip(clip).sidecar["info"]["start_codec"] == "small"
    assert run_replay(clip, world=str(folder),
                      device="cpu")["is_equal"] and "began from a picture" not in caplog.text

    class Darker:
        def encode(self, frames):
            return video_codec("taehv").encode(frames / 2)
    monkeypatch.setattr("worldplay.engine.parts.Parts.encoder", lambda *_: Darker())
    assert not run_replay(clip, world=str(folder), device="cpu")["is_equal"]
    assert "picture that the small codec encoded, here the full one: frames differ" in caplog.text


def test_a_clip_of_a_script_that_breaks_off_within_a_chunk_replays(folder, tmp_path, monkeypatch):
    """The actions that were to come had a part in the chunk's frames that were shown."""
    write_json(folder / "config.json", replace(CONFIG, frames_per_chunk=4, window=8).to_json())
    rows, clip, decode, made = tmp_path / "rows.safetensors", tmp_path / "clip.mp4", DreamWorld._decode, []

    def breaking(world, latent, player):
        if len(made) == 6:
            raise WorldError("device", "the device went away; plug it in again")
        made.append(latent)
        return decode(world, latent, player)
    with monkeypatch.context() as patch:
        patch.setattr(DreamWorld, "_decode", breaking)
        assert play.main([str(folder), "--headless", "--script", "w*4,l*1,d*2,j*20", "--prompt", str(rows),
                          "--device",
                         "cpu", "--out", str(clip)]) == 1
    cut = read_clip(clip)
    assert cut.num_frames == 1 + 5 * 4 and cut.actions == [Action(),
                                                           *parse_script("w*4,l*1,d*2,j*20", CAMERA_SPACE)]
    monkeypatch.setattr(DreamWorld, "_decode", lambda world, latent, player:
                        made.append(latent) or decode(world, latent, player))
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
    """One text before it began, one during it, one more after a reset; replayed without them it is another
    world.
    """
    files = [tmp_path / f"{name}.safetensors" for name in ("rows", "before", "during")]
    for sign, file in zip((-1, 2), files[1:]):
        save_file({"prompt_embeds": sign * ROWS}, file)
    world = load_world(folder, device="cpu", prompt=str(files[0]))
    recorder = Tape(world)

    def go(actions):
        for action in actions:
            recorder.step(action)
            for frame in world.step(action):
                recorder.frame(frame, {})

    def give(file):
        world.set_prompt(str(file))
        recorder.prompt(str(file))
    recorder.begin(Reset(), world.reset())
    go(WALK[:2])
    give(files[1])
    go(WALK[2:3])
    recorder.start(tmp_path / "first")
    go(WALK[3:4])
    give(files[2])
    go(WALK[4:6])
    recorder.stop()
    recorder.begin(Reset(), world.reset())
    recorder.start(tmp_path / "second")
    go(WALK[:1])
    recorder.close()
    first, second = (read_clip(tmp_path / name) for name in ("first", "second"))
    assert first.prompts == {3: str(files[1]),
                             5: str(files[2])} and first.sidecar["info"]["prompt"] == str(files[0])
    assert not second.prompts and second.sidecar["info"]["prompt"] == str(files[2])
    assert all(run_replay(clip.path, world=str(folder), device="cpu")["is_equal"] for clip in (first, second))
    again = run_replay(first.path, world=str(folder), device="cpu", out=str(tmp_path / "again.mp4"))
    assert again["is_equal"] and read_clip(tmp_path / "again").prompts == first.prompts

    sidecar = first.path.with_suffix(".json")
    fields = json.loads(sidecar.read_text())
    files[2].unlink()
    with pytest.raises(WorldError, match="during.safetensors does not exist"):
        run_replay(first.path, world=str(folder), device="cpu")
    # as older clips are
    sidecar.write_text(json.dumps({name: fields[name] for name in fields if name != "prompts"}))
    assert not run_replay(first.path, world=str(folder), device="cpu")["is_equal"]


@pytest.mark.parametrize("remove, words", [
    (("cache", "worldplay", "parts", "taew2_1", "model.safetensors"), "fetch"),
    (("rows.safetensors",), "does not exist"),
    (("toy-wan", "model.safetensors"), "model.safetensors is missing")])
def test_what_is_missing_is_said_in_one_line(folder, tmp_path, remove, words):
    tmp_path.joinpath(*remove).unlink()
    done = command(folder, "--headless", "--script", "w*1", "--prompt", tmp_path / "rows.safetensors",
                   "--device", "cpu",
                   "--out", tmp_path / "clip.mp4")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert words in done.stderr.strip().splitlines()[-1]


def test_opening_needs_no_compiler(folder, tmp_path):
    """torch loads its own for one normal number on the meta device, which takes longer than all else here."""
    rows = str(tmp_path / "rows.safetensors")
    code = ("import sys; from worldplay import load_world\n"
            f"world = load_world({str(folder)!r}, device='cpu', prompt={rows!r})\n"
            "world.reset(); print('torch._dynamo' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout == "False\n", done.stderr


@pytest.fixture
def fetched(folder, tmp_path):
    """Function (name, **fields of its config) that puts the world among the fetched ones."""
    def fetched(name, **fields):
        target = tmp_path / "cache" / "worldplay" / "worlds" / name
        shutil.copytree(folder, target)
        write_json(target / "config.json", replace(CONFIG, name=name, **fields).to_json())
        write_json(target / "lock.json", {"name": name, "files": {}})
        return target
    return fetched


@pytest.mark.parametrize("damage, file", [(b"\x00" * 50, "model.safetensors"), (b"{", "config.json")])
def test_a_damaged_file_that_was_fetched_is_to_be_fetched_again(damage, file, fetched, tmp_path):
    (fetched("wan-action") / file).write_bytes(damage)
    with pytest.raises(WorldError, match="; delete it, then python -m worldplay fetch wan-action") as caught:
        worldplay.load_world("wan-action", prompt=str(tmp_path / "rows.safetensors"))
    assert file in str(caught.value) and "repository" not in str(caught.value)


def test_worlds_tell_what_plays_from_what_is_trained_from(fetched, tmp_path, capsys):
    fetched("wan-action")
    fetched("wan-action-bidirectional")
    arguments = ["--headless", "--script", "w*1", "--prompt", str(tmp_path / "rows.safetensors"),
                 "--device", "cpu", "--out"]
    assert play.main(["wan-action", *arguments, str(tmp_path / "first.mp4")]) == 0
    assert play.main(["wan-action-bidirectional", *arguments, str(tmp_path / "second.mp4")]) == 1
    assert "published to train from" in capsys.readouterr().err.splitlines()[-1]
    assert main(["worlds"]) == 0
    lines = {line.split(":")[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "to train from" in lines["wan-action-bidirectional"] and "to train from" not in lines["wan-action"]


def test_a_picture_is_said_to_be_nothing_it_was_trained_on(fetched, tmp_path, caplog):
    fetched("wan-action", frames_per_chunk=4, window=8)
    world = worldplay.load_world("wan-action", device="cpu", prompt=str(tmp_path / "rows.safetensors"))
    with caplog.at_level("INFO", "worldplay"):
        world.reset(frames=np.zeros((1, *SIZE, 3), np.uint8), actions=[Action()])
    assert "not trained to start from a picture" in caplog.text


@pytest.mark.parametrize("arguments, words", [
    (["eval", "wan-action", "--quick"], "wan-action makes several frames of a latent"),
    (["eval", "--compare", "wan-action", "--quick"], "wan-action makes several frames of a latent"),
    (["bench", "wan-action", "--frames", "10"], "umt5-xxl/model.safetensors is missing")])
def test_what_it_cannot_be_asked_is_one_line(arguments, words, fetched, capsys):
    fetched("wan-action")
    assert main(arguments) in (1, 2)
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and words in said[0]


def test_a_scene_or_key_it_has_not_is_said(folder, tmp_path, capsys):
    def played(*arguments):
        status = play.main([str(folder), "--headless", "--prompt", str(tmp_path / "rows.safetensors"),
                            "--device", "cpu", "--out", str(tmp_path / "clip.mp4"), *arguments])
        return status, capsys.readouterr().err.strip().splitlines()[-1]
    status, said = played("--script", "w*1", "--scene", "start-1")
    assert status == 1 and "no scene 'start-1'; it has text" in said
    config = replace(CONFIG, transformer=replace(MODEL, has_camera=False), intrinsics=None,
                     action_space=TEXT_SPACE)
    write_json(folder / "config.json", config.to_json())
    save_weights(folder / "model.safetensors", spread(config.transformer).state_dict())
    status, said = played("--script", "w*1")
    assert status == 2 and "unknown key 'w'; this world has no keys" in said


def test_rows_of_another_width_are_refused(folder, tmp_path):
    save_file({"prompt_embeds": torch.randn(4, 9)}, tmp_path / "wide.safetensors")
    with pytest.raises(WorldError, match=r"\[4, 9\]: expected floating point \[1 to 6, 8\]"):
        worldplay.load_world(folder, prompt=str(tmp_path / "wide.safetensors"))


def test_a_prompt_for_a_world_that_reads_none_is_refused(tmp_path):
    done = command("--headless", "--script", "w*1", "--prompt", "a hall", "--out", tmp_path / "clip.mp4")
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 2 and "--prompt: doom-maze reads no text" in last

"""Two runs that share a folder, in two processes at once: each part is made once, and both go on with it."""
import logging
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch

from tests import ROOT
from tests.train.test_finetune import make_clips
from tests.train.test_own_data import KEYS, recipe
from worldplay import runtime
from worldplay.data import lerobot
from worldplay.train import image_latents
from worldplay.train.chain import Chain
from worldplay.train.gameplay import Gameplay
from worldplay.train.processes import Processes
from worldplay.train.trainer import Trainer

PARTS = ("index.json", "codec", "latents.npy")


class Waits(logging.Handler):
    """Writes a file when the run says that it waits for the other one's part."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def emit(self, record):
        text = record.getMessage()
        if "another run is making it; waiting" in text:
            (self.folder / f"waits for {Path(text.split(':')[0]).name}").touch()


def build(folder, name):
    """A run that makes no part of the shared folder before the other one waits for it."""
    folder = Path(folder)
    logging.getLogger("worldplay").addHandler(Waits(folder))
    logging.getLogger("worldplay").setLevel(logging.INFO)
    runtime.pick_compile = lambda device: (False, "longer than the training")

    def contested(owner, attribute, part):
        plain = getattr(owner, attribute)

        def make(*args, **kwargs):
            if part == "codec" and args[0].stage.name != "codec":
                return plain(*args, **kwargs)
            with open(folder / f"made {part}", "a", encoding="utf-8") as file:
                file.write(name)
            while not (folder / f"waits for {part}").exists():
                time.sleep(0.01)
            return plain(*args, **kwargs)
        setattr(owner, attribute, make)
    contested(Gameplay, "_decode", "index.json")
    contested(Trainer, "train_step", "codec")
    contested(image_latents, "encode_frames", "latents.npy")
    shared = {part: folder / "shared" for part in ("data", "codec", "latents.npy")}
    assert Chain(recipe(context_walk=0), folder / name, processes=Processes(torch.device("cpu")),
                 dtype=torch.float32, data=folder / "clips", shared=shared).run()


def test_two_runs_at_once_make_each_shared_part_once_and_the_same_world(tmp_path):
    make_clips(tmp_path / "clips", length=22, space=KEYS)
    program = "import sys; from tests.train.test_two_builders import build; build(*sys.argv[1:])"
    said, until = [tmp_path / f"said by {name}" for name in "ab"], time.monotonic() + 600
    with ExitStack() as held:
        runs = []
        for name, file in zip("ab", said):
            run = subprocess.Popen([sys.executable, "-c", program, str(tmp_path), name], cwd=ROOT,
                                   stderr=held.enter_context(open(file, "wb")))
            held.callback(run.wait)
            held.callback(run.kill)
            runs.append(run)
        # where one fails the other waits for its part for ever
        while None in (ends := [run.poll() for run in runs]) and not any(ends) and time.monotonic() < until:
            time.sleep(0.05)
    assert ends == [0, 0], [file.read_text(errors="replace") for file in said]
    makers = {part: (tmp_path / f"made {part}").read_text() for part in PARTS}
    assert all(set(names) in ({"a"}, {"b"}) for names in makers.values()), makers
    assert [len(makers[part]) for part in PARTS] == [1, 2, 1], "steps of the codec: two, by one of them"
    rollouts = lerobot.LeRobotFolder.open(tmp_path / "clips").rollouts()
    frames = np.load(tmp_path / "shared" / "data" / "frames.npy")
    assert np.array_equal(frames, np.concatenate([each.frames for each in rollouts]))
    for file in ("model.safetensors", "codec.safetensors", "config.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()

"""A published world of full size on the CPU: fetched, converted and played, its memory measured."""
import hashlib
import json
import mmap
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests import ROOT
from tests.hub.published_files import COMMIT, FakeHub, serving, write_big_checkpoint
from tests.parity import weights
from worldplay import runtime
from worldplay.data.clip import read_clip
from worldplay.hub.convert import transformer_shapes
from worldplay.models.configs import TransformerConfig
from worldplay.worlds import catalog

NAME = "wan-action"
WORLD = catalog.WORLDS[NAME]
FRAME_SIZE = (64, 96)  # the weights are all there, the pictures are small
GIB = 2**30

# The fetch command for this world and the small codec alone: the text encoder is 11 GB, and text rows come
# from a file.
FETCH = """
import sys
from dataclasses import replace
from worldplay.worlds import catalog
from worldplay.cli.commands import main
url, size, sha256, frame_size = sys.argv[1], int(sys.argv[2]), sys.argv[3], eval(sys.argv[4])
part, world = catalog.PARTS["taew2_1"], catalog.WORLDS["wan-action"]
source = replace(part.files["model.safetensors"], url=url, size=size, sha256=sha256)
catalog.PARTS["taew2_1"] = replace(part, files={"model.safetensors": source})
config = world.config | {"frame_size": frame_size}
catalog.WORLDS["wan-action"] = replace(world, parts=("taew2_1",), config=config)
sys.exit(main(["fetch", "wan-action", "--json"]))
"""


@pytest.fixture
def folder(tmp_path):
    """Deleted at once: it is 15 GB, which pytest would keep for a while."""
    yield tmp_path
    for file in [path for path in tmp_path.rglob("*") if path.is_file() or path.is_symlink()]:
        file.unlink()


def measured(command, folder, *, seen=None):
    """Run a command in an environment of its own.

    seen     a file; the time until it appears is measured
    Returns  (stdout, peak bytes of memory, peak bytes of anonymous memory, seconds until `seen`)
    """
    folders = {"XDG_CACHE_HOME": "cache", "XDG_STATE_HOME": "state", "HF_HOME": "hub"}
    environment = os.environ | {name: str(folder / place) for name, place in folders.items()}
    began, peak, private, seconds = time.monotonic(), 0, 0, None
    with open(folder / "stdout", "w+") as out, open(folder / "stderr", "w+") as errors:
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=errors, env=environment)
        while process.poll() is None:
            memory = _memory(process.pid)
            peak, private = max(peak, memory.get("VmHWM", 0)), max(private, memory.get("RssAnon", 0))
            if seen and seconds is None and seen.exists():
                seconds = time.monotonic() - began
            time.sleep(0.02)
        errors.seek(0), out.seek(0)
        assert process.returncode == 0, errors.read()
        return out.read(), peak, private, seconds


def _memory(pid):
    """name -> bytes of what the kernel says of a process."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    rows = (line.split() for line in lines if line.endswith(" kB"))
    return {row[0].rstrip(":"): 1024 * int(row[1]) for row in rows}


def serve_world(folder):
    """(FakeHub, arguments of FETCH behind the URL) of random weights of the world and the small codec."""
    path, codec = folder / "model.pt", folder / "taew2_1.safetensors"
    write_big_checkpoint(path, transformer_shapes(TransformerConfig(**WORLD.config["transformer"])))
    save_file({name: x.contiguous() for name, x in weights("taehv").items()}, codec)
    hub, name = FakeHub(), f"{WORLD.source.repo}/{WORLD.source.file}"
    with open(path, "rb") as file:
        hub.files[name] = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        hub.etags[name] = hashlib.file_digest(file, "sha256").hexdigest()
    hub.files["me/taehv/taew2_1.safetensors"] = codec.read_bytes()
    digest = hashlib.sha256(codec.read_bytes()).hexdigest()
    return hub, [str(codec.stat().st_size), digest, repr(list(FRAME_SIZE))]


@pytest.mark.full_size
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_a_published_world_from_fetch_to_play(folder):
    hub, arguments = serve_world(folder)
    with serving(hub) as url:
        os.environ["HF_ENDPOINT"] = url
        try:
            codec_url = f"{url}/me/taehv/raw/{COMMIT}/taew2_1.safetensors"
            out, peak, private, _ = measured([sys.executable, "-c", FETCH, codec_url, *arguments], folder)
        finally:
            del os.environ["HF_ENDPOINT"]
    made = json.loads(out)
    written = (Path(made["folder"]) / "model.safetensors").stat().st_size
    print(f"fetch: {made['loaded_mib']:.0f} MiB loaded, {written / 2**20:.0f} MiB written in "
          f"{made['seconds']} s, {peak / GIB:.2f} GiB at the peak, {private / GIB:.2f} GiB of it its own")
    assert written > 2 * WORLD.num_params and peak < 1.3 * written

    save_file({"prompt_embeds": torch.randn(64, 4096)}, folder / "rows.safetensors")
    clip = folder / "clip.mp4"
    out, peak, private, seconds = measured(
        [sys.executable, "play.py", NAME, "--headless", "--script", "w*4", "--steps", "1", "--device", "cpu",
         "--prompt", str(folder / "rows.safetensors"), "--out", str(clip), "--json"], folder,
        seen=folder / "clip.part.jsonl")
    print(f"play: first frame after {seconds:.1f} s, {peak / GIB:.2f} GiB at the peak, {private / GIB:.2f} "
          f"GiB of it its own; {out.strip()}")
    frames = np.stack(list(read_clip(clip).frames()))
    assert frames.shape[1:] == (*FRAME_SIZE, 3) and frames.std() > 0
    # Where the processor multiplies bfloat16 the weights stay in the file; elsewhere they are cast, once.
    itemsize = runtime.pick_dtype(torch.device("cpu"))[0].itemsize
    assert private < (1.3 * 4 * WORLD.num_params if itemsize == 4 else 0.5 * written) + GIB
    assert peak < (4 * WORLD.num_params if itemsize == 4 else 0) + 1.3 * written + GIB

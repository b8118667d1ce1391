"""What a byte a weight changes: figures of a world, and of the same one as `worldplay ship` would store it.

    python docs/results/2026-11-27-byte-weights.py WORLD_FOLDER ENV_OR_DATA
"""
import shutil
import sys
import tempfile
from pathlib import Path

import worldplay
from worldplay.eval import fidelity
from worldplay.eval.report import Plan, prepare
from worldplay.eval.sources import open_source
from worldplay.worlds.weights import in_bytes, load_weights, save_weights

if __name__ == "__main__":
    folder, source = Path(sys.argv[1]), open_source(sys.argv[2])
    small = Path(tempfile.mkdtemp()) / folder.name
    shutil.copytree(folder, small)
    for role in ("model", "codec"):
        save_weights(small / f"{role}.safetensors", in_bytes(load_weights(folder / f"{role}.safetensors")))
    worlds = [worldplay.load_world(each, device="cpu") for each in (folder, small)]
    plan = Plan(streams=8, targets=12, dreams=8, horizon=16, walks=(), trials=0)
    for material in prepare(worlds, source, plan, is_own=False):
        player = next(iter(material.streams))
        figures = fidelity.next_frame(material, player)["next_frame"]
        print({name: round(figures[name], 3) for name in ("psnr", "codec_psnr", "repeat_last_psnr")},
              fidelity.rollout_psnr(material, player)["rollout_psnr"])
    source.close()

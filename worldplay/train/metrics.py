"""Where the numbers and pictures of a run go: JSON lines always, TensorBoard if installed, a status line."""
import json
import logging
import math
import time
from pathlib import Path

import numpy as np

from worldplay.files import write_picture

log = logging.getLogger(__name__)


class Metrics:
    """Appends to RUN/metrics.jsonl; keys carry their units (loss/student, time/step_ms, ...)."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.lines = open(self.folder / "metrics.jsonl", "a", encoding="utf-8", buffering=1)
        self.board = _tensorboard(self.folder)

    def write(self, stage, step, values):
        """values: name -> number; a number that is not finite is written as null."""
        clean = {name: float(x) if math.isfinite(x) else None for name, x in values.items()}
        self.lines.write(json.dumps({"stage": stage, "step": step, "unix_time": round(time.time(), 1),
                                     **clean}) + "\n")
        if self.board:
            for name, x in clean.items():
                if x is not None:
                    self.board.add_scalar(f"{stage}/{name}", x, step)

    def picture(self, stage, step, sheet):
        """sheet uint8 [H W 3] -> RUN/sheets/STAGE_STEP.png"""
        path = self.folder / "sheets" / f"{stage}_{step:06d}.png"
        path.parent.mkdir(exist_ok=True)
        write_picture(path, sheet)
        if self.board:
            self.board.add_image(f"{stage}/sheet", sheet, step, dataformats="HWC")
        return path

    def close(self):
        self.lines.close()
        if self.board:
            self.board.close()


def _tensorboard(folder):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(folder / "tensorboard")


def contact_sheet(rows, gap=2):
    """Rows of frames as one picture: rows of uint8 [n H W 3] -> uint8 [sum H, n W, 3], thin dark gaps."""
    lines = []
    for frames in rows:
        tiles = np.pad(np.asarray(frames), ((0, 0), (0, gap), (0, gap), (0, 0)), constant_values=16)
        lines.append(np.concatenate(list(tiles), axis=1))
    width = max(line.shape[1] for line in lines)
    lines = [np.pad(line, ((0, 0), (0, width - line.shape[1]), (0, 0)), constant_values=16) for line in lines]
    return np.concatenate(lines, axis=0)

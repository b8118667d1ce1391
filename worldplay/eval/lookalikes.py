"""How often an environment looks the same in different places, which no network can learn to tell apart."""
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from PIL import Image, ImageDraw

from worldplay.envs import ENVS, open_env
from worldplay.envs.collect import play_rollout
from worldplay.eval.streams import held_out_seeds
from worldplay.log import leave, run_command

ALIKE = 24.0  # dB PSNR, from which two pictures count as alike
APART = 256.0  # map units, beyond which two places are different
TURNED = 45.0  # degrees, beyond which two directions are
_INK, _GROUND, _LINES = (250, 120, 40), (24, 24, 24), (200, 200, 200)
_MAP_SIZE = 640  # pixels


def lookalikes(frames, poses):
    """Figures of pairs of poses: alike by PSNR >= ALIKE, different by more than APART or TURNED.

    frames   uint8 [n H W 3]
    poses    float [n 4], x, y, z in map units and yaw in degrees
    Returns  dict: pairs, the number of different pairs; share, of those that look alike; poses_share, of the poses
             that look like at least one different one; worst, the numbers of the two different poses that look most
             alike; worst_psnr
    """
    # squared distances by the products of all pairs, a block of rows at a time
    flat = frames.reshape(len(frames), -1).astype(np.float32) - 128
    squares = (flat.astype(np.float64) ** 2).sum(1)
    pairs = count = 0
    worst, worst_error = (0, 0), np.inf
    has_alike = np.zeros(len(frames), bool)
    limit = flat.shape[1] * 255 ** 2 / 10 ** (ALIKE / 10)
    for start in range(0, len(frames), 256):
        rows = slice(start, start + 256)
        errors = squares[rows, None] + squares - 2 * (flat[rows] @ flat.T)
        different = _different(poses[rows], poses)
        alike = different & (errors <= limit)
        has_alike[rows] = alike.any(1)
        pairs, count = pairs + int(different.sum()), count + int(alike.sum())
        errors = np.where(different, errors, np.inf)
        if errors.min() < worst_error:
            worst_error = float(errors.min())
            row, column = np.unravel_index(int(errors.argmin()), errors.shape)
            worst = start + int(row), int(column)
    if not pairs:
        raise ValueError("no two of these poses are of different places")
    error = max(worst_error, 1e-9) / flat.shape[1]
    return {"pairs": pairs // 2, "share": count / pairs, "poses_share": float(has_alike.mean()), "worst": worst,
            "worst_psnr": float(10 * np.log10(255 ** 2 / error))}


def _different(poses, others):
    far = np.hypot(*(poses[:, None, axis] - others[:, axis] for axis in (0, 1))) > APART
    turned = np.abs((poses[:, None, 3] - others[:, 3] + 180) % 360 - 180) > TURNED
    return far | turned


def sample(world, num):
    """(uint8 [num H W 3], float32 [num 4]): frames and poses of starts spread over the level, of held-out seeds."""
    starts = [(world.reset(seed=seed)[-1], world.pose.copy()) for seed in held_out_seeds(num)]
    return tuple(np.stack(part) for part in zip(*starts))


def grid(frames, columns):
    """One picture uint8 [H' W' 3] of frames uint8 [n H W 3] in rows of `columns`."""
    count, height, width, _ = frames.shape
    rows = -(-count // columns)
    shown = np.zeros((rows * columns, height, width, 3), np.uint8)
    shown[:count] = frames
    return shown.reshape(rows, columns, height, width, 3).transpose(0, 2, 1, 3, 4).reshape(
        rows * height, columns * width, 3)


def coverage(world, *, num_frames, player, episodes):
    """Picture uint8 [640 640 3] of the level's lines and of every place a scripted player came to, and their poses.

    num_frames  frames of each episode
    """
    poses = np.concatenate([play_rollout(world, num_frames=num_frames, seed=seed, player=player).poses
                            for seed in range(episodes)])
    low, high = world.floor.bounds
    scale = (_MAP_SIZE - 20) / (high - low).max()

    def pixel(point):
        x, y = (np.asarray(point) - low) * scale + 10
        return float(x), float(_MAP_SIZE - y)
    picture = Image.new("RGB", (_MAP_SIZE, _MAP_SIZE), _GROUND)
    draw = ImageDraw.Draw(picture)
    draw.point([pixel(pose[:2]) for pose in poses], _INK)
    for a, b in world.floor.lines:
        draw.line([pixel(a), pixel(b)], _LINES, 2)
    return np.asarray(picture), poses


@dataclass(frozen=True, kw_only=True)
class Options:
    """Share of pairs of different places that look alike, for every environment named; pictures with --out."""
    envs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="ENV...")]
    """Names of environments."""
    poses: int = 2000
    """Places and directions drawn in each."""
    out: Path | None = None
    """Folder for ENV-views.png, ENV-worst.png (the two different places most alike) and ENV-map.png."""


def run(options):
    """Print one JSON object: {environment: figures}."""
    if options.poses < 2:
        raise ValueError(f"--poses {options.poses}: expected at least 2")
    unknown = [name for name in options.envs if name not in ENVS]
    if unknown:
        raise ValueError(f"environment {unknown[0]!r}: unknown; there are {', '.join(ENVS)}")
    report = {}
    for name in options.envs:
        world = open_env(name)
        frames, poses = sample(world, options.poses)
        report[name] = {"poses": options.poses, **lookalikes(frames, poses)}
        if options.out:
            options.out.mkdir(parents=True, exist_ok=True)
            plan, _ = coverage(world, num_frames=256, player="explorer", episodes=100)
            for kind, picture in (("views", grid(frames[:24], 6)), ("worst", grid(frames[list(report[name]["worst"])], 2)),
                                  ("map", plan)):
                Image.fromarray(picture).save(options.out / f"{name}-{kind}.png", optimize=True)
        world.close()
    print(json.dumps(report, indent=1))


def main(args=None):
    """Command line of python -m worldplay.eval.lookalikes; returns the exit status."""
    options = tyro.cli(Options, args=args, prog="python -m worldplay.eval.lookalikes")
    return run_command("lookalikes", lambda: run(options))


if __name__ == "__main__":
    leave(main())

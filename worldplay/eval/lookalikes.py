"""How often an environment looks the same in different places, which no network can learn to tell apart."""
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from PIL import Image, ImageDraw

from worldplay.cores import allowed_cores
from worldplay.envs import ENVS, open_env
from worldplay.envs.collect import collect_rollouts
from worldplay.files import write_picture
from worldplay.log import leave, run_command

ALIKE = 24.0  # dB PSNR, from which two pictures count as alike
APART = 256.0  # map units, beyond which two places are different
TURNED = 45.0  # degrees, beyond which two directions are
COARSE = 8  # pixels along each side of what `coarse` averages
_ROLLOUT, _EVERY = 256, 16  # frames
_INK, _GROUND, _LINES = (250, 120, 40), (24, 24, 24), (200, 200, 200)
_MAP_SIZE = 640  # pixels


def lookalikes(frames, poses):
    """Figures of pairs of poses: alike by PSNR >= ALIKE, different by more than APART or TURNED.

    frames   uint8 [n H W 3]
    poses    float [n 4], x, y, z in map units and yaw in degrees
    Returns  dict: pairs, the number of different pairs; share, of those that look alike; poses_share, of the
             poses that look like at least one different one; worst, the numbers of the two different poses
             that look most alike; worst_psnr

        Raises ValueError where no two poses are different.
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
        different = _different(poses[rows], poses)
        errors = np.where(different, squares[rows, None] + squares - 2 * (flat[rows] @ flat.T), np.inf)
        alike = errors <= limit
        has_alike[rows] = alike.any(1)
        pairs, count = pairs + int(different.sum()), count + int(alike.sum())
        if errors.min() < worst_error:
            worst_error = float(errors.min())
            row, column = np.unravel_index(int(errors.argmin()), errors.shape)
            worst = start + int(row), int(column)
    if not pairs:
        raise ValueError("no two of these poses are of different places")
    error = max(worst_error, 1e-9) / flat.shape[1]
    return {"pairs": pairs // 2, "share": count / pairs, "poses_share": float(has_alike.mean()),
            "worst": worst, "worst_psnr": float(10 * np.log10(255 ** 2 / error))}


def _different(poses, others):
    far = np.hypot(*(poses[:, None, axis] - others[:, axis] for axis in (0, 1))) > APART
    turned = np.abs((poses[:, None, 3] - others[:, 3] + 180) % 360 - 180) > TURNED
    return far | turned


def coarse(frames):
    """uint8 [n H/8 W/8 3]: the means of every 8 x 8 pixels, the part of a picture that is learned first."""
    return np.stack([np.asarray(Image.fromarray(frame).reduce(COARSE)) for frame in frames])


def played(env, *, num_frames, player):
    """(uint8 [n H W 3], float32 [n 4], float32 [num_frames 4]) of scripted play, restarted every 256 frames.

    Every 16th frame, their poses, and the poses of all frames.
    """
    frames, poses = [], []
    for rollout in collect_rollouts(env, num_frames=num_frames, seed=0, workers=allowed_cores(),
                                      player=player,
                                    rollout_frames=_ROLLOUT):
        frames.append(rollout.frames[::_EVERY].copy())
        poses.append(rollout.poses)
    return np.concatenate(frames), np.concatenate([part[::_EVERY] for part in poses]), np.concatenate(poses)


def grid(frames, columns):
    """One picture uint8 [H' W' 3] of frames uint8 [n H W 3] in rows of `columns`."""
    count, height, width, _ = frames.shape
    rows = -(-count // columns)
    shown = np.zeros((rows * columns, height, width, 3), np.uint8)
    shown[:count] = frames
    return shown.reshape(rows, columns, height, width, 3).transpose(0, 2, 1, 3, 4).reshape(
        rows * height, columns * width, 3)


def visited(floor, poses):
    """Picture uint8 [640 640 3] of a level's lines and of every place that was come to.

    floor  worldplay.envs.doom_map.Floor; poses: float [n 4]
    """
    low, high = floor.bounds
    scale = (_MAP_SIZE - 20) / (high - low).max()

    def pixel(point):
        x, y = (np.asarray(point) - low) * scale + 10
        return float(x), float(_MAP_SIZE - y)
    picture = Image.new("RGB", (_MAP_SIZE, _MAP_SIZE), _GROUND)
    draw = ImageDraw.Draw(picture)
    draw.point([pixel(pose[:2]) for pose in poses], _INK)
    for a, b in floor.lines:
        draw.line([pixel(a), pixel(b)], _LINES, 2)
    return np.asarray(picture)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Share of pairs of different places that look alike, for every environment; --out adds pictures."""
    envs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="ENV...")]
    """Names of environments."""
    frames: int = 32_000
    """Frames of scripted play in each; every 16th is compared with all the others."""
    player: str = "explorer"
    """Who plays."""
    out: Path | None = None
    """Folder for ENV-views.png, ENV-worst.png (the two different places most alike) and ENV-map.png."""


def measure(env, *, num_frames, player, out=None):
    """Figures of one environment; see Options.

    Returns  dict: frames, and what `lookalikes` gives of the `frames` as they are and of them `coarse`
    """
    frames, poses, all_poses = played(env, num_frames=num_frames, player=player)
    made = {"player": player, "frames": len(frames), "as_seen": lookalikes(frames, poses),
            "coarse": lookalikes(coarse(frames), poses)}
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        world = open_env(env)
        world.reset(seed=0)
        floor = world.floor
        world.close()
        worst = [*made["as_seen"]["worst"], *made["coarse"]["worst"]]
        pictures = {"views": grid(frames[::max(1, len(frames) // 24)][:24], 6),
                    "worst": grid(frames[worst], 2), "map": visited(floor, all_poses)}
        for name, picture in pictures.items():
            write_picture(out / f"{env}-{name}.png", np.asarray(picture))
    return made


def run(options):
    """Print one JSON object: {environment: figures}."""
    if options.frames < 2 * _EVERY:
        raise ValueError(f"--frames {options.frames}: expected at least {2 * _EVERY}")
    unknown = [name for name in options.envs if name not in ENVS]
    if unknown:
        raise ValueError(f"environment {unknown[0]!r}: unknown; there are {', '.join(ENVS)}")
    print(json.dumps({name: measure(name, num_frames=options.frames, player=options.player, out=options.out)
                      for name in options.envs}, indent=1))


def main(args=None):
    """Command line of python -m worldplay.eval.lookalikes; returns the exit status."""
    options = tyro.cli(Options, args=args, prog="python -m worldplay.eval.lookalikes")
    return run_command("lookalikes", lambda: run(options))


if __name__ == "__main__":
    leave(main())

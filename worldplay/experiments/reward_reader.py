"""The real game's reward read off pictures, so that a dream, which pays none, can be learned in."""
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F

from worldplay.data.frame_cache import is_held_out
from worldplay.envs.driver import drive
from worldplay.errors import WorldError
from worldplay.experiments.driving import HOLD, ZOOM
from worldplay.log import track

_FRAMES = 500  # of an episode that is watched
_OUTSIDE = -50.0  # what only leaving the field pays; no picture says where the field ends
_WINDOW = 25  # actions that agreement over time is measured on
_EPOCHS, _BATCH, _LR = 10, 64, 1e-3


@dataclass(frozen=True)
class Drive:
    """Real play by the driver.

    frames   uint8 [n H W 3], as the world's codec shows them
    actions  float32 [n a], encoded; actions[i] caused frames[i], as rewards[i], float32 [n], is paid with it
    """
    frames: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray

    def sums(self):
        """float32 [n - HOLD]: what the frames i + 1 to i + HOLD pay."""
        total = np.concatenate([[0.0], np.cumsum(self.rewards, dtype=np.float64)])
        return (total[1 + HOLD:] - total[1:-HOLD]).astype(np.float32)


def watch(world, codec, frames, *, held_out=False, start=0):
    """Drives by worldplay.envs.driver of about so many frames in all.

    world  GymWorld of the game; codec: of the learned world, which frames pass through, because that is how a
           dream looks
    """
    drives, seed = [], start
    for _ in track(range(max(1, frames // _FRAMES)), desc="real play", unit="episode"):
        while is_held_out(seed) != held_out:
            seed += 1
        drives.append(_watched(world, codec, seed))
        seed += 1
    return drives


def _watched(world, codec, seed):
    shown, actions, rewards = [world.reset(seed=seed)[-1]], [], [0.0]
    player = drive(world, seed)
    while len(shown) < ZOOM + _FRAMES:
        action = next(player)
        try:
            shown += world.step(action)
        except WorldError as error:
            if error.kind != "ended":
                raise
            break
        actions.append(world.action_space.encode(action))
        rewards.append(world.reward)
    actions = np.stack([np.zeros_like(actions[0]), *actions])
    return Drive(through(codec, np.stack(shown[ZOOM:])), actions[ZOOM:], np.float32(rewards[ZOOM:]))


@torch.inference_mode()
def through(codec, frames):
    """uint8 [n H W 3]: frames encoded and decoded."""
    device = next(codec.parameters()).device
    parts = torch.from_numpy(frames).split(64)
    shown = [codec.decode_uint8(codec.encode_uint8(part.to(device))).cpu() for part in parts]
    return torch.cat(shown).numpy()


class RewardReader(nn.Module):
    """The reward of HOLD frames, read off the frame before them and the last of them."""

    def __init__(self, frame_size):
        super().__init__()
        height, width = (-(-side // 8) for side in frame_size)
        self.layers = nn.Sequential(
            nn.Conv2d(6, 16, 5, 2, 2), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(),
            nn.Conv2d(32, 32, 3, 2, 1), nn.ReLU(), nn.Flatten(),
            nn.Linear(32 * height * width, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, before, after):
        """float32 [b] of uint8 [b H W 3] each."""
        pair = torch.cat([before, after], dim=-1).float() / 127.5 - 1
        return self.layers(rearrange(pair, "b H W c -> b c H W"))[:, 0]

    @torch.inference_mode()
    def read(self, before, after):
        """float32 [n] of uint8 arrays [n H W 3]; many are read in parts."""
        pairs = zip(torch.from_numpy(before).split(256), torch.from_numpy(after).split(256))
        return torch.cat([self(*pair) for pair in pairs]).numpy()


def fit_reader(drives, seed=0):
    """A RewardReader of least squares over all that these Drives paid, but for leaving the field."""
    torch.manual_seed(seed)
    frames = torch.from_numpy(np.concatenate([each.frames for each in drives]))
    ends = np.cumsum([len(each.frames) for each in drives])
    at = np.concatenate([np.arange(end - len(each.frames), end - HOLD) for each, end in zip(drives, ends)])
    paid = np.concatenate([each.sums() for each in drives])
    at, paid = (torch.from_numpy(x[paid > _OUTSIDE]) for x in (at, paid))
    reader = RewardReader(frames.shape[1:3])
    optimizer = torch.optim.AdamW(reader.parameters(), lr=_LR, weight_decay=0.05)
    steps = -(-len(at) // _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LR, total_steps=_EPOCHS * steps)
    for _ in track(range(_EPOCHS), desc="reward", unit="epoch"):
        for rows in torch.randperm(len(at)).split(_BATCH):
            read = reader(frames[at[rows]], frames[at[rows] + HOLD])
            optimizer.zero_grad()
            F.mse_loss(read, paid[rows]).backward()
            optimizer.step()
            schedule.step()
    return reader.eval()


def agreement(reader, drives):
    """How far what is read agrees with what Drives paid, the field's edge left out.

    Returns  {pairs, r2 of an action's reward, windows, window_r2 of the sum over 25 actions}
    """
    paid, read = [], []
    for each in drives:
        sums = each.sums()[::HOLD]
        taken = each.frames[::HOLD][:len(sums) + 1]
        made = reader.read(taken[:-1], taken[1:])
        inside = sums[:len(made)] > _OUTSIDE
        paid.append(sums[:len(made)][inside])
        read.append(made[inside])
    windows = [[part[i:i + _WINDOW].sum() for part in parts
                for i in range(0, len(part) - _WINDOW + 1, _WINDOW)] for parts in (paid, read)]
    paid, read = np.concatenate(paid), np.concatenate(read)
    return {"pairs": len(paid), "r2": r2(paid, read), "windows": len(windows[0]), "window_r2": r2(*windows)}


def agreement_dreamed(reader, world, drives):
    """The same of dreams: each Drive's actions dreamed from its first frames, read, and held against what
    they paid in the real game.

    world    DreamWorld
    Returns  {dreams, correlation of the sum over 25 actions, r2}
    """
    context, paid, read = world.config.window, [], []
    for each in track(drives, desc="real play dreamed", unit="dream"):
        actions = [world.action_space.decode(vector) for vector in each.actions[:context + HOLD * _WINDOW]]
        world.reset(frames=each.frames[:context], actions=actions[:context])
        shown = np.stack([each.frames[context - 1], *world.walk(actions[context:])])[::HOLD]
        paid.append(each.sums()[context - 1::HOLD][:len(shown) - 1].sum())
        read.append(reader.read(shown[:-1], shown[1:]).sum())
    return {"dreams": len(paid), "correlation": float(np.corrcoef(paid, read)[0, 1]), "r2": r2(paid, read)}


def r2(real, made):
    """Share of the variance of `real` that `made` explains, below 0 where it is worse than their mean."""
    real, made = np.asarray(real, np.float64), np.asarray(made, np.float64)
    return float(1 - ((real - made) ** 2).sum() / ((real - real.mean()) ** 2).sum())

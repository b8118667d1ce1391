"""The look of a world measured at real frames, as play measures its own; without torch."""
from itertools import islice

import numpy as np

from worldplay.eval.statistics import compare, statistics
from worldplay.worlds.look import Look

EVERY = 8  # frames from one that is measured to the next
RECENT = 12  # of them are averaged: 5 s at 17.5 frames per second
SIDE = 160  # pixels of the middle that are measured, so that it takes 1 to 4 ms however large the frame is
MOST_FRAMES = 3000  # that a look is measured at
WITHIN = (1.0, 99.0)  # percentiles of real play: what it reaches


def measured(frame):
    """The statistics of the middle of a frame, uint8 [H W 3]."""
    top, left = (max(0, (length - SIDE) // 2) for length in frame.shape[:2])
    return statistics(frame[top:top + SIDE, left:left + SIDE])


def look_of(episodes):
    """The Look of stretches of real frames, uint8 [n H W 3] each; None where they show nothing but black."""
    episodes = list(_rows(episodes))
    if not episodes:
        return None
    rows = np.concatenate(episodes)
    mean = rows.mean(0)
    if not mean[:2].min() > 0:
        return None
    seen = [compare(part[i:i + RECENT], mean[None])
            for part in episodes for i in range(len(part) - RECENT + 1)]
    reached = {name: np.percentile([figures[name] for figures in seen], WITHIN).round(4).tolist()
               for name in ("sharpness_ratio", "brightness_ratio", "histogram_distance") if seen}
    if seen:
        reached["histogram_distance"] = reached["histogram_distance"][1]
    sharpness, brightness, *colours = mean.round(5).tolist()
    return Look(frames=len(rows), sharpness=sharpness, brightness=brightness, colours=colours, **reached)


def look_of_cache(cache):
    """The Look of the held-out episodes of a worldplay.data.frame_cache.FrameCache."""
    return look_of(cache.frames[start:start + length]
                   for start, length, _ in cache.split("held_out").tolist())


def _rows(episodes):
    """The statistics of each episode's measured frames, float64 [m 2 + 96], up to MOST_FRAMES in all."""
    left = MOST_FRAMES
    for frames in episodes:
        rows = [measured(frame) for frame in islice(frames, 0, EVERY * left, EVERY)]
        left -= len(rows)
        if rows:
            yield np.stack(rows)
        if left <= 0:
            return

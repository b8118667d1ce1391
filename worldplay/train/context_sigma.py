"""Choose the noise level at which play commits frames to the cache: the one whose short walks drift least."""
import logging
import math
import time

import numpy as np

from worldplay.engine.loading import random_world
from worldplay.envs import ENVS
from worldplay.eval.drift import CURVE, drift, drift_score
from worldplay.eval.sources import NO_PLAY, Game, Recording
from worldplay.eval.statistics import statistics
from worldplay.eval.streams import Material

log = logging.getLogger(__name__)

CANDIDATES = (0.0, 0.05, 0.1, 0.2, 0.3)
BUDGET_PART = 0.2  # of a run's time that walks may take
_WALKS = 3
_EVALUATION_SEEDS = 1_000  # far more than an evaluation takes
_MEASURED = 4  # frames by which their time is estimated
_MARGIN = 1.3  # on what was measured, for the real game on the same ways and the frames before them


def plan_walks(config, device, *, wanted, budget):
    """(frames, seconds): how long the walks of `choose_context_sigma` may be to take no more than BUDGET_PART
    of a run of `budget` seconds, at most `wanted`; 0 frames where even the shortest of drift.CURVE take more,
    with the seconds of those.

    By the time that a world of WorldConfig `config` with random weights takes here.
    """
    world, context = random_world(config, device=device.type), config.window
    frames = np.zeros((_WALKS, context, *config.frame_size, 3), np.uint8)
    actions = np.zeros((_WALKS, context + _MEASURED, config.action_space.num_channels), np.float32)
    shown = world.follow(frames, actions, start=context, is_free=True)
    next(shown)  # takes more sampling steps than the others
    started = time.monotonic()
    for made, in shown:
        for frame in made:
            statistics(frame)
            statistics(frame)  # and of the real one
    frame_seconds = (time.monotonic() - started) / (_MEASURED - 1)
    for length in sorted((each for each in CURVE if each <= wanted), reverse=True):
        seconds = _MARGIN * len(CANDIDATES) * length * frame_seconds
        if seconds <= BUDGET_PART * budget:
            return length, seconds
    return 0, seconds


def choose_context_sigma(world, data, *, num_frames, seconds=math.inf):
    """(best of CANDIDATES, {candidate: drift_score after num_frames}) for a DreamWorld.

    data        folder of the frame cache that it was trained on: where there is no game called by its
                environment's name, walks follow the actions of the held-out episodes, one after another
    num_frames  a point of drift.CURVE
    seconds     after which no further one is begun, on a machine that has become slower than `plan_walks`
                found it; those nearest to the world's own come first
    """
    started = time.monotonic()
    if world.config.env in ENVS:
        source = Game(world.config.env, skip=_EVALUATION_SEEDS)
    else:
        why = (f"{world.config.env}: {NO_PLAY}" if (world.config.env or "").startswith("gym:") else
               f"there is no game called {world.config.env!r} here")
        log.info("%s: the context sigma is chosen on held-out episodes of the run's data", why)
        source = Recording(data)
    player = source.players[0]
    streams = {player: source.streams(player, 12, context=world.config.window, horizon=16)}
    default, scores = world.config.context_sigma, {}
    for sigma in sorted(CANDIDATES, key=lambda sigma: abs(sigma - default)):
        if scores and time.monotonic() - started > seconds:
            log.warning("the budget is over: the context sigma is chosen among %d of %d", len(scores),
                        len(CANDIDATES))
            break
        world.sampler.context_sigma = sigma
        material = Material(world=world, source=source, streams=streams, num_targets=0, num_dreams=0,
                            walks=(num_frames,) * _WALKS)
        scores[sigma] = drift_score(drift(material, player)["drift"][str(num_frames)])
        log.info("context sigma %.2f: drift %.3f after %d frames", sigma, scores[sigma], num_frames)
    world.sampler.context_sigma = default
    source.close()
    return least_drift(scores, default), scores


def least_drift(scores, default):
    """The noise level with the least drift; of several that are equal as they are printed the nearest to
    `default`.

    A world that ignores its past drifts alike at every level, which is no reason to leave the recipe's.
    """
    return min(scores, key=lambda sigma: (round(scores[sigma], 3), abs(sigma - default)))

"""Choose the noise level at which play commits frames to the cache: the one whose short walks drift least."""
import logging
from dataclasses import replace

from worldplay.envs import ENVS
from worldplay.eval.drift import drift, drift_score
from worldplay.eval.sources import Game, Recording
from worldplay.eval.streams import Material

log = logging.getLogger(__name__)

CANDIDATES = (0.0, 0.05, 0.1, 0.2, 0.3)
_EVALUATION_SEEDS = 1_000  # far more than an evaluation takes


def choose_context_sigma(world, data, *, num_frames, num_walks=3, candidates=CANDIDATES):
    """(best candidate, {candidate: drift_score after num_frames}) for a DreamWorld.

    data        folder of the frame cache that it was trained on: where there is no game called by its
                environment's name, walks follow the actions of the held-out episodes, one after another
    num_frames  a point of drift.CURVE
    """
    if world.config.env in ENVS:
        source = Game(world.config.env, skip=_EVALUATION_SEEDS)
    else:
        log.info("there is no game called %r here: the context sigma is chosen on held-out episodes",
                 world.config.env)
        source = Recording(data)
    player = source.players[0]
    streams = {player: source.streams(player, 12, context=world.config.window, horizon=16)}
    config, scores = world.config, {}
    for sigma in candidates:
        world.config = replace(config, context_sigma=sigma)
        material = Material(world=world, source=source, streams=streams, num_targets=0, num_dreams=0,
                            walks=(num_frames,) * num_walks)
        scores[sigma] = drift_score(drift(material, player)["drift"][str(num_frames)])
        log.info("context sigma %.2f: drift %.3f after %d frames", sigma, scores[sigma], num_frames)
    world.config = config
    source.close()
    return least_drift(scores, config.context_sigma), scores


def least_drift(scores, default):
    """The noise level with the least drift; of several that are equal as they are printed the nearest to
    `default`.

    A world that ignores its past drifts alike at every level, which is no reason to leave the recipe's.
    """
    return min(scores, key=lambda sigma: (round(scores[sigma], 3), abs(sigma - default)))

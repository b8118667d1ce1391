"""Choose the noise level at which play writes its own frames to the cache: the one whose short walks drift least."""
import logging
from dataclasses import replace
from functools import partial

from worldplay.cores import allowed_cores
from worldplay.envs import open_env
from worldplay.eval.drift import PLAYER, drift, drift_score
from worldplay.eval.streams import Material, held_out_seeds, real_streams

log = logging.getLogger(__name__)

CANDIDATES = (0.0, 0.05, 0.1, 0.2, 0.3)
_EVALUATION_SEEDS = 1_000  # far more than an evaluation takes


def choose_context_sigma(world, *, num_frames, num_walks=3, candidates=CANDIDATES):
    """(best candidate, {candidate: drift_score after num_frames}) for a DreamWorld; num_frames is a point of drift.CURVE."""
    env = world.config.env
    seeds = held_out_seeds(12, skip=_EVALUATION_SEEDS)
    streams = {PLAYER: real_streams(env, seeds=seeds, context=world.config.window, horizon=16, player=PLAYER,
                                    workers=allowed_cores())}
    config, scores = world.config, {}
    for sigma in candidates:
        world.config = replace(config, context_sigma=sigma)
        material = Material(world=world, streams=streams, open_real=partial(open_env, env), num_targets=0,
                            num_dreams=0, walks=(num_frames,) * num_walks)
        scores[sigma] = drift_score(drift(material, PLAYER)["drift"][str(num_frames)])
        log.info("context sigma %.2f: drift %.3f after %d frames", sigma, scores[sigma], num_frames)
    world.config = config
    return min(scores, key=scores.get), scores

"""Choose the noise level at which play writes its own frames to the cache: the one whose short walks drift least."""
import logging
from dataclasses import replace

from worldplay.eval.drift import drift, drift_score
from worldplay.eval.sources import Game
from worldplay.eval.streams import Material

log = logging.getLogger(__name__)

CANDIDATES = (0.0, 0.05, 0.1, 0.2, 0.3)
_EVALUATION_SEEDS = 1_000  # far more than an evaluation takes


def choose_context_sigma(world, *, num_frames, num_walks=3, candidates=CANDIDATES):
    """(best candidate, {candidate: drift_score after num_frames}) for a DreamWorld; num_frames is a point of drift.CURVE."""
    source = Game(world.config.env, skip=_EVALUATION_SEEDS)
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
    return min(scores, key=scores.get), scores

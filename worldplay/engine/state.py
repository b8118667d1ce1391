"""The state of a world in play: all that decides the frames to come."""
from dataclasses import dataclass, replace
from typing import Any

from worldplay.models.attention.kv_cache import KVCache


@dataclass
class PlayState:
    """What a DreamWorld changes as it plays; a snapshot is a clone of it.

    cache            KVCache of the past
    controls         what the actions so far add up to, as the world's controls keep it
                     (worldplay.engine.controls)
    seed             of all noise
    text             keys and values of the prompt for every block (Transformer.encode_text); None without a
                     text
    prompt           its words, None without
    decoder          what the codec remembers of the latents that it has decoded; None before the first
    frame            index of the next latent
    first_generated  index of the first latent after the start, whose chunk takes first_steps sampling steps
    has_begun        whether there is a start to go on from
    is_mid_step      whether a chunk is being shown that is not in the cache yet
    """
    cache: KVCache
    controls: Any
    seed: int
    text: list | None = None
    prompt: str | None = None
    decoder: Any = None
    frame: int = 0
    first_generated: int = 0
    has_begun: bool = False
    is_mid_step: bool = False

    def clone(self):
        """An independent copy; of its values only the cache is ever written to."""
        return replace(self, cache=self.cache.clone())

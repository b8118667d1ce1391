"""Every random number of training, as a function of (seed, step, purpose, global sample index)."""
import hashlib

import torch

# steps of what is drawn outside of training steps
HELD_OUT, TRAJECTORY_WINDOWS, TRAJECTORIES, INITIAL_WEIGHTS = -1, -2, -3, -4


class Draws:
    """The random numbers of one training step; they depend on no rank, batch split or earlier step.

    seed     of the run
    step     of the stage, from 0 on; below that one of the constants above
    indices  global sample indices of the batch at hand, one per row
    """

    def __init__(self, seed, step, indices):
        self.seed, self.step, self.indices = seed, step, list(indices)

    def seed_for(self, purpose, index=None):
        """The seed of a generator for (purpose, index); index None is shared by the whole batch."""
        text = f"{self.seed}/{self.step}/{purpose}/{'shared' if index is None else index}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1

    def generator(self, purpose, index=None):
        """A CPU generator of its own for (purpose, index), as for `seed_for`."""
        return torch.Generator().manual_seed(self.seed_for(purpose, index))

    def normal(self, purpose, *shape):
        """Standard normal, float32 [b *shape]."""
        return self._per_sample(torch.randn, purpose, shape)

    def uniform(self, purpose, *shape):
        """Uniform in [0, 1), float32 [b *shape]."""
        return self._per_sample(torch.rand, purpose, shape)

    def integers(self, purpose, below, *shape):
        """Uniform integers in [0, below), int64 [b *shape]."""
        return (self._per_sample(torch.rand, purpose, shape).double() * below).long().clamp_max(below - 1)

    def shared_uniform(self, purpose):
        """One number in [0, 1) for the whole batch, the same on every process."""
        return float(torch.rand((), generator=self.generator(purpose)))

    def shared_integer(self, purpose, below):
        """One integer in [0, below) for the whole batch, the same on every process."""
        return int(torch.randint(below, (), generator=self.generator(purpose)))

    def _per_sample(self, draw, purpose, shape):
        return torch.stack([draw(shape, generator=self.generator(purpose, index)) for index in self.indices])


class PlacedDraws(Draws):
    """Draws for counting operations: per-sample values are 0, those a batch shares lie at `part` (0 to 1) of
    their range, because they decide how much is computed."""

    def __init__(self, part, indices):
        super().__init__(0, 0, indices)
        self.part, self.shared = part, set()

    def shared_uniform(self, purpose):
        self.shared.add("uniform")
        return self.part

    def shared_integer(self, purpose, below):
        self.shared.add("integer")
        return int(self.part * below)

    def _per_sample(self, draw, purpose, shape):
        return torch.zeros(len(self.indices), *shape)

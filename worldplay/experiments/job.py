"""Several training runs in one folder, made part by part; the same command goes on where the last stopped."""
import time
from pathlib import Path

from worldplay.train.chain import Chain
from worldplay.train.deadline import Deadline


class Job:
    """What a recipe of several runs is; a subclass has `parts` and `finish`.

    report  name of the file in its folder that `finish` writes
    where   what is going on, for a job that stops with work left
    """
    report = "RESULTS.md"

    def __init__(self, recipe, folder, *, processes, deadline=None, seed=0, **options):
        """recipe: for all runs. options: of Chain.

            Raises ValueError for several processes: its networks are too small to be spread.
        """
        if processes.size > 1:
            raise ValueError(f"{recipe.name} runs in one process, not in {processes.size}: start it without "
                             "torchrun")
        self.recipe, self.folder, self.seed = recipe, Path(folder), seed
        self.deadline = deadline or Deadline()
        self.processes, self.device = processes, processes.device
        self.options = {"processes": processes, "deadline": self.deadline, "seed": seed, **options}
        self.where = ""

    def parts(self):
        """[(what it is, function that does it and returns whether it is done)] in order; a part that was done
        before takes no time."""
        raise NotImplementedError

    def finish(self):
        """Write `report` from what the parts have left in the folder."""
        raise NotImplementedError

    def run(self):
        """True when the report is written, False when stopped with work left."""
        parts = self.parts()
        for number, (what, part) in enumerate(parts, 1):
            self.where = f"part {number} of {len(parts)}: {what}"
            if self.deadline.passed(time.monotonic()) or not part():
                return False
        self.finish()
        return True

    def train(self, recipe, folder, **given):
        """Whether the stages of a recipe are done in a folder; given: more options of Chain."""
        chain = Chain(recipe, folder, **given, **self.options)
        try:
            done = chain.run_stages()
        finally:
            chain.close()
        if not done:
            self.where += f" ({chain.where})"
        return done

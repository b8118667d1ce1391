"""run.json: the recipe that a run was started with, and the seconds that each part took and may take."""
import json
import math
import time
from dataclasses import asdict

from worldplay.errors import WorldError
from worldplay.files import read_json, write_json
from worldplay.train.recipe import numbers


class RunLog(dict):
    """The content of RUN/run.json, the same in all processes; `keep` writes it.

    recipe, budget  as given; whatever else the run was started with stands beside them
    spent, seconds  part -> seconds it took over all calls, stage -> seconds it may take
    context_walk    of the walks that choose the context sigma: frames, and seconds of the budget
    """

    def __init__(self, folder, recipe, processes, *, budget, **given):
        """given: what must be the same when the run goes on, as JSON holds it.

            Raises ValueError naming a number that was another one when the run was started, WorldError for a
            run.json that cannot be read.
        """
        self.path, self.recipe, self.processes, self.budget = folder / "run.json", recipe, processes, budget
        fields = json.loads(json.dumps(asdict(recipe)))
        if processes.is_first and not self.path.exists():
            write_json(self.path, {"recipe": fields, "budget": budget, **given, "spent": {}, "seconds": {}})
        processes.wait()
        record = read_json(self.path)
        if not isinstance(record, dict) or not {"recipe", "budget", "spent", "seconds"} <= record.keys():
            raise WorldError("bad_checkpoint", f"{self.path} is no record of a run; give another --out")
        before = dict(numbers(record["recipe"])) | {name: record.get(name) for name in given}
        for name, value in {**dict(numbers(fields)), **given}.items():
            if before.get(name, value) != value:  # a field newer than this run.json counts as unchanged
                raise ValueError(f"{self.path} was started with {name} {before[name]}, now it is {value}; "
                                 "go on with the same, or give another --out")
        super().__init__(processes.agree(record))

    def timed(self, name, part):
        """part(), its time added to what `name` took."""
        start = time.monotonic()
        result = part()
        self["spent"][name] = self["spent"].get(name, 0.0) + time.monotonic() - start
        self.keep()
        return result

    @property
    def seconds_left(self):
        """What parts and stages so far have left of the budget; infinite without one."""
        spent = sum(seconds for part, seconds in self["spent"].items() if part != "trajectories")
        return math.inf if self.budget is None else self.budget - spent - sum(self["seconds"].values())

    def stage_seconds(self, name):
        """Seconds of a stage: its share of what the parts before it left of the budget; fixed when it starts.

        The walks that choose the context sigma at the end have theirs kept. Making the trajectories counts
        against the share of causal_ode.
        """
        if name not in self["seconds"]:
            left = self.seconds_left - self.get("context_walk", {}).get("seconds", 0.0)
            stages = self.recipe.stages
            rest = [self.recipe.loop(later).share for later in stages[stages.index(name):]]
            self["seconds"][name] = max(1.0, left * rest[0] / sum(rest))
            self.keep()
        return max(1.0, self["seconds"][name] - self._before(name))

    def finished(self, name, seconds):
        """Note that a stage is done after so many seconds; the rest of its share goes to later ones."""
        if name in self["seconds"]:
            self["seconds"][name] = seconds + self._before(name)
            self.keep()

    def _before(self, name):
        """Seconds that count against a stage's share beside its training."""
        return self["spent"].get("trajectories", 0.0) if name == "causal_ode" else 0.0

    def keep(self):
        """Write run.json; what the first process has in it counts for all, because clocks differ."""
        if self.processes.is_first:
            write_json(self.path, self)
        agreed = self.processes.agree(dict(self))
        self.clear()
        self.update(agreed)

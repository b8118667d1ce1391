"""What was played since a reset: all that is needed to play it again, up to any place in it."""
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain, islice

import numpy as np

from worldplay.action import Action
from worldplay.client.worker import Reset
from worldplay.data.action_log import ActionLog
from worldplay.data.clip import actions_from_json, pack_frames
from worldplay.data.clip_writer import describe
from worldplay.data.save_file import Save

# what may change from step to step of a world -> the list of its changes in a sidecar and in a saved place
CHANGES = {"path": "paths", "threads": "threads", "steps": "steps", "window": "windows"}


@dataclass(frozen=True)
class PastStep:
    """A step to be made again: its action, the text given right before it or None, and how it ran.

    sampling  its sampling steps
    """
    action: Action
    prompt: str | None
    path: str | None
    threads: int | None
    sampling: int | None
    window: int | None


class Line:
    """All actions and texts since a reset; what reads it never changes it.

    request   the Reset that began it
    header    worldplay.data.clip_writer.describe of the world at its start
    start     uint8 [n H W 3], the frames that it began from; None: a scene
    actions   ActionLog; [0] is null, [i] is the i-th step's
    prompts   {step: text given right before it}
    changes   name of CHANGES -> {step: value from it on}
    ahead     the actions of a `rollout`, which the world knew from its start on
    number    frames shown since the start; 0 is the last frame of the context shown at the start
    step      of the frame shown last
    """

    def __init__(self, world, request, frames, *, ahead=None):
        """A Reset, with its file read, is done and showed `frames`, uint8 [n H W 3].

        ahead  the actions of a rollout; None: they come step by step

        A chunk is denoised together, so later actions of it take part in the frames before them: a clip of a
        rollout holds all actions, wherever it ends.
        """
        where = {"scene": request.scene or world.scenes[0]} if request.is_scene else {
            "start": frames, "start_actions": request.actions}
        self.request, self.start, self.header = request, where.get("start"), describe(world, **where)
        self.header["is_rollout"] = ahead is not None
        self.ahead = tuple(ahead or ())
        self.actions, self.prompts, self.number, self.step = ActionLog([Action()]), {}, 0, 0
        self.changes = {name: {0: world.info.get(name)} for name in CHANGES}

    def act(self, action):
        """An action was handed to the world; the frames that follow are its."""
        self.actions.append(action)

    def write(self, text):
        """The world was given another text, under which the next step is made."""
        self.prompts[len(self.actions)] = text

    def show(self, times):
        """The player saw a frame of the last step; `times` as in ClipWriter.add."""
        self.number, self.step = self.number + 1, len(self.actions) - 1
        for name, changes in self.changes.items():
            if (value := times.get(name)) and value != list(changes.values())[-1]:
                changes[self.step] = value

    def cut(self, step, number):
        """A Line of the same start that ends with a step, at the frame of that number."""
        other = object.__new__(Line)
        other.__dict__ |= self.__dict__
        other.actions, other.number, other.step = ActionLog(self.actions[:step + 1]), number, step
        other.prompts = _until(step, self.prompts)
        other.changes = {name: _until(step, changes) for name, changes in self.changes.items()}
        return other

    def steps(self, after=0):
        """PastSteps after the step `after`, to the end."""
        how = [_in_force(self.changes[name]) for name in CHANGES]
        return [PastStep(self.actions[step], self.prompts.get(step), *(each(step) for each in how))
                for step in range(after + 1, len(self.actions))]

    @property
    def begun_as(self):
        """How the start ran: path, threads, sampling steps, window, each None where it is not known."""
        return tuple(self.changes[name].get(0) for name in CHANGES)

    def as_clip(self, step):
        """(header, actions, prompts) for the ClipWriter of a clip that begins with a frame of a step."""
        changes = {CHANGES[name]: [*_until(step, each).items()] for name, each in self.changes.items()}
        actions = chain(islice(self.actions, step + 1), self.ahead[step:])
        return self.header | changes, actions, _until(step, self.prompts)

    @classmethod
    def of_clip(cls, clip, index):
        """The Line of a worldplay.data.clip.Clip up to the frame `index` of its video, the last of a step."""
        line, sidecar = object.__new__(cls), clip.sidecar
        step = sidecar["frames"][index]["step"]
        own = ("recorded", "actions", "prompts", "frames", "branch_of", *CHANGES.values())
        line.header = {name: value for name, value in sidecar.items() if name not in own}
        line.start, line.ahead = clip.start, ()
        line.request = Reset(sidecar["scene"], frames=line.start, actions=clip.start_actions,
                             seed=sidecar["seed"])
        line.actions, line.step = ActionLog(clip.actions[:step + 1]), step
        line.number = sidecar["recorded"][0] + index
        line.prompts = _until(step, clip.prompts)
        line.changes = {name: _until(step, getattr(clip, listed)) for name, listed in CHANGES.items()}
        return line

    # As a saved place

    def to_save(self, frame, title, state):
        """The Save of this place; state: (fields, arrays) of the world's `pack`, or None."""
        keys, look = self.actions.to_arrays()
        fields = {name: value for name, value in self.header.items() if name != "start"}
        fields |= {"title": title, "saved": datetime.now(UTC).isoformat(timespec="seconds"),
                   "number": self.number, "state": state and state[0],
                   "prompts": [*self.prompts.items()],
                   **{CHANGES[name]: [*each.items()] for name, each in self.changes.items()}}
        return Save(fields, np.array(frame), keys, look, self.start, state[1] if state else {})

    @classmethod
    def of_save(cls, saved):
        """The Line that ends at a saved place."""
        line, fields = object.__new__(cls), saved.fields
        own = ("title", "saved", "number", "state", "prompts", *CHANGES.values())
        line.start, line.header = saved.start, {name: fields[name] for name in fields.keys() - {*own}}
        line.header["start"] = None if saved.start is None else pack_frames(saved.start)
        line.request = Reset(fields["scene"], frames=saved.start, seed=fields["seed"],
                             actions=actions_from_json(fields.get("start_actions")))
        line.actions, line.ahead = ActionLog.of_arrays(saved.keys, saved.look), ()
        line.number, line.step = fields["number"], len(line.actions) - 1
        line.prompts = _by_step(fields["prompts"])
        line.changes = {name: _by_step(fields[listed]) for name, listed in CHANGES.items()}
        return line


def _until(step, changes):
    return {at: value for at, value in changes.items() if at <= step}


def _by_step(listed):
    return {int(step): value for step, value in listed}


def _in_force(changes):
    """A function of rising steps: the value of the last change up to the step."""
    left, value = sorted(changes.items(), reverse=True), None

    def at(step):
        nonlocal value
        while left and left[-1][0] <= step:
            value = left.pop()[1]
        return value
    return at

"""The last seconds of play, kept so that it can go back to any moment of them and go on from there."""
from collections import deque
from dataclasses import dataclass
from typing import Any

from worldplay.client.line import Line
from worldplay.client.worker import GoBack
from worldplay.data.save_file import check_world

KEPT_SECONDS = 40.0     # of play in the world's time
FRAME_BYTES = 640 * 2**20  # at most for these frames; of the largest published world that is 33 seconds
STATE_BYTES = 256 * 2**20  # at most for snapshots
STATE_SECONDS = 2.0     # between two snapshots, more where each is large: so much is made again at most


@dataclass(frozen=True, eq=False)
class Moment:
    """A frame that was shown, uint8 [H W 3]: its number since the start, its step and times as recorded."""
    frame: Any
    number: int
    step: int
    times: dict


class History:
    """Follows what is played; window-free, and the same for every world.

    A snapshot holds keys and values of the past, so one is kept every few seconds and the actions in between;
    a world without snapshots, or with too large ones, is taken back by its actions from its start.

    line      worldplay.client.line.Line that is played; None before the first start
    moments   Moments of the last KEPT_SECONDS, the newest last
    """

    def __init__(self, world):
        self.line, self.moments = None, deque()
        self._world, self._states = world, deque()  # (step, state), of rising steps
        frame_bytes = 3 * world.frame_size[0] * world.frame_size[1]
        self._num_kept = max(2, min(round(KEPT_SECONDS * world.fps), FRAME_BYTES // frame_bytes))
        self._state_every = STATE_SECONDS * world.fps  # frames
        self._state_number = 0  # of the frame at the newest snapshot

    @property
    def seconds(self):
        """How far back it reaches, in the world's time."""
        return (len(self.moments) - 1) / self._world.fps if self.moments else 0.0

    # What is played

    def begin(self, request, frames, state=None):
        """A reset is done; `frames` uint8 [n H W 3] were shown, `state` is a snapshot or None."""
        self._begin(Line(self._world, request, frames), frames[-1], state)

    def act(self, action):
        """An action is handed to the world; returns the bytes a snapshot after it may take, or 0."""
        self.line.act(action)
        is_due = self.line.number + 1 - self._state_number >= self._state_every
        return STATE_BYTES // 2 if is_due and self._states else 0

    def done(self, state):
        """The step is over; state: the snapshot that was asked for, or None."""
        if state is not None:
            self._keep(state, len(self.line.actions) - 1)

    def show(self, frame, times):
        """A frame was shown, `times` as in ClipWriter.add."""
        self.line.show(times)
        self.moments.append(Moment(frame, self.line.number, self.line.step, times))
        if len(self.moments) > self._num_kept:
            self.moments.popleft()
            while len(self._states) > 1 and self._states[1][0] <= self.moments[0].step:
                self._states.popleft()

    def failed(self):
        """The step under way failed: the frames of it that were shown are no place to go back to."""
        while self.line and len(self.moments) > 1 and self.moments[-1].step == len(self.line.actions) - 1 > 0:
            self.moments.pop()

    # Going back

    def at(self, frames_back):
        """The Moment so many frames back, at most the oldest; always the last frame of a step."""
        index = max(0, len(self.moments) - 1 - max(0, frames_back))
        while index and index + 1 < len(self.moments) \
                and self.moments[index + 1].step == self.moments[index].step:
            index -= 1
        return self.moments[index]

    def end_of(self, moment):
        """The last Moment of a Moment's step: a world stands between two steps only."""
        return next((each for each in reversed(self.moments) if each.step == moment.step), moment)

    def to(self, moment):
        """The GoBack to a Moment; all frames of steps before it must have been shown."""
        line = self.line.cut(moment.step, moment.number)
        state_step, state = next(((step, state) for step, state in reversed(self._states)
                                  if step <= moment.step), (0, None))
        return GoBack(line.request, _text(line), line.steps(after=state_step), line.begun_as, state)

    def returned(self, moment, state):
        """The world is at a Moment again: what came after it is of another line."""
        moments = [each for each in self.moments if each.number <= moment.number]
        states = [(step, kept) for step, kept in self._states if step <= moment.step]
        self._begin(self.line.cut(moment.step, moment.number), moment.frame, None)
        self.moments, self._states = deque(moments), deque(states)
        if state is not None and not (states and states[-1][0] == moment.step):
            self._keep(state, moment.step)

    # Saved places

    def save(self, title, packed):
        """The Save of the frame shown last; packed: what the world's `pack` gave, or None."""
        return self.line.to_save(self.moments[-1].frame, title, packed)

    def to_save(self, saved, name):
        """The GoBack to a Save called `name`; WorldError("bad_save") where it is another world's."""
        check_world(saved, self._world, name)
        line, state = Line.of_save(saved), saved.fields["state"]
        packed = None if state is None else (state, saved.state)
        return GoBack(line.request, _text(line), line.steps() if packed is None else [], line.begun_as,
                      packed=packed)

    def loaded(self, saved, state):
        """The world is at a saved place; returns the frame that was seen there."""
        self._begin(Line.of_save(saved), saved.frame, state)
        return saved.frame

    def to_line(self, line):
        """The GoBack to the end of another Line of this world, made again from its start."""
        return GoBack(line.request, _text(line), line.steps(), line.begun_as)

    def came(self, line, frame, state):
        """The world is at the end of another Line, of which `frame` is the last one."""
        self._begin(line, frame, state)

    def _begin(self, line, frame, state):
        self.line = line
        self.moments, self._states = deque([Moment(frame, line.number, line.step, {})]), deque()
        if state is not None:
            self._keep(state, line.step)

    def _keep(self, state, step):
        self._states.append((step, state))
        self._state_number = self.line.number
        room = STATE_BYTES / max(1, state.nbytes) - 2
        self._state_every = self._world.fps * max(STATE_SECONDS, KEPT_SECONDS / max(1.0, room))


def _text(line):
    return line.header["info"].get("prompt")

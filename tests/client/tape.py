"""A Recorder with the Line that it follows, for tests that play a world themselves."""
from worldplay.client.line import Line
from worldplay.client.recorder import Recorder


class Tape(Recorder):
    """begin, step, prompt, frame: what was played is told once and is on the line and in the clip."""

    def begin(self, request, frames):
        self.line = Line(self.world, request, frames)
        self.branch(self.line, frames[-1])

    def step(self, action):
        self.line.act(action)

    def prompt(self, text):
        self.line.write(text)

    def frame(self, frame, times):
        self.line.show(times)
        super().frame(frame, times)

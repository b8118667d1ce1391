"""The real game beside the dream: the same actions from the same start, and how near the two pictures are."""
from collections import deque

from worldplay.client.real_game import Follow, Lost, RealGame
from worldplay.client.timing import summary_ms
from worldplay.envs.twin import Twin
from worldplay.errors import WorldError
from worldplay.eval.statistics import psnr

DREAM, BOTH, REAL = SHOWN = ("dream", "dream and real game", "real game")
AT_ONCE = 400  # steps asked for at once while the game catches up: about half a second of the maze
RECENT = 300   # steps that the figures look back on
SHOWN_FOR = 0.5  # seconds of world time that a picture of the game stands while its next one is missing


class Beside:
    """Follows the line that is played; window-free. While only the dream is shown, nothing runs.

    shows    what of SHOWN the player looks at
    env      the game where the user named it, as worldplay.envs.twin.Twin takes it
    problem  why no real game can be shown here, one line; "" where one can
    psnr     dB of the dream's picture against the game's, of the newest frame that both have; None before one
    num      frames of the line so far whose `mean` dB this is

    The game is given every action as soon as the dream is, in its own process, and is never waited for: what
    it has missed, because it was not shown or is slow, it plays all at once as soon as it can.
    """

    def __init__(self, view):
        self.shows, self.problem, self.env = DREAM, "", None
        self._view, self._world, self._twin, self._game = view, None, None, None
        self._asked = None  # (line, step) that the game goes on from
        self._lost = []  # games that are ending
        self._seconds = deque(maxlen=RECENT)
        self._leave_line()

    # What is played

    def open(self, world):
        """A world is open, and not yet begun."""
        self._world = world
        try:
            self._twin, self.problem = Twin.of(world, self.env), ""
        except WorldError as error:
            self._twin, self.problem = None, str(error)

    def close_world(self):
        """Another world opens."""
        self._end_game()
        self.shows, self._world, self._twin = DREAM, None, None
        self._leave_line()

    def branch(self, line, frame):
        """Another worldplay.client.line.Line is played from its last frame on, uint8 [H W 3]."""
        self._leave_line()
        self._line = line
        if self._twin is None:
            return
        try:
            self._twin.start(line.header["scene"])
            self.problem = ""
        except WorldError as error:
            self.problem = str(error)
            self._leave(self.problem)
        self._dream(frame, line.number)

    def see(self, frame, number):
        """The dream's frame of a number since the start is shown: what is measured on it comes after that."""
        self.follow()
        if self.shows != DREAM:
            self._dream(frame, number)
            self._compare()

    def turn(self):
        """Show the next of SHOWN, or say why there is no real game."""
        if self.problem:
            self._view.notify(self.problem)
            return
        self.shows = SHOWN[(SHOWN.index(self.shows) + 1) % len(SHOWN)]
        self._dreamed.clear()
        self._dream(self._view.frame, self._view.number)
        if self.shows == BOTH and self._view.recording.is_recording:
            self._view.notify("The clip goes on recording the dream")

    def follow(self):
        """Take what the game has done, and give it what the dream was given; never waits."""
        if self._game and (reply := self._game.take()):
            self._take(reply)
        if self.shows == DREAM or self.problem or self._line is None:
            return
        self._game = self._game or RealGame(self._twin)
        begun = -1 if self._step is None else self._step
        last = min(len(self._line.actions) - 1, max(begun, 0) + AT_ONCE)
        if self._game.is_idle and last > begun:
            self._asked = self._line, max(begun, 0)
            self._game.ask(Follow(self._line.header["scene"] if begun < 0 else None,
                                  self._line.actions[max(begun, 0) + 1:last + 1]))

    def close(self):
        """End the game, and wait for it."""
        self._end_game()
        for game in self._lost:
            game.wait()

    # What is seen

    def frame_at(self, number):
        """The game's frame, uint8 [H W 3], of a number since the start; where that is missing the newest one
        of the SHOWN_FOR before it, or None.
        """
        lag = max(1, round(SHOWN_FOR * self._world.fps)) if self._world else 0
        near = [known for known in self._real if number - lag <= known <= number]
        return self._real[max(near)] if near else None

    @property
    def says(self):
        """How near the two are, or how far the game is behind, in one line."""
        if self._missing > max(self._twin.frames_per_step, SHOWN_FOR * self._world.fps):
            return f"The real game has {self._missing} frames to catch up"
        if self._step is None or self.psnr is None and self._view.number:
            return "The real game is coming"
        if self.psnr is None:
            return "The same start"
        return f"PSNR {self.psnr:.1f} dB, mean {self.mean:.1f} of {self.num} frames"

    @property
    def rows(self):
        """(label, value) lines of the F3 panel."""
        if self.shows == DREAM:
            return []
        times = summary_ms(list(self._seconds), (50, 95))
        return [("shown", self.shows), ("in a clip", DREAM),
                ("real game, p50 / p95", f"{times['p50']:.1f} / {times['p95']:.1f} ms" if times else "-")]

    @property
    def mean(self):
        """Mean dB of `num` frames."""
        return self._sum / self.num if self.num else None

    # Inside

    @property
    def _missing(self):
        """Frames of the line that the game has not played yet."""
        behind = len(self._line.actions) - 1 - (self._step or 0) if self._line else 0
        return behind * self._twin.frames_per_step

    def _leave_line(self):
        """Nothing is known of another line yet."""
        self._line, self._step = None, None
        self._real, self._dreamed = {}, {}  # number since the start -> frame
        self.psnr, self.num, self._sum, self._scored = None, 0, 0.0, 0

    def _dream(self, frame, number):
        """Remember a frame that the dream shows, unless it is scored; the start is one picture, of both."""
        if number > self._scored:
            self._dreamed[number] = frame

    def _take(self, reply):
        if isinstance(reply, Lost):
            self._end_game()
            self._step = None
            if reply.is_end:
                if self._asked[0] is not self._line:  # of a line that was left meanwhile
                    return
                self.problem = reply.problem  # until the next line
            self._leave(reply.problem)
            return
        line, begun = self._asked
        if line is not self._line:
            return
        is_start, step = self._step is None, begun + reply.num
        self._step, last = step, step * self._twin.frames_per_step
        if reply.seconds is not None:
            self._seconds.append(reply.seconds)
        first = last + 1 - len(reply.frames)
        self._real |= {first + i: frame for i, frame in enumerate(reply.frames)}
        self._compare()
        self._view.is_dirty = True
        if is_start and reply.difference:
            self._view.notify("The real game on this machine draws this start otherwise, by up to "
                              f"{reply.difference} of 255 levels")

    def _compare(self):
        """Score the frames that both have; of those that are no longer looked at none is kept."""
        for number in sorted(self._real.keys() & self._dreamed.keys()):
            self.psnr = float(psnr(self._dreamed.pop(number), self._real[number]))
            self._sum, self.num, self._scored = self._sum + self.psnr, self.num + 1, number
        oldest = self._view.number - 2 * max(self._twin.frames_per_step, round(self._world.fps))
        for kept in (self._real, self._dreamed):
            for number in [each for each in kept if each < oldest]:
                del kept[number]

    def _leave(self, problem):
        """Back to the dream alone, where another is shown, and say why."""
        if self.shows != DREAM:
            self.shows, self._view.is_dirty = DREAM, True
            self._view.notify(problem)

    def _end_game(self):
        if self._game:
            self._game.close()
            self._lost.append(self._game)
        self._game = None

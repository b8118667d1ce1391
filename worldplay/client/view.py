"""What the player is to see, whatever shows it: a window here or a page in a browser."""
import time
from dataclasses import replace
from enum import Enum, auto

from worldplay.client.bindings import Bindings
from worldplay.client.drift import Drift, look_for
from worldplay.client.figures import figures
from worldplay.errors import WorldError

LOADING_FPS = 30
HUD_EVERY = 0.25  # seconds; figures that change faster cannot be read
NOTICE_SECONDS = 4.0
READING_SPEED = 15  # characters a second, for notices that are longer than the usual ones


class Mode(Enum):
    LOADING = auto()
    PLAYING = auto()
    PAUSED = auto()   # P: the picture stands, the mouse stays captured, single steps
    MENU = auto()     # Esc, or the focus went elsewhere: the mouse is free
    WRITING = auto()  # F2: the keys write the text, the mouse is free
    REWINDING = auto()  # Backspace is held: the picture goes back
    STOPPED = auto()  # a step or a reset failed; a reset may help
    FAILED = auto()   # the world could not be opened, or is gone


class View:
    """What is to be seen, set by loop and commands; `draw`, `capture_mouse` and `close` are the subclass's.

    settings   worldplay.client.settings.Settings with the player's choices as they were changed while playing
    bindings   worldplay.client.bindings.Bindings of these settings, shared with the input device
    timing     worldplay.client.timing.Timing of the session
    world      once opened, for its facts
    recording  worldplay.client.recording.Recording, for its facts
    beside     worldplay.client.beside.Beside: what there is to be seen of the real game
    frame      the newest frame, uint8 [H W 3], None while the world opens; `number` counts from the reset
    drift      worldplay.client.drift.Drift of the picture
    rewound    while rewinding: (seconds gone back, seconds that can be), else None
    replay_left  seconds of the clip that is replayed, 0.0: none is
    failure    the exception that made the world fail, or None
    shows_pad  whether the player holds a gamepad: its buttons are named in place of keys
    is_hidden  whether nobody can see it: the window is minimised
    is_dirty   whether `refresh` has something to draw
    """

    def __init__(self, settings, timing, *, clock=time.perf_counter):
        self.settings, self.timing, self.bindings = settings, timing, Bindings(settings.bindings)
        self.world, self.recording, self.beside, self.failure = None, None, None, None
        self.frame, self.number, self.is_dirty, self.rewound, self.replay_left = None, 0, True, None, 0.0
        self._clock, self._began, self.drift = clock, clock(), Drift(None)
        self._next_draw, self._waiting = 0.0, None  # (what for, since, said after)
        self._notice, self._figure_rows = ("", 0.0), ([], 0.0)
        self._key_labels, self.shows_pad, self.is_hidden = {}, False, False

    # What the subclass does

    def draw(self, mode):
        """Show everything now, as it is in this Mode."""
        raise NotImplementedError

    def capture_mouse(self, is_captured):
        """Take the mouse for turning, or give it back."""
        raise NotImplementedError

    def close(self):
        """The session is over: nothing is shown any more."""
        raise NotImplementedError

    # What is to be seen

    def open(self, world):
        """The world is open, and not yet begun."""
        self.world, self.drift = world, Drift(look_for(world))

    def saw(self):
        """The newest frame is on the screen: where it has left the look of its world, that is said."""
        if self.drift.see(self.frame, self.number):
            back = self.choices_of(good_moment="goes back to the last good moment", reset="starts again")
            self.notify(f"The picture has left the look of its world: {back}")

    def close_world(self, title):
        """Another world, called `title`, opens in place of the one that was shown."""
        self.world = self.frame = self.failure = self.rewound = self._waiting = None
        self.number, self.replay_left, self._figure_rows = 0, 0.0, ([], 0.0)
        self._began, self.is_dirty = self._clock(), True

    @property
    def notice(self):
        """The passing line that is shown, or ""."""
        return self._notice[0]

    def notify(self, text):
        """Show a passing line, long enough to be read."""
        seconds = max(NOTICE_SECONDS, len(text) / READING_SPEED)
        self._notice, self.is_dirty = (text, self._clock() + seconds), True

    def saved(self, path):
        """A clip is whole, as PATH.mp4."""
        self.notify(f"Saved {path}.mp4")

    def notify_ended(self, message):
        """Say that a recording or an episode is over, and which key resets it."""
        self.notify(f"{message} ({self.choices_of(reset='resets')})")

    def wait_for(self, what, *, after):
        """From now on the model is being waited for: `what` is written once that takes `after` seconds."""
        self._waiting = what, self._clock(), after

    def end_wait(self):
        """The model has answered."""
        self.is_dirty |= bool(self._waited())
        self._waiting = None

    def choose(self, **choices):
        """Keep choices of the player as settings."""
        self.settings = replace(self.settings, **choices)

    def refresh(self, mode):
        """Draw again what has changed, or moves by itself."""
        now = self._clock()
        if now >= self._next_draw and (mode is Mode.LOADING or self._waited()):
            period = 1 / LOADING_FPS if mode is Mode.LOADING else HUD_EVERY
            self._next_draw, self.is_dirty = now + period, True
        if self.notice and now >= self._notice[1]:
            self._notice, self.is_dirty = ("", 0.0), True
        if self.is_dirty and not self.is_hidden:
            self.draw(mode)

    # For the subclass

    def choices_of(self, **says):
        """"P goes on, ...": what some commands do now, by their keys; those that work in this world."""
        labels = {name: self.bindings.label_of(name, self._key_labels, self.world.action_space,
                                               is_pad=self.shows_pad) for name in says}
        return ", ".join(f"{labels[name]} {text}" for name, text in says.items() if labels[name])

    def _waited(self):
        """What the model is being waited for and how long; "" when it is not, or only for a moment."""
        if self._waiting is None:
            return ""
        what, since, after = self._waiting
        seconds = self._clock() - since
        return f"{what} {seconds:.0f} s" if seconds >= after else ""

    def _figures(self):
        """(label, value) lines, made anew a few times a second."""
        rows, until = self._figure_rows
        now = self._clock()
        if not rows or now >= until:
            rows = figures(self.timing, self.world.info, self.number, now)
            rows += self.drift.row + self.beside.rows
            self._figure_rows = rows, now + HUD_EVERY
        return rows

    def _failure_text(self):
        """What made the world fail, for the player."""
        error = self.failure
        is_ours = isinstance(error, (WorldError, OSError, ValueError))
        return str(error) if is_ours else f"An unexpected {type(error).__name__}: {error}"

"""Rewind, save and load: what the player wants, which the loop hands to the world when that is idle."""
import time
from datetime import datetime

from worldplay.client import worker
from worldplay.client.history import STATE_BYTES, History
from worldplay.client.line import Line
from worldplay.client.saves import QUICK, Saves
from worldplay.data.clip import ClipWorld
from worldplay.data.save_file import how_it_differs, is_of_world, read_save
from worldplay.errors import WorldError

KEEP_UP_TO = STATE_BYTES // 2  # bytes of one snapshot
KEPT_AS_CLIP = 30.0  # seconds
SPEED, SPEED_UP, TOP_SPEED = 1.5, 0.6, 6.0  # times that of play: at first, more each second, at most


class Travel:
    """Window-free; the commands say what is wanted, the loop carries it out.

    history       worldplay.client.history.History, None while the world opens
    saves         worldplay.client.saves.Saves, None until then
    is_rewinding  whether the player holds the key
    has_wish      whether the loop is to show what is pending at once and then ask `take`
    """

    def __init__(self, view, recording, *, clock=time.perf_counter):
        self.history, self.saves, self.is_rewinding = None, None, False
        self._view, self._recording, self._clock = view, recording, clock
        self._world, self._began, self._wish = None, None, None  # a Moment; (Save, slot); (Line, frame)
        self._place = None  # (slot, title) to be saved before anything else happens
        self._asked = None  # the wish that the world is at work on

    @property
    def has_wish(self):
        return self.is_rewinding or self._wish is not None or self.is_saving

    @property
    def is_saving(self):
        """Whether a place is to be saved before the world goes anywhere else."""
        return self._place is not None

    def open(self, world):
        """The world is open, and not yet begun."""
        self._world, self.history, self.saves = world, History(world), Saves(world.name)

    def close_world(self):
        """Another world opens: this one's places are left; what is being saved is finished first."""
        if self.saves:
            self.saves.wait()
        self.history = self.saves = self._world = self._wish = self._asked = self._place = None
        self.is_rewinding = False

    # What the player wants

    def rewind(self):
        """Begin to go back; returns whether there is anything to go back to."""
        if not self.history.moments or self._asked:
            return False
        self.is_rewinding, self._began, self._wish = True, None, None
        return True

    def look(self):
        """Show the Moment that rewinding has reached; the world is idle, and all of its frames were shown."""
        if self._began is None:
            self._began = self._clock()
        moment = self.history.at(self._frames_back())
        if self._view.frame is not moment.frame:
            self._view.frame, self._view.number, self._view.is_dirty = moment.frame, moment.number, True
        newest = self.history.line.number
        self._view.rewound = ((newest - moment.number) / self._world.fps, self.history.seconds)

    def _frames_back(self):
        seconds = self._clock() - self._began
        rising = min(seconds, (TOP_SPEED - SPEED) / SPEED_UP)
        times = SPEED * rising + SPEED_UP * rising**2 / 2 + TOP_SPEED * (seconds - rising)
        return 1 + int(times * self._world.fps)

    def end_rewind(self, *, is_taken=True):
        """The key is up: the world goes on from the Moment that is shown, or not."""
        moment = self.history.at(self._frames_back()) if self._began is not None \
            else self.history.moments[-1]
        newest = self.history.moments[-1]
        self.is_rewinding = False
        if is_taken:
            self._wish = moment
        else:
            self._view.rewound, self._view.frame, self._view.number = None, newest.frame, newest.number
        self._view.is_dirty = True

    def go_to(self, number):
        """Go back to the frame of this number since the start; returns whether that is begun, or says so."""
        moment = next((each for each in self.history.moments if each.number == number), None)
        if moment is None or self._asked:
            back = self._view.choices_of(reset="starts again")
            self._view.notify("The world is still at work on the last place; try again" if self._asked else
                              f"No moment of the last {self.history.seconds:.0f} s is good"
                              f"{'; ' if back else ''}{back}")
            return False
        self._wish = moment
        return True

    def save(self, slot=QUICK, title=""):
        """Save the place that is shown into one of worldplay.client.saves.SLOTS."""
        if isinstance(self._world, ClipWorld):
            self._view.notify("This is a recording already; play its world to save a place in it")
        elif self.history.moments:
            self._place = slot, title or datetime.now().strftime("%d %b %Y, %H:%M")

    def load(self, slot=QUICK):
        """Go to a saved place; returns whether that is begun, else a notice says why not."""
        if self.is_saving or self._asked:
            self._view.notify("The world is still at work on the last place; try again")
            return False
        self.saves.wait()
        try:
            saved = read_save(self.saves.path(slot))
            self.history.to_save(saved, self.saves.path(slot).name)
        except WorldError as error:
            nothing = "Nothing is saved here yet"
            self._view.notify(nothing if error.kind == "not_found" else str(error))
            return False
        self._wish = saved, slot
        return True

    def go_on_from(self, clip, index, frame):
        """Play on from a frame of a worldplay.data.clip.Clip; returns whether that is begun, else says so."""
        fits = is_of_world(clip.sidecar, self._world) and not isinstance(self._world, ClipWorld)
        if not fits or clip.sidecar.get("is_rollout"):
            self._view.notify(f"{clip.path.name} was not played in this world as it is now; B begins from "
                              "its picture")
            return False
        self._wish = Line.of_clip(clip, index), frame
        return True

    def keep(self):
        """The last KEPT_AS_CLIP seconds become a clip."""
        moments = list(self.history.moments)
        steps = round(KEPT_AS_CLIP * self._world.fps)
        self._recording.keep(self.history.line, moments[-steps:])

    def photograph(self):
        """The frame that is shown becomes a picture."""
        if self.history.moments:
            self._recording.photograph(self.history.line, self.history.moments[-1])

    # What the loop does

    def take(self):
        """The worldplay.client.worker request for what is wanted, once the world is idle and all is shown."""
        if self.is_saving:
            self._asked = self._place
            return worker.Pack()
        self._asked, self._wish = self._wish, None
        match self._asked:
            case (Line() as line, _):
                return self.history.to_line(line)
            case (saved, slot):
                return self.history.to_save(saved, self.saves.path(slot).name)
        self._asked = self.history.end_of(self._asked)
        return self.history.to(self._asked)

    def packed(self, packed):
        """The world has given its state: the file is written."""
        slot, title = asked = self._asked
        self._asked = None
        if self._place is asked:  # else another one was wanted meanwhile
            self._place = None
        self.saves.write(slot, self.history.save(title, packed))

    def returned(self, reply):
        """The world is at another place, or could not go there; returns whether it is."""
        asked, self._asked, self._view.rewound = self._asked, None, None
        if reply.problem:
            self._view.notify(reply.problem)
            return False
        if isinstance(asked, tuple) and isinstance(asked[0], Line):
            self.history.came(*asked, reply.state)
        elif isinstance(asked, tuple):
            self.history.loaded(asked[0], reply.state)
            self._view.notify(how_it_differs(asked[0], self._world) or f"Loaded: {asked[0].fields['title']}")
        else:
            self.history.returned(asked, reply.state)
        moment = self.history.moments[-1]
        self._view.frame, self._view.number, self._view.is_dirty = moment.frame, moment.number, True
        self._recording.branch(self.history.line, moment.frame)
        return True

    def failed(self):
        """The world failed: what was wanted of it is dropped."""
        self.drop()
        if self.history:
            self.history.failed()

    def drop(self):
        """Something else happens to the world: what was wanted is wanted no more."""
        self.is_rewinding, self._asked, self._wish, self._view.rewound = False, None, None, None
        self._place = None

    def report_finished(self):
        """Say of every place that was saved since the last call that it is, or why it is not."""
        for slot, error in self.saves.finished() if self.saves else ():
            self._view.notify(str(error) if error else "Saved" if slot == QUICK else f"Saved in place {slot}")

    def close(self):
        """Wait until everything is on the disk."""
        if self.saves:
            self.saves.wait()

"""The branch played since the last reset, and the clip that is written of it."""
import logging
from contextlib import suppress
from datetime import datetime
from glob import escape
from itertools import chain, islice

from worldplay.action import Action
from worldplay.data.action_log import ActionLog
from worldplay.data.clip_writer import ClipWriter, describe
from worldplay.files import writable_folder

log = logging.getLogger(__name__)

# what may change from step to step of a world -> the list of its changes in a sidecar
CHANGES = {"path": "paths", "threads": "threads", "steps": "steps", "window": "windows"}


def frame_record(world, began, *, polled, ready, input=None, flipped=None):
    """What the sidecar says of one frame: its times in milliseconds since `began`, and how it was made."""
    times = {"input_ms": input, "polled_ms": polled, "ready_ms": ready, "flipped_ms": flipped}
    return {**{name: world.info.get(name) for name in CHANGES},
            **{name: None if at is None else round(1000 * (at - began), 3) for name, at in times.items()}}


class Recorder:
    """Keeps all actions and texts since the last reset, so that a clip begun at any frame can be replayed.

    A branch is what is played from one reset to the next. Frame numbers count its frames: 0 is the last
    frame of the context shown at the start. A reset ends the clip and, while recording, begins the next one.
    """

    def __init__(self, world):
        self.world = world
        self._writer, self._finishing, self._folder = None, [], None
        self._actions, self._ahead, self._number, self._header = ActionLog(), (), 0, None
        self._prompts, self._changes = {}, {}  # {step: text}, name of CHANGES -> {step: value from it on}
        self._shown = None  # (frame, its step, its times)
        self._goes_on = False  # the clip was interrupted: the next branch begins another one

    @property
    def is_recording(self):
        return self._writer is not None

    @property
    def seconds(self):
        """Length of the clip being written, in world time."""
        return self._writer.num_frames / self.world.fps if self._writer else 0.0

    def branch(self, request, frames, *, ahead=None):
        """A Reset is done and showed `frames`, uint8 [n H W 3].

        ahead  the actions of a `rollout`, which the world knows from now on; None: they come step by step

        A chunk is denoised together, so later actions of it take part in the frames before them: a clip of a
        rollout holds all actions, wherever it ends.
        """
        goes_on, self._goes_on = self.is_recording or self._goes_on, False
        self.stop()
        if request.image is None:
            self._header = describe(self.world, scene=request.scene or self.world.scenes[0])
        else:
            self._header = describe(self.world, start=frames)
        self._header["is_rollout"] = ahead is not None
        self._ahead = tuple(ahead or ())
        self._actions, self._prompts, self._number = ActionLog([Action()]), {}, 0
        self._shown = (frames[-1], 0, {})
        self._changes = {name: {0: self.world.info.get(name)} for name in CHANGES}
        if goes_on:
            self.start(self._folder / self._new_name())

    def step(self, action):
        """An action was handed to the world; the frames that follow are its."""
        self._actions.append(action)

    def prompt(self, text):
        """The world was given another text, under which the next step is made."""
        self._prompts[len(self._actions)] = text

    def frame(self, frame, times):
        """The player saw a frame of the last step; `times` as in ClipWriter.add."""
        self._number += 1
        self._shown = (frame, len(self._actions) - 1, times)
        for name, changes in self._changes.items():
            if (value := times.get(name)) and value != list(changes.values())[-1]:
                changes[len(self._actions) - 1] = value
        if self._writer:
            self._add_shown()

    def start_in(self, folder):
        """Begin a clip with a name of its own in a folder; OSError where it cannot be written."""
        self._folder = writable_folder(folder, "clips")
        self.start(self._folder / self._new_name())

    def start(self, path, *, overwrite=False):
        """Begin the clip PATH.mp4 with the frame on the screen now; the step after it may be under way.

        overwrite  replace a clip of that name; without it that is an OSError
        """
        shown = self._shown[1]
        header = self._header | {listed: list(self._changes[name].items())
                                 for name, listed in CHANGES.items()}
        actions = chain(islice(self._actions, shown + 1), self._ahead[shown:])
        prompts = {step: text for step, text in self._prompts.items() if step <= shown}
        self._writer = ClipWriter(path, header, actions=actions, first=self._number, prompts=prompts,
                                  overwrite=overwrite)
        self._add_shown()

    def stop(self):
        """End the clip; it is finished in the background, see `finished`."""
        if self._writer:
            self._writer.finish()
            self._finishing.append(self._writer)
            self._writer = None

    def interrupt(self):
        """End the clip for now; the next branch begins another one."""
        self._goes_on = self._goes_on or self.is_recording
        self.stop()

    def abandon(self):
        """After an exception: end the clip with what it has, whatever that raises, and begin no other."""
        with suppress(Exception):
            self.stop()
        self._writer, self._goes_on = None, False

    def finished(self):
        """The writers that are done since the last call; one that failed meanwhile is stopped by this."""
        if self._writer and not self._writer.is_busy:
            self.stop()
        done = [writer for writer in self._finishing if not writer.is_busy]
        self._finishing = [writer for writer in self._finishing if writer.is_busy]
        return done

    def close(self):
        """End the clip and wait until everything is on the disk; returns the writers that finished."""
        self.stop()
        done, self._finishing = self._finishing, []
        for writer in done:
            writer.wait()
        return done

    def _add_shown(self):
        frame, step, times = self._shown
        self._writer.add(frame, step, self._actions[step], times, self._prompts.get(step))

    def _new_name(self):
        stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        name, count = f"{self.world.name}_{stamp}", 2
        while any(self._folder.glob(f"{escape(name)}.*")):
            name, count = f"{self.world.name}_{stamp}_{count}", count + 1
        return name


def log_clip(writer):
    """Say of a finished clip where it lies, or why there is none."""
    if writer.error:
        log.warning("%s", writer.error)
    else:
        log.info("saved %s.mp4 with %s.json (%d frames)", writer.path, writer.path.name, writer.num_frames)

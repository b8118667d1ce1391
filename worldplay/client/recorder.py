"""The clips that are written of the line that is played."""
import logging
import threading
from contextlib import suppress
from datetime import datetime
from glob import escape

from worldplay.client.line import CHANGES
from worldplay.data.clip_writer import ClipWriter
from worldplay.files import writable_folder

log = logging.getLogger(__name__)

MIN_FRAMES = 3  # of a clip in the folder of clips


def frame_record(world, began, *, polled, ready, input=None, flipped=None):
    """What the sidecar says of one frame: its times in milliseconds since `began`, and how it was made."""
    times = {"input_ms": input, "polled_ms": polled, "ready_ms": ready, "flipped_ms": flipped}
    return {**{name: world.info.get(name) for name in CHANGES},
            **{name: None if at is None else round(1000 * (at - began), 3) for name, at in times.items()}}


class Recorder:
    """Writes clips of the Line that is played; each holds all actions since the line's start, so that it can
    be replayed wherever it begins.

    A reset, going back and loading end the clip and, while recording, begin the next one: what was played up
    to then stays in the clip, and the sidecar of the next one says of which clip it is a branch.
    """

    def __init__(self, world, finishing=()):
        """finishing: writers that another Recorder handed over."""
        self.world = world
        self._writer, self._finishing, self._folder = None, list(finishing), None
        self._line, self._shown = None, None  # (frame, its times)
        self._goes_on = False  # the clip was interrupted: the next line begins another one

    @property
    def is_recording(self):
        return self._writer is not None

    @property
    def seconds(self):
        """Length of the clip being written, in world time."""
        return self._writer.num_frames / self.world.fps if self._writer else 0.0

    def branch(self, line, frame):
        """Another Line is played from now on; frame: its last one, uint8 [H W 3], which is on the screen.

        It ends the clip that is written. Another one is begun where one was, or was broken off; it is marked
        as a branch of a clip that is left past its start.
        """
        goes_on, self._goes_on = self.is_recording or self._goes_on, False
        is_branch = self.is_recording and line.number > 0
        origin = {"clip": self._writer.path.name, "frame": line.number} if is_branch else None
        self.stop()
        self._line, self._shown = line, (frame, {})
        if goes_on:
            self.start(self._new_clip(self._folder), branch_of=origin)

    def frame(self, frame, times):
        """The player saw a frame of the line's last step; `times` as in ClipWriter.add."""
        self._shown = (frame, times)
        if self._writer:
            self._add_shown()

    def start_in(self, folder):
        """Begin a clip with a name of its own in a folder; OSError where it cannot be written."""
        self._folder = writable_folder(folder, "clips")
        self.start(self._new_clip(self._folder))

    def start(self, path, *, overwrite=False, branch_of=None):
        """Begin the clip PATH.mp4 with the frame on the screen now; the step after it may be under way.

        overwrite  replace a clip of that name; without it that is an OSError
        branch_of  {"clip", "frame"} of the clip that the player left at a frame to play on from there
        """
        header, actions, prompts = self._line.as_clip(self._line.step)
        self._writer = ClipWriter(path, header | {"branch_of": branch_of}, actions=actions, prompts=prompts,
                                  first=self._line.number, overwrite=overwrite)
        self._add_shown()

    def stop(self):
        """End the clip; it is finished in the background, see `finished`.

        One of fewer than MIN_FRAMES that nobody gave a name is no clip, and nothing of it is left: a run of
        resets would leave dozens.
        """
        if not self._writer:
            return
        writer, self._writer = self._writer, None
        if self._folder and writer.num_frames < MIN_FRAMES:
            writer.discard()
        else:
            writer.finish()
        self._finishing.append(writer)

    def keep(self, line, moments, folder):
        """Write the last Moments (client.history) of a Line as a clip of their own; see `finished`."""
        path = self._new_clip(writable_folder(folder, "clips"))
        first, prompts = moments[0], line.prompts
        header, actions, texts = line.as_clip(first.step)
        writer = ClipWriter(path, header, actions=actions, prompts=texts, first=first.number)
        self._finishing.append(writer)
        shown = [(moment, line.actions[moment.step], prompts.get(moment.step)) for moment in moments]

        def add():  # waits for the encoder where frames are large
            for moment, action, prompt in shown:
                writer.add(moment.frame, moment.step, action, moment.times, prompt)
            writer.finish()
        threading.Thread(target=add, name="keep", daemon=True).start()

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
        return [writer for writer in done if writer.is_kept or writer.error]

    def hand_over(self):
        """End the clip; returns the writers that are still at work, for the next world's Recorder."""
        self.stop()
        self._goes_on, finishing, self._finishing = False, self._finishing, []
        return finishing

    def close(self):
        """End the clip and wait until everything is on the disk; returns the writers that finished."""
        self.stop()
        done, self._finishing = self._finishing, []
        for writer in done:
            writer.wait()
        return [writer for writer in done if writer.is_kept or writer.error]

    def _add_shown(self):
        (frame, times), step = self._shown, self._line.step
        self._writer.add(frame, step, self._line.actions[step], times, self._line.prompts.get(step))

    def _new_clip(self, folder):
        stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        name, count = f"{self.world.name}_{stamp}", 2
        while any(folder.glob(f"{escape(name)}.*")):
            name, count = f"{self.world.name}_{stamp}_{count}", count + 1
        return folder / name


def log_clip(writer):
    """Say of a finished clip where it lies, or why there is none."""
    if writer.error:
        log.warning("%s", writer.error)
    else:
        log.info("saved %s.mp4 with %s.json (%d frames)", writer.path, writer.path.name, writer.num_frames)

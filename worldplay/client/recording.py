"""Recording during play: whatever goes wrong in it is said and ends the recording, never the session."""
import logging
from datetime import datetime
from pathlib import Path

from worldplay.client.recorder import MIN_FRAMES, Recorder, log_clip
from worldplay.data.clip import ClipWorld
from worldplay.data.picture import origin_of, write_picture
from worldplay.files import writable_folder

log = logging.getLogger(__name__)


class Recording:
    """Guards the Recorder of a session; the loop reports to it what was played and shown.

    is_recording, seconds  as in Recorder, once the world is open
    folder  where the next clip goes
    """

    def __init__(self, screen, folder, starts_at_once):
        """screen says what went wrong; clips go to `folder`, also without F9 if `starts_at_once`."""
        self._screen, self.folder, self._starts_at_once = screen, folder, starts_at_once
        self._recorder = None

    @property
    def is_recording(self):
        return self._recorder is not None and self._recorder.is_recording

    @property
    def seconds(self):
        return self._recorder.seconds

    def open(self, world):
        """A world is open; nothing of it is recorded yet."""
        finishing = self._recorder.hand_over() if self._recorder else []
        self._recorder = Recorder(world, finishing)

    def branch(self, line, frame):
        """Another Line is played from its last frame on: the clip ends here, and the next one begins."""
        self._guard(self._recorder.branch, line, frame)
        if self._starts_at_once:
            self._starts_at_once = False
            self._guard(self._recorder.start_in, self.folder)

    def frame(self, frame, times):
        self._guard(self._recorder.frame, frame, times)

    def interrupt(self):
        """The world failed: what was recorded is finished now; the next line goes on with the next clip."""
        if self._recorder:
            self._guard(self._recorder.interrupt)

    def toggle(self):
        """F9: begin a clip with the frame on the screen, or end it."""
        if self.is_recording:
            self._guard(self._recorder.stop)
        elif isinstance(self._recorder.world, ClipWorld):
            self._screen.notify("This is a recording already; play its world to record")
        else:
            self._guard(self._recorder.start_in, self.folder)

    def keep(self, line, moments):
        """F12: the last Moments of a Line become a clip, whether or not one is being recorded."""
        if isinstance(self._recorder.world, ClipWorld):
            self._screen.notify("This is a recording already; trim it with `worldplay clip export`")
        elif len(moments) < MIN_FRAMES:
            self._screen.notify("Too short for a clip yet")
        else:
            try:
                self._recorder.keep(line, moments, self.folder)
            except Exception as error:  # of any kind, as in `_guard`; what is being recorded goes on
                self._say("these seconds are not saved", error)

    def photograph(self, line, moment):
        """F4: the frame of a Moment becomes a picture that says where it comes from."""
        stamp = f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{moment.number}"
        path = Path(self.folder) / f"{line.header['world']}_{stamp}.png"
        try:
            writable_folder(self.folder, "pictures")
            write_picture(path, moment.frame, origin_of(line.header, moment.number))
            self._screen.notify(f"Saved {path}")
        except OSError as error:
            self._screen.notify(str(error))

    def report_finished(self):
        """Say of every clip that was finished since the last call where it lies, or why there is none."""
        if not self._recorder:
            return
        for writer in self._guard(self._recorder.finished) or ():
            if writer.error:
                self._screen.notify(str(writer.error))
            else:
                self._screen.saved(writer.path)
            log_clip(writer)

    def close(self):
        """End the clip and wait until everything is on the disk."""
        if self._recorder:
            for writer in self._guard(self._recorder.close) or ():
                log_clip(writer)

    def _guard(self, act, *arguments):
        """Call a method of the recorder; an exception ends the recording, said on screen and terminal."""
        try:
            return act(*arguments)
        except Exception as error:  # of any kind: no recording is worth the session
            self._say("recording ended", error)
            self._recorder.abandon()
            return None

    def _say(self, what, error):
        reason = (str(error) or type(error).__name__).splitlines()[0]
        log.debug("the recorder failed", exc_info=error)
        log.warning("%s: %s", what, reason)
        self._screen.notify(f"{what[0].upper()}{what[1:]}: {reason}")

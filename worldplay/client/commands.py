"""What the player asks for, wherever it is played: modes, and requests to the world."""
from collections import deque
from dataclasses import replace

from worldplay.client.beside import Beside
from worldplay.client.saves import QUICK
from worldplay.client.travel import Travel
from worldplay.client.view import Mode
from worldplay.client.worker import Reset
from worldplay.envs.twin import frames_per_step

# what works while the world opens or goes back, and once it has failed
BEFORE_PLAY = ("escape", "fullscreen", "scaling")
# what works after a step that failed
AFTER_ERROR = (*BEFORE_PLAY, "reset", "next_scene", "rewind", "good_moment", "quick_load")
TAKES_OVER = 1.0  # degrees that the player turns in a step, from which a replay is left; less is a tremor


class Commands:
    """On the main thread, like all of the client; `handle` is the subclass's.

    mode        Mode of the session; the loop reads it, and changes it through the methods below
    is_over     whether the player leaves
    request     the Reset that began what is played
    reset       a Reset to hand to the world as soon as it is idle, or None
    opening     a worker.Opening to open in place of the world as soon as it is idle, or None
    wants_step  whether one frame is to be made and shown although play is paused
    prompting   worldplay.client.prompting.Prompting
    travel      worldplay.client.travel.Travel: rewinding, saving, loading
    beside      worldplay.client.beside.Beside: the real game beside the dream
    """

    def __init__(self, device, screen, recording, request, prompting):
        self.mode, self.is_over = Mode.LOADING, False
        self.request, self.reset, self.wants_step = request, None, False
        self.prompting, self.opening = prompting, None
        self._device, self._screen, self._recording = device, screen, recording
        self.travel = Travel(screen, recording)
        self.beside = screen.beside = Beside(screen)
        self._world, self._mode_before = None, Mode.PLAYING  # before it went back
        self.ahead = deque()  # Actions of a clip that is replayed
        self._is_away = False  # the focus was lost; a window that is about to get it is not away

    # What happens to the world

    def open(self, world):
        """The world is open, and not yet begun."""
        self._world = world
        self.travel.open(world)
        self.beside.open(world)
        self._device.space = world.action_space.over(world.info.get("frames_per_chunk", 1))

    def reopen(self, opening, start=None):
        """Open another world, or this one otherwise, in the same window; opening: a worker.Opening, start: a
        Reset in place of its own.
        """
        self.opening = replace(opening, start=start) if start else opening

    def begin_at(self, request):
        """Begin where a Reset says, and play."""
        self.reset = request
        if self.mode is Mode.MENU:
            self.resume()

    def take_opening(self):
        """The Opening to carry out now: nothing is played until its world is there."""
        opening, self.opening = self.opening, None
        self.mode, self.request, self.reset, self.wants_step = Mode.LOADING, opening.start, None, False
        self._world = self._device.space = None
        self._device.forget()
        self._screen.capture_mouse(False)
        return opening

    def begin(self):
        """The first frame after opening, an error or an end is there: play, or wait for the player."""
        self.open_menu() if self._is_away else self.resume()

    def take_reset(self):
        """The Reset to hand to the world now."""
        self.request, self.reset, self.wants_step = self.reset, None, False
        self._device.forget()
        self.ahead.clear()
        self._screen.replay_left = 0.0
        self.travel.drop()
        return self.request

    def started(self, request):
        """The world has begun with a Reset."""
        self.ahead = deque(map(self._device.space.fit, request.ahead))

    def next_action(self):
        """The Action of the next step: of the clip that is replayed, or the player's."""
        action = self._device.poll()
        if not self.ahead:
            return action
        replayed = self.ahead.popleft()
        takes_over = action.keys or max(map(abs, action.look)) > TAKES_OVER
        if takes_over:
            self.ahead.clear()
        self._screen.replay_left = len(self.ahead) * frames_per_step(self._world) / self._world.fps
        if not self.ahead:
            self._screen.notify("The replay is over: you play on")
        return action if takes_over else replayed

    def arrive(self):
        """The world is at the place that the player wanted: go on as before."""
        self.ahead.clear()
        self._screen.replay_left = 0.0
        if self.mode is Mode.PAUSED and self._mode_before is not Mode.PAUSED:
            self.begin()
        elif self.mode is Mode.STOPPED and not self._screen.failure:
            self.begin()

    def stop(self, mode):
        """The world failed; mode is Mode.STOPPED or FAILED."""
        self.mode, self.wants_step, self._screen.is_dirty = mode, False, True
        self._screen.capture_mouse(False)

    # What the player does

    @property
    def _allowed(self):
        """The names of the commands that work in this mode; None is all of them."""
        return {Mode.LOADING: BEFORE_PLAY, Mode.FAILED: BEFORE_PLAY, Mode.REWINDING: BEFORE_PLAY,
                Mode.STOPPED: AFTER_ERROR}.get(self.mode)

    def handle(self, event, now):
        """Carry out one event of the place one plays at; now: time.perf_counter() seconds. The subclass's."""
        raise NotImplementedError

    def obey(self, command):
        """Carry out a command of bindings.COMMANDS by its name; returns whether it works now."""
        if self._allowed is not None and command not in self._allowed:
            return False
        name = f"on_{command}"
        getattr(self if hasattr(self, name) else self._screen, name)()
        self._screen.is_dirty = True
        return True

    def change_focus(self, is_away):
        """The player turned elsewhere, or came back."""
        self._is_away = is_away
        if is_away:
            self._device.release_all()
            self.end_rewind()
            # WRITING goes on: what is to be written may come from another window
            if self.mode in (Mode.PLAYING, Mode.PAUSED):
                self.open_menu()

    # Modes

    def resume(self):
        """Play; a world that turns by the mouse, or has its buttons as keys, takes it."""
        self.mode, self._screen.is_dirty = Mode.PLAYING, True
        self._device.forget()
        space = self._world.action_space
        takes_mouse = space.look_axes > 0 or any(key.startswith("mouse") for key in space.keys)
        self._screen.capture_mouse(takes_mouse)

    def pause(self):
        """The picture stands, the mouse stays captured."""
        self.mode, self._screen.is_dirty = Mode.PAUSED, True

    def open_menu(self):
        """Pause with the mouse free, and show how to go on."""
        self.mode, self._screen.is_dirty, self.wants_step = Mode.MENU, True, False
        self._screen.capture_mouse(False)

    # Commands, named as in bindings.COMMANDS; the view has those that only change what is shown

    def on_pause(self):
        self.pause() if self.mode is Mode.PLAYING else self.resume()

    def on_single_step(self):
        if self.mode is not Mode.MENU:
            self.mode, self.wants_step = Mode.PAUSED, True

    def on_reset(self):
        self.reset = self.request

    def on_next_scene(self):
        scenes, request = self._world.scenes, self.reset or self.request
        here = scenes.index(request.scene or scenes[0]) if request.is_scene else -1
        self.reset = Reset(scenes[(here + 1) % len(scenes)])
        self._screen.notify(f"Scene {self.reset.scene}")

    def on_rewind(self):
        """The key is down: the picture goes back until it is up, see `end_rewind`."""
        if self.mode in (Mode.PLAYING, Mode.PAUSED, Mode.STOPPED) and self.travel.rewind():
            self._mode_before, self.mode, self.wants_step = self.mode, Mode.REWINDING, False

    def end_rewind(self, *, is_taken=True):
        """The key of `on_rewind` is up: go on from what is shown, or, not taken, from where it was."""
        if self.mode is Mode.REWINDING:
            self.travel.end_rewind(is_taken=is_taken)
            self.mode = Mode.PAUSED if is_taken else self._mode_before  # until the world is there

    def on_good_moment(self):
        """Go back to where the picture last looked like its world, and play on."""
        drift = self._screen.drift
        if drift.is_good is None:
            self._screen.notify("How this world should look is not known, or nothing was measured yet")
        elif drift.is_good:
            back = self._screen.choices_of(rewind="goes back all the same")
            self._screen.notify(f"The picture looks like its world{'; ' if back else ''}{back}")
        elif self.travel.go_to(drift.good[-1] if drift.good else -1) and self.mode is not Mode.STOPPED:
            self._mode_before, self.mode = Mode.PLAYING, Mode.PAUSED

    def on_quick_save(self):
        self.travel.save()

    def on_quick_load(self):
        self.load(QUICK)

    def on_keep(self):
        self.travel.keep()

    def on_picture(self):
        self.travel.photograph()

    def load(self, slot):
        """Go to a saved place, one of worldplay.client.saves.SLOTS, and play on."""
        if self.travel.load(slot) and self.mode is not Mode.STOPPED:
            self._mode_before, self.mode = Mode.PLAYING, Mode.PAUSED

    def go_on_from(self, clip, index, frame):
        """Play on from a frame of a clip of this world."""
        if self.travel.go_on_from(clip, index, frame):
            self._mode_before, self.mode = Mode.PLAYING, Mode.PAUSED

    def on_record(self):
        self._recording.toggle()

    def on_slower_mouse(self):
        self._set_mouse(1 / 1.15)

    def on_faster_mouse(self):
        self._set_mouse(1.15)

    def _set_mouse(self, factor):
        degrees = min(max(round(factor * self._device.degrees_per_count, 4), 0.005), 5.0)
        self._device.degrees_per_count = degrees
        self._screen.choose(degrees_per_count=degrees)
        self._screen.notify(f"Mouse: {degrees:.3f} degrees per count")

"""What the player asks of the client: pygame's events become modes, requests to the world, and its input."""
import pygame

from worldplay.client.devices import command_of
from worldplay.client.prompting import Prompting
from worldplay.client.screen import Mode
from worldplay.client.worker import Reset

BEFORE_PLAY = ("escape", "fullscreen", "scaling")  # what works while the world opens, and after it failed
AFTER_ERROR = (*BEFORE_PLAY, "reset", "next_scene")  # what works after a step that failed


class Commands:
    """Handles every event; on the main thread, like all of the client.

    mode        Mode of the session; the loop reads it, and changes it through the methods below
    is_over     whether the player leaves
    request     the Reset that began what is played
    reset       a Reset to hand to the world as soon as it is idle, or None
    wants_step  whether one frame is to be made and shown although play is paused
    prompting   worldplay.client.prompting.Prompting
    """

    def __init__(self, window, device, screen, recording, request):
        self.mode, self.is_over = Mode.LOADING, False
        self.request, self.reset, self.wants_step = request, None, False
        self.prompting = Prompting(window, screen)
        self._window, self._device, self._screen, self._recording = window, device, screen, recording
        self._world = None
        self._is_away = False  # the focus was lost; a window that is about to get it is not away
        self._mode_before_line = None  # the Mode in which F2 was pressed
        self._closing_key = None  # scancode of the key that closed the line, until its release: it may repeat

    # What happens to the world

    def open(self, world):
        """The world is open, and not yet begun."""
        self._world = world
        self._device.space = world.action_space.over(world.info.get("frames_per_chunk", 1))

    def begin(self):
        """The first frame after opening, an error or an end is there: play, or wait for the player."""
        self.open_menu() if self._is_away else self.resume()

    def take_reset(self):
        """The Reset to hand to the world now."""
        self.request, self.reset, self.wants_step = self.reset, None, False
        self._device.forget()
        return self.request

    def stop(self, mode):
        """The world failed; mode is Mode.STOPPED or FAILED."""
        self.mode, self.wants_step, self._screen.is_dirty = mode, False, True
        self.prompting.close()
        self._window.capture_mouse(False)

    # What the player does

    @property
    def _allowed(self):
        """The names of the commands that work in this mode; None is all of them."""
        return {Mode.LOADING: BEFORE_PLAY, Mode.FAILED: BEFORE_PLAY, Mode.STOPPED: AFTER_ERROR}.get(self.mode)

    def handle(self, event, now):
        """Dispatch one pygame event: window and focus, text entry, the window's commands allowed in this
        mode; all else goes to the input device. now: time.perf_counter() seconds.
        """
        command = command_of(event, self._world and self._world.action_space)
        if event.type in (pygame.KEYDOWN, pygame.KEYUP) and event.scancode == self._closing_key:
            self._closing_key = event.scancode if event.type == pygame.KEYDOWN else None
        elif event.type == pygame.QUIT:
            self.is_over = True
        elif event.type == pygame.WINDOWRESIZED:
            self._window.resized((event.x, event.y))
            self._screen.is_dirty = True
        elif event.type == pygame.WINDOWEXPOSED:
            self._screen.is_dirty = True
        elif event.type == pygame.KEYMAPCHANGED:
            self._screen.read_keyboard_layout()
        elif event.type in (pygame.WINDOWFOCUSLOST, pygame.WINDOWFOCUSGAINED):
            self._change_focus(event.type == pygame.WINDOWFOCUSLOST)
        elif self.mode is Mode.WRITING:
            self._write(event, now)
        elif command and (self._allowed is None or command in self._allowed):
            name = f"on_{command}"
            getattr(self if hasattr(self, name) else self._screen, name)()
            self._screen.is_dirty = True
        elif event.type == pygame.MOUSEBUTTONDOWN and self.mode is Mode.MENU:
            self.resume()
        else:
            self._device.feed(event, now)

    def _change_focus(self, is_away):
        self._is_away, self._closing_key = is_away, None
        if is_away:
            self._device.release_all()
            # WRITING goes on: what is to be written may come from another window
            if self.mode in (Mode.PLAYING, Mode.PAUSED):
                self.open_menu()

    def _write(self, event, now):
        """Handle an event while text is entered: only releases reach the input device."""
        if event.type in (pygame.KEYUP, pygame.MOUSEBUTTONUP):
            self._device.feed(event, now)
            return
        end = self.prompting.feed(event)
        if end:
            self._closing_key = event.scancode
            self.prompting.close()
            # who wrote a text in the menu wants to see what becomes of it
            goes_on = end == "taken" and self._mode_before_line is Mode.MENU
            mode = Mode.PLAYING if goes_on else self._mode_before_line
            self.open_menu() if mode is Mode.MENU else self.resume()
            self.mode = mode

    # Modes

    def resume(self):
        """Play; a world that turns by the mouse, or has its buttons as keys, takes it."""
        self.mode, self._screen.is_dirty = Mode.PLAYING, True
        self._device.forget()
        space = self._world.action_space
        takes_mouse = space.look_axes > 0 or any(key.startswith("mouse") for key in space.keys)
        self._window.capture_mouse(takes_mouse)

    def pause(self):
        """The picture stands, the mouse stays captured."""
        self.mode, self._screen.is_dirty = Mode.PAUSED, True

    def open_menu(self):
        """Pause with the mouse free, and show how to go on."""
        self.mode, self._screen.is_dirty, self.wants_step = Mode.MENU, True, False
        self._window.capture_mouse(False)

    # Commands, named as in worldplay.client.devices.COMMANDS; Screen has those that only change what is shown

    def on_escape(self):
        if self.mode in (Mode.PLAYING, Mode.PAUSED):
            self.open_menu()
        else:
            self.is_over = True

    def on_pause(self):
        self.pause() if self.mode is Mode.PLAYING else self.resume()

    def on_single_step(self):
        if self.mode is not Mode.MENU:
            self.mode, self.wants_step = Mode.PAUSED, True

    def on_reset(self):
        self.reset = self.request

    def on_next_scene(self):
        scenes, request = self._world.scenes, self.reset or self.request
        here = -1 if request.image else scenes.index(request.scene or scenes[0])
        self.reset = Reset(scenes[(here + 1) % len(scenes)])
        self._screen.notify(f"Scene {self.reset.scene}")

    def on_prompt(self):
        if "prompt" not in self._world.info:
            self._screen.notify("There is no text to change here")
            return
        self._mode_before_line, self.mode = self.mode, Mode.WRITING
        self.wants_step, self._closing_key = False, None
        self.prompting.open(self._world.info["prompt"])

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

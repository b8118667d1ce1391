"""What the player does at the window: pygame's events become commands, written text and input."""
import pygame

from worldplay.client.commands import Commands
from worldplay.client.devices import command_of
from worldplay.client.prompt_line import PromptLine
from worldplay.client.view import Mode


class WindowCommands(Commands):
    """Handles every event of the window."""

    def __init__(self, window, device, screen, recording, request):
        super().__init__(device, screen, recording, request, PromptLine(window, screen))
        self._window = window
        self._mode_before_line = None  # the Mode in which F2 was pressed
        self._rewind_key = None  # scancode of the key that is held to go back
        self._closing_key = None  # scancode of the key that closed the line, until its release: it may repeat

    def stop(self, mode):
        super().stop(mode)
        self.prompting.close()

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
            self._closing_key = None
            self.change_focus(event.type == pygame.WINDOWFOCUSLOST)
        elif self.mode is Mode.WRITING:
            self._write(event, now)
        elif self.mode is Mode.REWINDING and event.type == pygame.KEYUP and (
                event.scancode == self._rewind_key):
            self.end_rewind()
        elif command and self.obey(command):
            self._rewind_key = event.scancode if command == "rewind" else self._rewind_key
        elif event.type == pygame.MOUSEBUTTONDOWN and self.mode is Mode.MENU:
            self.resume()
        else:
            self._device.feed(event, now)

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

    def on_escape(self):
        if self.mode is Mode.REWINDING:
            self.end_rewind(is_taken=False)
        elif self.mode in (Mode.PLAYING, Mode.PAUSED):
            self.open_menu()
        else:
            self.is_over = True

    def on_prompt(self):
        if "prompt" not in self._world.info:
            self._screen.notify("There is no text to change here")
            return
        self._mode_before_line, self.mode = self.mode, Mode.WRITING
        self.wants_step, self._closing_key = False, None
        self.prompting.open(self._world.info["prompt"])

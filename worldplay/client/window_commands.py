"""What the player does at the window: pygame's events become commands, written text and input."""
from pathlib import Path

import pygame

from worldplay.client import gamepad
from worldplay.client.clips_page import ClipsPage
from worldplay.client.commands import Commands
from worldplay.client.controls_page import ControlsPage
from worldplay.client.inputs import is_pad, pressed
from worldplay.client.pages import NAVIGATION, Choices
from worldplay.client.places_page import PlacesPage
from worldplay.client.prompt_line import PromptLine
from worldplay.client.replay_page import ReplayPage
from worldplay.client.settings_page import SettingsPage
from worldplay.client.view import Mode
from worldplay.client.worlds_page import StartPage, WorldsPage
from worldplay.data.clip import ClipWorld
from worldplay.errors import WorldError

# what is let go while text is written must not stay down; what goes down meanwhile is forgotten after it
BESIDE_TEXT = (pygame.KEYUP, pygame.MOUSEBUTTONUP, *gamepad.EVENTS)
MENUS = (Mode.MENU, Mode.STOPPED, Mode.FAILED)  # which offer choices, and pages
PAUSED = ("Go on", "Places", "Clips", "Worlds", "Settings", "Controls", "Quit")  # the choices of Mode.MENU


class WindowCommands(Commands):
    """Handles every event of the window."""

    def __init__(self, window, device, screen, recording, request, reopening=None):
        super().__init__(device, screen, recording, request, PromptLine(window, screen))
        self._window = window
        self._reopening = reopening  # worldplay.client.settings_page.Reopening, or None
        self._mode_before_line = None  # the Mode in which F2 was pressed
        self._rewind_key = None  # the input that is held to go back
        self._closing_key = None  # scancode of the key that closed the line, until its release: it may repeat

    def stop(self, mode):
        super().stop(mode)
        self._leave_pages()
        self._screen.choices = Choices(self._remedies(mode))
        self.prompting.close()

    def handle(self, event, now):
        """Dispatch one pygame event: window and focus, text entry, the window's commands allowed in this
        mode; all else goes to the input device. now: time.perf_counter() seconds.
        """
        if event.type in (pygame.KEYDOWN, pygame.MOUSEMOTION, pygame.CONTROLLERBUTTONDOWN):
            self._name_inputs_of(event.type == pygame.CONTROLLERBUTTONDOWN)
        command = self._screen.bindings.command_of(event, self._world and self._world.action_space)
        if event.type in (pygame.KEYDOWN, pygame.KEYUP) and event.scancode == self._closing_key:
            self._closing_key = event.scancode if event.type == pygame.KEYDOWN else None
        elif event.type == pygame.QUIT:
            self.is_over = True
        elif event.type == pygame.WINDOWRESIZED:
            self._window.resized((event.x, event.y))
            self._screen.is_dirty = True
        elif event.type == pygame.WINDOWEXPOSED:
            self._screen.is_hidden, self._screen.is_dirty = False, True
        elif event.type == pygame.KEYMAPCHANGED:
            self._screen.read_keyboard_layout()
        elif event.type in (pygame.WINDOWFOCUSLOST, pygame.WINDOWFOCUSGAINED):
            self._closing_key = None
            self.change_focus(event.type == pygame.WINDOWFOCUSLOST)
        elif event.type in (pygame.WINDOWMINIMIZED, pygame.WINDOWHIDDEN):
            self._screen.is_hidden = True
            self.change_focus(True)
        elif event.type in (pygame.WINDOWRESTORED, pygame.WINDOWSHOWN, pygame.WINDOWMAXIMIZED):
            self._screen.is_hidden, self._screen.is_dirty = False, True
        elif event.type == pygame.DROPFILE:
            self.begin_from(event.file)
        elif self.mode is Mode.WRITING:
            self._write(event, now)
        elif self.mode is Mode.REWINDING and self._lets_go(event):
            self._device.feed(event, now)
            self.end_rewind()
        elif self.mode in MENUS and self._browse(event, now):
            self._screen.is_dirty = True
        elif command and self.obey(command):
            self._rewind_key = pressed(event)[0] if command == "rewind" else self._rewind_key
        else:
            self._feed(event, now)

    def _feed(self, event, now):
        """Give an event to the input device, and carry out commands on the sticks and triggers it moved."""
        for code in self._device.feed(event, now):
            self._name_inputs_of(is_pad(code))
            if event.type == pygame.CONTROLLERAXISMOTION:
                command = self._screen.bindings.commands(self._world and self._world.action_space).get(code)
                if command and self.obey(command) and command == "rewind":
                    self._rewind_key = code

    def _lets_go(self, event):
        """Whether an event lets go of what is held to go back; a gamepad that is unplugged does."""
        key = self._rewind_key
        if is_pad(key) and event.type == pygame.CONTROLLERDEVICEREMOVED:
            return True
        if is_pad(key) and event.type == pygame.CONTROLLERAXISMOTION:
            return self._device.lets_go(event, key)
        return pressed(event) == (key, 0.0)

    def _name_inputs_of(self, pad):
        """The player holds a gamepad, or has gone back to the keyboard."""
        if pad != self._screen.shows_pad:
            self._screen.shows_pad, self._screen.is_dirty = pad, True

    # The menu

    def _leave_pages(self):
        if any(getattr(page, "entry", None) for page in self._screen.pages):
            self._window.take_text(False)
        self._screen.close_pages()

    def open_menu(self):
        super().open_menu()
        offer = ("Last good moment",) if self._screen.drift.is_away else ()
        offer += ("Real game",) if not self.beside.problem else ()
        self._screen.choices = Choices((*PAUSED[:1], *offer, *PAUSED[1:]))

    def _remedies(self, mode):
        """What is offered once the world has stopped or could not be opened; what was recorded is saved."""
        words = ["Start again"] if mode is Mode.STOPPED else []
        if self._reopening:
            now, info = self._reopening.chosen(), self._world.info if self._world else {}
            words += ["Open again"] if mode is Mode.FAILED else []
            words += ["Fewer steps"] if (info.get("steps") or now["steps"] or 1) > 1 else []
            words += ["Processor"] if info.get("device", now["device"]) != "cpu" else []
            words += ["Worlds"]
        return (*words, "Quit")

    def _browse(self, event, now):
        """An event while the menu is open; returns whether it was meant for it."""
        pages, choices = self._screen.pages, self._screen.choices
        if pages and getattr(pages[-1], "entry", None):  # first: the mouse chooses nothing else to be named
            if event.type in BESIDE_TEXT:
                self._device.feed(event, now)
            else:
                pages[-1].feed(event)
        elif event.type == pygame.MOUSEMOTION:
            (pages[-1].hover if pages else choices.hit)(event.pos)
        elif event.type == pygame.MOUSEWHEEL:
            pages and pages[-1].scroll(event.y)
        elif pages:
            page, takes_input = pages[-1], pages[-1].takes_input
            for code in self._device.feed(event, now):
                page.press(code)
            if event.type == pygame.MOUSEBUTTONDOWN and event.button == 1 and not takes_input:
                page.click(event.pos)
            if page.is_over and page in pages:
                pages.remove(page)
                page.close()
        elif event.type == pygame.MOUSEBUTTONDOWN:
            self._take(choices.hit(event.pos) or ("Go on" if self.mode is Mode.MENU else None))
        else:
            return self._choose(event, now)
        return True

    def _choose(self, event, now):
        """An event while the pause and no page is open; returns whether it chose something."""
        is_way = event.type == pygame.KEYDOWN and NAVIGATION.get(event.scancode) in ("left", "right", "enter")
        if not is_way and event.type not in (pygame.CONTROLLERAXISMOTION, pygame.CONTROLLERBUTTONDOWN):
            return False
        ways = [NAVIGATION.get(code) for code in self._device.feed(event, now)]
        for way in ways:
            match way:
                case "left" | "right":
                    self._screen.choices.move(-1 if way == "left" else 1)
                case "enter":
                    self._take(self._screen.choices.chosen)
                case "back" if self.mode is Mode.MENU:  # of a gamepad: its way back into the world
                    self.resume()
        return bool(ways) and all(ways)

    def _take(self, choice):
        """One of the pause's choices was taken."""
        match choice:
            case "Go on":
                self.resume()
            case "Last good moment":
                self.on_good_moment()
            case "Real game":
                self.on_real()
                self.resume()
            case "Places":
                self._screen.pages.append(PlacesPage(self._window, self, self._screen.notify))
            case "Clips":
                self._screen.pages.append(ClipsPage(self._window, self, self._screen))
            case "Controls":
                self._screen.pages.append(ControlsPage(self._screen, self._device,
                                                       lambda: self._screen.key_labels))
            case "Worlds":
                self._screen.pages.append(WorldsPage(self._screen, self, self._reopening, self._ask_file))
            case "Settings":
                self._screen.pages.append(SettingsPage(self._screen, self, self._recording, self._reopening))
            case "Start again":
                self.on_reset()
            case "Open again":
                self.reopen(self._reopening.opening(), self.request)
            case "Fewer steps":
                steps = (self._world.info["steps"] if self._world else self._reopening.chosen()["steps"]) // 2
                self.reopen(self._reopening.opening(steps=steps), self.request)
            case "Processor":
                self.reopen(self._reopening.opening(device="cpu"), self.request)
            case "Quit":
                self.is_over = True

    def _write(self, event, now):
        """Handle an event while text is entered: releases and gamepads reach the input device."""
        if event.type in BESIDE_TEXT:
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

    def take_opening(self):
        self._leave_pages()
        return super().take_opening()

    def begin_at(self, request):
        self._leave_pages()
        super().begin_at(request)

    def begin(self):
        request, is_first = self.request, self.mode is Mode.LOADING
        super().begin()
        if is_first and request.file and not request.ahead:
            self.begin_from(request.file, None)  # what the world sees of it, and its other frames

    def begin_from(self, path, at=0):
        """A picture or a clip of the player's own, from its frame `at` (None: the last): the page for it."""
        if self._world is None or self.mode not in (Mode.PLAYING, Mode.PAUSED, Mode.MENU, Mode.STOPPED):
            self._screen.notify(f"{Path(path).name} cannot be taken now; drop it again once the world plays")
            return
        if self.mode in (Mode.PLAYING, Mode.PAUSED):
            self.open_menu()
        try:
            if isinstance(self._world, ClipWorld):
                raise WorldError("bad_scene", "This is a recording; open a world to begin from a picture")
            self._screen.pages.append(StartPage(self._screen, self, path, at))
        except WorldError as error:
            self._screen.notify(str(error))

    def choose_replay(self, clip):
        """The page of the worlds in which a worldplay.data.clip.Clip may be replayed."""
        self._screen.pages.append(ReplayPage(clip, self._screen, self, self._reopening))

    def _ask_file(self):
        path = self._window.clipboard().strip().removeprefix("file://")
        if path:
            self.begin_from(path)
        else:
            self._screen.notify("Drop a file on the window, or copy its path first")

    def resume(self):
        self._leave_pages()
        super().resume()

    def on_escape(self):
        if self.mode is Mode.REWINDING:
            self.end_rewind(is_taken=False)
        elif self.mode in (Mode.PLAYING, Mode.PAUSED):
            self.open_menu()
        else:
            self.is_over = True

    def on_real(self):
        self.beside.turn()

    def on_places(self):
        self._open_page("Places")

    def on_clips(self):
        self._open_page("Clips")

    def _open_page(self, choice):
        if self.mode in (Mode.PLAYING, Mode.PAUSED, Mode.MENU):
            self.open_menu()
            self._leave_pages()
            self._take(choice)

    def on_prompt(self):
        if "prompt" not in self._world.info:
            self._screen.notify("There is no text to change here")
            return
        self._mode_before_line, self.mode = self.mode, Mode.WRITING
        self.wants_step, self._closing_key = False, None
        self.prompting.open(self._world.info["prompt"])

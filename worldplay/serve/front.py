"""The loop's front on a page: what is shown there, what is done there."""
import time
from collections import deque

from worldplay.client.bindings import BY_NAME, WORLD_BINDINGS
from worldplay.client.commands import Commands
from worldplay.client.devices import KeyboardMouse
from worldplay.client.inputs import is_pad
from worldplay.client.loop import Front
from worldplay.client.prompting import Prompting
from worldplay.client.recording import Recording
from worldplay.client.timing import Timing
from worldplay.client.view import Mode, View
from worldplay.client.worker import Reset
from worldplay.data.clip import beside
from worldplay.serve import protocol
from worldplay.serve.exchange import Joined, Left, Picture
from worldplay.serve.keys import BUTTONS, CODE_OF, strengths

ABSENT = ("real", "places", "clips")  # what only a window shows
LOCAL = ("help", "hud", "scaling", "fullscreen", "prompt")  # what a page does by itself
BUTTON_OF = {code: button for button, code in BUTTONS.items()}


def page_front(exchange, settings, options, *, clock=time.perf_counter):
    """The loop.Front of a page; settings are a Settings, options a SessionOptions."""
    view = PageView(exchange, settings, options, clock=clock)
    recording = view.recording = Recording(view, options.record_in or settings.clip_folder,
                                           bool(options.record_in))
    device = view.device = PageDevice(None, settings.degrees_per_count, bindings=view.bindings, clock=clock)
    device.take(settings)
    return Front(view=view, device=device, recording=recording, events=exchange.take,
                 commands=PageCommands(device, view, recording, options.start, Prompting()))


class PageDevice(KeyboardMouse):
    """The player's input at the page.

    answers  protocol.Input: the oldest that was new in the action polled last, or None
    """

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.answers, self._fed = None, deque(maxlen=1000)

    def take_message(self, message, now):
        """Take a protocol.Input that came at `now`; returns the inputs that went down by it."""
        self._fed.append((now, message))
        if isinstance(message, protocol.Move):
            self.move((message.x, message.y), now)
        return [code for code, strength in strengths(message, self.pads.dead_zone)
                if self.press(code, strength, now)]

    def poll(self, now=None):
        action = super().poll(now)
        self.answers = next((message for at, message in self._fed if at == self.input_time), None)
        self._fed.clear()
        return action


class PageView(View):
    """Publishes what the pages are to see. device: the PageDevice, for what a frame answers."""

    def __init__(self, exchange, settings, options, *, clock=time.perf_counter):
        super().__init__(settings, Timing(), clock=clock)
        self.device, self._exchange, self._options = None, exchange, options
        self._picture, self._takes_mouse = None, False

    def open(self, world):
        super().open(world)
        self._exchange.world = self._facts()
        if missing := self.bindings.missing(world.action_space):
            self.notify(f"No key is set for {', '.join(missing)} of this world")

    def close_world(self, title):
        super().close_world(title)
        self._picture = self._exchange.world = None

    def capture_mouse(self, is_captured):
        self._takes_mouse, self.is_dirty = is_captured, True

    def saved(self, path):
        for suffix in (".mp4", ".json"):
            file = beside(path, suffix)
            self._exchange.downloads = {**self._exchange.downloads, file.name: file}
        self.notify(f"Saved {path.name}.mp4; the link is below")

    def close(self):
        """The pages are told by the server that the session is over."""

    def draw(self, mode):
        self.is_dirty = False
        if self.frame is not None and (self._picture is None or self._picture.frame is not self.frame):
            number = self._picture.number + 1 if self._picture else 1
            self._picture = Picture(self.frame, number, self.number, self.device.answers)
            self.device.answers = None
        self._exchange.publish(self._picture, self._state(mode))

    def _state(self, mode):
        is_open = self.world is not None and self.frame is not None
        is_recording = is_open and self.recording.is_recording
        return {
            "mode": mode.name.lower(), "notice": self.notice, "waited": self._waited(),
            "loading": "" if is_open else self._options.progress() or f"Opening {self._options.title}",
            "failure": self._failure_text() if self.failure else "",
            "rewound": self.rewound and round(self.rewound[0], 1), "takes_mouse": self._takes_mouse,
            "recording": int(self.recording.seconds) if is_recording else None,
            "prompt": self.world.info.get("prompt") if is_open else None,
            "note": self.world.info.get("note", "") if is_open else "",
            "figures": self._figures() if is_open else [],
            "clips": [name for name in self._exchange.downloads if name.endswith(".mp4")]}

    def _facts(self):
        """What the pages are told of the world once: its size, its scenes, its keys."""
        world, space, bindings = self.world, self.world.action_space, self.bindings
        reads_text = "prompt" in world.info
        ours, theirs = bindings.help_rows(space, {}, reads_text=reads_text)
        absent = [BY_NAME[name].says for name in ABSENT]
        theirs = [(label, says.removesuffix("; quit")) for label, says in theirs if says not in absent]
        commands = {CODE_OF[code]: name for code, name in bindings.commands(space).items()
                    if code in CODE_OF and name not in ABSENT}
        return {"name": world.name, "size": list(world.frame_size), "fps": world.fps,
                "scenes": list(world.scenes), "look_axes": space.look_axes, "reads_text": reads_text,
                "help": [ours, theirs], "commands": commands, "local": list(LOCAL),
                "keys": [key for binding in WORLD_BINDINGS if (key := self._touch_key(binding.name))]}

    def _touch_key(self, name):
        """How a finger presses a key of the world: {name, label, code or button}, None where it cannot."""
        if name not in self.world.action_space.keys:
            return None
        for code in self.bindings.inputs(name):
            how = {"code": CODE_OF[code]} if code in CODE_OF else {"button": BUTTON_OF.get(code)}
            if not is_pad(code) and how != {"button": None}:
                label = self.bindings.label_of(name, {}, self.world.action_space)
                return {"name": name, "label": BY_NAME[name].says or label, **how}
        return None


class PageCommands(Commands):
    """Handles what happens at the page. It is over when the command is ended, not when a player leaves."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self._is_away = True  # the world waits for its player
        self._waits_for_player = True
        self._rewind_code = None

    def begin(self):
        super().begin()
        self._waits_for_player = self._is_away

    def resume(self):
        super().resume()
        self._waits_for_player = False

    def change_focus(self, is_away):
        self._waits_for_player |= is_away and self.mode is Mode.PLAYING
        super().change_focus(is_away)

    def stop(self, mode):
        super().stop(mode)
        self.is_over |= mode is Mode.FAILED  # the command ends with what failed

    def handle(self, event, now):
        """Carry out (a message of the player, Joined or Left; when it came, in seconds)."""
        what, at = event
        match what:
            case Joined():
                self._join()
            case Left():
                self.change_focus(True)
            case protocol.Away(away):
                self.change_focus(away)
            case protocol.Do(command):
                self._do(command)
            case protocol.Scene(name):
                self._take_scene(name)
            case protocol.Text(text):
                self._take_text(text)
            case _:
                self._take_input(what, at)

    def _join(self):
        self.change_focus(False)
        if self._waits_for_player and self.mode is Mode.MENU:
            self.resume()
        self._screen.is_dirty = True

    def _do(self, command):
        if command == "resume":
            if self.mode in (Mode.MENU, Mode.PAUSED):
                self.resume()
        else:
            self.obey(command)

    def _take_scene(self, name):
        if self._world and name in self._world.scenes and self.mode not in (
                Mode.LOADING, Mode.FAILED, Mode.REWINDING):
            self.reset = Reset(name)

    def _take_text(self, text):
        if self._world is None or "prompt" not in self._world.info:
            self._screen.notify("There is no text to change here")
            return
        if text.lower().endswith(".safetensors"):  # which the world would read as a file of this machine
            self._screen.notify("A page gives words; files of text rows are for --prompt")
            return
        self.prompting.submit(text)

    def _take_input(self, message, at):
        if self.mode is Mode.REWINDING and (self._rewind_code, 0.0) in strengths(message, 0.0):
            self.end_rewind()
        commands = self._screen.bindings.commands(self._world and self._world.action_space)
        for code in self._device.take_message(message, at):
            command = commands.get(code)
            if command and command not in (*LOCAL, *ABSENT) and self.obey(command) and command == "rewind":
                self._rewind_code = code

    def on_escape(self):
        if self.mode is Mode.REWINDING:
            self.end_rewind(is_taken=False)
        elif self.mode in (Mode.PLAYING, Mode.PAUSED):
            self.open_menu()

    def on_single_step(self):
        if self.mode is Mode.MENU:  # the page has a button for it there too
            self.pause()
        super().on_single_step()

"""Which key, button or stick does what: the usual table, the player's changes, what holds in a world."""
from dataclasses import dataclass

from worldplay.action import KEYS
from worldplay.client import inputs
from worldplay.client.inputs import keys, mouse, pad


@dataclass(frozen=True)
class Binding:
    """One line of the help screen.

    name    canonical key of worldplay.action, a turn (LOOKS), or the name of a client command
    inputs  what triggers it at first, see worldplay.client.inputs
    says    what it does
    """
    name: str
    inputs: tuple
    says: str


def _world(name, says, *inputs):
    return Binding(name, inputs, says)


_USUAL = {
    "w": ("forward", pad("lefty-")), "s": ("back", pad("lefty+")), "a": ("step left", pad("leftx-")),
    "d": ("step right", pad("leftx+")), "e": ("", pad("x")), "f": ("", pad("y")), "q": ("", pad("leftstick"))}

WORLD_BINDINGS = (
    *(_world(name, _USUAL.get(name, ("",))[0], *keys(name.upper()), *_USUAL.get(name, ("",))[1:])
      for name in "wasdbcefghijklmnopqrtuvxyz0123456789"),
    _world("up", "forward", *keys("UP"), pad("dpup")), _world("down", "back", *keys("DOWN"), pad("dpdown")),
    _world("left", "left", *keys("LEFT"), pad("dpleft")),
    _world("right", "right", *keys("RIGHT"), pad("dpright")),
    _world("space", "jump", *keys("SPACE"), pad("a")), _world("tab", "", *keys("TAB")),
    _world("enter", "", *keys("RETURN")),
    _world("shift", "", *keys("LSHIFT", "RSHIFT"), pad("leftshoulder")),
    _world("ctrl", "", *keys("LCTRL", "RCTRL"), pad("b")), _world("alt", "", *keys("LALT", "RALT")),
    _world("mouse_left", "fire", mouse(1), pad("righttrigger+")), _world("mouse_middle", "", mouse(2)),
    _world("mouse_right", "", mouse(3), pad("lefttrigger+")),
)

# Turns by time, for keyboards without a mouse and for sticks: degrees a second in place of degrees a count.
LOOKS = (
    Binding("look_left", (*keys("LEFT"), pad("rightx-")), "turn left"),
    Binding("look_right", (*keys("RIGHT"), pad("rightx+")), "turn right"),
    Binding("look_up", (*keys("UP"), pad("righty-")), "look up"),
    Binding("look_down", (*keys("DOWN"), pad("righty+")), "look down"),
)

COMMANDS = (
    Binding("escape", (*keys("ESCAPE"), pad("start")), "free the mouse; quit"),
    Binding("pause", (*keys("P"), pad("rightstick")), "pause"),
    Binding("single_step", keys("PERIOD"), "one frame, then pause"),
    Binding("reset", (*keys("R"), pad("back")), "start again"),
    Binding("next_scene", (*keys("TAB"), pad("rightshoulder")), "next scene"),
    Binding("real", keys("G"), "the real game"),
    Binding("rewind", (*keys("BACKSPACE"), pad("leftshoulder")), "hold: go back in time"),
    Binding("good_moment", keys("HOME"), "back to a good picture"),
    Binding("quick_save", keys("F5"), "save this place"),
    Binding("quick_load", keys("F8"), "back to that place"),
    Binding("places", keys("F6"), "saved places"),
    Binding("clips", keys("F7"), "clips"),
    Binding("help", keys("F1"), "this help"),
    Binding("prompt", keys("F2"), "change the text"),
    Binding("hud", keys("F3"), "frame rate and delays"),
    Binding("record", keys("F9"), "record a clip"),
    Binding("keep", keys("F12"), "keep the last 30 s"),
    Binding("picture", keys("F4"), "save the picture"),
    Binding("scaling", keys("F10"), "smooth or whole scaling"),
    Binding("fullscreen", keys("F11"), "fullscreen"),
    Binding("slower_mouse", keys("MINUS", "KP_MINUS"), "slower mouse"),
    Binding("faster_mouse", keys("EQUALS", "KP_PLUS"), "faster mouse"),
)

BINDINGS = (*WORLD_BINDINGS, *LOOKS, *COMMANDS)
BY_NAME = {binding.name: binding for binding in BINDINGS}
FIXED = frozenset({"escape"})  # the way out of every screen stays where it is

# {what it is called: {name: inputs of keyboard and mouse}}; gamepads stay as they are
PRESETS = {
    "W A S D": {},
    "arrows": {"w": keys("UP"), "s": keys("DOWN"), "a": keys("COMMA"), "d": keys("SLASH"),
               "look_up": keys("PAGEUP"), "look_down": keys("PAGEDOWN")},
    "left-handed": {"w": keys("I"), "s": keys("K"), "a": keys("J"), "d": keys("L"),
                    "mouse_left": (mouse(3),), "mouse_right": (mouse(1),),
                    "look_left": keys("A"), "look_right": keys("D"),
                    "look_up": keys("W"), "look_down": keys("S")},
}


class Bindings:
    """The player's bindings; the input device and what is drawn share one, so that a change holds at once.

    changes  {name: inputs} of what is not as in BINDINGS, the latest last: it wins where two want one input
    """

    def __init__(self, changes=None):
        self.changes, self._resolved = {}, {}
        for name, names in (changes or {}).items():
            self.changes[name] = tuple(inputs.named(text) for text in names)

    def inputs(self, name):
        """What triggers a name."""
        return self.changes.get(name, BY_NAME[name].inputs)

    def bind(self, name, code):
        """Let `code` trigger `name`, in place of what did on that kind of device; None leaves nothing."""
        kept = [other for other in self.inputs(name)
                if code is not None and inputs.is_pad(other) != inputs.is_pad(code)]
        self._change(name, (*kept, code) if code is not None else ())

    def restore(self, name):
        """As it was at first."""
        self.changes.pop(name, None)
        self._resolved.clear()

    def take_preset(self, preset):
        """Keyboard and mouse as in PRESETS; all other changes go."""
        self.changes = {}
        for name, codes in PRESETS[preset].items():
            self._change(name, (*codes, *filter(inputs.is_pad, BY_NAME[name].inputs)))
        self._resolved.clear()

    @property
    def preset(self):
        """The name of the preset that these bindings are, or "own"."""
        for name in PRESETS:
            other = Bindings()
            other.take_preset(name)
            if other.changes == self.changes:
                return name
        return "own"

    def to_json(self):
        """{name: [text]} of the changes, as `Bindings` takes them."""
        return {name: [inputs.text_of(code) for code in codes] for name, codes in self.changes.items()}

    # In one world

    def played(self, space):
        """{input: name} of a world's keys and turns; without a space of all keys."""
        return self._resolve(space)[0]

    def commands(self, space):
        """{input: name} of the client's commands; what a world itself uses is the world's."""
        return self._resolve(space)[1]

    def command_of(self, event, space=None):
        """The client command that an event asks for, or None."""
        code, strength = inputs.pressed(event)
        return self.commands(space).get(code) if strength else None

    def missing(self, space, *, has_pad=False):
        """Names of the world's keys that nothing here triggers, in the world's order."""
        triggered = {name for code, name in self.played(space).items() if has_pad or not inputs.is_pad(code)}
        return [name for name in space.keys if name not in triggered]

    def label_of(self, name, labels, space=None, *, is_pad=False):
        """What the first input that triggers a name here is called, "" where there is none.

        labels  {scancode: label} of the keys that print something else than on a US keyboard
        is_pad  of the gamepad where one triggers it, else of keyboard and mouse
        """
        table = self.commands(space) if name in _COMMAND_NAMES else self.played(space)
        working = [code for code in self.inputs(name) if table.get(code) == name]
        fitting = [code for code in working if inputs.is_pad(code) == is_pad] or (working if is_pad else [])
        return inputs.label_of(fitting[0], labels) if fitting else ""

    def help_rows(self, space, labels, *, reads_text=False, is_pad=False):
        """(world rows, client rows): lists of (label, what it does) of what works in a world."""
        def label(name):
            return self.label_of(name, labels, space, is_pad=is_pad)
        world = [(label(binding.name) or "no key", binding.says or "a key of this world")
                 for binding in WORLD_BINDINGS if binding.name in space.keys]
        if space.look_axes:
            world.append(("Mouse", "turn" if space.look_axes == 1 else "look around"))
        for names in (("look_left", "look_right"), ("look_up", "look_down"))[:space.look_axes]:
            if all(turns := [label(name) for name in names]):
                world.append((", ".join(turns), BY_NAME[names[0]].says.split()[0]))
        client = [(label(binding.name), binding.says) for binding in COMMANDS
                  if label(binding.name) and (reads_text or binding.name != "prompt")]
        return world, client

    def _change(self, name, codes):
        self.changes.pop(name, None)  # the latest is the last
        if codes != BY_NAME[name].inputs:
            self.changes[name] = codes
        self._resolved.clear()

    def _resolve(self, space):
        if space not in self._resolved:
            looks = LOOKS[:2 * space.look_axes] if space else LOOKS
            known = KEYS if space is None else space.keys
            names = [*(binding.name for binding in looks),
                     *(binding.name for binding in WORLD_BINDINGS if binding.name in known)]
            played = self._table(names)
            taken = set(played) if space else set()
            commands = self._table([binding.name for binding in COMMANDS])
            commands = {code: name for code, name in commands.items() if code not in taken}
            commands |= self._table(FIXED)
            self._resolved[space] = (played, commands)
        return self._resolved[space]

    def _table(self, names):
        """{input: name}: of two names that want one input the changed one has it, then the later one."""
        names = [name for name in names if name not in self.changes] + [
            name for name in self.changes if name in set(names)]
        return {code: name for name in names for code in self.inputs(name)}


_COMMAND_NAMES = frozenset(binding.name for binding in COMMANDS)


def controls_table():
    """The usual controls as the rows of a Markdown table: README and docs/play.md show it."""
    def cells(names):
        both = [[inputs.label_of(code, {}) for code in BY_NAME[name].inputs if inputs.is_pad(code) == is_pad]
                for is_pad in (False, True) for name in names]
        half = len(names)
        return [", ".join(dict.fromkeys(labels[0] for labels in part if labels))
                for part in (both[:half], both[half:])]
    rows = [(("w", "a", "s", "d"), "walk", "left stick"), (("look_left", "look_right"), "turn",
             "right stick"), (("mouse_left",), "fire", None)]
    lines = ["| keyboard and mouse | gamepad | |", "|---|---|---|"]
    for names, says, stick in rows:
        desk, on_pad = cells(names)
        desk = f"mouse, or {desk}" if says == "turn" else desk
        lines.append(f"| {desk} | {stick or on_pad} | {says} |")
    for command in COMMANDS:
        desk, on_pad = cells((command.name,))
        lines.append(f"| `{desk}` | {on_pad} | {command.says} |" if desk in "-+."
                     else f"| {desk} | {on_pad} | {command.says} |")
    return "\n".join(lines)



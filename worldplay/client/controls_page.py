"""The controls: presets, speeds, and every key, changed by pressing another one."""
from worldplay.client import inputs
from worldplay.client.bindings import BY_NAME, COMMANDS, FIXED, LOOKS, PRESETS, WORLD_BINDINGS
from worldplay.client.pages import NAVIGATION, Page, Row


class ControlsPage(Page):
    """What it changes holds at once and is kept as settings."""
    title = "Controls"

    def __init__(self, screen, device, labels):
        """labels() -> {scancode: label} of the keys that print something else than on a US keyboard."""
        super().__init__()
        self._screen, self._device, self._labels = screen, device, labels
        self._bindings, self._space = screen.bindings, screen.world.action_space
        self._asked = None  # the name whose new input is waited for

    def hint(self):
        if self._asked:
            return "Press a key, a mouse button, a gamepad's button or move a stick; Esc leaves it as it was"
        return "Enter: press the new key.  Left, right: hold or toggle.  Backspace: as at first.  Del: none"

    def press(self, code):
        if self._asked is None:
            super().press(code)
            return
        name, self._asked = self._asked, None
        if NAVIGATION.get(code) != "back" or inputs.is_pad(code):
            had = self._table(name).get(code)
            self._bindings.bind(name, code)
            self._keep()
            if had and had != name:
                self._screen.notify(f"{inputs.label_of(code, self._labels())} was: {_says(had)}")

    @property
    def takes_input(self):
        return self._asked is not None

    def make_rows(self):
        settings, space = self._screen.settings, self._space
        names = [binding.name for binding in WORLD_BINDINGS if binding.name in space.keys]
        looks = [binding.name for binding in LOOKS[:2 * space.look_axes]]
        commands = [binding.name for binding in COMMANDS if binding.name not in FIXED]
        return [
            Row(label="Preset", value=self._bindings.preset, change=self._change_preset,
                says="Takes back all other changes of keys"),
            Row(label="Mouse", value=f"{settings.degrees_per_count:.3f} degrees per count",
                change=lambda step: self._scale("degrees_per_count", step, 0.005, 5.0)),
            Row(label="Turning keys and stick", value=f"{settings.turn_speed:.0f} degrees per second",
                change=lambda step: self._scale("turn_speed", step, 10.0, 1000.0)),
            Row(label="Up and down", value="inverted" if settings.is_inverted else "as usual",
                change=lambda step: self._choose(is_inverted=not settings.is_inverted)),
            Row(label="Dead zone of sticks", value=f"{100 * settings.dead_zone:.0f} %",
                change=lambda step: self._choose(
                    dead_zone=round(min(max(settings.dead_zone + 0.05 * step, 0.0), 0.5), 2)),
                says="The share of a stick's way that does nothing; more for worn sticks"),
            Row(label="In this world"), *map(self._key_row, names),
            *([Row(label="Turning by time"), *map(self._key_row, looks)] if looks else []),
            Row(label="Window"), *map(self._key_row, commands)]

    def _key_row(self, name):
        codes, table = self._bindings.inputs(name), self._table(name)
        labels = [inputs.label_of(code, self._labels()) for code in codes if table.get(code) == name]
        lost = [f"{inputs.label_of(code, self._labels())} is: {_says(self._owner(code))}" for code in codes
                if table.get(code) != name]
        value = ", ".join(labels) or "no key"
        is_toggled = name in self._screen.settings.toggled
        is_world = name in self._space.keys
        value = "Press..." if self._asked == name else value + " (toggle)" * is_toggled
        missing = self._bindings.missing(self._space, has_pad=bool(self._device.pads.names))
        return Row(label=_says(name), value=value, says="; ".join(lost), is_alert=name in missing,
                   enter=lambda: self._ask(name),
                   change=(lambda step: self._toggle(name)) if is_world else None,
                   restore=lambda: self._edit(self._bindings.restore, name),
                   clear=lambda: self._edit(self._bindings.bind, name, None))

    def _table(self, name):
        is_command = name not in self._space.keys and not name.startswith("look_")
        return self._bindings.commands(self._space) if is_command else self._bindings.played(self._space)

    def _owner(self, code):
        return self._bindings.played(self._space).get(code) or self._bindings.commands(self._space).get(code)

    def _ask(self, name):
        self._asked = name

    def _edit(self, change, *arguments):
        change(*arguments)
        self._keep()

    def _change_preset(self, step):
        names, now = list(PRESETS), self._bindings.preset
        at = names.index(now) if now in names else -step
        self._edit(self._bindings.take_preset, names[(at + step) % len(names)])

    def _toggle(self, name):
        self._choose(toggled=tuple(sorted({name} ^ set(self._screen.settings.toggled))))

    def _scale(self, name, step, low, high):
        value = getattr(self._screen.settings, name) * 1.15 ** step
        self._choose(**{name: round(min(max(value, low), high), 4)})

    def _keep(self):
        self._choose(bindings=self._bindings.to_json())

    def _choose(self, **choices):
        self._screen.choose(**choices)
        self._device.take(self._screen.settings)


def _says(name):
    """What a name is called in the list."""
    binding = BY_NAME[name]
    return binding.says or f"the world's {name.replace('_', ' ')}"

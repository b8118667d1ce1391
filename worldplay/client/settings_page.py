"""The settings: how the world is computed, what is shown, where recordings go."""
from collections.abc import Callable
from dataclasses import dataclass, field

from worldplay.client.pages import Page, Row
from worldplay.client.settings import HUD_PARTS
from worldplay.client.worker import Opening


@dataclass(frozen=True, kw_only=True)
class Reopening:
    """How a world is opened anew in the same window; the command line says it.

    opening  function of changes (world, steps, device, path, scene, image by name) -> Opening; what is not
             named stays as it was
    choices  {"steps" | "device" | "path": the values there are}
    chosen   function -> {the same names: their values now}
    """
    opening: Callable[..., Opening]
    choices: dict = field(default_factory=dict)
    chosen: Callable[[], dict] = dict


class SettingsPage(Page):
    """What is changed here holds at once; how the world is computed holds when it opens again."""
    title = "Settings"

    def __init__(self, screen, commands, recording, reopening):
        super().__init__()
        self._screen, self._commands, self._recording = screen, commands, recording
        self._reopening, self._wanted = reopening, {}

    def make_rows(self):
        settings, window = self._screen.settings, self._screen.window
        return [
            *self._computing(),
            Row(label="What is shown"),
            Row(label="Scaling", value="smooth" if window.scaling == "smooth" else "whole steps",
                change=lambda step: self._screen.on_scaling(), says="Whole steps: pixels become squares"),
            Row(label="Window", value="fullscreen" if window.is_fullscreen else "a window",
                change=lambda step: self._screen.on_fullscreen(),
                says="The screen that the window is on; a window can be moved to another one first"),
            Row(label="Figures", value="shown" if settings.show_hud else "hidden",
                change=lambda step: self._screen.on_hud(),
                says=self._screen.choices_of(hud="shows and hides them while you play")),
            Row(label="Parts of the figures", value=settings.hud_parts,
                change=lambda step: self._screen.choose(
                    hud_parts=_next(HUD_PARTS, settings.hud_parts, step))),
            Row(label="Recordings"),
            Row(label="Folder", value=settings.record_folder, enter=self._paste_folder,
                says="Enter takes the path that is in the clipboard"),
            Row(label="Sound", value="none", change=lambda step: None, says="Worlds make no sound yet")]

    def _computing(self):
        if not self._reopening or self._screen.world is None or "steps" not in self._screen.world.info:
            return []
        info, now = self._screen.world.info, self._reopening.chosen()
        rows = [Row(label="How the world is computed")]
        for name, label in (("steps", "Sampling steps"), ("device", "Device"), ("path", "Passes")):
            value = self._wanted.get(name, now[name])
            is_own = value in (None, "auto") and name in info
            rows.append(Row(
                label=label, value=f"the world's own ({info[name]})" if is_own else str(value or "-"),
                change=lambda step, name=name: self._want(name, step),
                says="Holds when the world opens again: the line below" if name in self._wanted else ""))
        rows.append(Row(label="Open the world again", value=", ".join(
            f"{name} {value}" for name, value in self._wanted.items()) or "nothing is changed",
            enter=self._reopen, says="It begins at its start; what was recorded is saved"))
        return rows

    def _want(self, name, step):
        now = self._reopening.chosen()[name]
        value = _next(self._reopening.choices[name], self._wanted.get(name, now), step)
        self._wanted.pop(name, None)
        if value != now:
            self._wanted[name] = value

    def _reopen(self):
        self._commands.reopen(self._reopening.opening(**self._wanted))

    def _paste_folder(self):
        text = self._screen.window.clipboard().strip()
        try:
            if not text:
                raise ValueError("The clipboard holds no text; copy the path of a folder first")
            self._screen.choose(record_folder=text)
        except ValueError as error:
            self._screen.notify(str(error))
            return
        self._recording.folder = self._screen.settings.clip_folder
        self._screen.notify(f"The next recording goes to {self._recording.folder}")


def _next(values, value, step):
    """The value so many places on, round and round; the first one where `value` is none of them."""
    values = list(values)
    return values[(values.index(value) + step) % len(values)] if value in values else values[0]

"""The worlds that are here or can be fetched, with what they need, and the scenes of the one that is open."""
import importlib.util
import re
from pathlib import Path

import psutil

from worldplay.client.pages import Page, Row
from worldplay.client.worker import Reset
from worldplay.data.clip import read_clip
from worldplay.data.file_start import is_clip, other_controls
from worldplay.data.stills import Stills
from worldplay.errors import WorldError
from worldplay.files import missing_space
from worldplay.worlds import catalog, zoo

GIB = 2 ** 30
_TEXT_PACKAGES = ("transformers", "tokenizers", "ftfy")  # the extra `wan`


class WorldsPage(Page):
    """Choosing a world or a scene keeps the window."""
    title = "Worlds"
    has_pictures = True

    def __init__(self, screen, commands, reopening, ask_file):
        """ask_file() takes a picture or a clip of the player's own."""
        super().__init__()
        self._screen, self._commands, self._reopening = screen, commands, reopening
        self._ask_file, self._asked = ask_file, None  # the world whose fetching is to be confirmed
        self._cards, self._published = (zoo.cards(), zoo.published()) if reopening else ([], [])

    def make_rows(self):
        here = [self._installed(card) for card in self._cards if card.is_playable]
        others = [self._fetchable(world) for world in self._published if world["few_steps"]]
        return [*self._scenes(),
                Row(label="Your own picture or clip", value="drop it here", enter=self._ask_file,
                    says="Drop a file on the window; Enter takes the path that is in the clipboard"),
                *([Row(label="Worlds on this machine"), *here] if here else []),
                *([Row(label="Worlds to be fetched"), *others] if others else [])]

    def _scenes(self):
        world = self._screen.world
        if world is None:
            return []
        folder = next((card.folder / "scenes" for card in self._cards if card.name == world.name), None)
        rows = [Row(label=f"Scenes of {world.name}")]
        for scene in world.scenes:
            picture = folder and folder / f"{scene}.png"
            rows.append(Row(label=scene, picture=picture if picture and picture.is_file() else None,
                            says="Enter begins here",
                            enter=lambda scene=scene: self._commands.begin_at(Reset(scene))))
        return rows

    def _installed(self, card):
        pictures = sorted((card.folder / "scenes").glob("*.png"))
        height, width = card.frame_size
        keys = " ".join(card.action_space.keys) or "no keys"
        return Row(label=card.name, value="opens by itself" if card.is_default else "",
                   picture=pictures[0] if pictures else None, says="Enter opens it in this window",
                   details=(f"{width} x {height}, {card.fps:g} frames a second",
                            f"{card.size_mib:.0f} MiB on disk", f"keys: {keys}",
                            f"licence: {licence_of(card)}", look_of(card, len(pictures))),
                   enter=lambda: self._open(card.name))

    def _fetchable(self, world):
        facts = catalog.WORLDS[world["name"]]
        lacking, wanted = needs(facts, world["load_mib"])
        is_asked = self._asked == world["name"]
        size = f"{world['load_mib'] / 1024:.1f} GiB" if world["load_mib"] else "to fetch"
        value = "Enter again fetches" if is_asked else size
        return Row(label=world["name"], value=value, is_alert=bool(lacking),
                   says="; ".join(lacking) or "Enter twice fetches it and opens it",
                   details=(world["summary"], *wanted, f"licence: {facts.licence}"),
                   enter=lambda: self._fetch(world["name"], lacking, is_asked))

    def _fetch(self, name, lacking, is_asked):
        if lacking:
            self._screen.notify(f"{name} does not fit this machine: {'; '.join(lacking)}")
        elif is_asked:
            self._open(name)
        else:
            self._asked = name

    def _open(self, name):
        self._commands.reopen(self._reopening.opening(
            world=name, real=False, scene=None, image=None, prompt=None, steps=None))


def licence_of(card):
    """What the card in a world's folder says of its licence, in short."""
    try:
        text = (Path(card.folder) / "card.md").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    row = re.search(r"^\| licence \| (.*?)\s*\|$", text, re.MULTILINE)
    known = catalog.WORLDS.get(card.name)
    return row[1] if row else known.licence if known else "its card does not say"


def look_of(card, num_scenes):
    """What the picture is compared with while it is played, as a short line."""
    if card.look is None:
        scenes = f"{num_scenes} scene{'s' * (num_scenes != 1)}"
        return f"in play compared with its {scenes}" if num_scenes else "in play compared with nothing"
    return (f"in play compared with {card.look.frames} real frames: sharpness {card.look.sharpness:.1f}, "
            f"brightness {card.look.brightness:.0f}")


def needs(world, load_mib):
    """([what this machine lacks for a published world], [what it needs and what is here]), as short lines."""
    lacking, wanted = [], []
    num_bytes = 2 * (world.num_params + sum(catalog.PARTS[name].num_params or 0 for name in world.parts))
    memory = psutil.virtual_memory().total
    wanted.append(f"memory: {num_bytes / GIB:.0f} GiB (here {memory / GIB:.0f}), and a GPU to be quick")
    if memory < num_bytes:
        lacking.append(f"{num_bytes / GIB:.0f} GiB of memory are needed, {memory / GIB:.0f} are here")
    folder = next(place for place in (zoo.user_cache(), *zoo.user_cache().parents) if place.exists())
    # what is converted lies there twice for a moment; where its server has to be asked, at least the weights
    load = max(2 * 2 ** 20 * (load_mib or 0), num_bytes)
    short = missing_space(folder, load)
    wanted.append(f"disk: at least {load / GIB:.0f} GiB{', which is not free' if short else ''}")
    lacking += [f"{short / GIB:.0f} GiB of disk are lacking"] if short else []
    missing = [name for name in _TEXT_PACKAGES if importlib.util.find_spec(name) is None]
    wanted.append(f"packages: {'pip install .[wan]' if missing else 'all here'}")
    lacking += [f"pip install .[wan] is needed ({missing[0]} is missing)"] if missing else []
    return lacking, wanted


class StartPage(Page):
    """A picture, or a frame of a clip, to begin from: shown as the world will see it."""
    title = "Begin from here"
    has_pictures = True

    def __init__(self, screen, commands, path, at=0):
        """at: number of the frame that is shown first; None: the last one.

            Raises WorldError where the file can be neither read as a picture nor as a video, also where the
            frame is damaged.
        """
        super().__init__()
        world = screen.world
        self._screen, self._commands, self._path = screen, commands, Path(path)
        self._stills = Stills(self._path, world.frame_size)
        self._misfit = None  # why the motion of a clip does not fit; "": it does
        if is_clip(self._path):
            self._misfit = other_controls(read_clip(self._path), world.action_space)
        self._at_second = self._stills.seconds if at is None else min(at * self._stills.period,
                                                                      self._stills.seconds)
        self._still = self._stills.at(self._at_second)

    def make_rows(self):
        rows = []
        if self._misfit == "":
            rows.append(self._row(label="Begin here", value="with its motion", enter=self._go_on,
                                  says="The clip up to here is the world's past: what moved moves on"))
        rows.append(self._row(label="Begin here", value="standing still", enter=self._begin,
                              says=f"Without its motion: {self._misfit}" if self._misfit else
                              "The world goes on from this one picture"))
        if self._stills.seconds:
            rows += [self._row(label="Frame", value=f"{self._at_second:.2f} of {self._stills.seconds:.2f} s",
                               change=lambda step: self._seek(step * self._stills.period)),
                     self._row(label="Second", value=f"{self._at_second:.0f}", change=self._seek)]
        return rows

    def _row(self, **fields):
        height, width = self._screen.world.frame_size
        return Row(picture=self._still, **fields, details=(
            self._path.name, f"As the world sees it: the middle, {width} x {height}"))

    def _seek(self, seconds):
        wanted = min(max(self._at_second + seconds, 0.0), self._stills.seconds)
        try:
            self._at_second, self._still = wanted, self._stills.at(wanted)
        except WorldError as error:
            self._screen.notify(str(error))

    def _begin(self):
        self._commands.begin_at(Reset(frames=self._still[None]))

    def _go_on(self):
        at = round(self._at_second / self._stills.period)
        self._commands.begin_at(Reset(file=self._path, at=at))

"""The play command: join a world and a window and play, or play a script without one."""
import ctypes
import gc
import importlib.util
import logging
import math
import os
import re
import sys
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, get_args, get_type_hints

import tyro

from worldplay import __version__, cores
from worldplay.action import ANY_SPACE, ActionSpace, parse_script
from worldplay.cli.headless import facts, play_script
from worldplay.cli.options import PassPath, Steps
from worldplay.cli.process import at_end_signal
from worldplay.client.worker import Opening, Reset
from worldplay.data.clip import ClipWorld
from worldplay.data.clip_recovery import log_recovered
from worldplay.data.file_start import SUFFIXES, file_scene
from worldplay.files import writable_folder, write_json
from worldplay.log import current_log, run_command
from worldplay.serve.address import DEFAULT, parse_address
from worldplay.worlds import catalog, zoo

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PlayConfig:
    """Play a learned world with keyboard and mouse; F1 in the window lists the keys."""
    world: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="WORLD")] = None
    """A world's name, its folder, or a recorded clip (.mp4) to watch; none is the world that plays best."""
    real: bool = False
    """Play the real game instead, WORLD is then the name of an environment: to record clips to learn from."""
    env: Annotated[str | None, tyro.conf.arg(metavar="ENV")] = None
    """The real game that G shows, where it is in a module of your own (gym:MODULE:CLASS): a world's files
    alone have none run."""
    scene: Annotated[str | None, tyro.conf.arg(metavar="SCENE")] = None
    """Where to begin: one of the world's scenes, or a file: a clip to go on from with its motion, a video, a
    picture; in a window first shown as the world sees it."""
    image: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """A file to begin from, as --scene takes it: a clip, a video or a picture, scaled and cropped to the
    world's frame."""
    prompt: Annotated[str | None, tyro.conf.arg(metavar="TEXT")] = None
    """What a world that reads text shows, or a .safetensors file with its rows; none is the world's own."""
    steps: Steps = None
    """Sampling steps per frame: fewer are quicker, more are finer; none is the world's own number."""
    seed: int = 0
    """Of all randomness: the same seed and actions give the same frames."""
    device: Annotated[Literal["auto", "cpu", "cuda"], tyro.conf.arg(metavar="auto|cpu|cuda")] = "auto"
    """Where the model runs: cpu, cuda (the GPU), or auto, which takes a GPU where there is one."""
    path: PassPath = "auto"
    """How the model's passes run: eager, compiled (play waits until the code is there), or auto: in a window
    compiled code takes over while you play, or from the first frame on where it is kept on disk."""
    target_fps: Annotated[float | None, tyro.conf.arg(metavar="FPS")] = None
    """In a window: frames a second to keep by fewer sampling steps, then a shorter window, where a machine is
    too slow; none is the world's own rate, 0 never lowers them."""
    record: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder to record a clip into, from the first frame on."""
    fullscreen: bool = False
    """Begin in fullscreen (F11)."""
    stats: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """JSON file for the delays of this session, in milliseconds, written at its end."""
    serve: Annotated[str | None, tyro.conf.arg(metavar="[HOST:PORT]")] = None
    """Play in a browser, here or on another machine: prints the address to open (docs/play.md). None but this
    machine reaches it unless HOST says so."""
    headless: bool = False
    """Play --script into --out as fast as it goes, without a display."""
    script: Annotated[str | None, tyro.conf.arg(metavar="SCRIPT")] = None
    """With --headless: actions, as in "w*30, w+look(4,0)*20, idle*10"; counts in steps, degrees a step."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """With --headless: the clip to write, NAME.mp4; its actions go beside it as NAME.json."""
    overwrite: bool = False
    """With --headless: replace a clip that is there already."""
    json: bool = False
    """With --headless: print the figures as one JSON object on stdout."""
    version: bool = False
    """Print the version and leave."""

    @property
    def is_recording(self):
        """Whether the world is a recorded clip to watch."""
        return bool(self.world) and not self.real and Path(self.world).suffix == ".mp4"

    @property
    def start(self):
        """The Reset to begin with."""
        is_file = self.scene and Path(self.scene).suffix.lower() in SUFFIXES
        return Reset(file=self.image or Path(self.scene)) if self.image or is_file else Reset(self.scene)

    @property
    def has_text_rows(self):
        """Whether --prompt names a file of text rows, which needs no text encoder."""
        return bool(self.prompt) and Path(self.prompt).suffix == ".safetensors"

    def check(self):
        """Raise ValueError naming a flag that is missing or would have no effect."""
        if self.target_fps is not None and not 0 <= self.target_fps < math.inf:
            raise ValueError(f"--target-fps {self.target_fps:g}: expected a rate, or 0 to keep the quality")
        if self.scene and self.image:
            raise ValueError("--scene and --image exclude each other: the world begins from one of them")
        if self.is_recording:
            defaults = {"env": None, "prompt": None, "steps": None, "seed": 0, "device": "auto",
                        "path": "auto", "target-fps": None, "record": None}
            idle = self._given(defaults)
            if idle:
                raise ValueError(f"--{idle[0]} has no effect on a recording ({self.world}); leave it out")
        if self.real:
            if self.world is None:
                raise ValueError("--real needs the name of an environment, for example doom-maze")
            defaults = {"env": None, "image": None, "prompt": None, "steps": None, "device": "auto",
                        "path": "auto", "target-fps": None}
            idle = self._given(defaults)
            if idle:
                raise ValueError(f"--{idle[0]} has no effect on the real game; leave it out")
            if self.start.file:
                raise ValueError(f"--scene {self.scene}: the real game begins from no file; leave it out")
            if self.seed < 0:
                raise ValueError(f"--seed {self.seed}: expected at least 0, of the real game")
        if self.headless:
            idle = self._given({"record": None, "fullscreen": False, "stats": None, "target-fps": None,
                                "serve": None, "env": None})
            missing = [flag for flag in ("script", "out") if getattr(self, flag) is None]
            if idle:
                raise ValueError(f"--{idle[0]} needs a window; leave it out, or leave out --headless")
            if missing:
                raise ValueError(f"--headless needs --{missing[0]}")
            parse_script(self.script, ANY_SPACE)  # what no world understands is said before one is opened
        else:
            if self.serve:
                parse_address(self.serve)
                if self.env:
                    raise ValueError("--env has no effect with --serve: a page shows no real game")
                if self.fullscreen:
                    raise ValueError("--fullscreen has no effect with --serve: the page has a button for it")
            idle = [flag for flag in ("script", "out", "overwrite", "json") if getattr(self, flag)]
            if idle:
                raise ValueError(f"--{idle[0]} has an effect only with --headless")

    def _given(self, defaults):
        """Names of the flags among {flag: default} that were given another value."""
        return [flag for flag, default in defaults.items()
                if getattr(self, flag.replace("-", "_")) != default]


def main(argv=None, *, open_world=None, prog="play.py"):
    """Run the command line and return its exit status.

    argv        the arguments after the program's name; None takes sys.argv
    open_world  function of a PlayConfig that returns the World, in place of `load`
    """
    cores.prepare()
    argv = _with_address(sys.argv[1:] if argv is None else argv)
    config = tyro.cli(PlayConfig, prog=prog, args=argv, config=(tyro.conf.FlagCreatePairsOff,))
    if config.version:
        print(f"worldplay {__version__}")
        return 0
    lines = deque([""], maxlen=1)  # the last progress line of opening; one thread writes it, another reads
    open_world = open_world or partial(load, on_progress=lines.append)
    return run_command("play", lambda: _play(config, open_world, lambda: lines[-1]))


def _with_address(argv):
    """The arguments with an address behind every --serve that has none: the word after it may be WORLD."""
    filled = []
    for i, word in enumerate(argv):
        filled.append(word)
        if word == "--serve" and not re.fullmatch(r"\d+|[^\\/]*:[^\\/]*",
                                                  argv[i + 1] if i + 1 < len(argv) else ""):
            filled.append(DEFAULT)
    return filled


def load(config, on_progress=lambda line: None):
    """The World a PlayConfig names, fetched if it is published and not here; only a learned one needs torch.

    on_progress  function of a line that says what takes long, "" when that is over
    """
    if config.is_recording:
        return ClipWorld(config.world)
    if config.real:
        from worldplay.envs import open_env
        world = open_env(config.world, trusted=True)
        world.reset(seed=config.seed)  # starts the engine here, and stays the seed of every later start
        return world
    published = catalog.WORLDS.get(config.world)
    if published and published.few_steps and not zoo.is_here(config.world):
        _load_torch_unlocked()
        _check_before_fetch(config, published)
        from worldplay.hub.fetch import fetch
        log.info("%s is not here yet; what it needs is fetched now", config.world)
        fetch(config.world, with_text=not config.has_text_rows, tell=on_progress)
        on_progress("")
    zoo.check_playable(config.world)  # before all that torch brings
    # A collection holds the interpreter's lock, and the window still, for 0.15 s amid all that torch brings.
    gc.disable()
    try:
        _load_torch_unlocked()
        from worldplay import runtime
        from worldplay.engine.code_choice import is_chosen
        from worldplay.engine.loading import load_world
        from worldplay.engine.threads import choose_threads
        if config.headless:  # one number for the whole script, which its clip records
            choose_threads(runtime.pick_device(config.device)[0])
        world = load_world(config.world, device=config.device, steps=config.steps, seed=config.seed,
                           prompt=config.prompt)
        if not config.headless:  # a script gives the same frames however busy the machine becomes
            world.threads.adapt()
            if config.target_fps != 0:
                world.quality.govern(config.target_fps or world.fps)
    finally:
        gc.freeze()  # what is there now stays to the end; later collections pass it by
        gc.enable()
    if config.path != "eager":
        world.graphs.want()
    if config.path == "compiled":
        on_progress("preparing compiled code, which is kept for the next time")
        world.compile(wait=True)
        on_progress("")
    elif config.path == "auto" and not config.headless and is_chosen(world.config, world.device):
        world.compile()
    return world


def _check_before_fetch(config, published):
    """Raise before the download what would fail after it: a missing device, picture, text or package."""
    from worldplay import runtime
    from worldplay.engine import prompts
    from worldplay.models.text import check_packages
    runtime.pick_device(config.device)
    if config.start.file:
        space = ActionSpace.from_json(published.config["action_space"])
        file_scene(config.start.file, published.config["frame_size"], space)
    if config.has_text_rows:
        sizes = published.config["transformer"]
        prompts.load_prompt_file(config.prompt, text_dim=sizes["text_dim"], text_len=sizes["text_len"])
    else:
        check_packages()


def _load_torch_unlocked():
    """Map torch's big library without holding the interpreter's lock, so that the window stays alive.

    `import torch` holds the lock for the whole of it, 0.1 to 0.4 s; the C library's own dlopen, called as a
    foreign function, does not. The import that follows finds it mapped.
    """
    torch = importlib.util.find_spec("torch")
    library = torch and Path(torch.origin).parent / "lib" / "libtorch_cpu.so"
    if library and library.is_file():
        dlopen = ctypes.CDLL(None).dlopen
        dlopen.restype, dlopen.argtypes = ctypes.c_void_p, (ctypes.c_char_p, ctypes.c_int)
        dlopen(os.fsencode(library), os.RTLD_NOW | os.RTLD_LOCAL)


def _play(config, open_world, progress):
    config.check()
    if config.headless:
        play_script(config, lambda: open_world(config))
    else:
        _play_live(config, open_world, progress)


def _play_live(config, open_world, progress):
    """In a window here, or on a page of a browser."""
    # Here, because machines without a display need no pygame for --headless.
    from worldplay.client.desktop import SessionOptions
    from worldplay.client.loop import Loop
    from worldplay.client.settings import load_settings, save_settings
    settings = load_settings()
    record_in = config.record and writable_folder(config.record.expanduser(), "clips")
    if config.stats:
        _check_file(config.stats)
    log_recovered(record_in or settings.clip_folder)
    log_file = current_log()
    reopening, first = _reopening(config, open_world)
    options = SessionOptions(
        title=first.title, progress=progress, start=first.start, record_in=record_in, reopening=reopening,
        log_hint=f"Details are in {log_file}" if log_file else "", env=config.env)
    with (_page if config.serve else _window)(config, settings, options) as (front, more_stats):
        loop = Loop(first.open, front)
        try:
            with at_end_signal(loop.leave, interrupt=bool(config.serve)):  # which is how a served one ends
                loop.run()
        finally:
            if loop.settings != settings:
                save_settings(loop.settings)
            if config.stats:
                write_json(config.stats, {**facts(loop.world), **loop.timing.to_json(), **more_stats()})


@contextmanager
def _window(config, settings, options):
    """(the loop's Front, function -> further figures for --stats) of a window."""
    from worldplay.client.desktop import window_front
    from worldplay.client.window import Window
    window = Window(settings.window_size, fullscreen=config.fullscreen, scaling=settings.scaling)
    yield window_front(window, settings, options), dict


@contextmanager
def _page(config, settings, options):
    """The same of a page that is served."""
    from worldplay.serve.session import served
    with served(config.serve, settings, options) as (front, exchange):
        yield front, exchange.to_json


def _reopening(config, open_world):
    """(the window's Reopening, the Opening of the world that a PlayConfig names)."""
    from worldplay.client.settings_page import Reopening
    now = [config]

    def opening(**changes):
        chosen = now[0] = replace(now[0], **changes)
        return Opening(open=lambda: open_world(chosen), title=chosen.world or "the world",
                       start=chosen.start)
    names = ("steps", "device", "path")
    hints = get_type_hints(PlayConfig)
    choices = {"steps": (None, 1, 2, 4), "device": get_args(hints["device"]), "path": get_args(hints["path"])}
    reopening = Reopening(opening=opening, choices=choices,
                          chosen=lambda: {name: getattr(now[0], name) for name in names})
    return reopening, opening()


def _check_file(path):
    """Raise OSError now when a file could not be written at the end."""
    writable_folder(path.parent, path.name)
    if path.is_dir():
        raise OSError(f"{path} is a folder; name another file")


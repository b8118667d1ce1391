"""Commands about worlds: list them, fetch one, export its weights."""
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from worldplay.cli.options import find_world


@dataclass(frozen=True, kw_only=True)
class Worlds:
    """List the worlds that can be opened by name, and those that can be fetched."""
    json: bool = False
    """Print one JSON object on stdout and nothing else there."""

    def run(self):
        from worldplay.worlds import zoo
        found = [{"name": card.name, "is_default": card.is_default, "is_playable": card.is_playable,
                  "folder": str(card.folder),
                  "env": card.env, "size_mib": round(card.size_mib, 1), "frame_size": card.frame_size,
                  "fps": card.fps, "keys": card.action_space.keys, "look_axes": card.action_space.look_axes,
                  "look": card.look and asdict(card.look)}
                 for card in zoo.cards()]
        others = zoo.published()
        if self.json:
            return {"worlds": found, "can_be_fetched": others}
        if not found:
            print("no world is installed here; train one: python train_world.py --help")
        for world in found:
            height, width = world["frame_size"]
            look = ("", " mouse(yaw)", " mouse(yaw, pitch)")[world["look_axes"]]
            controls = f"keys {' '.join(world['keys'])}{look}" if world["keys"] or look else "no keys"
            mib = world["size_mib"]
            size = f"{mib} MiB" if mib < 1024 else f"{mib / 1024:.1f} GiB"
            print(f"{world['name']}{' (default)' if world['is_default'] else ''}: {width}x{height}, "
                  f"{world['fps']:g} frames/s, {controls}, {size}, "
                  f"{'' if world['is_playable'] else 'to train from, '}{world['folder']}")
        for world in others:
            size = f"{world['load_mib'] / 1024:.1f} GiB" if world["load_mib"] else "size known to its server"
            print(f"can be fetched: {world['name']} ({world['summary']}; by {world['conditioning']}), "
                  f"{size}, {world['licence']}")


@dataclass(frozen=True, kw_only=True)
class Fetch:
    """Load a published world from the Hugging Face hub; `worlds` lists them. The same command resumes."""
    world: Annotated[Positional[str], arg(metavar="NAME")]
    """Its name, or that of a part alone that worlds share, such as wan-vae."""
    vae: bool = False
    """Also the full Wan video codec, finer and slower than the small one."""
    no_text: bool = False
    """Without the text encoder, for play --prompt with files of text rows."""
    json: bool = False
    """Print one JSON object on stdout and nothing else there."""

    def run(self):
        from worldplay.hub.fetch import fetch
        made = fetch(self.world, with_text=not self.no_text, with_vae=self.vae)
        if self.json:
            return made
        if made["was_complete"]:
            print(f"{self.world} is complete in {made['folder']}; nothing was loaded")
        else:
            print(f"{self.world} is in {made['folder']}: {made['files']} files, {made['loaded_mib']:.0f} MiB "
                  f"loaded, {made['seconds']:.0f} s; the published files stay in the hub's cache and may be "
                  "deleted there")


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write a Wan-size world's transformer as a .pt file with published names (generator_ema, model.NAME)."""
    world: Annotated[Positional[str], arg(metavar="WORLD")]
    """Its name, or the folder of a training run."""
    out: Annotated[Path, arg(metavar="FILE")]
    """The file to write, NAME.pt."""

    def run(self):
        find_world(self.world)
        from worldplay.engine.loading import read_config
        from worldplay.files import require_space
        from worldplay.hub.convert import export_transformer
        from worldplay.worlds.weights import load_weights
        folder, config = read_config(self.world)
        if config.transformer.action_channels:
            raise ValueError(f"{config.name} takes actions as vectors, which no published network has names "
                             f"for; its weights are safetensors already, in {folder}")
        if self.out.suffix != ".pt" or self.out.exists():
            raise ValueError(f"--out {self.out}: expected a new file NAME.pt")
        weights = load_weights(folder / "model.safetensors")
        self.out.parent.mkdir(parents=True, exist_ok=True)
        require_space(self.out.parent, sum(x.nbytes for x in weights.values()))
        export_transformer(weights, self.out)
        print(f"{self.out}: {self.out.stat().st_size / 2**20:.1f} MiB")


@dataclass(frozen=True, kw_only=True)
class Ship:
    """Take a world out of its run, to share it: without data and training states, a byte a weight."""
    world: Annotated[Positional[str], arg(metavar="WORLD")]
    """The folder of a training run, or the name of a world that was trained here."""
    out: Annotated[Path, arg(metavar="DIR")]
    """New folder of the world."""
    no_teacher: bool = False
    """Without the AR teacher: others can play it, but not train on."""

    def run(self):
        find_world(self.world)
        from worldplay.worlds.ship import ship
        made = ship(self.world, self.out, with_teacher=not self.no_teacher)
        print(f"{made['out']}: {made['mib']:.1f} MiB; play it: python play.py {made['out']}")


@dataclass(frozen=True, kw_only=True)
class Compile:
    """Make the code that runs a world's passes here, and keep it: play then has it from the first frame."""
    world: Annotated[Positional[str | None], arg(metavar="WORLD")] = None
    """Name or folder; none is the default world."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs."""
    json: bool = False
    """Print one JSON object on stdout and nothing else there."""

    def run(self):
        find_world(self.world)
        from worldplay import runtime
        from worldplay.engine.code_choice import code_of
        from worldplay.engine.loading import read_config
        config, device = read_config(self.world)[1], runtime.pick_device(self.device)[0]
        start = time.perf_counter()
        code = code_of(config, runtime.pick_dtype(device)[0], device)
        try:
            code.wait()
        finally:
            code.close()
        made = {"world": config.name, "device": device.type, "kind": code.kind, "folder": str(code.folder()),
                "seconds": round(time.perf_counter() - start, 1)}
        if self.json:
            return made
        print(f"{made['kind']} code for {config.name} is in {made['folder']} ({made['seconds']} s)")
        return None

"""Commands about recorded clips: make files to share of them."""
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional, arg

from worldplay.cli.options import report


@dataclass(frozen=True, kw_only=True)
class ExportClip:
    """Write a clip as GIF, WebP or MP4, enlarged in whole steps, at the times at which it was seen."""
    clip: Annotated[Positional[Path], arg(metavar="CLIP")]
    """The clip: its .mp4, its .json or the name without either."""
    out: Annotated[Path, arg(metavar="FILE")]
    """NAME.gif, NAME.webp or NAME.mp4."""
    scale: Annotated[int | None, arg(metavar="INT")] = None
    """Screen pixels along a pixel of the world; none is the least that gives 480 rows."""
    keys: bool = False
    """Show the keys that were down, and the turn."""
    begin: Annotated[float, arg(metavar="SECONDS")] = 0.0
    """From where in the clip."""
    end: Annotated[float | None, arg(metavar="SECONDS")] = None
    """Up to where; none is its end."""
    overwrite: bool = False
    """Replace a file of that name."""
    json: bool = False
    """Print one JSON object on stdout and nothing else there."""

    def run(self):
        from worldplay.client.export import export_clip
        return report(export_clip(self.clip, self.out, scale=self.scale, keys=self.keys, begin=self.begin,
                                  end=self.end, overwrite=self.overwrite), self.json)


@dataclass(frozen=True, kw_only=True)
class InfoClip:
    """Where a clip, or a picture taken while playing, comes from."""
    file: Annotated[Positional[Path], arg(metavar="FILE")]
    """A clip (its .mp4 or .json) or a picture (.png)."""
    json: bool = False
    """Print one JSON object on stdout and nothing else there."""

    def run(self):
        if self.file.suffix == ".png":
            from worldplay.data.picture import read_origin
            return report(read_origin(self.file), self.json)
        from worldplay.data.clip import read_clip
        clip = read_clip(self.file)
        names = ("world", "world_hash", "env", "seed", "scene", "fps", "recorded", "branch_of")
        return report({name: clip.sidecar.get(name) for name in names} | {
            "frames": clip.num_frames, "actions": len(clip.actions) - 1}, self.json)


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Make files to share of a recorded clip, or say where one comes from."""
    command: (Annotated[ExportClip, tyro.conf.subcommand("export")]
              | Annotated[InfoClip, tyro.conf.subcommand("info")])

    def run(self):
        return self.command.run()

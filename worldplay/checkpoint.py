"""A checkpoint folder on disk: config.json, safetensors (sharded or not); always renamed into place."""
import hashlib
import json
import math
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from worldplay.action import ActionSpace
from worldplay.diffusion import WARPED_STEPS
from worldplay.models.attention import FrameRule
from worldplay.models.codec import CodecConfig, ImageCodec
from worldplay.models.kv_cache import KVCache
from worldplay.models.transformer import TransformerConfig
from worldplay.models.weights import check_shapes, fingerprint
from worldplay.world import WorldError, remedy

MAX_SHARD_BYTES = 15 * 2**20


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """config.json of a checkpoint folder: all that is needed to play its weights.

    env                  the real environment it was trained on, a name in worldplay.envs.ENVS; None: there is none
    frame_size           (H, W) pixels shown
    fps                  frames of world time per second
    steps                sampling steps per frame by default; the first frame takes first_steps
    window, sink         frames attended to: sink + past + those being made
    frames_per_chunk     frames made together, in play under one action
    context_sigma        noise level at which a made frame is written to the cache (chosen by the drift evaluation)
    columns_per_degree   token columns by which the picture moves per degree of yaw; 0 leaves the camera out
    codec                sizes of its own image codec; None: it takes the part named "codec"
    parts                role ("codec", "vae", "text") -> name of a part that several worlds share (worldplay.catalog)
    intrinsics           (fx, fy) over (width, height) of the camera, for a transformer that has one
    prompt               text that it begins with when none is given, for a transformer that reads one
    lossy_codec          whether its codec has learnt from players' lossy clips: a world that ships has none such

        Raises ValueError naming a field whose value is none that can be played.
    """
    name: str
    env: str | None
    action_space: ActionSpace
    frame_size: tuple[int, int]
    fps: float
    transformer: TransformerConfig
    codec: CodecConfig | None
    steps: int = 2
    first_steps: int = 4
    window: int = 8
    sink: int = 0
    frames_per_chunk: int = 1
    sink_position: str = "before_window"
    context_sigma: float = 0.1
    columns_per_degree: float = 0.0
    parts: dict[str, str] = field(default_factory=dict)
    intrinsics: tuple[float, float] | None = None
    prompt: str = ""
    lossy_codec: bool = False

    def __post_init__(self):
        for name, (expected, is_right) in _RULES.items():
            if not is_right(getattr(self, name)):
                raise ValueError(f"{name} {getattr(self, name)!r}: expected {expected}")
        FrameRule(frames_per_chunk=self.frames_per_chunk, window=self.window, sink=self.sink,
                  sink_position=self.sink_position)
        _, rows, columns = self.transformer.patch_size
        if self.latent_shape[1] % rows or self.latent_shape[2] % columns:
            raise ValueError(f"frame_size {self.frame_size}: no whole number of patches of {rows} x "
                             f"{columns} latents")
        channels = {self.transformer.in_channels, self.transformer.out_channels}
        if self.codec is None and "codec" not in self.parts:
            raise ValueError('codec: expected its sizes, or the name of a shared one in parts ("codec")')
        if self.transformer.has_camera != (self.intrinsics is not None):
            raise ValueError("intrinsics: expected for a transformer with has_camera, and for no other")
        if self.codec is not None:
            channels.add(self.codec.channels)
        if len(channels) > 1 or self.transformer.action_channels not in (0, self.action_space.num_channels):
            raise ValueError("the channels of transformer, codec and action_space differ")

    def to_json(self):
        return {"format": 1, **asdict(self), "action_space": self.action_space.to_json()}

    @classmethod
    def from_json(cls, given, where):
        """Raises WorldError("bad_checkpoint") naming `where` and the field that is missing or wrong."""
        try:
            if _object(given, "the file")["format"] != 1:
                raise WorldError("bad_checkpoint", f"{where} was written by a newer worldplay; update this one")
            return cls(**{name: value for name, value in given.items() if name != "format"} | {
                "action_space": _space(given["action_space"]),
                "frame_size": tuple(_listed(given["frame_size"], "frame_size")),
                "transformer": _sizes(TransformerConfig, given["transformer"], "transformer"),
                "codec": _sizes(CodecConfig, given["codec"], "codec") if given["codec"] else None,
                "intrinsics": given.get("intrinsics") and tuple(_listed(given["intrinsics"], "intrinsics"))})
        except KeyError as error:
            problem = f"{error} is missing"
        except (TypeError, ValueError) as error:
            problem = error
        raise WorldError("bad_checkpoint", f"{where} does not describe a world ({problem}); {remedy(where)}")

    @property
    def latent_shape(self):
        """(c, h, w) of one frame."""
        height, width = self.frame_size
        return (self.transformer.in_channels, height // ImageCodec.stride, width // ImageCodec.stride)

    def new_cache(self, batch, dtype, device):
        """An empty KVCache for its transformer and window."""
        return KVCache(self.transformer, batch=batch, num_frames=self.window,
                       tokens_per_frame=self.transformer.num_tokens(*self.latent_shape[1:]), sink=self.sink,
                       frames_per_chunk=self.frames_per_chunk, sink_position=self.sink_position, dtype=dtype,
                       device=device)


def _is_whole(value, least):
    return type(value) is int and value >= least


def _is_number(value):
    return type(value) in (int, float) and math.isfinite(value)


def _is_text(value):
    return isinstance(value, str) and bool(value)


# field of a WorldConfig: (what is expected, whether a value is that)
_RULES = {
    "frames_per_chunk": ("a whole number, at least 1", lambda x: _is_whole(x, 1)),
    "name": ("a name", _is_text),
    "env": ("the name of an environment", lambda x: x is None or _is_text(x)),
    "frame_size": (f"height and width, multiples of {ImageCodec.stride}", lambda size: len(size) == 2 and all(
        _is_whole(length, 1) and length % ImageCodec.stride == 0 for length in size)),
    "fps": ("a number above 0", lambda x: _is_number(x) and x > 0),
    "steps": ("1, 2 or 4", lambda x: _is_whole(x, 1) and x in WARPED_STEPS),
    "first_steps": ("1, 2 or 4", lambda x: _is_whole(x, 1) and x in WARPED_STEPS),
    "window": ("a whole number, at least 1", lambda x: _is_whole(x, 1)),
    "sink": ("a whole number, at least 0", lambda x: _is_whole(x, 0)),
    "context_sigma": ("a number from 0 to less than 1", lambda x: _is_number(x) and 0 <= x < 1),
    "columns_per_degree": ("a number", _is_number),
    "parts": ("names of shared parts by role", lambda x: isinstance(x, dict) and all(map(_is_text, x.values()))),
    "intrinsics": ("two numbers above 0", lambda x: x is None or len(x) == 2 and all(
        _is_number(length) and length > 0 for length in x)),
    "prompt": ("a text", lambda x: isinstance(x, str)),
    "lossy_codec": ("true or false", lambda x: type(x) is bool),
}


def _object(value, what):
    if not isinstance(value, dict):
        raise ValueError(f"{what} holds {value!r:.40}: expected an object")
    return value


def _listed(value, what):
    if not isinstance(value, list):
        raise ValueError(f"{what} {value!r:.40}: expected a list")
    return value


def _space(given):
    try:
        return ActionSpace.from_json(_object(given, "action_space"))
    except TypeError as error:
        raise ValueError(f"action_space: {error}") from None


def _sizes(kind, given, what):
    """A TransformerConfig or CodecConfig of JSON; ValueError for a size that is not of its default's kind."""
    defaults = {each.name: each.default for each in fields(kind)}
    for name, value in _object(given, what).items():
        if name in defaults and not _is_like(value, defaults[name]):
            raise ValueError(f"{what} {name} {value!r}: expected sizes such as {defaults[name]!r}")
    return kind(**given)


def _is_like(value, default):
    if isinstance(default, tuple):
        return isinstance(value, list) and len(value) == len(default) and all(map(_is_like, value, default))
    if isinstance(default, bool):
        return isinstance(value, bool)
    if isinstance(default, float):
        return _is_number(value) and value > 0
    if default is None and value is None:
        return True
    return _is_whole(value, 0 if default == 0 else 1)


def write_json(path, fields):
    """Write JSON so that a reader sees the old file or the new one, never half of it."""
    path = Path(path)
    draft = path.with_name(path.name + ".tmp")
    draft.write_text(json.dumps(fields, indent=1) + "\n", encoding="utf-8")
    os.replace(draft, path)


def read_json(path):
    """The object in `path`; WorldError("bad_checkpoint") when it is missing or no JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WorldError("bad_checkpoint", f"{path} is missing, the folder is not a complete checkpoint; "
                         f"{remedy(path)}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise WorldError("bad_checkpoint", f"{path} is not valid JSON ({error}); {remedy(path)}") from None


def save_weights(path, tensors, dtype=None):
    """Write tensors to `path` (NAME.safetensors), in shards of at most MAX_SHARD_BYTES with an index beside them.

    tensors  name -> tensor; floating ones are cast to dtype when given
    """
    path = Path(path)
    tensors = {name: x.detach().to("cpu", dtype if dtype and x.is_floating_point() else x.dtype).contiguous()
               for name, x in tensors.items()}
    shards = _shards(tensors)
    if len(shards) == 1:
        names = []
        _replace(path, shards[0])
        path.with_suffix(".safetensors.index.json").unlink(missing_ok=True)
    else:
        names = [f"{path.stem}-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
        for name, shard in zip(names, shards):
            _replace(path.with_name(name), shard)
        weight_map = {key: name for name, shard in zip(names, shards) for key in shard}
        write_json(path.with_suffix(".safetensors.index.json"), {"weight_map": weight_map})
        path.unlink(missing_ok=True)
    for old in path.parent.glob(f"{path.stem}-*-of-*.safetensors"):
        if old.name not in names:  # those of before, which whoever broke off here could still read
            old.unlink()


def load_weights(path):
    """name -> tensor of a file or sharded set that `save_weights` wrote; WorldError("bad_checkpoint") if it is torn."""
    path = Path(path)
    index = path.with_suffix(".safetensors.index.json")
    if index.exists():
        try:
            files = sorted({path.with_name(name) for name in read_json(index)["weight_map"].values()})
        except (KeyError, TypeError, AttributeError, ValueError):
            raise WorldError("bad_checkpoint", f"{index} is no table of weights; {remedy(index)}") from None
    else:
        files = [path]
    tensors = {}
    for file in files:
        try:
            tensors.update(load_file(file))
        except FileNotFoundError:
            raise WorldError("bad_checkpoint", f"{file} is missing; {remedy(file)}") from None
        except (SafetensorError, OSError) as error:
            raise WorldError("bad_checkpoint", f"{file} cannot be read ({error}): it is truncated or no "
                             f"safetensors file; {remedy(file)}") from None
    return tensors


def load_into(module, tensors, where, *, assign=False):
    """Copy tensors into module; WorldError("bad_checkpoint") naming the first keys or shapes that do not fit.

    assign  the module takes the tensors themselves, with their number type, instead
    """
    has_card = Path(where).with_name("config.json").is_file()
    check_shapes({name: x.shape for name, x in tensors.items()},
                 {name: x.shape for name, x in module.state_dict().items()}, where,
                 "its config.json belongs to other weights" if has_card else remedy(where))
    module.load_state_dict(tensors, assign=assign)


def world_hash(folder, config, codec):
    """Short hex digest of what decides the frames of a world under given actions, text rows, steps and seed.

    config  its WorldConfig; codec: file of the codec that decodes them

    A world that was trained here is all of its files, and the codec that it shares with others. One that was fetched
    has a card beside its weights, whose words may change and grow: of that only what makes another frame counts
    (_deciding).
    """
    folder = Path(folder)
    if (folder / "lock.json").is_file():
        told = [_deciding(config), fingerprint(folder / "model.safetensors"), fingerprint(codec)]
        return hashlib.sha256(json.dumps(told, sort_keys=True, default=asdict).encode()).hexdigest()[:16]
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.name.startswith(("config.json", "model", "codec")):
            digest.update(file.name.encode() + hashlib.sha256(file.read_bytes()).digest())
    if config.codec is None:
        digest.update(fingerprint(codec).encode())
    return digest.hexdigest()[:16]


# fields of a WorldConfig that leave its frames as they are: words, what a clip says itself (steps, text), and names
# of files whose content counts
_NOT_DECIDING = {"name", "env", "fps", "steps", "prompt", "parts", "lossy_codec"}


def _deciding(config):
    """Fields of a WorldConfig that decide its frames.

    Those at their defaults are left out: one that is added later, its default being what was before, changes nothing.
    """
    chosen = {name: value for name, value in _chosen(config).items() if name not in _NOT_DECIDING}
    return chosen | {"transformer": _chosen(config.transformer)}


def _chosen(sizes):
    given = {each.name: (getattr(sizes, each.name), each.default) for each in fields(sizes)}
    return {name: value for name, (value, default) in given.items() if value != default}


def _shards(tensors):
    shards, size = [{}], 0
    for name, x in tensors.items():
        if size and size + x.nbytes > MAX_SHARD_BYTES:
            shards.append({})
            size = 0
        shards[-1][name] = x
        size += x.nbytes
    return shards


def _replace(path, tensors):
    draft = path.with_name(path.name + ".tmp")
    save_file(tensors, draft)
    os.replace(draft, path)

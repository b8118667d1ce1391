"""config.json of a world's folder: all that is needed to play its weights."""
import math
from dataclasses import asdict, dataclass, field, fields

from worldplay.action import ActionSpace
from worldplay.errors import WorldError, remedy
from worldplay.files import is_file_name
from worldplay.models.configs import CodecConfig, FrameRule, TransformerConfig
from worldplay.worlds.look import Look

# numbers of sampling steps of few-step networks; diffusion.WARPED_STEPS has their timesteps
STEPS = (1, 2, 4)
# tokens in a window; the published worlds have up to 32 760
MAX_TOKENS = 2**20


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """config.json of a checkpoint folder: all that is needed to play its weights.

    Its two kinds are ImageWorldConfig and VideoWorldConfig.

    name                 of the world; clips and run folders are named after it (files.is_file_name)
    env                  the real environment it was trained on, a name in worldplay.envs.ENVS; None: none
    frame_size           (H, W) pixels shown
    fps                  frames of world time per second
    steps                sampling steps per frame by default; the first frame takes first_steps
    window, sink         frames attended to: sink + past + those being made
    frames_per_chunk     frames made together, in play under one action
    context_sigma        noise level at which a generated frame is written to the KV cache; training chooses
                         the one that drifts least
    columns_per_degree   token columns by which the picture moves per degree of yaw, for the rotary positions;
                         0: yaw does not move them
    parts                role ("codec", "vae", "text") -> name of a part that several worlds share
                         (catalog.PARTS)
    intrinsics           (fx, fy) over (width, height) of the camera, for a transformer that has one
    prompt               default prompt, for a transformer with text
    lossy_codec          whether its codec was trained on players' lossy clips; no world that ships has such a
                         codec
    look                 how its real frames look, which drift is measured against; None: not known

        Raises ValueError naming a field whose value cannot be played.
    """
    name: str
    env: str | None
    action_space: ActionSpace
    frame_size: tuple[int, int]
    fps: float
    transformer: TransformerConfig
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
    look: Look | None = None

    def __post_init__(self):
        for name, (expected, is_right) in _RULES.items():
            if not is_right(getattr(self, name)):
                raise ValueError(f"{name} {getattr(self, name)!r:.60}: expected {expected}")
        FrameRule(frames_per_chunk=self.frames_per_chunk, window=self.window, sink=self.sink,
                  sink_position=self.sink_position)
        _, rows, columns = self.transformer.patch_size
        if self.latent_shape[1] % rows or self.latent_shape[2] % columns:
            raise ValueError(f"frame_size {self.frame_size}: no whole number of patches of {rows} x "
                             f"{columns} latents")
        num_tokens = self.window * self.transformer.num_tokens(*self.latent_shape[1:])
        if num_tokens > MAX_TOKENS:
            raise ValueError(f"window {self.window} of frame_size {self.frame_size} has {num_tokens} tokens: "
                             f"expected at most {MAX_TOKENS}")
        if self.transformer.has_camera != (self.intrinsics is not None):
            raise ValueError("intrinsics: expected for a transformer with has_camera, and for no other")
        if self.transformer.in_channels != self.transformer.out_channels or (
                self.transformer.action_channels not in (0, self.action_space.num_channels)):
            raise ValueError(_CHANNELS)

    def to_json(self):
        return {"format": 1, "codec": None, **asdict(self), "action_space": self.action_space.to_json()}

    @staticmethod
    def from_json(given, where):
        """The ImageWorldConfig that a config.json describes, or the VideoWorldConfig where "codec" is null.

            Raises WorldError("bad_checkpoint") naming `where` and the field that is missing or wrong.
        """
        try:
            if _object(given, "the file")["format"] != 1:
                raise WorldError("bad_checkpoint",
                                 f"{where} was written by a newer worldplay; update this one")
            kind, codec = VideoWorldConfig, {}
            if given["codec"]:
                kind, codec = ImageWorldConfig, {"codec": _sizes(CodecConfig, given["codec"], "codec")}
            others = {name: value for name, value in given.items() if name not in ("format", "codec")}
            return kind(**others | codec | {
                "action_space": _space(given["action_space"]),
                "frame_size": tuple(_listed(given["frame_size"], "frame_size")),
                "transformer": _sizes(TransformerConfig, given["transformer"], "transformer"),
                "look": None if given.get("look") is None else Look.from_json(given["look"]),
                "intrinsics": given.get("intrinsics") and tuple(_listed(given["intrinsics"], "intrinsics"))})
        except KeyError as error:
            problem = f"{error} is missing"
        except (TypeError, ValueError) as error:
            problem = error
        raise WorldError("bad_checkpoint", f"{where} does not describe a world ({problem}); {remedy(where)}")

    @property
    def latent_shape(self):
        """(c, h, w) of one latent: of one frame in an image world, of several in a video world."""
        height, width = self.frame_size
        return (self.transformer.in_channels, height // CodecConfig.stride, width // CodecConfig.stride)


@dataclass(frozen=True, kw_only=True)
class ImageWorldConfig(WorldConfig):
    """A world with an image codec of its own, one latent a frame.

    codec  sizes of the codec
    """
    codec: CodecConfig

    def __post_init__(self):
        super().__post_init__()
        if self.codec.channels != self.transformer.in_channels:
            raise ValueError(_CHANNELS)


@dataclass(frozen=True, kw_only=True)
class VideoWorldConfig(WorldConfig):
    """A world with a shared video codec, parts["codec"]: four frames a latent, one for the first latent."""

    def __post_init__(self):
        super().__post_init__()
        if "codec" not in self.parts:
            raise ValueError('codec: expected its sizes, or the name of a shared one in parts ("codec")')


_CHANNELS = "the channels of transformer, codec and action_space differ"


def _is_whole(value, least, most=math.inf):
    return type(value) is int and least <= value <= most


def _is_side(length):
    return _is_whole(length, 1, 8192) and length % CodecConfig.stride == 0


def _is_number(value):
    return type(value) in (int, float) and math.isfinite(value)


def _is_text(value):
    return isinstance(value, str) and bool(value)


# field of a WorldConfig: (what is expected, whether a value is that)
_RULES = {
    "frames_per_chunk": ("a whole number from 1 to 1024", lambda x: _is_whole(x, 1, 1024)),
    "name": ("a name for files: letters, digits, spaces and - + _ . in it", is_file_name),
    "env": ("the name of an environment", lambda x: x is None or _is_text(x)),
    "frame_size": (f"height and width, multiples of {CodecConfig.stride}, at most 8192",
                   lambda size: len(size) == 2 and all(map(_is_side, size))),
    "fps": ("a number above 0, at most 1000", lambda x: _is_number(x) and 0 < x <= 1000),
    "steps": ("1, 2 or 4", lambda x: _is_whole(x, 1) and x in STEPS),
    "first_steps": ("1, 2 or 4", lambda x: _is_whole(x, 1) and x in STEPS),
    "window": ("a whole number from 1 to 1024", lambda x: _is_whole(x, 1, 1024)),
    "sink": ("a whole number, at least 0", lambda x: _is_whole(x, 0)),
    "context_sigma": ("a number from 0 to less than 1", lambda x: _is_number(x) and 0 <= x < 1),
    "columns_per_degree": ("a number from -100 to 100", lambda x: _is_number(x) and abs(x) <= 100),
    "parts": ("names of shared parts by role", lambda x: (
        isinstance(x, dict) and all(map(_is_text, x.values())))),
    "intrinsics": ("two numbers from 0.01 to 100", lambda x: x is None or len(x) == 2 and all(
        _is_number(length) and 0.01 <= length <= 100 for length in x)),
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
    _object(given, "action_space")
    if not all(isinstance(key, str) for key in _listed(given["keys"], "action_space keys")):
        raise ValueError(f"action_space keys {given['keys']!r:.40}: expected names")
    if not _is_number(given["look_limit"]) or not _is_whole(given["look_axes"], 0, 2):
        raise ValueError(f"action_space look_limit {given['look_limit']!r:.40}, look_axes "
                         f"{given['look_axes']!r:.40}: expected degrees per frame, and 0, 1 or 2")
    return ActionSpace.from_json(given)


def _sizes(kind, given, what):
    """A TransformerConfig or CodecConfig from JSON; ValueError for a size of a wrong type or out of range."""
    defaults = {each.name: each.default for each in fields(kind)}
    for name, value in _object(given, what).items():
        if name in defaults and not _is_like(value, defaults[name], _MOST.get(name, 2**16)):
            raise ValueError(f"{what} {name} {value!r:.40}: expected sizes such as {defaults[name]!r}")
    return kind(**given)


# largest numbers of blocks; other sizes may go up to 65536
_MOST = {"num_layers": 1024, "enc_blocks": 64, "dec_blocks": 64}


def _is_like(value, default, most):
    if isinstance(default, tuple):
        return (isinstance(value, list) and len(value) == len(default)
                and all(_is_like(*pair, most) for pair in zip(value, default)))
    if isinstance(default, bool):
        return isinstance(value, bool)
    if isinstance(default, float):
        return _is_number(value) and 0 < value <= 1
    if default is None and value is None:
        return True
    return _is_whole(value, 0 if default == 0 else 1, most)

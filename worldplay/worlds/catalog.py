"""Published worlds and the parts that they share: where their files are, and what is known of them."""
from dataclasses import dataclass, field

from worldplay.camera import TRAINING_INTRINSICS


@dataclass(frozen=True, kw_only=True)
class Source:
    """One published file. A field that is None is asked of the server and then kept in the lock file.

    file      path in its repository
    repo      OWNER/NAME on the Hugging Face hub; None: the file lies at `url`
    revision  commit
    size      bytes
    sha256    of its content, hexadecimal
    """
    file: str
    repo: str | None = None
    url: str | None = None
    revision: str | None = None
    size: int | None = None
    sha256: str | None = None

    @property
    def where(self):
        """How messages name it."""
        return f"{self.repo}/{self.file}" if self.repo else self.url


@dataclass(frozen=True, kw_only=True)
class Part:
    """Files that several worlds share, stored once.

    files         local file name -> Source; where the local file is .safetensors and the source is not, it is
                  converted and keeps the names of its tensors
    num_tensors   tensors in the file that is converted
    num_params    numbers in them
    """
    name: str
    summary: str
    licence: str
    files: dict[str, Source]
    num_tensors: int | None = None
    num_params: int | None = None


@dataclass(frozen=True, kw_only=True)
class PublishedWorld:
    """A published transformer, and what its config.json will say.

    source        its weights; they become model.safetensors, bfloat16
    num_params    numbers in them
    prefer_ema    whether the averaged weights are the ones to play, where a file holds both
    conditioning  "text" or "camera + text"
    image_start   whether it was trained to go on from a picture
    few_steps     whether it is a few-step student that can be played; the others are there to train from
    bidirectional whether its attention is bidirectional over whole sequences, as that of DMD's real score; a
                  world with few_steps and bidirectional both False is an autoregressive diffusion teacher
    config        fields of config.json
    parts         names of PARTS that it needs
    more_parts    names of PARTS that fetch loads only with --vae
    """
    name: str
    summary: str
    licence: str
    source: Source
    num_params: int
    config: dict = field(repr=False)
    conditioning: str = "text"
    prefer_ema: bool = True
    image_start: bool = False
    few_steps: bool = True
    bidirectional: bool = False
    parts: tuple[str, ...] = ("umt5-xxl", "taew2_1")
    more_parts: tuple[str, ...] = ("wan-vae",)


# Revisions, sizes and hashes below were not read from the servers: several other projects publish the same
# values with their own code. With a wrong one fetch refuses the file; it never takes another file instead.
# Values that only one project publishes are left out: fetch asks the hub for them.
_WAN = {"repo": "Wan-AI/Wan2.1-T2V-1.3B", "revision": "37ec512624d61f7aa208f7ea8140a131f93afc9a"}
_FORCING = {"repo": "zhuhz22/Causal-Forcing"}
_MINWM = {"repo": "MIN-Lab/minWM"}
_TAEHV_REVISION = "0ad83bb8fdc48e9e94138704e939d500a3b43660"

_TOKENIZER = {
    "special_tokens_map.json": (6_623, "7b8a9f5040adb67b5805abdfd42c1f8d0f3d0e711f10726580eb3789cd0ad61d"),
    "spiece.model": (4_548_313, "e3909a67b780650b35cf529ac782ad2b6b26e6d1f849d3fbb6a872905f452458"),
    "tokenizer.json": (16_837_417, "6e197b4d3dbd71da14b4eb255f4fa91c9c1f2068b20a2de2472967ca3d22602b"),
    "tokenizer_config.json": (61_728, "ed9a3a8b0faa71a70a32847e0435fe036e6e112d4df4edb7bb48a921e344dc05"),
}

PARTS = {part.name: part for part in (
    Part(name="umt5-xxl", summary="UMT5-XXL text encoder and its tokenizer", licence="Apache-2.0",
         num_tensors=242, num_params=5_680_910_336, files={
             "model.safetensors": Source(
                 file="models_t5_umt5-xxl-enc-bf16.pth", size=11_361_920_418,
                 sha256="7cace0da2b446bbbbc57d031ab6cf163a3d59b366da94e5afe36745b746fd81d", **_WAN),
             **{name: Source(file=f"google/umt5-xxl/{name}", size=size, sha256=sha256, **_WAN)
                for name, (size, sha256) in _TOKENIZER.items()}}),
    Part(name="wan-vae", summary="the Wan 2.1 video codec, 126.9 M parameters", licence="Apache-2.0",
         num_tensors=194, num_params=126_892_531, files={
             "model.safetensors": Source(
                 file="Wan2.1_VAE.pth", size=507_609_880,
                 sha256="38071ab59bd94681c686fa51d75a1968f64e470262043be31f7a094e442fd981", **_WAN)}),
    # Published on GitHub alone; what the hub has under this name is another file.
    Part(name="taew2_1", summary="TAEHV, the small codec of the same latents", licence="MIT", files={
        "model.safetensors": Source(
            file="safetensors/taew2_1.safetensors", revision=_TAEHV_REVISION, size=22_642_902,
            url="https://raw.githubusercontent.com/madebyollin/taehv/"
                f"{_TAEHV_REVISION}/safetensors/taew2_1.safetensors",
            sha256="04766eac0221b5390b985ae3fdcca652cbb4b1e8b82b28ea7ff89dfad1b1a93f")}),
)}

_TEXT_PARAMS, _CAMERA_PARAMS = 1_418_996_800, 1_489_821_760

_MINWM_LICENCE = ("Apache-2.0; trained on videos generated by HY-WorldPlay, whose licence does not hold in "
                  "the EU, the UK and South Korea")


# the default prompt of a world; these networks were trained on long, exact descriptions
_PROMPT = (
    "A first-person view from a gravel path through a quiet mountain valley in early autumn. Low stone "
    "walls line the path on both sides, behind them meadows with scattered birch trees whose leaves "
    "have begun to turn yellow. A wooden hut with a slate roof stands further along the path. Behind it"
    " rise forested slopes and grey peaks under a pale blue sky with thin clouds. Soft morning light "
    "comes from the left and casts long shadows. Sharp, photorealistic, steady camera at eye level.")


# The negative prompt of classifier-free guidance, in training and sampling alike.
# Source: Wan-Video/Wan2.1, wan/configs/shared_config.py.
NEGATIVE_PROMPT = (
    "\u8272\u8c03\u8273\u4e3d\uff0c\u8fc7\u66dd\uff0c\u9759\u6001\uff0c\u7ec6\u8282\u6a21\u7cca\u4e0d\u6e05"
    "\uff0c\u5b57\u5e55\uff0c\u98ce\u683c\uff0c\u4f5c\u54c1\uff0c\u753b\u4f5c\uff0c\u753b\u9762\uff0c\u9759"
    "\u6b62\uff0c\u6574\u4f53\u53d1\u7070\uff0c\u6700\u5dee\u8d28\u91cf\uff0c\u4f4e\u8d28\u91cf\uff0cJ"
    "PEG\u538b\u7f29\u6b8b\u7559\uff0c\u4e11\u964b\u7684\uff0c\u6b8b\u7f3a\u7684\uff0c\u591a"
    "\u4f59\u7684\u624b\u6307\uff0c\u753b\u5f97\u4e0d\u597d\u7684\u624b\u90e8\uff0c\u753b\u5f97\u4e0d\u597d"
    "\u7684\u8138\u90e8\uff0c\u7578\u5f62\u7684\uff0c\u6bc1\u5bb9\u7684\uff0c\u5f62\u6001\u7578\u5f62\u7684"
    "\u80a2\u4f53\uff0c\u624b\u6307\u878d\u5408\uff0c\u9759\u6b62\u4e0d\u52a8\u7684\u753b\u9762\uff0c\u6742"
    "\u4e71\u7684\u80cc\u666f\uff0c\u4e09\u6761\u817f\uff0c\u80cc\u666f\u4eba\u5f88\u591a\uff0c\u5012\u7740"
    "\u8d70")


def _config(name, *, has_camera, frames_per_chunk, window, steps):
    """Fields of config.json; `parts` maps roles to names of PARTS, intrinsics are (fx / W, fy / H)."""
    space = {"keys": [*"wasd", *"ijkl"], "look_limit": 3.0, "look_axes": 2} if has_camera else {
        "keys": [], "look_limit": 1.0, "look_axes": 0}
    camera = {"intrinsics": list(TRAINING_INTRINSICS)} if has_camera else {}
    return {
        "format": 1, "name": name, "env": None, "action_space": space, "frame_size": [480, 832], "fps": 16.0,
        "transformer": {"dim": 1536, "ffn_dim": 8960, "num_heads": 12, "num_layers": 30, "in_channels": 16,
                        "out_channels": 16, "patch_size": [1, 2, 2], "freq_dim": 256, "text_dim": 4096,
                        "text_len": 512, "action_channels": 0, "eps": 1e-6, "has_camera": has_camera},
        "codec": None, "parts": {"codec": "taew2_1", "vae": "wan-vae", "text": "umt5-xxl"},
        "steps": steps, "first_steps": 4, "window": window, "frames_per_chunk": frames_per_chunk,
        # once the window is full the first chunk stays in it as a sink, as in Rolling Forcing
        "sink": frames_per_chunk if window > frames_per_chunk else 0, "sink_position": "before_window",
        "context_sigma": 0.0, "columns_per_degree": 0.0, "prompt": _PROMPT, **camera}


def _action(name, stage, summary, few_steps):
    return PublishedWorld(
        name=name, summary=f"minWM Wan21 Action2V, {summary}", licence=_MINWM_LICENCE,
        num_params=_CAMERA_PARAMS, source=Source(file=f"Wan21/Action2V/{stage}/model.pt", **_MINWM),
        few_steps=few_steps, conditioning="camera + text", bidirectional=stage == "bidirectional",
        config=_config(name, has_camera=True, frames_per_chunk=4, window=20, steps=4))


def _forcing(name, file, summary, *, frames_per_chunk=1, steps=4, few_steps=True):
    """Frame-wise worlds use EMA weights, chunk-wise ones raw weights, as in the repository's README."""
    return PublishedWorld(
        name=name, summary=summary, licence="Apache-2.0", num_params=_TEXT_PARAMS, few_steps=few_steps,
        source=Source(file=file, **_FORCING), prefer_ema=frames_per_chunk == 1,
        image_start=frames_per_chunk == 1,
        config=_config(name, has_camera=False, frames_per_chunk=frames_per_chunk, window=21, steps=steps))


# Configurations whose speed can be measured with random weights: name -> fields of config.json of each.
SHAPES = {"wan-1.3b": tuple(
    _config("wan-1.3b", has_camera=False, frames_per_chunk=frames_per_chunk, window=window, steps=steps)
    for frames_per_chunk, window, steps in [
        *((1, window, steps) for window in (7, 9, 21) for steps in (1, 2, 4)), (3, 21, 4)])}

WORLDS = {world.name: world for world in (
    _action("wan-action", "dmd", "4 steps: keys and mouse move a camera", True),
    _action("wan-action-causal-cd", "causal_cd", "causal consistency distillation", True),
    _action("wan-action-causal-ode", "causal_ode", "causal ODE distillation", True),
    _action("wan-action-ar-diffusion", "ar_diffusion_tf", "autoregressive diffusion, to train from", False),
    _action("wan-action-bidirectional", "bidirectional", "bidirectional diffusion, to train from", False),
    _forcing("causal-forcing-2step", "causal-forcing++/framewise-2step.pt",
             "Causal Forcing++, frame-wise, 2 steps", steps=2),
    _forcing("causal-forcing-1step", "causal-forcing++/framewise-1step.pt",
             "Causal Forcing++, frame-wise, 1 step", steps=1),
    _forcing("causal-forcing-4step", "framewise/causal_forcing.pt", "Causal Forcing, frame-wise, 4 steps"),
    _forcing("causal-forcing-chunkwise", "chunkwise/causal_forcing.pt",
             "Causal Forcing, 3 frames a chunk, 4 steps", frames_per_chunk=3),
    *(_forcing(f"causal-forcing{infix}-{stage.replace('_', '-')}", f"{folder}/{stage}.pt",
               f"Causal Forcing, {folder}, {summary}", frames_per_chunk=size,
               few_steps=stage != "ar_diffusion")
      for folder, infix, size in (("framewise", "", 1), ("chunkwise", "-chunkwise", 3))
      for stage, summary in (("causal_cd", "causal consistency distillation"),
                             ("causal_ode", "causal ODE distillation"),
                             ("ar_diffusion", "autoregressive diffusion, to train from"))),
    PublishedWorld(
        name="wan-base", summary="Wan 2.1 T2V 1.3B, bidirectional diffusion, to train from",
        licence="Apache-2.0", num_params=_TEXT_PARAMS, few_steps=False, bidirectional=True,
        config=_config("wan-base", has_camera=False, frames_per_chunk=21, window=21, steps=4),
        source=Source(file="diffusion_pytorch_model.safetensors", size=5_676_070_424,
                      sha256="96b6b242ca1c2f24e9d02cd6596066fab6d310e2d7538f33ae267cb18d957e8f", **_WAN)),
)}

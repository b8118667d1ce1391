"""Fixtures of the published code: their cases, and networks filled by the rule of their README."""
import json
import os
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from worldplay.action import ActionSpace, parse_script
from worldplay.camera import CAMERA_SPACE, viewmats
from worldplay.models.codecs.taehv import TAEHV
from worldplay.models.configs import TransformerConfig
from worldplay.models.transformer import Transformer
from worldplay.models.codecs.wan_vae import WanVAE, WanVAEConfig

FOLDER = Path(__file__).parent
GIVEN = os.environ.get("WORLDPLAY_PARITY")  # a folder of further fixtures, laid out like this one


def fixtures(kind):
    """Every fixture of a kind such as "umt5": one in each folder that has it, named as the functions below
    take it.
    """
    folders = [FOLDER, FOLDER / "more", *([Path(GIVEN).resolve()] if GIVEN else [])]
    return [kind if folder == FOLDER else str(folder / kind) for folder in folders
            if (folder / kind / "cases.json").is_file()]


def every_case(kind, *prefixes):
    """(fixture, name) of every case of a kind of fixture whose name begins with one of the prefixes."""
    return [(fixture, name) for fixture in fixtures(kind) for name in cases(fixture, *prefixes)]


@cache
def description(fixture):
    return json.loads((FOLDER / fixture / "cases.json").read_text())


def cases(fixture, *prefixes):
    """Names of the fixture's cases that begin with one of the prefixes."""
    return [name for name in description(fixture)["cases"] if name.startswith(prefixes)]


def load_case(fixture, name):
    """Tensors of a case by name, and its "params" and "tolerance"."""
    case = description(fixture)["cases"][name]
    return {**load_file(FOLDER / fixture / case["file"]), "params": case["params"],
            "tolerance": description(fixture)["recommended_tolerance"]}


def close(value, expected, case):
    limits = dict(case["tolerance"])
    half = limits.pop("bfloat16_outputs_rtol", None)
    if expected.dtype == torch.bfloat16:  # rounded at every operation on the way
        limits = {"atol": half, "rtol": half}
    torch.testing.assert_close(value, expected, **limits)


def nearest_index(timesteps, sigmas):
    """Index of the entry of `sigmas` [s] nearest to each timestep (1000 * sigma), the first one on a tie, as
    published.
    """
    return (1000 * sigmas - timesteps[..., None]).abs().argmin(dim=-1)


# that of published pose strings: u and down lift and lower the camera
POSE_SPACE = ActionSpace((*CAMERA_SPACE.keys, "u", "down"), CAMERA_SPACE.look_limit)


def pose_actions(text):
    """Actions of a published pose string: a script that says dn for down, and in which a count may be 0."""
    segments = [segment.strip().replace("dn*", "down*") for segment in text.split(",")]
    return [action for segment in segments if not segment.endswith("*0")
            for action in parse_script(segment, POSE_SPACE)]


def poses(text):
    """Viewmats float32 [t 4 4] of a published pose string."""
    return viewmats(pose_actions(text))


def network(fixture, keys="keys"):
    """A Transformer of the fixture's sizes, with its weights; keys: the entry of cases.json that names their
    list.
    """
    sizes, given = description(fixture)["model_config"], weights(fixture, keys)
    same = ("dim", "ffn_dim", "freq_dim", "text_dim", "text_len", "num_heads", "num_layers", "eps",
            "patch_size")
    model = Transformer(TransformerConfig(in_channels=sizes["in_dim"], out_channels=sizes["out_dim"],
                                          has_camera=any("prope_o" in name for name in given),
                                          **{name: sizes[name] for name in same}))
    return filled(model, given)


def video_codec(fixture):
    """The WanVAE or TAEHV of the fixture's sizes, with its weights."""
    sizes = description(fixture)["model_config"]
    if Path(fixture).name == "taehv":
        return filled(TAEHV(), weights(fixture))
    return filled(WanVAE(WanVAEConfig(
        width=sizes["dim"], multipliers=tuple(sizes["dim_mult"]), blocks=sizes["num_res_blocks"],
        halves_time=tuple(sizes["temperal_downsample"]))), weights(fixture))


def filled(model, weights):
    """The model with these weights; its keys are the published ones."""
    model.load_state_dict(weights, strict=True)
    return model.requires_grad_(False).eval()


def weights(fixture, keys="keys"):
    """Published key -> tensor of the fixture's network, by the weight rule."""
    rows = json.loads((FOLDER / fixture / description(fixture)[keys]).read_text())["keys"]
    return {row["key"]: torch.from_numpy(fill(row["key"], row["shape"])) for row in rows}


def fill(key, shape):
    """The deterministic value, float32, of the parameter `key` (README, "Weight rule")."""
    x = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape).astype(np.float32)
    if key.endswith("modulation") and len(shape) == 3:
        return np.float32(0.2) * x
    if key.endswith("gamma"):
        return 1 + np.float32(0.1) * x
    if len(shape) >= 2:
        return x * np.float32(1 / np.sqrt(np.prod(shape[1:])))
    if key.endswith("bias"):
        return np.float32(0.05) * x
    return 1 + np.float32(0.1) * x

"""Prompts to text rows, cached on disk: the big encoder is opened only for a prompt it has not seen."""
import hashlib
import json
import logging
import pickle
from pathlib import Path

import platformdirs
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from worldplay import runtime
from worldplay.errors import WorldError, remedy
from worldplay.files import replacing
from worldplay.models.text import TextConfig, TextEncoder, clean_prompt, load_tokenizer, warn_if_cut
from worldplay.models.weights import fingerprint

log = logging.getLogger(__name__)

# where a folder keeps them: as they are fetched, or as Wan 2.1 publishes them
_WEIGHTS = ("model.safetensors", "models_t5_umt5-xxl-enc-bf16.pth")
_TOKENIZER = ("tokenizer.json", "google/umt5-xxl/tokenizer.json")

_FORMAT = 1  # of a cached file; another one is another key

_AGAIN = "fetch it again"  # where it is not known how


def prompt_embeds(text, encoder_folder, *, config=TextConfig(), device="cpu"):
    """Text rows of a prompt, as a transformer's `encode_text` pads and takes them.

    encoder_folder  holds the weights and the tokenizer, laid out as they are fetched or as they are published
    config          TextConfig of the sizes that the weights must have
    device          where the encoder works, if it has room there; the rows are on the CPU
    Returns         [l e] bfloat16, one row for each token; an empty prompt has one

    They are kept in the user's cache: the encoder is opened, used and freed only for a text that is new to
    it.

        Raises WorldError("bad_checkpoint") for an encoder that is missing or damaged, "not_found" for a
        missing package.
    """
    rows, = all_prompt_embeds([text], encoder_folder, config=config, device=device)
    return rows


def all_prompt_embeds(texts, encoder_folder, *, config=TextConfig(), device="cpu"):
    """Yield the text rows of many prompts, each as `prompt_embeds`; the encoder is opened once for all that
    are new.
    """
    weights, tokenizer = _find(encoder_folder, _WEIGHTS), _find(encoder_folder, _TOKENIZER)
    key = [fingerprint(weights), hashlib.sha256(tokenizer.read_bytes()).hexdigest()]
    encoder = _Encoder(weights, tokenizer, config, torch.device(device))
    try:
        for text in texts:
            path = _cache_file(clean_prompt(text), key, config)
            rows = _cached(path, config)
            if rows is None:
                rows, num_tokens = encoder.encode(text)
                _keep(path, rows, clean_prompt(text), num_tokens)
            yield rows
    finally:
        encoder.close()


def load_prompt_file(path, *, text_dim=TextConfig.dim, text_len=TextConfig.max_tokens):
    """Text rows [l text_dim] of a safetensors file with the tensor `prompt_embeds`; a file of the cache is
    one.

    text_dim, text_len  of the transformer they are for: l <= text_len

        Raises WorldError("bad_prompt") for a file that is missing, unreadable or of other rows.
    """
    return _read(path, text_dim, text_len)[0]


def save_prompt_file(path, rows, prompt, **header):
    """Write text rows [l e] so that `load_prompt_file` finds all of them or no file; OSError where they have
    no room.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(save({"prompt_embeds": rows}, {"prompt": prompt, **header}))


# The cache --------------------------------------------------------------------------------------------------


def _cache_file(text, encoder, config):
    told = json.dumps([_FORMAT, text, encoder, config.max_tokens])
    folder = platformdirs.user_cache_path("worldplay", appauthor=False) / "prompts"
    return folder / f"{hashlib.sha256(told.encode()).hexdigest()[:32]}.safetensors"


def _cached(path, config):
    """The rows in a cached file; None when there is none, or with a warning when it is damaged."""
    if not path.exists():
        return None
    try:
        rows, header = _read(path, config.dim, config.max_tokens)
        warn_if_cut(int(header["num_tokens"]), config.max_tokens)
    except (WorldError, KeyError, ValueError) as error:
        log.warning("the cached prompt %s is damaged (%s) and made again", path, error)
        return None
    return rows


def _keep(path, rows, prompt, num_tokens):
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_prompt_file(path, rows, prompt, num_tokens=str(num_tokens))
    except OSError as error:
        log.warning("the prompt cannot be kept in %s (%s); it will be encoded again", path.parent, error)


def _read(path, text_dim, text_len):
    """(rows, header) of a safetensors file; nothing of it stays mapped."""
    try:
        with safe_open(path, "pt") as file:
            header, names = file.metadata() or {}, list(file.keys())
            rows = file.get_tensor("prompt_embeds").clone() if "prompt_embeds" in names else None
    except FileNotFoundError:
        raise WorldError("bad_prompt", f"prompt file {path} does not exist") from None
    except (SafetensorError, OSError) as error:
        raise WorldError("bad_prompt", f"prompt file {path} cannot be read ({error}); expected "
                         "safetensors") from None
    if rows is None:
        raise WorldError("bad_prompt", f"prompt file {path} has no prompt_embeds; it holds "
                         f"{', '.join(sorted(names)[:3]) or 'nothing'}")
    fits = rows.ndim == 2 and rows.shape[1] == text_dim and 0 < len(rows) <= text_len
    if not fits or not rows.is_floating_point():
        raise WorldError("bad_prompt", f"prompt file {path} holds {str(rows.dtype).removeprefix('torch.')} "
                         f"{list(rows.shape)}: expected floating point [1 to {text_len}, {text_dim}]")
    if not rows.isfinite().all():
        raise WorldError("bad_prompt", f"prompt file {path} holds numbers that are not finite; make it again")
    return rows, header


# The encoder ------------------------------------------------------------------------------------------------


class _Encoder:
    """UMT5 from its files, opened when the first prompt wants it and gone after `close`."""

    def __init__(self, weights, tokenizer, config, device):
        self._files, self._config, self._device, self._opened = (weights, tokenizer), config, device, None

    def encode(self, text):
        """(rows of the prompt, number of its tokens before it was cut)."""
        if self._opened is None:
            weights, tokenizer = self._files
            self._device = _roomy(self._device, weights.stat().st_size)
            log.info("encoding a new prompt with UMT5 on %s", self._device.type)
            self._opened = TextEncoder(_weights(weights), load_tokenizer(tokenizer), self._config,
                                       device=self._device,
                                       where=weights)
        num_tokens = len(self._opened.tokenize(text))
        rows = self._opened.embed([text])[0, :min(num_tokens, self._config.max_tokens)]
        return rows.to("cpu", torch.bfloat16, copy=True), num_tokens

    def close(self):
        """Give its memory back."""
        if self._opened is not None:
            self._opened = None  # its last reference
            runtime.release_memory(self._device)


def _roomy(device, num_bytes):
    """The device, or the CPU where the device has not that much memory left."""
    if runtime.has_room(device, num_bytes + 2**29):  # activations of 512 tokens are far less than that
        return device
    log.info("UMT5 (%.1f GiB) does not fit beside what is on the GPU", num_bytes / 2**30)
    return torch.device("cpu")


def _weights(path):
    """name -> tensor, memory-mapped; code in a pickle is refused."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        weights = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        problem = (str(error) or type(error).__name__).splitlines()[0]
        raise WorldError("bad_checkpoint",
                         f"{path} cannot be read ({problem}); {remedy(path, _AGAIN)}") from None
    if not isinstance(weights, dict) or not all(isinstance(x, torch.Tensor) for x in weights.values()):
        raise WorldError("bad_checkpoint", f"{path} holds no weights by name; {remedy(path, _AGAIN)}")
    return weights


def _find(folder, names):
    for name in names:
        if (Path(folder) / name).is_file():
            return Path(folder) / name
    raise WorldError("bad_checkpoint", f"{folder} holds no text encoder: {' and '.join(names)} are both "
                     f"missing; {remedy(Path(folder) / names[0], _AGAIN)}, or give a file of text rows")

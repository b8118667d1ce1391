"""Text encoder output of prompts, cached on disk: the encoder is loaded only for prompts not in the cache."""
import hashlib
import json
import logging
import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from worldplay import runtime
from worldplay.errors import WorldError, remedy
from worldplay.files import replacing
from worldplay.models.text import TextConfig, TextEncoder, clean_prompt, load_tokenizer, warn_if_cut
from worldplay.models.weights import fingerprint
from worldplay.worlds.zoo import user_cache

log = logging.getLogger(__name__)

# paths in an encoder's folder: as `fetch` writes them, or as Wan 2.1 publishes them
_WEIGHTS = ("model.safetensors", "models_t5_umt5-xxl-enc-bf16.pth")
_TOKENIZER = ("tokenizer.json", "google/umt5-xxl/tokenizer.json")

_FORMAT = 1  # of a cached file; it is part of the key

_AGAIN = "fetch it again"  # the remedy where no command is known


def prompt_embeds(text, encoder_folder, *, config=TextConfig(), device="cpu"):
    """Text encoder output of a prompt: the rows that Transformer.encode_text pads and embeds.

    encoder_folder  holds the weights and the tokenizer, laid out as `fetch` writes them or as published
    config          TextConfig of the weights
    device          where the encoder runs, if it has enough free memory, otherwise on the CPU
    Returns         [l e] bfloat16 on the CPU, one row for each token; an empty prompt has one

    The output is cached in the user's cache folder: the encoder is loaded and freed again for new texts only.

        Raises WorldError("bad_checkpoint") for an encoder that is missing or damaged, "not_found" for a
        missing package.
    """
    rows, = all_prompt_embeds([text], encoder_folder, config=config, device=device)
    return rows


def all_prompt_embeds(texts, encoder_folder, *, config=TextConfig(), device="cpu"):
    """Yield what `prompt_embeds` returns, for each of many prompts; the encoder is loaded once at most."""
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
    """The tensor `prompt_embeds` [l text_dim] of a safetensors file, such as `save_prompt_file` writes.

    text_dim, text_len  of the transformer that reads them: l <= text_len

        Raises WorldError("bad_prompt") where the file is missing, unreadable, or holds another shape, an
        integer type, or numbers that are not finite.
    """
    return _read(path, text_dim, text_len)[0]


def save_prompt_file(path, rows, prompt, **header):
    """Write text encoder output [l e] of a prompt to a safetensors file, whole or not at all; OSError.

    header  more entries of the file's metadata, name -> str
    """
    with replacing(path) as temporary:
        temporary.write_bytes(save({"prompt_embeds": rows}, {"prompt": prompt, **header}))


# The cache --------------------------------------------------------------------------------------------------


def _cache_file(text, encoder, config):
    key = json.dumps([_FORMAT, text, encoder, config.max_tokens])
    return user_cache() / "prompts" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.safetensors"


def _cached(path, config):
    """The rows in a cached file; None where there is no file, or with a warning where it is damaged."""
    if not path.exists():
        return None
    try:
        rows, header = _read(path, config.dim, config.max_tokens)
        warn_if_cut(int(header["num_tokens"]), config.max_tokens)
    except (WorldError, KeyError, ValueError) as error:
        log.warning("the cached prompt %s is damaged (%s) and encoded again", path, error)
        return None
    return rows


def _keep(path, rows, prompt, num_tokens):
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_prompt_file(path, rows, prompt, num_tokens=str(num_tokens))
    except OSError as error:
        log.warning("the prompt cannot be kept in %s (%s); it will be encoded again", path.parent, error)


def _read(path, text_dim, text_len):
    """(rows, metadata) of a safetensors file; the rows are a copy, so the file is not kept open."""
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
    """UMT5, loaded from its files at the first `encode` and freed by `close`."""

    def __init__(self, weights, tokenizer, config, device):
        self._files, self._config, self._device, self._loaded = (weights, tokenizer), config, device, None

    def encode(self, text):
        """(output rows of the prompt, bfloat16 on the CPU; number of its tokens before truncation)."""
        if self._loaded is None:
            weights, tokenizer = self._files
            self._device = _device_with_room(self._device, weights.stat().st_size)
            log.info("encoding a new prompt with UMT5 on %s", self._device.type)
            self._loaded = TextEncoder(_weights(weights), load_tokenizer(tokenizer), self._config,
                                       device=self._device, where=weights)
        num_tokens = len(self._loaded.tokenize(text))
        rows = self._loaded.embed([text])[0, :min(num_tokens, self._config.max_tokens)]
        return rows.to("cpu", torch.bfloat16, copy=True), num_tokens

    def close(self):
        """Free the encoder's memory."""
        if self._loaded is not None:
            self._loaded = None  # the last reference to it
            runtime.release_memory(self._device)


def _device_with_room(device, num_bytes):
    """The device, or the CPU where the device has less than num_bytes of free memory."""
    if runtime.has_room(device, num_bytes + 2**29):  # activations of 512 tokens are far less than that
        return device
    log.info("UMT5 (%.1f GiB) does not fit beside what is on the GPU", num_bytes / 2**30)
    return torch.device("cpu")


def _weights(path):
    """name -> tensor of a weights file, memory-mapped; a pickle is loaded with weights_only."""
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

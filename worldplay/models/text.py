"""The text encoder of the published Wan worlds: UMT5 of `transformers` with Wan's weights."""
import html
import importlib.util
import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional as F

from worldplay.errors import WorldError, remedy
from worldplay.models.weights import check_shapes

log = logging.getLogger(__name__)

_AGAIN = "fetch it again"  # the remedy where no command is known

# layers of a block: published name -> name in transformers
_BLOCK = {
    "norm1": "layer.0.layer_norm",
    "attn.q": "layer.0.SelfAttention.q", "attn.k": "layer.0.SelfAttention.k",
    "attn.v": "layer.0.SelfAttention.v", "attn.o": "layer.0.SelfAttention.o",
    "pos_embedding.embedding": "layer.0.SelfAttention.relative_attention_bias",
    "norm2": "layer.1.layer_norm",
    "ffn.gate.0": "layer.1.DenseReluDense.wi_0", "ffn.fc1": "layer.1.DenseReluDense.wi_1",
    "ffn.fc2": "layer.1.DenseReluDense.wo",
}


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """Sizes of a UMT5 encoder; the defaults are those of UMT5-XXL in Wan 2.1."""
    vocab_size: int = 256_384
    dim: int = 4096
    """Width e of the output rows: the text_dim of the transformer."""
    dim_attn: int = 4096
    """Width of queries, keys and values, all heads together."""
    ffn_dim: int = 10_240
    num_heads: int = 64
    num_layers: int = 24
    num_buckets: int = 32
    """Buckets of the relative position bias."""
    max_tokens: int = 512
    """Tokens of a prompt, the end-of-sequence token included: the text_len of the transformer."""

    def __post_init__(self):
        if self.dim_attn % self.num_heads:
            raise ValueError(f"dim_attn {self.dim_attn} must be a multiple of num_heads {self.num_heads}")


class TextEncoder:
    """UMT5 and its tokenizer; it holds no state.

    weights    published name -> tensor, bfloat16 or float32, as in models_t5_umt5-xxl-enc-bf16.pth. On the
               CPU they are not copied: memory-mapped tensors are read from disk when they are used.
    tokenizer  from `load_tokenizer`
    config     TextConfig
    where      the file that error messages name

        Raises WorldError("bad_checkpoint") naming the first weights that are missing, unknown or of a wrong
        shape, or where the tokenizer has more tokens than the encoder.
    """

    def __init__(self, weights, tokenizer, config=TextConfig(), *, device="cpu", where="the text encoder"):
        if tokenizer.get_vocab_size() > config.vocab_size:
            raise WorldError("bad_checkpoint",
                             f"the tokenizer knows {tokenizer.get_vocab_size()} tokens, {where} "
                             f"{config.vocab_size}; take the tokenizer that came with it")
        self.config, self.tokenizer, self.device = config, tokenizer, torch.device(device)
        self.umt5 = _load(weights, config, where).to(self.device)

    def tokenize(self, prompt):
        """Token ids of a prompt after `clean_prompt`, with the end-of-sequence token; not truncated."""
        return self.tokenizer.encode(clean_prompt(prompt)).ids

    def embed(self, prompts):
        """Output rows of prompts, [b max_tokens e]; the rows after a prompt's last token are zero.

        A longer prompt is truncated, keeping the end-of-sequence token, with a warning. An empty prompt, or
        one of spaces, is that token alone: one row.
        """
        return self.embed_ids([self._truncate(self.tokenize(prompt)) for prompt in prompts])

    def embed_ids(self, tokens):
        """As `embed`, for lists of at most max_tokens token ids."""
        longest = max(map(len, tokens))
        ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in tokens])
        mask = torch.arange(longest) < torch.tensor([[len(row)] for row in tokens])
        rows = self.hidden(ids, mask).masked_fill(~mask.to(self.device)[..., None], 0)
        return F.pad(rows, (0, 0, 0, self.config.max_tokens - longest))

    @torch.no_grad()
    def hidden(self, ids, mask):
        """Output [b l e] for token ids [b l]; no position attends to those where mask [b l] is 0."""
        return self.umt5(input_ids=ids.to(self.device),
                         attention_mask=mask.to(self.device, torch.long)).last_hidden_state

    def _truncate(self, ids):
        warn_if_cut(len(ids), self.config.max_tokens)
        return ids if len(ids) <= self.config.max_tokens else [*ids[:self.config.max_tokens - 1], ids[-1]]


def warn_if_cut(num_tokens, max_tokens):
    """Warn where a prompt of num_tokens, end-of-sequence token included, is truncated to max_tokens."""
    if num_tokens > max_tokens:
        log.warning("the prompt has %d tokens; only the first %d are read, write a shorter one",
                    num_tokens - 1, max_tokens - 1)


def clean_prompt(text):
    """The text that the tokenizer gets: Unicode repaired by ftfy, HTML unescaped twice, single spaces.

    Not idempotent: "< &amp;amp;lt;" becomes "< &lt;". ftfy changes the tokens, for example by replacing curly
    quotes with straight ones.

    Source: Wan-Video/Wan2.1, wan/modules/tokenizers.py with clean="whitespace".
    """
    text = html.unescape(html.unescape(_package("ftfy").fix_text(text)))
    return " ".join(text.split())


def load_tokenizer(path):
    """The Tokenizer of a tokenizer.json; WorldError("bad_checkpoint") where it is missing or invalid.

    Loaded by `tokenizers` itself, which follows the file. AutoTokenizer of transformers 5 reads only the
    vocabulary from it, and uses T5's unknown token and T5's pre-tokenizer.
    """
    library = _package("tokenizers")
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise WorldError("bad_checkpoint", f"{path} is missing; {remedy(path, _AGAIN)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise WorldError("bad_checkpoint",
                         f"{path} cannot be read ({error}); {remedy(path, _AGAIN)}") from None
    try:
        tokenizer = library.Tokenizer.from_str(text)
    except Exception as error:  # the library raises nothing more precise
        raise WorldError("bad_checkpoint",
                         f"{path} is no tokenizer ({error}); {remedy(path, _AGAIN)}") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _load(weights, config, where):
    """The encoder with the tensors of `weights` as its parameters, without a copy."""
    umt5 = _on_meta(config)
    own = umt5.state_dict()
    names = _names(config.num_layers)
    _check(weights, {name: own[names[name]].shape for name in names}, where)
    umt5.load_state_dict({names[name]: x for name, x in weights.items()}, strict=True, assign=True)
    return umt5.requires_grad_(False).eval()


def _on_meta(config):
    """The encoder on the meta device."""
    transformers = _package("transformers")
    sizes = transformers.UMT5Config(
        vocab_size=config.vocab_size, d_model=config.dim, d_kv=config.dim_attn // config.num_heads,
        d_ff=config.ffn_dim, num_layers=config.num_layers, num_heads=config.num_heads,
        relative_attention_num_buckets=config.num_buckets, is_encoder_decoder=False)
    sizes._attn_implementation = "eager"  # as the published code: fused kernels round differently
    with torch.device("meta"):
        return transformers.UMT5EncoderModel(sizes).encoder  # it has the embedding once, as embed_tokens


def _names(num_layers):
    """Published name -> name in transformers, of every weight."""
    return {"token_embedding.weight": "embed_tokens.weight", "norm.weight": "final_layer_norm.weight",
            **{f"blocks.{i}.{published}.weight": f"block.{i}.{own}.weight"
               for i in range(num_layers) for published, own in _BLOCK.items()}}


def _check(weights, shapes, where):
    """Raise WorldError unless `weights` have the names and shapes of `shapes`, and all one dtype."""
    expected = "expected UMT5 as Wan 2.1 publishes it (models_t5_umt5-xxl-enc-bf16.pth)"
    check_shapes({name: x.shape for name, x in weights.items()}, shapes, where, expected)
    kinds = {x.dtype for x in weights.values()}
    if len(kinds) > 1 or not kinds <= {torch.bfloat16, torch.float32}:
        found = ", ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds))
        raise WorldError("bad_checkpoint",
                         f"{where} is neither all bfloat16 nor all float32 but {found}; {expected}")


def check_packages():
    """Raise WorldError("not_found") where a package that prompts need is missing, without importing any."""
    for name in ("ftfy", "tokenizers", "transformers"):
        if importlib.util.find_spec(name) is None:
            raise _not_installed(name)


def _package(name):
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise _not_installed(error.name or name) from None


def _not_installed(name):
    return WorldError("not_found", f"a prompt needs {name}, which is not installed: "
                      'run pip install ".[wan]" in the checkout')

"""The text encoder against values of the published code: every position, and the rows a transformer gets."""
import json

import pytest
import torch
from einops import rearrange
from torch.nn import functional as F

from tests.parity import FOLDER, cases, close, description, every_case, fill, load_case
from worldplay.models.text import TextConfig, TextEncoder


class NoTokenizer:
    """The fixture begins with ids."""

    def get_vocab_size(self):
        return 0


def encoder(fixture, max_tokens, dim_attn=None, change=lambda weights: weights):
    """The encoder of a fixture; dim_attn: another inner width, for weights changed to it."""
    sizes = description(fixture)["model_config"]
    config = TextConfig(
        vocab_size=sizes["vocab_size"], dim=sizes["dim"], dim_attn=dim_attn or sizes["dim_attn"],
        ffn_dim=sizes["dim_ffn"], num_heads=sizes["num_heads"],
        num_layers=sizes["encoder_layers"], num_buckets=sizes["num_buckets"], max_tokens=max_tokens)
    rows = json.loads((FOLDER / fixture / description(fixture)["keys"]).read_text())["keys"]
    weights = {row["key"]: torch.from_numpy(fill(row["key"], row["shape"])) for row in rows}
    return TextEncoder(change(weights), NoTokenizer(), config)


@pytest.mark.parametrize("fixture, name", every_case("umt5", ""))
def test_every_position(fixture, name):
    case = load_case(fixture, name)
    close(encoder(fixture, 512).hidden(case["in.ids"], case["in.mask"]), case["out.hidden"], case)


@pytest.mark.parametrize("fixture, name", every_case("umt5", ""))
def test_the_rows_of_prompts(fixture, name):
    case = load_case(fixture, name)
    tokens = [ids[mask.bool()].tolist() for ids, mask in zip(case["in.ids"], case["in.mask"])]
    embeds = encoder(fixture, case["in.ids"].shape[1]).embed_ids(tokens)
    close(embeds, case["out.prompt_embeds"], case)
    for row, ids in zip(embeds, tokens):
        assert not row[len(ids):].any() and row[:len(ids)].any(dim=1).all()


def test_an_inner_width_of_its_own():
    """Heads made wider by channels of zeros give the same values: scores are not scaled by the width."""
    case, sizes = load_case("umt5", "short"), description("umt5")["model_config"]
    heads, before = sizes["num_heads"], sizes["dim_attn"] // sizes["num_heads"]

    def widened(weights):
        for name, x in weights.items():
            if name.endswith((".q.weight", ".k.weight", ".v.weight")):
                wide = F.pad(rearrange(x, "(k d) e -> k d e", k=heads), (0, 0, 0, 5))
                weights[name] = rearrange(wide, "k d e -> (k d) e")
            elif name.endswith(".attn.o.weight"):
                wide = F.pad(rearrange(x, "e (k d) -> e k d", k=heads), (0, 5))
                weights[name] = rearrange(wide, "e k d -> e (k d)")
        return weights
    wide = encoder("umt5", 512, dim_attn=heads * (before + 5), change=widened)
    close(wide.hidden(case["in.ids"], case["in.mask"]), case["out.hidden"], case)


def test_heads_that_do_not_divide_the_inner_width_are_refused():
    with pytest.raises(ValueError, match="dim_attn 33 must be a multiple of num_heads 2"):
        TextConfig(dim_attn=33, num_heads=2)


def test_there_are_cases():
    assert set(cases("umt5", "")) >= {"short", "long"}

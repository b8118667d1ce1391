"""The text encoder against values of the published code: every position, and the rows a transformer gets."""
import json

import pytest
import torch

from tests.parity import FOLDER, cases, close, description, fill, load_case
from worldplay.models.text import TextConfig, TextEncoder


class NoTokenizer:
    """The fixture begins with ids."""

    def get_vocab_size(self):
        return 0


def encoder(max_tokens):
    sizes = description("umt5")["model_config"]
    config = TextConfig(
        vocab_size=sizes["vocab_size"], dim=sizes["dim"], ffn_dim=sizes["dim_ffn"], num_heads=sizes["num_heads"],
        num_layers=sizes["encoder_layers"], num_buckets=sizes["num_buckets"], max_tokens=max_tokens)
    rows = json.loads((FOLDER / "umt5" / description("umt5")["keys"]).read_text())["keys"]
    weights = {row["key"]: torch.from_numpy(fill(row["key"], row["shape"])) for row in rows}
    return TextEncoder(weights, NoTokenizer(), config)


@pytest.mark.parametrize("name", cases("umt5", ""))
def test_every_position(name):
    case = load_case("umt5", name)
    close(encoder(512).hidden(case["in.ids"], case["in.mask"]), case["out.hidden"], case)


@pytest.mark.parametrize("name", cases("umt5", ""))
def test_the_rows_of_prompts(name):
    case = load_case("umt5", name)
    tokens = [ids[mask.bool()].tolist() for ids, mask in zip(case["in.ids"], case["in.mask"])]
    embeds = encoder(case["in.ids"].shape[1]).embed_ids(tokens)
    close(embeds, case["out.prompt_embeds"], case)
    for row, ids in zip(embeds, tokens):
        assert not row[len(ids):].any() and row[:len(ids)].any(dim=1).all()


def test_there_are_cases():
    assert set(cases("umt5", "")) >= {"short", "long"}

"""Files of text rows: read as they are, and refused in one line where they cannot be a prompt."""
import pytest
import torch
from safetensors.torch import save_file

from worldplay.engine.prompts import load_prompt_file
from worldplay.errors import WorldError


@pytest.mark.parametrize("rows", [torch.ones(3, 32), torch.ones(12, 32).bfloat16()])
def test_rows_of_a_file(tmp_path, rows):
    save_file({"prompt_embeds": rows}, tmp_path / "prompt.safetensors")
    assert torch.equal(load_prompt_file(tmp_path / "prompt.safetensors", text_dim=32, text_len=12), rows)


@pytest.mark.parametrize("tensors, said", [
    ({"rows": torch.ones(3, 32)}, "no prompt_embeds; it holds rows"),
    ({"prompt_embeds": torch.ones(13, 32)}, "float32 [13, 32]"),
    ({"prompt_embeds": torch.ones(3, 31)}, "[3, 31]"),
    ({"prompt_embeds": torch.ones(1, 3, 32)}, "[1, 3, 32]"),
    ({"prompt_embeds": torch.ones(0, 32)}, "[0, 32]"),
    ({"prompt_embeds": torch.ones(3, 32).int()}, "int32"),
    ({"prompt_embeds": torch.full((3, 32), torch.inf)}, "not finite"),
    (b"text", "cannot be read"),
    (None, "does not exist"),
])
def test_other_files_are_refused(tmp_path, tensors, said):
    path = tmp_path / "prompt.safetensors"
    if isinstance(tensors, dict):
        save_file(tensors, path)
    elif tensors:
        path.write_bytes(tensors)
    with pytest.raises(WorldError) as error:
        load_prompt_file(path, text_dim=32, text_len=12)
    assert error.value.kind == "bad_prompt" and said in str(error.value) and "\n" not in str(error.value)

"""Prompts from text to cached rows, with a tiny encoder and a tiny tokenizer laid out as the real ones."""
import gc
import importlib
import logging
import os
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.parity import fill
from worldplay import runtime
from worldplay.engine import prompts
from worldplay.engine.prompts import load_prompt_file, prompt_embeds
from worldplay.errors import WorldError
from worldplay.models import text
from worldplay.models.configs import TransformerConfig
from worldplay.models.text import TextConfig, TextEncoder, clean_prompt, load_tokenizer
from worldplay.models.transformer import Transformer

CONFIG = TextConfig(vocab_size=64, dim=32, dim_attn=32, ffn_dim=64, num_heads=2, num_layers=2, max_tokens=12)
PROMPT = "a red castle"
EOS, UNKNOWN = 1, 3
SPACE = "\u2581"  # as SentencePiece writes it


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "worldplay" / "prompts"


@pytest.fixture
def folder(tmp_path):
    """As the encoder lies after it was fetched."""
    made = tmp_path / "umt5"
    made.mkdir()
    save_file(weights(), made / "model.safetensors")
    tokenizer().save(str(made / "tokenizer.json"))
    return made


def weights(**changed):
    shapes = {name: tuple(text._on_meta(CONFIG).state_dict()[own].shape) for name,
              own in text._names(2).items()}
    return {name: torch.from_numpy(fill(name, shape)).bfloat16() for name, shape in shapes.items()} | changed


def tokenizer(words=("a", "red", "castle", "the", "knight's")):
    """Unigram with the special tokens of UMT5: their order, and the end mark behind every text."""
    library = importlib.import_module("tokenizers")
    special = ["<pad>", "</s>", "<s>", "<unk>"]
    vocabulary = [*((token, 0.0) for token in special), (SPACE, -3.0),
                  *((SPACE + word, -4.0) for word in words)]
    made = library.Tokenizer(library.models.Unigram(vocabulary, unk_id=UNKNOWN))
    made.pre_tokenizer = library.pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always")
    made.add_special_tokens(special)
    made.post_processor = library.processors.TemplateProcessing(single="$A </s>",
                                                                special_tokens=[("</s>", EOS)])
    return made


def encoder(**changed):
    return TextEncoder(weights(**changed), tokenizer(), CONFIG)


def embeds(folder, prompt=PROMPT, **options):
    return prompt_embeds(prompt, folder, config=CONFIG, **options)


@pytest.fixture
def no_encoder(monkeypatch):
    """A function after which to open the encoder is an error."""
    def forbid():
        monkeypatch.setattr(prompts, "TextEncoder", None)
    return forbid


# The whole way ----------------------------------------------------------------------------------------------


def test_a_prompt_becomes_a_row_for_each_token(folder):
    rows = embeds(folder)
    expected = encoder().embed([PROMPT])[0]
    assert rows.dtype == torch.bfloat16 and rows.shape == (4, 32)
    assert torch.equal(rows, expected[:4]) and not expected[4:].any()
    assert not torch.equal(rows, embeds(folder, "the red castle"))


def test_a_transformer_takes_the_rows_as_the_padded_ones(folder):
    model = Transformer(TransformerConfig(dim=32, ffn_dim=64, num_heads=2, num_layers=1, text_dim=32,
                                          text_len=12))
    (short,), (padded,) = (model.encode_text(x.float()) for x in (embeds(folder)[None],
                                                                  encoder().embed([PROMPT])))
    assert all(torch.equal(a, b) for a, b in zip(short, padded))


def test_prompts_of_a_batch_do_not_see_each_other():
    together = encoder().embed([PROMPT, "the castle", ""])
    alone = torch.cat([encoder().embed([prompt]) for prompt in (PROMPT, "the castle", "")])
    torch.testing.assert_close(together, alone, atol=0.03, rtol=0.03)
    assert [row.any(dim=1).sum().item() for row in together] == [4, 3, 1]


def test_the_published_layout_gives_the_same_rows(folder, tmp_path):
    published = tmp_path / "Wan2.1-T2V-1.3B"
    (published / "google" / "umt5-xxl").mkdir(parents=True)
    tokenizer().save(str(published / "google" / "umt5-xxl" / "tokenizer.json"))
    torch.save(weights(), published / "models_t5_umt5-xxl-enc-bf16.pth")
    assert torch.equal(embeds(published), embeds(folder))


@pytest.mark.parametrize("prompt", ["", "  \n "])
def test_an_empty_prompt_is_the_end_mark_alone(folder, prompt, no_encoder):
    rows = embeds(folder, prompt)
    assert encoder().tokenize(prompt) == [EOS] and rows.shape == (1, 32) and rows.any()
    no_encoder()
    assert torch.equal(embeds(folder, " "), rows)


def test_a_long_prompt_is_cut_and_says_so(folder, caplog, no_encoder):
    """Also when its rows come from the cache; 11 words and the end mark are all there is room for."""
    caplog.set_level(logging.WARNING, "worldplay")  # whatever level a command before has left
    rows = embeds(folder, " ".join(["red"] * 11))
    assert not caplog.records
    cut = embeds(folder, " ".join(["red"] * 13))
    no_encoder()
    assert torch.equal(embeds(folder, " ".join(["red"] * 13)), cut)
    assert len(cut) == 12 and torch.equal(rows, cut)
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(said) == 2 and all("13 tokens" in line and "first 11" in line for line in said)


@pytest.mark.parametrize("given, cleaned", [
    ("a  knight\u2019s\n castle ", "a knight's castle"), ("&amp;lt;b&amp;gt;", "<b>"),
    ("caf\u00c3\u00a9", "caf\u00e9"), ("< &amp;amp;lt;", "< &lt;"), ("\ufb01re", "fire")])
def test_cleaning(given, cleaned):
    assert clean_prompt(given) == cleaned


def test_a_prompt_is_cleaned_once(folder, monkeypatch):
    """To clean twice would resolve more entities than the published code does."""
    seen = []
    monkeypatch.setattr(TextEncoder, "tokenize", lambda self, prompt: seen.append(prompt) or [EOS])
    embeds(folder, "< &amp;amp;lt;")
    assert set(seen) == {"< &amp;amp;lt;"}


def test_the_tokenizer_does_what_its_file_says(folder):
    """What it does not know has the index that the file gives it, here not T5's; nothing is padded or cut."""
    made = tokenizer()
    made.enable_truncation(2)
    made.enable_padding(length=9)
    made.save(str(folder / "tokenizer.json"))
    ids = load_tokenizer(folder / "tokenizer.json").encode("a Z castle").ids
    assert UNKNOWN in ids and ids[-1] == EOS and 0 not in ids and len(ids) > 3


# The cache --------------------------------------------------------------------------------------------------


def test_the_second_time_nothing_is_encoded(folder, cache, no_encoder):
    rows = embeds(folder)
    no_encoder()
    assert torch.equal(embeds(folder), rows)
    assert torch.equal(embeds(folder, " a  red\ncastle"), rows)  # the same after cleaning
    (file,) = cache.iterdir()
    assert file.stat().st_size < rows.nbytes + 400
    assert torch.equal(load_prompt_file(file, text_dim=32, text_len=12), rows)


def test_another_process_needs_no_encoder(folder):
    embeds(folder)
    program = ("import sys; sys.modules.update(transformers=None, tokenizers=None)\n"
               "from pathlib import Path; from worldplay.models.text import TextConfig\n"
               "from worldplay.engine.prompts import prompt_embeds\n"
               f"config = {CONFIG}\n"
               f"print(list(prompt_embeds({PROMPT!r}, Path(sys.argv[1]), config=config).shape))\n")
    result = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True)
    assert (result.returncode, result.stdout.strip()) == (0, "[4, 32]"), result.stderr


def test_another_encoder_is_asked_again(folder, cache):
    rows = embeds(folder)
    last = weights()["norm.weight"].clone()
    last[-1] += 1
    save_file(weights(**{"norm.weight": last}), folder / "model.safetensors")
    changed = embeds(folder)
    assert not torch.equal(changed, rows)
    tokenizer(("a", "castle", "red")).save(str(folder / "tokenizer.json"))
    assert not torch.equal(embeds(folder), changed)
    assert len(list(cache.iterdir())) == 3


def test_an_encoder_may_move(folder, tmp_path, no_encoder):
    rows = embeds(folder)
    no_encoder()
    os.utime(folder / "model.safetensors", (0, 0))
    assert torch.equal(embeds(folder.rename(tmp_path / "elsewhere")), rows)


@pytest.mark.parametrize("damage", ["cut", "other", "nothing", "not finite", "wide"])
def test_a_damaged_file_is_made_again(folder, cache, damage, caplog):
    rows = embeds(folder)
    (file,) = cache.iterdir()
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-20])
    elif damage == "nothing":
        file.write_bytes(b"")
    else:
        bad = {"not finite": torch.full((4, 32), torch.nan), "wide": torch.ones(4, 33)}
        save_file({"prompt_embeds": bad[damage]} if damage in bad else {"rows": torch.ones(4, 32)}, file)
    assert torch.equal(embeds(folder), rows)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "is damaged" in warning and str(file) in warning and "\n" not in warning
    caplog.clear()
    assert torch.equal(embeds(folder), rows) and not caplog.records
    assert list(cache.iterdir()) == [file]


def test_rows_that_cannot_be_kept_are_used_all_the_same(folder, cache, caplog):
    cache.parent.mkdir(parents=True)
    cache.write_text("a file where the folder should be")
    assert embeds(folder).shape == (4, 32)
    assert "cannot be kept" in caplog.text


def test_processes_that_write_at_once_tear_nothing(tmp_path):
    """One file is written by two processes and read all the while: it is always one of theirs, whole."""
    path = tmp_path / "prompt.safetensors"
    program = ("import sys, torch; from pathlib import Path; from worldplay.engine.prompts import _keep\n"
               "print('ready', flush=True); input()\n"
               "rows = torch.full((64, 512), float(sys.argv[2]))\n"
               "for i in range(500): _keep(Path(sys.argv[1]), rows, '', 1)\n")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    writers = [subprocess.Popen([sys.executable, "-c", program, str(path), value], **pipes) for value in "12"]
    assert [writer.stdout.readline() for writer in writers] == ["ready\n"] * 2
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    seen = set()
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            rows = load_prompt_file(path, text_dim=512, text_len=64)
            assert rows.min() == rows.max()
            seen.add(rows[0, 0].item())
    assert [(*writer.communicate(), writer.returncode) for writer in writers] == [("", "", 0)] * 2
    assert seen and seen <= {1.0, 2.0} and list(tmp_path.glob("*.tmp")) == []


# The encoder ------------------------------------------------------------------------------------------------


def test_the_encoder_is_freed_with_the_collector_off(folder, monkeypatch):
    alive, released = [], []
    made = TextEncoder.__init__

    def watched(self, *args, **options):
        made(self, *args, **options)
        alive.extend(weakref.ref(x) for x in (self.umt5, *self.umt5.parameters()))
    monkeypatch.setattr(TextEncoder, "__init__", watched)
    monkeypatch.setattr(runtime, "release_memory", lambda device: released.append([ref() for ref in alive]))
    gc.disable()
    try:
        embeds(folder)
    finally:
        gc.enable()
    assert len(released) == 1 and len(released[0]) > 20 and not any(x is not None for x in released[0])


def test_weights_are_not_copied(folder):
    given = load_file(folder / "model.safetensors")
    umt5 = TextEncoder(given, tokenizer(), CONFIG).umt5
    assert {x.data_ptr() for x in umt5.parameters()} == {x.data_ptr() for x in given.values()}


def test_a_full_device_leaves_the_encoder_to_the_cpu(folder, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(runtime, "has_room", lambda device, num_bytes: False)
    assert embeds(folder, device="meta").shape == (4, 32)
    assert "does not fit" in caplog.text


def test_the_real_sizes():
    sizes = [x.numel() for x in text._on_meta(TextConfig()).state_dict().values()]
    assert (len(sizes), sum(sizes)) == (242, 5_680_910_336)


@pytest.mark.parametrize("change, said", [
    ({"blocks.1.attn.q.weight": None}, "misses blocks.1.attn.q.weight;"),
    ({"blocks.2.norm1.weight": torch.ones(32).bfloat16()}, "has unknown blocks.2.norm1.weight;"),
    ({"norm.weight": torch.ones(33).bfloat16()}, "norm.weight (33,) instead of (32,);"),
    ({"norm.weight": torch.ones(32).half()}, "but bfloat16, float16;"),
])
def test_other_weights_are_refused_by_name(folder, change, said):
    held = {name: x for name, x in weights(**change).items() if x is not None}
    save_file(held, folder / "model.safetensors")
    refused(folder, "bad_checkpoint", said, str(folder / "model.safetensors"))


def test_weights_of_a_lower_precision_are_refused(folder):
    save_file({name: x.to(torch.float8_e4m3fn) for name, x in weights().items()},
              folder / "model.safetensors")
    refused(folder, "bad_checkpoint", "float8_e4m3fn")


class Code:
    """Unpickled, it writes the file `ran`."""

    def __init__(self, ran):
        self.ran = ran

    def __reduce__(self):
        return Path.write_text, (self.ran, "ran")


@pytest.mark.parametrize("held", ["code", "list", "garbage", "cut"])
def test_a_pth_of_something_else_is_refused_and_not_run(folder, tmp_path, held):
    file = folder / "models_t5_umt5-xxl-enc-bf16.pth"
    torch.save({"code": {"x": Code(tmp_path / "ran")}, "list": [torch.ones(2)]}.get(held, weights()), file)
    if held in ("garbage", "cut"):
        file.write_bytes(b"<html>" * 50 if held == "garbage" else file.read_bytes()[:2000])
    (folder / "model.safetensors").unlink()
    refused(folder, "bad_checkpoint", str(file), "fetch it again")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", ["", "{", "{}", None])
def test_a_damaged_tokenizer_is_refused(folder, content):
    file = folder / "tokenizer.json"
    file.write_text(content or "") if content is not None else file.unlink()
    refused(folder, "bad_checkpoint", "tokenizer.json", "fetch it again")


def test_a_tokenizer_of_another_encoder_is_refused(folder):
    tokenizer([f"w{i}" for i in range(70)]).save(str(folder / "tokenizer.json"))
    refused(folder, "bad_checkpoint", "75 tokens", "64")


def test_an_empty_folder_is_refused(tmp_path):
    refused(tmp_path, "bad_checkpoint", "model.safetensors", str(tmp_path))


@pytest.mark.parametrize("package", ["ftfy", "tokenizers", "transformers"])
def test_a_missing_package_is_named_with_the_remedy(folder, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    refused(folder, "not_found", package, 'pip install ".[wan]"')


def refused(folder, kind, *said):
    with pytest.raises(WorldError) as error:
        embeds(folder)
    assert error.value.kind == kind and "\n" not in str(error.value)
    for part in said:
        assert part in str(error.value)


# Who pays for it --------------------------------------------------------------------------------------------


def test_who_has_no_prompt_imports_nothing_of_it():
    program = ("import sys, worldplay, worldplay.cli.play, worldplay.engine.prompts\n"
               "world = worldplay.load_world(device='cpu'); world.reset()\n"
               "list(world.step(worldplay.Action({'w'})))\n"
               "print(sorted({'transformers', 'tokenizers', 'sentencepiece', 'ftfy'} & set(sys.modules)))\n")
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (result.returncode, result.stdout.strip()) == (0, "[]"), result.stderr

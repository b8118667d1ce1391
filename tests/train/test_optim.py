"""Optimizers: which weights Muon takes, and what it does to them."""
import pytest
import torch
from torch import nn

from worldplay import runtime
from worldplay.models.codecs.image import ImageCodec
from worldplay.models.configs import CodecConfig, TransformerConfig
from worldplay.models.transformer import Transformer
from worldplay.train import optim
from worldplay.train.optim import Muon, OptimConfig, build_optimizers, orthogonalised, step_size_scale

CODEC = CodecConfig(widths=(8, 12, 16), enc_blocks=(1, 1, 1), dec_blocks=(1, 1, 1))
NETWORK = TransformerConfig(dim=16, ffn_dim=32, num_heads=2, num_layers=2, in_channels=4, out_channels=4,
                            patch_size=(1, 1, 1), freq_dim=8, action_channels=3)


def test_step_size_rises_stays_and_falls():
    optim = OptimConfig(warmup=10, decay=0.5)
    scales = [step_size_scale(step, progress, optim)
              for step, progress in ((0, 0), (9, 0.1), (50, 0.5), (75, 0.75), (99, 1))]
    assert scales == pytest.approx([0.1, 1, 1, 0.5, 0])


@pytest.mark.parametrize("model", [ImageCodec(CODEC), Transformer(NETWORK)], ids=["codec", "transformer"])
def test_muon_takes_what_lies_between_hidden_layers_and_adamw_the_rest(model):
    optimizers = build_optimizers(model, OptimConfig(muon_lr=0.1))
    names = {p: name for name, p in model.named_parameters()}
    muon, adam = ([names[p] for group in opt.param_groups for p in group["params"]] for opt in optimizers)
    assert sorted(muon + adam) == sorted(names.values())
    assert muon == [name for name in names.values() if name in model.hidden_weights] and muon
    for name, p in model.named_parameters():
        if name in muon:  # whatever sees pixels, latents, patches, actions or times is as narrow as those
            assert p.ndim > 1 and min(p.shape[:2]) >= 8, name
    assert len(build_optimizers(model, OptimConfig())) == 1


# the published one rounds to the 8 bits of bfloat16 after every product
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 2e-2), (torch.bfloat16, 2e-3)])
@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5)])
def test_on_matrices_it_is_the_published_muon(shape, dtype, tolerance, monkeypatch):
    monkeypatch.setattr(runtime, "pick_dtype", lambda device: (dtype, "test"))
    torch.manual_seed(0)
    ours = nn.Parameter(torch.randn(shape))
    theirs = nn.Parameter(ours.detach().clone())
    optimizers = (Muon([ours], lr=0.02), torch.optim.Muon([theirs], lr=0.02, momentum=0.95, weight_decay=0.0))
    for _ in range(3):
        ours.grad = torch.randn(shape)
        theirs.grad = ours.grad.clone()
        for opt in optimizers:
            opt.step()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance * 0.02 * 3)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_kernel_is_the_matrix_of_its_outputs(layout):
    torch.manual_seed(0)
    kernel = nn.Parameter(torch.randn(6, 4, 3, 3).to(memory_format=layout))
    matrix = nn.Parameter(kernel.detach().flatten(1).clone())
    kernel.grad = torch.randn(6, 4, 3, 3).to(memory_format=layout)
    matrix.grad = kernel.grad.flatten(1).clone()
    for p in (kernel, matrix):
        Muon([p], lr=0.02).step()
    torch.testing.assert_close(kernel.flatten(1), matrix, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_computes_in_what_the_hardware_multiplies(dtype, monkeypatch):
    """Where bfloat16 is emulated a step of the maze's size took 16 s, of which nearly all was this."""
    seen = []
    monkeypatch.setattr(runtime, "pick_dtype", lambda device: (dtype, "test"))
    monkeypatch.setattr(optim, "orthogonalised", lambda matrix: seen.append(matrix.dtype) or matrix)
    kernel = nn.Parameter(torch.randn(6, 4))
    kernel.grad = torch.randn(6, 4)
    Muon([kernel], lr=0.02).step()
    assert seen == [dtype] and kernel.dtype == torch.float32


@pytest.mark.parametrize("shape", [(16, 4), (4, 16), (9, 9)])
def test_singular_values_are_moved_towards_one(shape):
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalised(torch.randn(shape)).float())
    assert 0.5 < values.min() and values.max() < 1.3

"""What the losses of the stages share: squared errors, guidance, and gradients that stop at a mask."""
import torch

from worldplay.diffusion import velocity_target


def squared_errors(prediction, target, weight=None, mask=None):
    """Squares of prediction - target in float32 (float64 where one of them is), to be averaged by the caller.

    prediction, target  [b t c h w]
    weight              multiplies the squares; anything that broadcasts to them
    mask                bool [b t] or [b t c h w]; where it is False nothing counts
    Returns             [b t c h w], or the flat list of those that count where there is a mask
    """
    dtype = torch.promote_types(torch.promote_types(prediction.dtype, target.dtype), torch.float32)
    errors = (prediction.to(dtype) - target.to(dtype)).square()
    errors = errors if weight is None else errors * weight
    if mask is None:
        return errors
    if errors.is_meta:  # how many count is not known without values: at most all
        return errors.flatten()
    return errors[mask.reshape(*mask.shape, *[1] * (errors.ndim - mask.ndim)).expand_as(errors)]


def flow_matching_loss(velocity, x0, noise, weight=None, mask=None):
    """Mean squared error of the predicted velocity, [b t c h w] each; weight and mask as for
    `squared_errors`.

    The stages here leave out the published weight, which is zero at sigma 1: a few-step student starts there,
    where the next frame has to come from the past and the action alone.
    """
    return squared_errors(velocity, velocity_target(x0, noise), weight, mask).mean()


def guide(unconditional, conditional, scale):
    """Classifier-free guidance: scale 0 is unconditional, 1 conditional, more goes beyond.

    The published distillation class writes conditional + s * difference: its s is this scale less one.
    """
    return unconditional + scale * (conditional - unconditional)


def last_frames(num_frames, last):
    """bool [t], True at the last `last` of num_frames frames."""
    return torch.arange(num_frames) >= num_frames - last


def masked_gradient(x, mask):
    """x itself; its gradient is multiplied by mask, bool or 0 to 1, [t] or [b t c h w]."""
    mask = mask.to(x.device, x.dtype)
    mask = mask.reshape(-1, 1, 1, 1) if mask.ndim == 1 else mask
    return x * mask + (x * (1 - mask)).detach()

"""A pass over a chunk that is prepared for it alone; the engine prepares a chunk once for all its passes."""
from worldplay.models.attention.prope import Cameras


def cameras_at(cameras, frames):
    """The Cameras of a slice of the frames."""
    return Cameras(*(x[:, frames] for x in cameras))


def denoise(model, x, sigma, cache, *, text=None, **where):
    return model.denoise(x, sigma, cache, model.prepare(cache, x.shape, **where), text)


def commit(model, x, sigma, cache, *, text=None, **where):
    model.commit(x, sigma, cache, model.prepare(cache, x.shape, **where), text)

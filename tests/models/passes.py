"""A pass over a chunk that is placed for it alone; the engine places a chunk once for all its passes."""


def denoise(model, x, sigma, cache, *, text=None, **where):
    return model.denoise(x, sigma, cache, model.place(cache, x.shape, **where), text)


def commit(model, x, sigma, cache, *, text=None, **where):
    model.commit(x, sigma, cache, model.place(cache, x.shape, **where), text)


def commit_and_denoise(model, clean, clean_sigma, noisy, sigma, cache, *, text=None, **where):
    b, t, *sizes = clean.shape
    both = model.place(cache, (b, 2 * t, *sizes), **where)
    return model.commit_and_denoise(clean, clean_sigma, noisy, sigma, cache, both, text)

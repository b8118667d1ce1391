"""A probe that reads keys and look off pairs of frames: learnt on real play, read on dreams."""
import numpy as np
import torch
from torch.nn import functional as F

from worldplay.eval.bootstrap import interval

_SIZE, _BLOCKS = (48, 80), (3, 5)  # rows and columns that frames are averaged to, and blocks of these
_TURN, _ACROSS, _UPRIGHT = 12, 4, 3  # largest shifts that are tried, of those columns and rows
_SHARPNESS = 12.0  # of the softmax over shifts, whose costs are relative to their mean
_RIDGE = 100.0  # weight of the prior, in frames: features are standardized
_LEAST = 8  # frames of each half of the streams in which a key must be held, and let go
_AXES = ("yaw", "pitch")
_PAIRS_A_UNIT = 8  # pairs of frames in a unit of Material.work


def features(frames):
    """float32 [n - 1 f] of neighbouring pairs of uint8 [n H W 3]: how their parts moved, and how bright they
    became.

    First the shift across that fits the upper part as a whole (as control.shift, which tells why), then, once
    that is taken out, the shifts across and upright of the picture and of each of 3 x 5 blocks, to parts of a
    pixel: means over the shifts tried, weighted by how well each fits.
    """
    small = F.adaptive_avg_pool2d(torch.from_numpy(frames).permute(0, 3, 1, 2).float(), _SIZE)
    before, after = small[:-1], small[1:]
    height, width = _SIZE
    band = slice(height // 12, height * 7 // 12)
    costs = torch.stack([(after[:, :, band, max(0, x):width + min(0, x)]
                          - before[:, :, band, max(0, -x):width - max(0, x)]).abs().mean((1, 2, 3))
                         for x in range(-_TURN, _TURN + 1)], dim=1)
    turned = costs.argmin(1) - _TURN
    padded = F.pad(before, (_TURN + _ACROSS, _TURN + _ACROSS, _UPRIGHT, _UPRIGHT), mode="replicate")
    columns = torch.arange(width + 2 * _ACROSS) + _TURN - turned[:, None]
    moved = padded.gather(3, columns[:, None, None].expand(-1, 3, padded.shape[2], -1))

    def cost(x, y):
        top, left = _UPRIGHT - y, _ACROSS - x
        other = moved[:, :, top:top + height, left:left + width]
        return F.adaptive_avg_pool2d((after - other).abs().mean(1), _BLOCKS)
    across = torch.stack([cost(x, 0) for x in range(-_ACROSS, _ACROSS + 1)], dim=1)
    upright = torch.stack([cost(0, y) for y in range(-_UPRIGHT, _UPRIGHT + 1)], dim=1)
    shifts = [_best(each) for one in (across, upright) for each in (one, one.mean((2, 3), keepdim=True))]
    change = F.adaptive_avg_pool2d((after - before).mean(1), _BLOCKS)
    return torch.cat([turned[:, None].float(), *(each.flatten(1) for each in (*shifts, change))], dim=1)


def _best(costs):
    """The shift that fits, [n h w] of costs [n s h w] of the shifts -s/2 .. s/2."""
    reach = costs.shape[1] // 2
    weights = torch.softmax(-_SHARPNESS * costs / (costs.mean(1, keepdim=True) + 1), dim=1)
    return (weights * torch.arange(-reach, reach + 1.0)[:, None, None]).sum(1)


class Probe:
    """Two linear readings of `features`, each fitted on the real frames of one half of the streams and used
    on the other half: even numbers of streams are one half, odd ones the other, of all players.

    keys      int [k]: channels of the keys that both halves hold, and let go, in _LEAST frames or more
    features  {player: float32 [s n-1 f]} of the real streams
    """

    def __init__(self, material):
        """Fit on the real streams of a Material, which has an even and an odd one."""
        space, self.features = material.world.action_space, {}
        self._look_limit, num_keys = space.look_limit, len(space.keys)
        for player, each in material.streams.items():
            self.features[player] = torch.stack([features(frames) for frames in each.frames])
            material.advance(_pairs_work(each.frames.shape[0] * (each.frames.shape[1] - 1)))
        actions = [torch.from_numpy(each.actions[:, 1:]) for each in material.streams.values()]
        halves = [[torch.cat([part[half::2].flatten(0, 1) for part in parts])
                   for parts in (self.features.values(), actions)] for half in (0, 1)]
        held = [given[:, :num_keys] > 0.5 for _, given in halves]
        enough = [torch.minimum(each.sum(0), (~each).sum(0)) >= _LEAST for each in held]
        self.keys = torch.nonzero(enough[0] & enough[1])[:, 0].numpy()
        self._readings = [_fit(found, given[:, self.keys], given[:, num_keys:]) for found, given in halves]

    def read(self, found, numbers):
        """(bool [s n k], float [s n axes]): keys held, and look in degrees.

        found    float32 [s n f], features
        numbers  int [s], of the streams that they are of, or go on from; the other half's reading is used
        """
        made = torch.stack([torch.cat([each.double(), torch.ones(len(each), 1)], 1)
                            @ self._readings[1 - number % 2] for each, number in zip(found, numbers)]).numpy()
        return made[..., :len(self.keys)] > 0, made[..., len(self.keys):] * self._look_limit

    def read_frames(self, frames, numbers):
        """`read` of the pairs in uint8 [s 1+n H W 3]."""
        return self.read(torch.stack([features(each) for each in frames]), numbers)


def fitted(material):
    """The Probe of a Material, fitted once; None where there is but one stream of a player."""
    if min(len(each.frames) for each in material.streams.values()) < 2:
        return None
    if "probe" not in material.kept:
        material.kept["probe"] = Probe(material)
    return material.kept["probe"]


def planned_work(material):
    """What fitting a Probe and reading the dreams costs, in the unit of Material.work."""
    if min(len(each.frames) for each in material.streams.values()) < 2:
        return 0
    total = 0
    for each in material.streams.values():
        num, length = each.frames.shape[:2]
        total += _pairs_work(num * (length - 1))
        total += _pairs_work(min(num, material.num_dreams) * (length - each.context))
    return total


def probe(material, player):
    """{probe: {dream, real, shuffled, interval, keys, yaw, pitch, not_judged, n}} over free play.

    dream, real, shuffled  balanced accuracy, mean over the keys: mean of the share found of the frames that
                hold a key and of those that do not; 0.5 is chance. In free play; in the real frames of the
                same streams, its ceiling; and in free play against the actions of another frame, its floor
    keys        {key: {dream, real, shuffled, n}}, n frames of free play that hold it
    yaw, pitch  {dream, real, shuffled}: mean error of the look, degrees a frame
    not_judged  keys that are held, or let go, too seldom to be learnt

    Source: the inverse dynamics model of Baker et al., Video PreTraining, arXiv:2206.11795; here a
    linear reading of matched motion, which a few hundred frames are enough for.
    """
    reader = fitted(material)
    if reader is None:
        return {}
    space, streams, dreams = material.world.action_space, material.streams[player], material.dreams(player)
    start = streams.context
    found = torch.stack([features(frames) for frames in dreams[:, start - 1:]])
    material.advance(_pairs_work(found.shape[0] * found.shape[1]))
    given = streams.actions[:len(dreams), start:]
    other = np.random.default_rng(0).permutation(given.reshape(-1, given.shape[-1])).reshape(given.shape)
    numbers, episodes = range(len(dreams)), streams.episodes[:len(dreams)]
    dreamed = reader.read(found, numbers)
    real = reader.read(reader.features[player][:len(dreams), start - 1:], numbers)
    cases = {"dream": (dreamed, given), "real": (real, given), "shuffled": (dreamed, other)}
    # of the keys that the probe knows, those that this player holds, and lets go, often enough
    count = (given[..., reader.keys] > 0.5).sum((0, 1))
    known = np.flatnonzero(np.minimum(count, given[..., 0].size - count) >= _LEAST)
    keys = reader.keys[known]
    named = {"not_judged": [key for i, key in enumerate(space.keys) if i not in keys],
             "n": given.shape[0] * given.shape[1]}
    if len(keys):
        held = {case: (read[..., known], actions[..., keys] > 0.5)
                for case, ((read, _), actions) in cases.items()}
        each = {case: balanced(*pair) for case, pair in held.items()}
        means = {case: interval(lambda picks, pair=pair: _mean(balanced(*pair, picks)), episodes)
                 for case, pair in held.items()}
        named |= {case: values[0] for case, values in means.items()} | {
            "interval": {case: list(values[1:]) for case, values in means.items()
                         if len(set(episodes)) > 1},
            "keys": {space.keys[key]: {case: float(each[case][i]) for case in cases} | {
                "n": int(held["dream"][1][..., i].sum())} for i, key in enumerate(keys)}}
    for axis, name in enumerate(_AXES[:space.look_axes]):
        named[name] = {case: float(np.abs(
            look[..., axis] - actions[..., len(space.keys) + axis] * space.look_limit).mean())
            for case, ((_, look), actions) in cases.items()}
    return {"probe": named}


def balanced(read, held, picks=slice(None)):
    """float [k]: balanced accuracy of each key over streams `picks`; nan where it is never held or let go.

    read, held  bool [s n k], what a probe says, and what is so
    """
    read, held = read[picks], held[picks]
    with np.errstate(invalid="ignore"):
        return ((read & held).sum((0, 1)) / held.sum((0, 1))
                + (~read & ~held).sum((0, 1)) / (~held).sum((0, 1))) / 2


def _mean(values):
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else 0.5


def _pairs_work(pairs):
    return pairs // _PAIRS_A_UNIT


def _fit(found, held, look):
    """float64 [f + 1, k + axes]: what features and 1 are multiplied by; keys above 0 are held.

    found, held, look  [n f], [n k] of 0 and 1, [n axes]

    Ridge regression, in which the frames that hold a key weigh as much together as those that do not.
    """
    found, held, look = (each.double() for each in (found, held, look))
    mean, spread = found.mean(0), found.std(0) + 1e-3
    rows = torch.cat([(found - mean) / spread, torch.ones(len(found), 1)], 1)
    prior = _RIDGE * torch.eye(rows.shape[1], dtype=torch.float64)
    prior[-1, -1] = 1e-6

    def solved(weights, targets):
        weighed = rows * weights[:, None]
        return torch.linalg.solve(rows.T @ weighed + prior, weighed.T @ targets)
    share = held.mean(0)
    parts = [solved(torch.where(each > 0.5, 0.5 / part, 0.5 / (1 - part)), 2 * each[:, None] - 1)
             for each, part in zip(held.T, share)]
    weights = torch.cat([*parts, solved(torch.ones(len(found), dtype=torch.float64), look)], 1)
    scaled = weights[:-1] / spread[:, None]
    return torch.cat([scaled, weights[-1:] - mean @ scaled], 0)

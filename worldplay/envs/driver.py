"""A driver of CarRacing, for collections: at every speed, on the road and off it."""
import numpy as np

from worldplay.action import Action

# what the driver is about to do, and how often: follow the road; hold any keys; roll; brake and stand
_MOODS, _SHARES = ("follow", "hold", "roll", "stand"), (0.62, 0.26, 0.07, 0.05)
_AHEAD = 5  # track pieces (3.5 units each) by which it looks ahead


def drive(world, seed):
    """Yield the Actions of a driver who sees the track; a player for `collect --player MODULE:FUNCTION`.

    world  GymWorld of CarRacing with keys a and d to steer, w for gas and s to brake
    seed   of the driver's moods; the same seed in the same world gives the same actions
    """
    env, rng, left = world.env.unwrapped, np.random.default_rng([seed, 5]), 0
    while True:
        if not left:
            mood, left = rng.choice(_MOODS, p=_SHARES), int(rng.integers(12, 60))
            aside = rng.choice((0, 0, -0.5, 0.5, -0.9, 0.9), p=(0.3, 0.3, 0.14, 0.14, 0.06, 0.06))
            cruise, hold = np.exp(rng.uniform(np.log(15), np.log(90))), 0
        left -= 1
        if mood == "follow":
            yield Action(_steer(env, aside) | _throttle(env, cruise))
        elif mood == "hold":
            if not hold:
                keys = set(rng.choice(("", "w", "s"), p=(0.25, 0.6, 0.15))) | set(rng.choice(("", "a", "d")))
                hold = int(np.exp(rng.uniform(np.log(2), np.log(20))))
            hold -= 1
            yield Action(keys)
        else:
            yield Action({"s"} if mood == "stand" else _steer(env, aside))


def _steer(env, aside):
    """The key that turns towards the road ahead, `aside` radians off it."""
    x, y = env.car.hull.position
    road = np.array([place[2:] for place in env.track])
    ahead = road[(np.argmin(((road - (x, y)) ** 2).sum(1)) + _AHEAD) % len(road)] - (x, y)
    turn = np.arctan2(-ahead[0], ahead[1]) - env.car.hull.angle
    turn = (turn + np.pi) % (2 * np.pi) - np.pi + aside
    return {"a"} if turn > 0.08 else {"d"} if turn < -0.08 else set()


def _throttle(env, cruise):
    speed = np.hypot(*env.car.hull.linearVelocity)
    return {"s"} if speed > 1.3 * cruise else {"w"} if speed < cruise else set()

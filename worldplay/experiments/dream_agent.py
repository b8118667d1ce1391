"""An agent learns to drive in a dream and is tested in the real game; a command of its own."""
import logging
import time
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from worldplay.errors import WorldError
from worldplay.files import read_json, writable_folder, write_json, write_picture, write_text
from worldplay.log import leave, run_command, track

log = logging.getLogger(__name__)

GAME = "gym:worldplay.envs.car_racing:CarRacing"
_TEST = 1_000_000  # seeds from here on: tracks that no world, reader or agent has seen, noise of dreams
_FEWEST = 2048  # frames of one update of the agent
_TRIED, _TRIES = 2_000_000, 4  # seeds on which the best constant action is found, and how many
_PLACES = {"real": "real game", "dream": "dream"}
_PLAYERS = {"random": "random actions", "constant": "best constant action", "driver": "scripted driver",
            "dream": "PPO, learned in the dream", "real": "PPO, learned in the real game"}
_ROWS = {("dream", "dream"): "learned in\nthe dream,\ndreaming", ("dream", "real"): "the same,\nreal game",
         ("real", "real"): "learned in\nreal game,\nreal game"}
_SHOWN, _SCALE = 8, 2  # frames of a row of the picture, and how large


@dataclass(frozen=True, kw_only=True)
class DreamAgent:
    """Two agents learn to drive CarRacing from as many frames, one in a dream, one in the real game; both are
    tested in the real game, beside random actions, the best constant one and the scripted driver.

    What OUT holds already is not made again: reward.json, dream.json, real.json, with the options and the
    world in options.json.
    """
    out: Path
    """Folder for report.json, table.md, drives.png, and the agents as Stable-Baselines3 saves them."""
    world: Annotated[str, tyro.conf.arg(metavar="WORLD")] = "car-racing"
    """The learned world: car-racing, or the folder of another one of the same game."""
    frames: int = 64_000
    """Frames that each agent learns from."""
    watched: int = 8_000
    """Frames of real play that the reader of rewards is fitted to; half as many more test it."""
    episodes: int = 24
    """Episodes of each test, of 13 seconds."""
    seed: int = 0
    """Of what the agents begin with and draw."""

    def run(self):
        """Write what the fields' help says.

            Raises ValueError for too few frames or episodes, where Stable-Baselines3 is not installed, and
            for other options or another world than OUT was made with; WorldError("not_found") for a world of
            another game.
        """
        for name, least in (("frames", _FEWEST), ("watched", 2000), ("episodes", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name} {getattr(self, name)}: expected at least {least}")
        if not find_spec("stable_baselines3"):
            raise ValueError('Stable-Baselines3 is not installed (pip install ".[agents]" in the checkout)')
        writable_folder(self.out, "the agents")
        Experiment(self).run()


class Experiment:
    """The parts of it, in their order."""

    def __init__(self, options):
        import worldplay
        self.options, self.out = options, Path(options.out)
        self.world = worldplay.load_world(options.world)
        self.game = self.world.config.env
        if not (self.game or "").startswith(GAME):
            raise WorldError("not_found", f"{self.world.name} is no world of {GAME}: the actions, the driver "
                             "and the reward are that game's")

    def run(self):
        self._keep_options()
        reader, reading = self._reader()
        agents, learned = {}, {}
        for place, plays in (("dream", partial(self._dreams, reader)), ("real", self._real)):
            agents[place], learned[place] = self._agent(place, plays)
        info = {name: self.world.info[name] for name in ("device_name", "dtype", "steps", "world_hash")}
        options = {name: value for name, value in asdict(self.options).items() if name != "out"}
        report = {"options": options, "world": {"name": self.world.name, **info},
                  "reward": reading, "learned": learned} | self._test(reader, agents)
        write_json(self.out / "report.json", report)
        write_text(self.out / "table.md", table(report))
        print(table(report))

    def _keep_options(self):
        """Write options.json where no part is made yet; else raise ValueError for one that was another."""
        path = self.out / "options.json"
        given = {name: getattr(self.options, name) for name in ("frames", "watched", "seed")}
        given["world_hash"] = self.world.info["world_hash"]
        if not any((self.out / f"{part}.json").exists() for part in ("reward", *_PLACES)):
            write_json(path, given)
        before = read_json(path)
        for name, value in given.items():
            if before.get(name) != value:
                raise ValueError(f"{path} was started with {name} {before.get(name)}, now it is {value}; go "
                                 "on with the same, or give another --out")

    def _reader(self):
        """(RewardReader, its agreement with the real reward); of a file where there is one."""
        from safetensors.torch import load_file, save_file

        from worldplay.envs import open_env
        from worldplay.experiments import reward_reader as rewards
        weights, figures = self.out / "reward.safetensors", self.out / "reward.json"
        if figures.exists():
            reader = rewards.RewardReader(self.world.frame_size)
            reader.load_state_dict(load_file(weights))
            return reader.eval(), read_json(figures)
        game = open_env(self.game)
        drives = rewards.watch(game, self.world.codec, self.options.watched)
        others = rewards.watch(game, self.world.codec, self.options.watched // 2, held_out=True)
        game.close()
        reader = rewards.fit_reader(drives)
        reading = {"frames": sum(len(each.frames) for each in drives),
                   "held_out": rewards.agreement(reader, others),
                   "dreamed": rewards.agreement_dreamed(reader, self.world, others)}
        save_file(reader.state_dict(), weights)
        write_json(figures, reading)
        return reader, reading

    def _dreams(self, reader, num=None):
        from worldplay.envs.gymnasium import DreamVectorEnv
        from worldplay.experiments.driving import DreamDrives
        from worldplay.experiments.ppo import PLAYS, TogetherVecEnv
        dreams = DreamVectorEnv(self.world.batch(num or PLAYS))
        return TogetherVecEnv(DreamDrives(dreams, self.world.action_space, reader.read))

    def _real(self, num=None):
        from worldplay.experiments.ppo import PLAYS, real_plays
        return real_plays(self.game, num or PLAYS)

    def _agent(self, place, plays):
        """(the agent that learned there, what that took); of a file where there is one."""
        from worldplay.experiments import ppo
        from worldplay.experiments.driving import HOLD
        saved, figures = self.out / f"{place}.zip", self.out / f"{place}.json"
        if figures.exists():
            return ppo.PPO.load(saved), read_json(figures)
        log.info("an agent learns in the %s from %d frames", _PLACES[place], self.options.frames)
        start, env = time.perf_counter(), plays()
        agent, curve = ppo.learn(env, frames=self.options.frames, seed=self.options.seed)
        took = {"frames": agent.num_timesteps * HOLD, "seconds": time.perf_counter() - start,
                "returns": curve}
        env.close()
        agent.save(saved)
        write_json(figures, took)
        return agent, took

    def _test(self, reader, agents):
        """{players: {name: {real, dream: figures}}, constant, carried_over}; drives.png beside it."""
        import torch

        from worldplay.eval.bootstrap import interval
        from worldplay.experiments.driving import KEYS
        from worldplay.experiments.ppo import drive_episodes
        torch.manual_seed(0)  # agents draw their actions from torch's random numbers
        constant, draws = self._best_constant(), np.random.default_rng(0)
        players = {"random": lambda seen: draws.integers(len(KEYS), size=len(seen)),
                   "constant": lambda seen: np.full(len(seen), constant)}
        players |= {name: lambda seen, agent=agent: agent.predict(seen)[0] for name, agent in agents.items()}
        figures, shown = {name: {} for name in _PLAYERS}, {}
        for place, plays in (("real", self._real), ("dream", partial(self._dreams, reader))):
            for name, choose in track(players.items(), desc=f"test in the {_PLACES[place]}", unit="player"):
                env = plays(self.options.episodes)
                returns, frames, tiles = drive_episodes(env, choose, seed=_TEST)
                env.close()
                starts = np.arange(len(returns))
                starts = starts % len(self.world.scenes) if place == "dream" else starts
                figures[name][place] = _figures(returns, tiles, starts)
                if place == "real":
                    figures[name][place]["read"] = self._read_off(reader, frames)
                shown[name, place] = frames[np.argsort(returns)[len(returns) // 2]]
        figures["driver"]["real"] = _figures(*self._driver(), np.arange(self.options.episodes))
        write_picture(self.out / "drives.png", _sheet([(text, shown[key]) for key, text in _ROWS.items()]))
        random, *gained = (np.array(figures[name]["real"]["returns"]) for name in ("random", "dream", "real"))
        dream, real = (each - random for each in gained)
        share = interval(lambda picks: dream[picks].mean() / real[picks].mean(), np.arange(len(random)))
        return {"players": figures, "constant": "+".join(KEYS[constant]) or "nothing",
                "carried_over": dict(zip(("share", "low", "high"), share))}

    def _read_off(self, reader, frames):
        """Mean return that is read off the pictures of real episodes, each uint8 [1 + actions H W 3]."""
        from worldplay.experiments.reward_reader import through
        shown = (through(self.world.codec, episode) for episode in frames)
        return float(np.mean([reader.read(episode[:-1], episode[1:]).sum() for episode in shown]))

    def _best_constant(self):
        """The action that pays most if nothing else is done, on other tracks."""
        from worldplay.experiments.driving import KEYS
        from worldplay.experiments.ppo import drive_episodes
        paid = []
        for k in range(len(KEYS)):
            env = self._real(_TRIES)
            paid.append(drive_episodes(env, lambda seen, k=k: np.full(len(seen), k), seed=_TRIED)[0].mean())
            env.close()
        return int(np.argmax(paid))

    def _driver(self):
        """(returns, tiles) of the scripted driver, who chooses at every frame."""
        from worldplay.action import Action
        from worldplay.envs import open_env
        from worldplay.envs.driver import drive
        from worldplay.experiments.driving import EPISODE, HOLD, ZOOM
        game, returns, tiles = open_env(self.game), [], []
        for i in track(range(self.options.episodes), desc="scripted driver", unit="episode"):
            game.reset(seed=_TEST + i)
            for _ in range(ZOOM):
                list(game.step(Action()))
            total = 0.0
            for action in islice(drive(game, _TEST + i), EPISODE * HOLD):
                try:
                    list(game.step(action))
                except WorldError as error:
                    if error.kind != "ended":
                        raise
                    break
                total += game.reward
            returns.append(total)
            tiles.append(game.env.unwrapped.tile_visited_count)
        game.close()
        return np.array(returns), np.array(tiles)


def _figures(returns, tiles, starts):
    """starts: int [n], the track or scene of each episode; those of one say little of others."""
    from worldplay.eval.bootstrap import interval
    mean, low, high = interval(lambda picks: np.mean(returns[picks]), starts)
    return {"mean": mean, "low": low, "high": high, "returns": [float(each) for each in returns],
            "tiles": None if tiles is None else float(tiles.mean())}


def _sheet(rows):
    """uint8 [h w 3]: frames of each drive, evenly spread; the last of one that ends before."""
    from worldplay.eval.pictures import contact_sheet
    from worldplay.experiments.driving import EPISODE
    actions = np.linspace(EPISODE // _SHOWN, EPISODE, _SHOWN).astype(int)
    larger = [(text, frames[np.minimum(actions, len(frames) - 1)].repeat(_SCALE, 1).repeat(_SCALE, 2))
              for text, frames in rows]
    return contact_sheet(larger, [f"action {number}" for number in actions])


def table(report):
    """A report as Markdown."""
    lines = ["| | real game: return | 95 % | tiles | return as read | dream: return as read | 95 % |",
             "|---|---:|---:|---:|---:|---:|---:|"]
    for name, title in _PLAYERS.items():
        title += f" ({report['constant']})" if name == "constant" else ""
        real, dream = (report["players"][name].get(place) for place in ("real", "dream"))
        read = f"{real['read']:.0f} | {_mean(dream)}" if dream else " | | "
        lines.append(f"| {title} | {_mean(real)} | {real['tiles']:.1f} | {read} |")
    over, learned = report["carried_over"], report["learned"]
    times = ", ".join(f"{each['seconds']:.0f} s in the {_PLACES[place]}" for place, each in learned.items())
    return "\n".join([*lines, "", f"Learned from {learned['dream']['frames']} frames each: {times}. Of what "
                      "the agent of the real game gains over random actions there, the dream's gains "
                      f"{over['share']:.0%} ({over['low']:.0%} to {over['high']:.0%}).", ""])


def _mean(figures):
    return f"{figures['mean']:.0f} | {figures['low']:.0f} to {figures['high']:.0f}"


if __name__ == "__main__":
    leave(run_command("dream-agent", lambda: tyro.cli(DreamAgent).run()))

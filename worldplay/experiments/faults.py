"""What pictures and figures of a stage look like when its training goes wrong: one fault a run, or none."""
import json
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from PIL import Image

from worldplay.cores import allowed_cores
from worldplay.data.frame_cache import FrameCache, Rollout, Source, write_frame_cache
from worldplay.engine.loading import load_world
from worldplay.envs import open_env
from worldplay.envs.collect import in_processes, own_world, play_rollout
from worldplay.eval.bootstrap import interval
from worldplay.eval.drift import CURVE, drift, drift_score
from worldplay.eval.fidelity import next_frame, rollout_psnr
from worldplay.eval.pictures import contact_sheet
from worldplay.eval.report import finite
from worldplay.eval.sources import Recording
from worldplay.eval.statistics import psnr
from worldplay.eval.streams import Material, held_out_seeds
from worldplay.experiments.job import Job
from worldplay.files import read_json, replacing, write_json, write_text
from worldplay.log import track
from worldplay.train.recipe import ImageRecipe, refuse

_SHOWN = (1, 4, 16, 32, 48, 64)  # frames of free play in the pictures
# stage -> the case that is right; and what a run of the stage takes from others, part -> case
RIGHT = {"codec": "teacher", "teacher_forcing": "teacher", "causal_cd": "student", "dmd": "dmd",
         "sigma": "student"}
_BEFORE = {"codec": {"data": "teacher"},
           "teacher_forcing": {part: "teacher" for part in ("data", "latents.npy", "codec")}}
_BEFORE["causal_cd"] = _BEFORE["teacher_forcing"] | {"teacher_forcing": "teacher"}
_BEFORE["dmd"] = {"data": "teacher", "latents.npy": "teacher", "bidirectional": "dmd"}
# the stages that it has; of dmd those that go on from the student's world
_RUN = {"codec": ("codec", "teacher_forcing"), "teacher_forcing": ("codec", "teacher_forcing"),
        "causal_cd": ("codec", "teacher_forcing", "causal_cd"), "dmd": ("bidirectional", "dmd")}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One world: right, or with one fault.

    stage    whose pictures show it
    label    of its row in the pictures
    changes  numbers of the recipe that differ, by the names that the command line has
    length   of the stage, as a part of its steps in the recipe
    late     frames by which the actions of its data lag behind the pictures
    teacher  the case whose AR teacher it begins from, where that is not the right one
    played   the case whose world it is, with changes in play alone: nothing is trained
    beside   the case that it is compared with; None is the right one of its stage
    """
    stage: str
    label: str
    changes: dict = field(default_factory=dict)
    length: float = 1.0
    late: int = 0
    teacher: str | None = None
    played: str | None = None
    beside: str | None = None

    @property
    def other(self):
        """`beside`, or the right one."""
        return self.beside or RIGHT[self.stage]


CASES = {
    "teacher": Case(stage="teacher_forcing", label="right"),
    "student": Case(stage="causal_cd", label="right"),
    "dmd": Case(stage="dmd", label="right"),
    "codec-short": Case(stage="codec", label="5 % of\nthe steps", length=0.05),
    "codec-narrow": Case(stage="codec", label="2 channels", changes={"codec.model.channels": 2}),
    "teacher-short": Case(stage="teacher_forcing", label="5 % of\nthe steps", length=0.05),
    "teacher-fifth": Case(stage="teacher_forcing", label="a fifth", length=0.2),
    "teacher-late": Case(stage="teacher_forcing", label="a fifth,\nlate keys", length=0.2, late=6,
                         beside="teacher-fifth"),
    "teacher-clean": Case(stage="teacher_forcing", label="a fifth,\nclean past", length=0.2,
                          beside="teacher-fifth", changes={
                              "context.max_sigma": 0.0, "context.own_steps": 0.0, "context_sigma": 0.0}),
    "student-short": Case(stage="causal_cd", label="5 % of\nthe steps", length=0.05),
    "student-plain": Case(stage="causal_cd", label="half as\nlong, no\naverage", length=0.5,
                          changes={"causal_cd.ema": 0.0}),
    "student-early": Case(stage="causal_cd", label="a third,\nteacher of\n5 %", length=0.3,
                          teacher="teacher-short"),
    "dmd-long": Case(stage="dmd", label="3 times\nas long", length=3.0),
    "dmd-fast": Case(stage="dmd", label="20 times\nthe step", changes={"dmd_loop.optim.lr": 2e-3}),
    "sigma-none": Case(stage="sigma", label="sigma 0", played="student", changes={"context_sigma": 0.0}),
    "sigma-high": Case(stage="sigma", label="sigma 0.5", played="student", changes={"context_sigma": 0.5})}


@dataclass(frozen=True, kw_only=True)
class FaultsRecipe(ImageRecipe):
    """A recipe whose chain is run once without a fault, and once for every fault."""
    num_streams: int = 12
    """Episodes of held-out play that every world is measured on."""
    num_targets: int = 16
    """Frames of each that are predicted one by one."""
    horizon: int = 64
    """Frames of free play of each."""
    walk: int = 300
    """Frames of the three walks: 100, 300, 1000, 3000 or 10000."""

    def check(self, goes_on=False):
        """As ImageRecipe.check; also of a walk that is not measured."""
        super().check(goes_on)
        refuse(self.walk not in CURVE, f"--walk {self.walk}: expected one of {CURVE}")

    def variant(self, name):
        """The recipe of one of CASES."""
        case, recipe = CASES[name], replace(self, name=name, context_walk=0)
        for stage in recipe.stages:
            loop = recipe.loop(stage)
            steps = max(1, round(case.length * loop.steps)) if stage == case.stage else loop.steps
            if stage == "teacher_forcing" and case.stage == "codec":
                steps = 1  # enough for a folder that opens
            if stage == "teacher_forcing" and case.teacher:
                steps = self.variant(case.teacher).loop(stage).steps  # it is done: not one more
            share = float(stage in _RUN[case.stage])
            recipe = replace(recipe, **{f"{stage}_loop": replace(loop, share=share, steps=steps)})
        for flag, value in case.changes.items():
            recipe = changed(recipe, flag, value)
        recipe.check(goes_on=case.stage == "dmd")
        return recipe


def taken(name):
    """{part of a run folder: the case that makes it} of what a case takes from others."""
    case = CASES[name]
    own = {"teacher_forcing": case.teacher} if case.teacher else {}
    return {part: other for part, other in (_BEFORE[case.stage] | own).items() if other != name}


def changed(config, name, value):
    """A copy of a configuration with one number changed; name: dotted, as the command line has it."""
    first, _, rest = name.partition(".")
    return replace(config, **{first: changed(getattr(config, first), rest, value) if rest else value})


class Faults(Job):
    """All cases in one folder, measured on the same held-out play.

    OUT/CASE        the run of a case, and figures.json: what was measured
    OUT/held_out    the play that all are measured on
    OUT/pictures    STAGE.webp: the first sequence of its last sheets; STAGE-play.webp: free play
    OUT/RESULTS.md  the figures of all, in results.json with their intervals
    """

    def __init__(self, recipe, folder, **options):
        """options: of Job."""
        super().__init__(recipe, folder, **options)
        for name, case in CASES.items():
            if not case.played:
                recipe.variant(name)  # refuses now what would end a part hours later

    def parts(self):
        """As Job.parts: a run and its figures for every case."""
        todo = [(name, partial(self._train, name)) for name, case in CASES.items() if not case.played]
        return [*todo, ("held-out play", self._collect),
                *((f"figures of {name}", partial(self._measure, name)) for name in CASES)]

    def finish(self):
        """Write the pictures, the figures, and their table."""
        found = {name: read_json(self.folder / name / "figures.json") for name in CASES}
        for name, case in CASES.items():
            if name != case.other and case.stage != "codec":
                found[name]["play_over"] = {"case": case.other, **self._play_over(name, case.other)}
        write_json(self.folder / "results.json", found)
        write_text(self.folder / self.report, table(found))
        (self.folder / "pictures").mkdir(exist_ok=True)
        for stage in dict.fromkeys(case.stage for case in CASES.values()):
            names = [RIGHT[stage], *(name for name, case in CASES.items()
                                     if case.stage == stage and name not in RIGHT.values())]
            if stage != "sigma":
                self._draw(stage, *self._sheets(stage, names))
            if stage != "codec":
                self._draw(f"{stage}-play", *self._free_play(names))

    # The parts

    def _train(self, name):
        case, folder = CASES[name], self.folder / name
        shared = {part: self.folder / other for part, other in taken(name).items()}
        if case.late:
            shared["data"] = folder  # its own
            if not (folder / "data" / "index.json").exists():
                write_late(self.folder / "teacher" / "data", folder / "data", case.late)
        begun = str(self.folder / "student") if case.stage == "dmd" else None
        return self.train(self.recipe.variant(name), folder, shared=shared, init_from=begun)

    def _collect(self):
        folder, recipe = self.folder / "held_out", self.recipe
        if not (folder / "index.json").exists():
            length = self.recipe.context.window + max(recipe.walk, recipe.horizon)
            tasks = [(recipe.env, length, seed, recipe.player) for seed in held_out_seeds(recipe.num_streams)]
            rollouts = list(track(in_processes(_play, tasks, allowed_cores()), desc="held-out play",
                                  total=len(tasks), unit="episode"))
            world = open_env(recipe.env, trusted=True)
            write_frame_cache(rollouts, folder, world=world, has_poses=False,
                              num_frames=sum(len(rollout.frames) for rollout in rollouts))
            world.close()
        return True

    def _measure(self, name):
        case, folder = CASES[name], self.folder / name
        if (folder / "figures.json").exists():
            return True
        folder.mkdir(exist_ok=True)
        world = load_world(self.folder / (case.played or name), device=self.device.type)
        if case.played:
            world.sampler.context_sigma = case.changes["context_sigma"]
        recipe, source = self.recipe, Recording(self.folder / "held_out")
        player = source.players[0]
        streams = source.streams(player, recipe.num_streams, context=recipe.context.window,
                                 horizon=recipe.horizon)
        streams = replace(streams, actions=late(streams.actions, case.late))
        with track(desc=f"measure {name}", unit="pass") as bar:
            material = Material(world=world, source=source, streams={player: streams}, advance=bar.update,
                                num_targets=recipe.num_targets, num_dreams=recipe.num_streams,
                                walks=(recipe.walk,) * 3)
            found = {"codec_psnr": codec_psnr(material, player)} | (
                {} if case.stage == "codec" else measure(material, player))
            shown = [streams.context - 1 + number for number in _SHOWN if number <= recipe.horizon]
            if case.stage != "codec":
                with replacing(folder / "shown.npz") as temporary, open(temporary, "wb") as file:
                    np.savez(file, real=streams.frames[:, shown], made=material.dreams(player)[:, shown])
        source.close()
        held_out = {} if case.played else _held_out(folder / "metrics.jsonl", case.stage)
        write_json(folder / "figures.json", finite({
            "stage": case.stage, "changes": case.changes, "length": case.length, "late": case.late,
            "held_out": held_out, **found}))
        return True

    def _play_over(self, name, other):
        """{frame: {mean, low, high}}: dB of free play of one case above another's, paired by stream, with the
        95 % interval over the streams."""
        ours, theirs = (np.load(self.folder / each / "shown.npz") for each in (name, other))
        gain = psnr(ours["made"], ours["real"]) - psnr(theirs["made"], theirs["real"])
        found = [interval(lambda picks: column[picks].mean(), np.arange(len(gain))) for column in gain.T]
        return {str(number): dict(zip(("mean", "low", "high"), map(float, bounds)))
                for number, bounds in zip(_SHOWN, found)}

    # The pictures

    def _sheets(self, stage, names):
        """(rows, columns) of contact_sheet: the first sequence of the last sheet of each case."""
        rows = []
        for name in names:
            path = max((self.folder / name / "sheets").glob(f"{stage}_*.png"))
            real, made = first_sequence(np.asarray(Image.open(path).convert("RGB")), self._frame_size)
            rows += [("real", real)] * (not rows) + [(CASES[name].label, made)]
        return rows, [""] * len(rows[0][1])

    def _free_play(self, names):
        """The same of free play, of the stream in which most happens."""
        rows = []
        for name in names:
            shown = np.load(self.folder / name / "shown.npz")
            if not rows:
                steps = np.abs(np.diff(shown["real"].astype(np.int16), axis=1)).mean((1, 2, 3, 4))
                chosen = int(steps.argmax())
                rows.append(("real", shown["real"][chosen]))
            rows.append((CASES[name].label, shown["made"][chosen]))
        return rows, [f"frame {number}" for number in _SHOWN[:len(rows[0][1])]]

    @property
    def _frame_size(self):
        return FrameCache.open(self.folder / "held_out").frame_size

    def _draw(self, name, rows, columns):
        path = self.folder / "pictures" / f"{name}.webp"
        with replacing(path) as temporary, open(temporary, "wb") as file:
            Image.fromarray(contact_sheet(rows, columns)).save(file, "webp", quality=90, method=6)


def codec_psnr(material, player):
    """Mean dB of real frames through the codec and back: those that `measure` predicts one by one."""
    streams = material.streams[player]
    frames = streams.frames[:, streams.context:streams.context + material.num_targets]
    frames = frames.reshape(-1, *frames.shape[2:])
    return float(psnr(material.reconstruct(frames), frames).mean())


def measure(material, player):
    """Figures of one world, named as in docs/eval.md: next_frame, rollout_psnr, drift and its score."""
    walked = drift(material, player)["drift"][str(material.walks[0])]
    scores, play = next_frame(material, player)["next_frame"], rollout_psnr(material, player)
    return {"next_frame": {name: value for name, value in scores.items() if name != "by_stream"},
            "rollout_psnr": play["rollout_psnr"], "rollout_psnr_interval": play["rollout_psnr_interval"],
            "drift": walked | {"score": drift_score(walked)}}


def table(found):
    """Markdown: one row of `found`, {case: figures}, each."""
    def row(name):
        figures = found[name]
        scores, play, walk = (figures.get(key, {}) for key in ("next_frame", "rollout_psnr", "drift"))
        cells = [figures["held_out"].get("loss/student"), figures["held_out"].get("data_error"),
                 figures["codec_psnr"],
                 *(scores.get(f"{key}psnr") for key in ("", "repeat_last_", "shuffled_actions_")),
                 *(play.get(number) for number in ("1", "16", "64")),
                 *(walk.get(key) for key in ("sharpness_ratio", "edge_ratio", "brightness_ratio",
                                             "histogram_distance", "score"))]
        return [name, *("" if cell is None else f"{cell:.3g}" if abs(cell) < 10 else f"{cell:.1f}"
                        for cell in cells)]
    titles = ["case", "held-out loss", "data error", "codec, dB", "next frame, dB", "last again",
              "other keys", "play 1", "play 16", "play 64", "sharpness", "edges", "brightness", "colours",
              "drift score"]
    lines = [titles, ["---"] + ["---:"] * (len(titles) - 1), *map(row, found)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def first_sequence(sheet, frame_size, gap=2):
    """(real, made), uint8 [n H W 3] each: the first two rows of a contact sheet of a stage."""
    height, width = frame_size
    rows = [sheet[top:top + height] for top in (0, height + gap)]
    return tuple(np.stack([row[:, left:left + width] for left in range(0, row.shape[1], width + gap)])
                 for row in rows)


def late(actions, frames):
    """The same actions float32 [... n a], so many frames later; none before."""
    moved = np.zeros_like(actions)
    moved[..., frames:, :] = actions[..., :actions.shape[-2] - frames, :]
    return moved


def write_late(data, folder, frames):
    """Copy the frame cache `data` into `folder` with the actions of every episode so many frames late."""
    cache = FrameCache.open(data)
    rows = [(slice(start, start + length), seed) for start, length, seed in cache.episodes.tolist()]
    source = Source(name=cache.env, action_space=cache.action_space, frame_size=tuple(cache.frame_size),
                    fps=cache.fps)
    write_frame_cache((Rollout(cache.frames[row], late(cache.actions[row], frames), None, seed)
                       for row, seed in rows), folder, world=source, num_frames=len(cache.frames),
                      has_poses=False)


def _play(task):
    env, length, seed, player = task
    return play_rollout(own_world(env, trusted=True), num_frames=length, seed=seed, player=player)


def _held_out(path, stage):
    """The last held-out figures of a stage in a metrics.jsonl, by name."""
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    *_, last = (line for line in lines if line["stage"] == stage and "held_out/loss/student" in line)
    return {name.removeprefix("held_out/"): value for name, value in last.items() if "held_out/" in name}

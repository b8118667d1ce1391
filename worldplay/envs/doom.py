"""The real game, Doom levels with Freedoom's pictures in ViZDoom, as a World with true poses."""
import tempfile
from collections.abc import Callable
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from worldplay.action import ActionSpace
from worldplay.envs.doom_map import Floor, calm_level
from worldplay.envs.gallery import SKY_TEXTURE, WEAPON, gallery_level
from worldplay.errors import WorldError

TICS_PER_SECOND = 35
TICS_PER_FRAME = 2
FRAME_SIZE = (120, 160)
NEEDS_VIZDOOM = "the real Doom worlds need ViZDoom, which is not installed: " \
                'run pip install ".[doom]" in the checkout'

_MOVES = {"w": "MOVE_FORWARD", "s": "MOVE_BACKWARD", "a": "MOVE_LEFT", "d": "MOVE_RIGHT",
          "mouse_left": "ATTACK"}
# no view bob: its phase is hidden from the picture, and the picture should follow the player and nothing else
_CONSOLE = ("movebob", "0"), ("neverswitchonpickup", "1"), ("sv_infiniteammo", "1"), ("con_notifytime", "0")
_ANGLE_UNIT = 360 / 65536
# the start lies this far from every wall: the player's radius of 16 and some view
_START_ROOM = 40
# tics until the player stands: the fall from where the level begins and the weapon being raised
_SETTLE_TICS = 35
_PLAYER = """actor Wanderer : DoomPlayer
{{
    -PICKUP
    +NODAMAGE
    Player.DisplayName "Wanderer"
    {start_items}
}}
"""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One level and what the player can do in it.

    level          level(lumps) gives (bytes of a PWAD, its blocks); lumps is {name: text} to put into it
    keys           keys of its action space
    look_limit     degrees of yaw in one frame that encode to 1.0
    weapon         class names of a weapon and its ammunition, or of a weapon that needs none, or nothing
    sky            texture of the sky, where the level has one
    supersampling  pixels that are rendered along each side of a frame's pixel, their average: 1, 2, 4 or 5
    """
    level: Callable
    keys: tuple[str, ...] = ("w", "a", "s", "d")
    look_limit: float = 12.0
    weapon: tuple[str, ...] = ()
    sky: str = "RSKY1"
    supersampling: int = 1

    @property
    def action_space(self):
        return ActionSpace(self.keys, self.look_limit, look_axes=1)


def _stock_level(wad, lumps, **changes):
    """A level of ViZDoom's scenario folder made calm and bright; `changes` as calm_level takes them."""
    data = Path(_import_vizdoom().scenarios_path, wad).read_bytes()
    return calm_level(data, lumps=lumps, light=255, **{"keep_things": False, "textures": {}} | changes)


SCENARIOS = {
    # the level's own acid floor moves by itself and its stone is dark: still, bright surfaces of three
    # colours instead, and a sky whose clouds tell which way one looks
    "doom-maze": Scenario(level=partial(_stock_level, "health_gathering_supreme.wad", textures={
        "STONE2": "STARGR1", "NUKAGE1": "FLOOR7_1", "CEIL4_1": "F_SKY1"}), sky="RSKY3"),
    # of the weapons the chaingun has the shortest animation, eight tics: little is hidden from the picture
    "doom-arena": Scenario(level=partial(_stock_level, "deathmatch.wad", keep_things=True),
                           keys=("w", "a", "s", "d", "mouse_left"), weapon=("Chaingun", "Clip")),
    # large flat shapes everywhere, so that nothing in it is finer than what supersampling averages away
    "doom-gallery": Scenario(level=gallery_level, keys=("w", "a", "s", "d", "mouse_left"), weapon=(WEAPON,),
                             sky=SKY_TEXTURE, supersampling=4),
}


class DoomWorld:
    """A level of the real game behind the World contract; the engine starts at the first reset.

    pose   float32 [4] after every frame: x, y, z in map units (the player's feet), yaw in degrees to the left
    floor  the level's Floor, None before the first reset
    """

    def __init__(self, name):
        self.name = name
        self._scenario = SCENARIOS[name]
        self.action_space = self._scenario.action_space
        self.frame_size = FRAME_SIZE
        self.fps = TICS_PER_SECOND / TICS_PER_FRAME
        self.scenes = ("start",)
        self.info = {"env": name, "device": "cpu", "path": "vizdoom"}
        self.pose = np.zeros(4, np.float32)
        self.floor = None
        self._game = self._folder = self._seed = None
        self._stepping = False

    def reset(self, scene=None, *, frames=None, actions=None, seed=None):
        """Start at a place and in a direction drawn from `seed`; see World.

            Raises WorldError("bad_scene") for another scene, or for frames: the game cannot start from them.
        """
        if frames is not None or actions is not None:
            raise WorldError("bad_scene", f"{self.name}: the real game cannot start from frames; give a seed")
        if scene not in (None, *self.scenes):
            raise WorldError("bad_scene", f"{self.name}: no scene {scene!r}; there is {self.scenes[0]!r}")
        self._game = self._game or self._open()
        self._seed = self.info["seed"] = seed if seed is not None else self._seed or 0
        rng = np.random.default_rng(self._seed)
        x, y = np.rint(self.floor.draw(rng, room=_START_ROOM)).astype(int)
        yaw = rng.uniform(-180, 180)
        idle = [0.0] * len(self.action_space.keys)
        with self._running() as game:
            game.set_seed(int(self._seed) % 2**31)
            game.new_episode()
            game.send_game_command(f"warp {x} {y}")
            game.make_action([*idle, 0.0], _SETTLE_TICS)
            game.make_action([*idle, _turn(yaw)], 1)
            game.make_action([*idle, 0.0], 1)
        self._stepping = False
        return self._look()[None]

    def step(self, action):
        """Yield the frame that `action` causes, two tics later; see World."""
        if self._game is None:
            raise WorldError("ended", f"{self.name}: reset before the first step")
        if self._stepping:
            raise WorldError("unfinished_step", f"{self.name}: the previous step was not run to its end")
        self._stepping = True
        with self._running() as game:
            game.make_action(self._buttons(action), TICS_PER_FRAME)
        yield self._look()
        self._stepping = False

    def skip(self, actions):
        """Play Actions without their frames and poses: 4 to 60 times as fast as `step`, to the same end."""
        with self._running() as game:
            for action in actions:
                game.set_action(self._buttons(action))
                game.advance_action(TICS_PER_FRAME, False)

    def close(self):
        """Stop the engine; calling it twice is fine."""
        if self._game is not None:
            self._game.close()
            self._folder.cleanup()
            self._game = None

    def _buttons(self, action):
        """What the engine takes for a tic of an Action."""
        action = self.action_space.fit(action)
        return [*(float(key in action.keys) for key in self.action_space.keys),
                _turn(action.look[0] / TICS_PER_FRAME)]

    @contextmanager
    def _running(self):
        vizdoom = _import_vizdoom()
        try:
            yield self._game
        except (vizdoom.ViZDoomErrorException, vizdoom.ViZDoomUnexpectedExitException,
                vizdoom.ViZDoomIsNotRunningException) as error:
            self.close()
            raise WorldError("ended", f"{self.name}: the engine stopped ({' '.join(str(error).split())}); "
                                      "reset starts it again") from error

    def _look(self):
        state = self._game.get_state()
        self.pose = state.game_variables.astype(np.float32)
        return area_average(state.screen_buffer, self._scenario.supersampling)

    def _open(self):
        vizdoom = _import_vizdoom()
        scenario = self._scenario
        items = (f'Player.StartItem "{item}", {amount}' for item, amount in zip(scenario.weapon, (1, 200)))
        lumps = {"DECORATE": _PLAYER.format(start_items="\n    ".join(items)),
                 "KEYCONF": "clearplayerclasses\naddplayerclass Wanderer\n"}
        lumps["MAPINFO"] = f'map MAP01 "{self.name}"\n{{\nsky1 = "{scenario.sky}"\n}}\n'
        level, blocks = scenario.level(lumps)
        self.floor = Floor(blocks)
        # the engine keeps the level open and writes its settings beside it
        self._folder = tempfile.TemporaryDirectory(prefix="worldplay-")
        path = Path(self._folder.name, "level.wad")
        path.write_bytes(level)
        return _start(vizdoom, path, scenario)


def area_average(picture, size):
    """uint8 [h w 3], a copy: the rounded means of `size` x `size` pixels of a picture [h*size w*size 3]."""
    return np.array(Image.fromarray(picture).reduce(size))


def _turn(degrees):
    # the game rounds a turn down to 1/65536 of a circle; the half makes that the nearest one
    return (round(degrees / _ANGLE_UNIT) + 0.5) * _ANGLE_UNIT if degrees else 0.0


def _start(vizdoom, level, scenario):
    game = vizdoom.DoomGame()
    game.set_doom_game_path(str(Path(vizdoom.__file__).parent / "freedoom2.wad"))
    game.set_doom_scenario_path(str(level))
    game.set_doom_config_path(str(level.with_name("settings.ini")))
    game.set_doom_map("map01")
    game.set_doom_skill(3)
    game.set_mode(vizdoom.Mode.PLAYER)
    game.set_window_visible(False)
    game.set_sound_enabled(False)
    height, width = (side * scenario.supersampling for side in FRAME_SIZE)
    game.set_screen_resolution(getattr(vizdoom.ScreenResolution, f"RES_{width}X{height}"))
    game.set_screen_format(vizdoom.ScreenFormat.RGB24)
    game.set_render_hud(False)
    game.set_render_crosshair(False)
    game.set_render_messages(False)
    game.set_render_screen_flashes(False)
    game.set_render_decals(False)
    game.set_render_particles(False)
    game.set_render_weapon(bool(scenario.weapon))
    buttons = [getattr(vizdoom.Button, _MOVES[key]) for key in scenario.keys]
    game.set_available_buttons([*buttons, vizdoom.Button.TURN_LEFT_RIGHT_DELTA])
    variable = vizdoom.GameVariable
    game.set_available_game_variables([variable.POSITION_X, variable.POSITION_Y, variable.POSITION_Z,
                                       variable.ANGLE])
    game.set_episode_timeout(0)
    game.add_game_args(" ".join(f"+{name} {value}" for name, value in _CONSOLE))
    try:
        with chdir(level.parent):  # the engine leaves files where it starts
            game.init()
    except vizdoom.ViZDoomErrorException as error:
        raise WorldError("device", f"ViZDoom did not start: {' '.join(str(error).split())}") from error
    return game


def _import_vizdoom():
    try:
        import vizdoom
    except ImportError:
        raise WorldError("not_found", NEEDS_VIZDOOM) from None
    return vizdoom

"""Gymnasium's CarRacing without what nobody sees: equal pictures in a third of the time."""
import math

from gymnasium.envs.box2d import car_racing

_STEPS = 2  # of the game for a frame
_WIDEST = car_racing.MAX_SHAPE_DIM / (car_racing.ZOOM * car_racing.SCALE)  # a shape's diagonal, in units
_FARTHEST = math.hypot(car_racing.WINDOW_W / 2, car_racing.WINDOW_H * 3 / 4)  # pixels from car to a corner
_GRASS = [[((x + 1) * car_racing.GRASS_DIM, y * car_racing.GRASS_DIM),
           (x * car_racing.GRASS_DIM, y * car_racing.GRASS_DIM),
           (x * car_racing.GRASS_DIM, (y + 1) * car_racing.GRASS_DIM),
           ((x + 1) * car_racing.GRASS_DIM, (y + 1) * car_racing.GRASS_DIM)]
          for x in range(-20, 20, 2) for y in range(-20, 20, 2)]  # as its own rendering lists them


class CarRacing(car_racing.CarRacing):
    """Gymnasium's CarRacing at 25 frames a second: an action holds for two steps, and the second is drawn.

    Of its shapes only those are drawn that can reach into the window; the pictures are equal.

    steps  that an action holds for; whoever wants fewer pictures raises it
    """
    steps = _STEPS
    metadata = {**car_racing.CarRacing.metadata, "render_fps": car_racing.FPS / _STEPS}
    _is_drawn = True

    def step(self, action):
        """(observation, reward of all steps, terminated, truncated, info), as gymnasium.Env."""
        total = 0.0
        for i in range(self.steps):
            self._is_drawn = action is None or i == self.steps - 1  # reset steps without an action, to see
            observation, reward, terminated, truncated, info = super().step(action)
            total += reward
            if action is None or terminated:
                break
        if not self._is_drawn:
            self._is_drawn = True
            observation = self.state = self._render("state_pixels")
        return observation, total, terminated, truncated, info

    def _render(self, mode):
        return super()._render(mode) if self._is_drawn else None

    def _render_road(self, zoom, translation, angle):
        edge = car_racing.PLAYFIELD
        field = [(edge, edge), (edge, -edge), (-edge, -edge), (-edge, edge)]
        self._draw_colored_polygon(self.surf, field, self.bg_color, zoom, translation, angle, clip=False)
        for poly in self._near(_GRASS, zoom):
            self._draw_colored_polygon(self.surf, poly, self.grass_color, zoom, translation, angle)
        for poly, color in self._near(self.road_poly, zoom, lambda piece: piece[0]):
            self._draw_colored_polygon(self.surf, poly, [int(c) for c in color], zoom, translation, angle)

    def _near(self, shapes, zoom, outline=lambda shape: shape):
        """Of these shapes, in their order, those that may reach into the window."""
        (x, y), reach = self.car.hull.position, (_FARTHEST / zoom + _WIDEST) ** 2
        return [shape for shape in shapes
                if (outline(shape)[0][0] - x) ** 2 + (outline(shape)[0][1] - y) ** 2 < reach]

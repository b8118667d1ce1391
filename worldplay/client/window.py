"""The pygame window: a frame scaled with its aspect kept, fullscreen, and the captured mouse."""
import os
import sys

import pygame

from worldplay.client import theme

REPEAT_MS = (400, 35)  # a key held down while writing: until it repeats, and from then on
MIN_SIZE = (560, 440)  # what the pause screen needs
GAP = 8  # pixels between pictures side by side
BORDERS = (16, 80)  # pixels that title bar, borders and a panel of the desktop take at most, across and down


class NoDisplay(OSError):
    """There is no screen to open a window on."""


class Window:
    """The client's only window: draw to the pygame Surface `surface`, then show it with `flip`."""

    def __init__(self, size, *, fullscreen=False, scaling="smooth"):
        """size     (width, height) in pixels when not fullscreen, less where the desktop is smaller
        scaling  "smooth" or "whole", see Settings

            Raises NoDisplay where there is no video driver.
        """
        self.scaling, self.is_fullscreen = scaling, fullscreen
        try:
            _init_display()
            self.window_size = within(pygame.display.get_desktop_sizes()[0], size)
            # hidden until it has its surface: SDL may make the whole window anew for that
            self._window = pygame.Window("worldplay", self.window_size, resizable=True, hidden=True,
                                         fullscreen_desktop=fullscreen)
            self._window.get_surface()
        except pygame.error as error:
            pygame.display.quit()
            raise NoDisplay(f"no display to open a window on ({error}); play on a machine with a screen, "
                            "or use --headless --script SCRIPT --out CLIP.mp4") from None
        pygame.font.init()
        pygame.key.stop_text_input()  # which SDL begins with: an input method would take the keys that play
        self._window.minimum_size = MIN_SIZE
        self._window.set_icon(pygame.image.load(theme.assets() / "icon.png"))
        self._window.show()

    @property
    def surface(self):
        """The surface to draw on; another one after the size changed."""
        return self._window.get_surface()

    def set_title(self, text):
        self._window.title = text

    def draw(self, *frames):
        """Scale frames, uint8 [H W 3] RGB, side by side into the middle of the surface; borders are black.

        Returns their pygame.Rects.
        """
        surface = self.surface
        height, boxes = surface.get_height(), []
        width = (surface.get_width() - GAP * (len(frames) - 1)) // len(frames)
        scale = pygame.transform.smoothscale if self.scaling == "smooth" else pygame.transform.scale
        for i, frame in enumerate(frames):
            box = pygame.Rect(0, 0, *fit(frame.shape[1::-1], (width, height), self.scaling))
            box.center = i * (width + GAP) + width // 2, height // 2
            boxes.append(box)
        if boxes[0].size != surface.get_size():
            surface.fill((0, 0, 0))
        for frame, box in zip(frames, boxes):
            # frombuffer shares the frame's memory; only the small picture is converted to the display's
            # format
            picture = pygame.image.frombuffer(frame, frame.shape[1::-1], "RGB").convert(surface)
            scale(picture, box.size, surface.subsurface(box))
        return boxes

    def flip(self):
        """Show what was drawn."""
        self._window.flip()

    def resized(self, size):
        """The player has pulled at the window; size is remembered for the next time."""
        if not self.is_fullscreen:
            self.window_size = tuple(size)

    def toggle_fullscreen(self):
        """The same window, so neither focus nor mouse are lost on the way."""
        self.is_fullscreen = not self.is_fullscreen
        if self.is_fullscreen:
            self._window.set_fullscreen(desktop=True)
        else:
            self._window.set_windowed()

    def capture_mouse(self, is_captured):
        """Take the mouse for turning: no pointer, motion without end; or give it back."""
        pygame.mouse.set_relative_mode(is_captured)
        self._window.grab_mouse = is_captured

    def take_text(self, is_taken):
        """Let keys write: TEXTINPUT events come, and a key held down repeats; or no longer."""
        if is_taken:
            pygame.key.start_text_input()
            pygame.key.set_repeat(*REPEAT_MS)
        else:
            pygame.key.stop_text_input()
            pygame.key.set_repeat()

    def clipboard(self):
        """The text in the clipboard, "" where there is none."""
        try:
            return pygame.scrap.get_text()
        except pygame.error:
            return ""

    def close(self):
        self._window.destroy()
        pygame.display.quit()


def _init_display():
    """Raises pygame.error where there is no screen, which SDL itself covers up with its offscreen driver."""
    is_chosen = "SDL_VIDEODRIVER" in os.environ
    if sys.platform == "linux" and not is_chosen and not {"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ):
        raise pygame.error("neither DISPLAY nor WAYLAND_DISPLAY is set")
    pygame.display.init()
    if pygame.display.get_driver() in ("dummy", "offscreen") and not is_chosen:
        raise pygame.error("no video driver")
    if pygame.display.get_driver() == "x11":
        # Else SDL copies the finished picture through OpenGL, which without a GPU is software on our cores,
        # and waits for the linker's lock while torch's libraries are loaded.
        os.environ.setdefault("SDL_FRAMEBUFFER_ACCELERATION", "0")


def within(desktop, size):
    """The largest (width, height) up to `size` at which a window with its title bar fits a desktop."""
    return tuple(min(length, max(least, room - border))
                 for length, least, room, border in zip(size, MIN_SIZE, desktop, BORDERS))


def fit(picture, screen, scaling):
    """(width, height) at which a picture fills a screen with its aspect kept.

    "whole" takes the largest whole multiple that fits, and shrinks freely where not even one does.
    """
    ratio = min(screen[0] / picture[0], screen[1] / picture[1])
    if scaling == "whole" and ratio >= 1:
        ratio = int(ratio)
    return max(1, round(picture[0] * ratio)), max(1, round(picture[1] * ratio))


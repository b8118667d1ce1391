"""A clip replayed in a world of the player's choice: its first frames are the past, its actions follow."""
from worldplay.client.pages import Page, Row
from worldplay.client.worker import Reset
from worldplay.data.file_start import other_controls
from worldplay.worlds import zoo

PAST = 8  # frames of the clip's beginning that are given, so that its motion goes on; the rest is made


class ReplayPage(Page):
    """The worlds on this machine; of one that does not fit it is said why."""
    title = "Replay in a world"
    has_pictures = True

    def __init__(self, clip, screen, commands, reopening):
        """clip: worldplay.data.clip.Clip; reopening: worldplay.client.settings_page.Reopening, or None."""
        super().__init__()
        self._clip, self._screen, self._commands, self._reopening = clip, screen, commands, reopening
        self._cards = [card for card in zoo.cards() if card.is_playable] if reopening else []

    def make_rows(self):
        rows = [self._row(card) for card in self._cards]
        return rows or [Row(label="No world is here", enter=lambda: None)]

    def _row(self, card):
        pictures = sorted((card.folder / "scenes").glob("*.png"))
        problem = self._problem(card)
        is_same = card.name == self._clip.sidecar["world"]
        return Row(label=card.name, value="does not fit" if problem else "its own" if is_same else "",
                   picture=pictures[0] if pictures else None, is_alert=bool(problem),
                   says=problem or "Enter opens it, and plays the clip's actions there",
                   details=(f"{card.frame_size[1]} x {card.frame_size[0]}, {card.fps:g} frames a second",
                            f"the clip: {self._clip.sidecar['fps']:g}, in {self._clip.sidecar['world']}"),
                   enter=lambda: self._replay(card, problem))

    def _problem(self, card):
        """Why the clip cannot be replayed in a world, in a few words; "" where it can."""
        if self._clip.sidecar.get("is_rollout") or self._clip.latents_per_action != card.frames_per_chunk:
            return "The actions of the clip last for another number of frames than those of this world"
        problem = other_controls(self._clip, card.action_space)
        return problem and f"{problem[0].upper()}{problem[1:]}"

    def _replay(self, card, problem):
        if problem:
            self._screen.notify(f"{card.name} does not fit: {problem}")
            return
        opening = self._reopening.opening(world=card.name, real=False, scene=None, image=None, prompt=None,
                                          steps=None)
        self._commands.reopen(opening, start_of(self._clip))


def start_of(clip):
    """The Reset that begins with the first frames of a Clip and has its later actions ahead."""
    at = clip.step_end(min(PAST - 1, max(0, clip.num_frames // 2)))
    records = clip.sidecar["frames"]
    ahead = clip.actions[records[at]["step"] + 1:records[-1]["step"] + 1]
    return Reset(file=clip.path, at=at, ahead=tuple(ahead))

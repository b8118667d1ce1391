"""Changing the world's text while playing: the text to be handed to the world."""


class Prompting:
    """pending  text to hand to the world as soon as it is idle, or None; the loop takes it
    draft    the text last submitted, until the world shows it; None is the world's own
    """

    def __init__(self):
        self.pending, self.draft = None, None

    def submit(self, text):
        """The player wants the world to show this."""
        self.pending = self.draft = text

    def take_pending(self):
        """The text to hand to the world now."""
        text, self.pending = self.pending, None
        return text

    def shown(self, text):
        """The world shows the text from its next step on."""
        if self.draft == text:
            self.draft = None

"""Play a learned world: python play.py [WORLD]; see --help."""
from worldplay.cli.play import main
from worldplay.log import leave

if __name__ == "__main__":
    leave(main())

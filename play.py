"""Play a learned world: python play.py [WORLD]; see --help."""
import sys

from worldplay.app import main

if __name__ == "__main__":
    sys.exit(main())

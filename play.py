"""Play a learned world: python play.py [WORLD]; see --help."""
from worldplay.cli.play import main
from worldplay.cli.process import run_process

if __name__ == "__main__":
    run_process(main)

"""python -m worldplay: the commands."""
from worldplay.cli.commands import command

if __name__ == "__main__":
    command()

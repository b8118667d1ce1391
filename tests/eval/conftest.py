"""What several tests of the evaluation share."""
import pytest

from tests.eval.turning import TurningGame


@pytest.fixture(scope="package")
def streams():
    """{player: Streams} of the TurningGame; read only."""
    game = TurningGame()
    return {player: game.streams(player, 6, context=4, horizon=24) for player in game.players}

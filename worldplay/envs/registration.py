"""Names of worldplay's environments in Gymnasium, which reads them when it is imported (pyproject.toml)."""
from gymnasium.envs.registration import register

_REAL = {"DoomMaze": "doom-maze", "DoomArena": "doom-arena", "DoomGallery": "doom-gallery"}


def register_all():
    """Register worldplay/DoomMaze-v0 and the other real games, and worldplay/Dream-v0, a learned world."""
    for title, name in _REAL.items():
        register(id=f"worldplay/{title}-v0", entry_point="worldplay.envs.gymnasium:real_env",
                 kwargs={"name": name})
    register(id="worldplay/Dream-v0", entry_point="worldplay.envs.gymnasium:dream_env",
             vector_entry_point="worldplay.envs.gymnasium:dream_vector_env")

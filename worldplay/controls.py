"""What the player does, as a transformer is told it: the conditions of every chunk, and what they add up to."""
import torch


class ActionControls:
    """Keys and turns as vectors beside the timestep; the state is the camera's heading in token columns, [b 1]."""

    def __init__(self, space, columns_per_degree, dtype):
        self.space, self.columns_per_degree, self.dtype = space, columns_per_degree, dtype

    def start(self, batch, device):
        """The state before the first frame."""
        return torch.zeros(batch, 1, dtype=torch.float64, device=device)

    def conditions(self, columns, vectors, frame):
        """(keyword arguments of Transformer.denoise for the chunk at `frame`, the state after it).

        vectors  float32 [b t a], encoded actions; the one that led to frame 0 is not told
        """
        known = None  # all
        if frame == 0:
            known = (torch.arange(vectors.shape[1], device=vectors.device) > 0).expand(vectors.shape[:2])
        moved = self._moved(columns, vectors)
        return {"actions": vectors.to(self.dtype), "action_mask": known, "columns": moved}, moved[:, -1:]

    def _moved(self, columns, vectors):
        """float64 [b t]: where the camera is after action vectors [b t a] from `columns` on."""
        if not self.columns_per_degree:
            return torch.zeros(vectors.shape[:2], dtype=torch.float64, device=vectors.device)
        yaw = vectors[..., len(self.space.keys)].double()
        return columns + (yaw * self.space.look_limit * self.columns_per_degree).cumsum(dim=1)

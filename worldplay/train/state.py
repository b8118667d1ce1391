"""What a stage needs to go on, as a sharded checkpoint that any number of processes can read."""
import pickle
import shutil
import warnings
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import StorageMeta, TensorStorageMetadata
from torch.distributed.tensor import DTensor, Replicate

from worldplay.errors import WorldError


def save_state(folder, counters, models, optimizers, processes):
    """Write counters {name: number}, models {role: network} and optimizers {role: [optimizer]} as `folder`.

    The folder is written aside and swapped in, so that an interruption leaves the previous one whole. All
    processes call it together.

        Raises OSError where it cannot be written.
    """
    folder = Path(folder)
    draft, old = folder.with_name(folder.name + ".tmp"), folder.with_name(folder.name + ".old")
    if processes.is_first:
        shutil.rmtree(draft, ignore_errors=True)
    processes.wait()
    tensors = _counters(counters) | _models(models) | _optimizers(models, optimizers)
    try:
        with _quiet():
            dcp.save(tensors, checkpoint_id=draft, no_dist=processes.size == 1)
    except (CheckpointException, RuntimeError, OSError) as error:
        raise OSError(f"{draft} cannot be written ({_reason(error)}); {folder} is as it was before: make "
                      "room, and the same command goes on from there") from None
    if processes.is_first:
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        draft.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    processes.wait()


def load_state(folder, models, optimizers, processes):
    """Read into models and optimizers what `save_state` wrote; returns the counters, None where nothing is.

        Raises WorldError where it cannot be read or does not fit.
    """
    folder = Path(folder)
    old = folder.with_name(folder.name + ".old")
    if processes.is_first and not folder.exists() and old.exists():
        old.rename(folder)  # stopped between the two renames
    processes.wait()
    if not folder.exists():
        return None
    try:
        stored = _stored(folder)
        for role, opts in optimizers.items():
            for number, opt in enumerate(opts):
                _make_room(opt, models[role], f"optimizer/{role}/{number}", stored)
        counters = _counters({key.removeprefix("counter/"): 0 for key in stored
                              if key.startswith("counter/")})
        tensors = counters | _models(models) | _optimizers(models, optimizers)
        with _quiet():
            dcp.load(tensors, storage_reader=_Reader(folder), no_dist=processes.size == 1)
    except (CheckpointException, RuntimeError, ValueError, OSError, EOFError) as error:
        raise WorldError(
            "bad_checkpoint", f"{folder} cannot be read ({_reason(error)}); it is damaged or belongs to "
            "other networks: remove it to begin this stage again, or give another --out") from None
    return {key.removeprefix("counter/"): x.item() for key, x in counters.items()}


def _stored(folder):
    """{key: TensorStorageMetadata} of a state; ValueError where that table is damaged in any way."""
    try:
        stored = _Reader(folder).read_metadata().state_dict_metadata
    except Exception as error:
        raise ValueError(f"its table is damaged: {error}") from None
    other = [key for key, x in stored.items() if not isinstance(x, TensorStorageMetadata)]
    if other:
        raise ValueError(f"{other[0]} is no tensor")  # whose bytes PyTorch would unpickle without any limit
    return stored


class _Reader(dcp.FileSystemReader):
    """PyTorch's, whose table is read without running what a stranger may have put into it.

    The table of a distributed checkpoint is a pickle, which can call any function; here only the classes that
    PyTorch's own tables are made of are known. The tensors themselves are read with weights_only.
    """

    def read_metadata(self, *args, **kwargs):
        with open(Path(self.path) / ".metadata", "rb") as file:
            metadata = _TableUnpickler(file).load()
        if metadata.storage_meta is None:
            metadata.storage_meta = StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


class _TableUnpickler(pickle.Unpickler):
    _known = {
        "torch.distributed.checkpoint.metadata": {
            "ChunkStorageMetadata", "Metadata", "MetadataIndex", "StorageMeta", "TensorProperties",
            "TensorStorageMetadata", "BytesStorageMetadata", "_MEM_FORMAT_ENCODING"},
        "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
        "torch.serialization": {"_get_layout"},
        "torch": {"Size", *(name for name, x in vars(torch).items() if isinstance(x, torch.dtype))},
        "pathlib": {"Path", "PosixPath", "PurePosixPath", "PureWindowsPath", "WindowsPath"},
        "pathlib._local": {"Path", "PosixPath", "PurePosixPath", "PureWindowsPath", "WindowsPath"}}

    def find_class(self, module, name):
        if name not in self._known.get(module, ()):
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no table of a training state does")
        return super().find_class(module, name)


def replicated(x):
    """A tensor as it is, or of a sharded one the whole on every process."""
    return x.redistribute(placements=[Replicate()] * x.device_mesh.ndim) if isinstance(x, DTensor) else x


def _counters(counters):
    return {f"counter/{name}": torch.tensor(x, dtype=torch.float64) for name, x in counters.items()}


def _models(models):
    return {f"model/{role}/{name}": x for role, model in models.items()
            for name, x in model.state_dict().items()}


def _optimizers(models, optimizers):
    """What they remember so far, by the names of the parameters."""
    return {f"optimizer/{role}/{number}/{name}/{key}": x
            for role, opts in optimizers.items() for number, opt in enumerate(opts)
            for name, p in models[role].named_parameters() if p in opt.state
            for key, x in opt.state[p].items()}


def _make_room(optimizer, model, prefix, stored):
    """Give an optimizer that has not stepped the tensors that are stored of it, to be read into."""
    for name, p in model.named_parameters():
        for key in [key for key in stored if key.startswith(f"{prefix}/{name}/")]:
            shape, kind = stored[key].size, key.rsplit("/", 1)[1]
            like = replicated(p) if kind in getattr(optimizer, "replicated_state", ()) else p
            optimizer.state[p][kind] = torch.zeros_like(like) if shape == p.shape else torch.zeros(shape)


@contextmanager
def _quiet():
    """Without the warning that there is one process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def _reason(error):
    """The first line of the first cause, which names file or tensor."""
    if isinstance(error, CheckpointException) and error.failures:
        error = next(iter(error.failures.values()))[0]
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__

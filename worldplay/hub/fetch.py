"""Fetch a published world: its files are downloaded, verified, converted, and put into the user's cache."""
import difflib
import errno
import logging
import shutil
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from worldplay.errors import WorldError
from worldplay.files import read_json, replacing, write_json
from worldplay.hub import download
from worldplay.hub.convert import convert_part, convert_transformer
from worldplay.models.configs import TransformerConfig
from worldplay.worlds import catalog, zoo
from worldplay.worlds.catalog import Part, PublishedWorld, Source

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Job:
    """A local file to be made from a published one.

    owner   the world or part that it belongs to
    target  path of the local file, in the owner's folder
    """
    owner: PublishedWorld | Part
    target: Path
    source: Source

    @property
    def size(self):
        """About how many bytes the target will have: two a parameter for a world, the source's size for a
        part; 0 where that is unknown before the download."""
        return 2 * self.owner.num_params if isinstance(self.owner, PublishedWorld) else self.source.size or 0


def fetch(name, *, with_text=True, with_vae=False, tell=None):
    """Fetch a world of catalog.WORLDS with the parts that it needs, or a part alone.

    After a break the same call goes on where it stopped.

    name       of a world, or of catalog.PARTS
    with_text  also the text encoder; without it a world needs files of text rows
    with_vae   also the optional parts (`more_parts`)
    tell       function that is called with the progress as one line of text, a few times a second at most
    Returns    dict: world (the name), folder, was_complete, files, loaded_mib, seconds

        Raises WorldError for a name that is unknown and a file that holds something else, ValueError for a
        part's name with a choice of parts, OSError in one line for all that can happen to a download (see
        `download.load`) and for a disk without room.

    The files stay in the hub's own cache; what is made of them goes to worlds/NAME and parts/NAME in
    zoo.user_cache(), each with a lock.json: repository, revision, size and hash of every file. A later call
    goes by it. A world's config.json comes last, so that it is found when it is whole.
    """
    start, owner = time.monotonic(), _owner(name)
    folder, config = _folder(owner), _config(owner)
    with _one_line(name), _alone(), _heard_by(tell):
        jobs = [job for job in _jobs(owner, with_text, with_vae) if not job.target.is_file()]
        was_complete = not jobs and (config is None or (folder / "config.json").is_file())
        if jobs:
            log.info("%s: %s; licence: %s", owner.name, owner.summary, owner.licence)
        sources = [download.pinned(job.source, _pins(job.owner).get(job.target.name)) for job in jobs]
        located = [download.locate(source, _downloads()) for source in sources]
        loaded = sum(at.bytes_left for at in located)
        _check_space(jobs, located)
        for job, at in zip(jobs, located):
            _pin(job, at.source)
        for job, at in zip(jobs, located):
            _make(job, at)
        if config is not None and not (folder / "config.json").is_file():
            write_json(folder / "config.json", config)
    return {"world": owner.name, "folder": str(folder), "was_complete": was_complete, "files": len(jobs),
            "loaded_mib": round(loaded / 2**20, 1),
            "seconds": round(time.monotonic() - start, 1)}


def _owner(name):
    owners = catalog.WORLDS | catalog.PARTS
    if name in owners:
        return owners[name]
    near = difflib.get_close_matches(str(name), owners, 1)
    meant = f"did you mean {near[0]!r}? " if near else ""
    raise WorldError("not_found", f"{str(name)!r} is no published world; {meant}there are "
                     f"{', '.join(catalog.WORLDS)}")


def _config(owner):
    """What fetch writes as config.json of a catalog entry, a dict; None for a shared part, which has none."""
    return owner.config if isinstance(owner, PublishedWorld) else None


def _jobs(owner, with_text, with_vae):
    if isinstance(owner, Part):
        if with_vae or not with_text:
            raise ValueError(f"--vae and --no-text choose among the parts of a world, and {owner.name} is a "
                             "part; leave them out")
        return _jobs_of(owner, owner.files)
    left_out = set() if with_text else {owner.config["parts"]["text"]}
    parts = [name for name in (*owner.parts, *(owner.more_parts if with_vae else ())) if name not in left_out]
    return [*(job for name in parts for job in _jobs_of(catalog.PARTS[name], catalog.PARTS[name].files)),
            *_jobs_of(owner, {"model.safetensors": owner.source})]


def _jobs_of(owner, files):
    return [Job(owner=owner, target=_folder(owner) / file, source=source) for file, source in files.items()]


def _folder(owner):
    return zoo.user_cache() / ("worlds" if isinstance(owner, PublishedWorld) else "parts") / owner.name


def _downloads():
    return zoo.user_cache() / "downloads"


# The lock file ----------------------------------------------------------------------------------------------


def _pins(owner):
    """{local file name: entry of its source} in the lock file."""
    path = _folder(owner) / "lock.json"
    if not path.is_file():
        return {}
    fields = read_json(path)
    files = fields.get("files") if isinstance(fields, dict) else None
    if not isinstance(files, dict):
        return {}
    return {name: row for name, row in files.items() if isinstance(row, dict)}


def _pin(job, source):
    path = job.target.with_name("lock.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    files = _pins(job.owner) | {job.target.name: download.lock_row(source)}
    write_json(path, {"name": job.owner.name, "licence": job.owner.licence, "files": files})


# The disk ---------------------------------------------------------------------------------------------------


def _check_space(jobs, located):
    """Raise OSError now where a disk has no room for the downloads and the converted files."""
    needed = {}
    for job, at in zip(jobs, located):
        converted = job.size or at.source.size or 0
        for folder, size in ((at.store.parent, at.bytes_left), (job.target.parent, converted)):
            place = next(parent for parent in (folder, *folder.parents) if parent.exists())
            disk = needed.setdefault(place.stat().st_dev, [place, 0])
            disk[1] += size
    for place, size in needed.values():
        free = shutil.disk_usage(place).free
        if size > free:
            raise OSError(f"{place}: {size / 2**30:.1f} GiB are needed to load and to convert, "
                          f"{free / 2**30:.1f} GiB are free; make room, or let HF_HOME name a folder on "
                          "another disk")


@contextmanager
def _alone():
    """Context manager: hold the fetch lock of the user's cache; OSError at once where another fetch has it.

    Two would append to the same partial files.
    """
    from filelock import FileLock, Timeout
    zoo.user_cache().mkdir(parents=True, exist_ok=True)
    lock = FileLock(zoo.user_cache() / "fetch.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise OSError("another fetch is running here; wait for its end") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _heard_by(tell):
    download.Bar.listener = tell
    try:
        yield
    finally:
        download.Bar.listener = None


@contextmanager
def _one_line(name):
    try:
        yield
    except KeyboardInterrupt:
        raise InterruptedError("interrupted; the same command goes on where it stopped") from None
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise OSError(f"{name}: the disk is full; make room, the same command goes on where it "
                          "stopped") from None
        raise


# Making the files -------------------------------------------------------------------------------------------


def _make(job, located):
    for unfinished in job.target.parent.glob(f"{job.target.stem}.*.tmp"):  # a killed fetch left them
        unfinished.unlink()
    path, source = download.load(located)
    _pin(job, source)
    if job.target.suffix == ".safetensors":
        with download.Bar(desc=f"convert {Path(source.file).name}", total=source.size) as bar:
            _convert(job, path, bar.update)
    else:
        with replacing(job.target) as temporary:
            shutil.copyfile(path, temporary)
    if source.url:  # files in the hub's cache are kept
        path.unlink()


def _convert(job, path, progress):
    owner = job.owner
    if isinstance(owner, Part):
        convert_part(path, job.target, num_tensors=owner.num_tensors, num_params=owner.num_params,
                     progress=progress)
        return
    key = convert_transformer(path, job.target, TransformerConfig(**owner.config["transformer"]),
                              prefer_ema=owner.prefer_ema, progress=progress)
    log.info("%s: took the weights %s", owner.name, f"called {key}" if key else "as they are, under no name")

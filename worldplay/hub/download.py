"""Published files: found in the hub's cache or downloaded, resumed after a break, verified by hash."""
import errno
import hashlib
import importlib.util
import io
import os
import re
import sys
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from tqdm import tqdm

from worldplay.log import redraw_seconds
from worldplay.worlds.catalog import Source

# huggingface_hub is imported inside functions: only who fetches waits for it.

_GOES_ON = "the same command goes on where it stopped"


@dataclass(frozen=True, kw_only=True)
class Located:
    """A published file, and where it is or will be on this disk.

    source  with size, revision and sha256 as far as the server, the hub's cache or a lock file have them
    etag    the hub's hash of the content: SHA-256, or git's blob hash for a small file; None: unknown
    path    the file; None: it has to be downloaded
    store   where it is downloaded to
    """
    source: Source
    etag: str | None
    path: Path | None
    store: Path

    @property
    def partial(self):
        """The part of it that an earlier call has downloaded; `hf cache prune` recognises the name."""
        return self.store.with_name(self.store.name + ".worldplay.incomplete")

    @property
    def bytes_left(self):
        """Bytes still to download; 0 where the size is unknown."""
        if self.path or not self.source.size:
            return 0
        return max(0, self.source.size - (self.partial.stat().st_size if self.partial.exists() else 0))


class Bar(tqdm):
    """Progress bar on stderr: bytes, rate and time left; redrawn rarely where stderr is no terminal.

    listener  function that is called with the progress as one line of text, for a window; None: there is none
    """
    listener = None

    def __init__(self, *args, **kwargs):
        interval = min(redraw_seconds(), 1 if Bar.listener else 10)
        usual = {"unit": "B", "unit_scale": True, "mininterval": interval}
        if sys.stderr is None or sys.stderr.closed:
            usual["file"] = io.StringIO()  # the listener still hears of it
        super().__init__(*args, **usual | kwargs)

    def display(self, *args, **kwargs):
        if Bar.listener and self.total:
            size = tqdm.format_sizeof(self.total, "B")
            Bar.listener(f"{(self.desc or '').removesuffix(': ')}, {self.n / self.total:.0%} of {size}")
        return super().display(*args, **kwargs)


def locate(source, folder):
    """Find a Source on this disk, or ask its server for size and hash; nothing is downloaded.

    folder  where a file that is on no hub is downloaded to
    Returns  Located

        Raises OSError: one line saying what is missing, closed or out of reach.
    """
    with _one_line(source):
        return _locate_on_hub(source) if source.repo else _locate_at_url(source, Path(folder))


def load(located):
    """Download what is missing of a file and verify all of it.

    Returns  (path, Source with revision, size and sha256)

        Raises OSError in one line: offline, gone, disk full, interrupted, or another hash than expected; a
        file with another hash is deleted where it was loaded, one that was in the hub's cache before stays.
    """
    source = located.source
    with _one_line(source):
        path = located.path
        if path is None:
            _transfer(located)
            path = located.partial
        sha256 = _verify(located, path)
        if located.path is None:
            os.replace(path, located.store)
            path = located.store if source.url else _enter(source)
    return path, replace(source, sha256=sha256, size=path.stat().st_size)


# Finding ----------------------------------------------------------------------------------------------------


def _locate_on_hub(source):
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.file_download import repo_folder_name
    from huggingface_hub.utils import build_hf_headers
    blobs = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=source.repo, repo_type="model") / "blobs"
    cached = try_to_load_from_cache(source.repo, source.file, revision=source.revision)
    if isinstance(cached, str):
        path = Path(cached)
        etag = Path(os.readlink(path)).name if path.is_symlink() else None
        revision = path.parents[len(Path(source.file).parents) - 1].name
        return Located(source=replace(source, revision=revision), etag=etag, path=path, store=path)
    _check_online()
    answer = get_hf_file_metadata(hf_hub_url(source.repo, source.file, revision=source.revision),
                                  headers=build_hf_headers())
    if not answer.commit_hash or not re.fullmatch(r"\w[\w.-]*", answer.etag or ""):  # the etag names a file
        raise OSError(f"{source.where}: {constants.ENDPOINT} does not answer like a hub; see HF_ENDPOINT and "
                      "the proxy")
    is_lfs = re.fullmatch("[0-9a-f]{64}", answer.etag)
    known = Source(file=source.file, repo=source.repo, revision=answer.commit_hash, size=answer.size,
                   sha256=answer.etag if is_lfs else None)
    for name in ("size", "sha256"):
        expected, there = getattr(source, name), getattr(known, name)
        if expected and there and expected != there:
            raise OSError(f"{source.where}: {name} {there} at revision {answer.commit_hash}, but {expected} "
                          "is expected; it is another file by now, and nothing was loaded")
    known = replace(known, size=known.size or source.size, sha256=known.sha256 or source.sha256)
    return Located(source=known, etag=answer.etag, path=None, store=blobs / answer.etag)


def _locate_at_url(source, folder):
    """Of a file on no hub the catalog has size and hash: no server can be asked for them."""
    path = folder / Path(source.file).name
    if path.is_file():
        return Located(source=source, etag=None, path=path, store=path)
    _check_online()
    return Located(source=source, etag=None, path=None, store=path)


def _check_online():
    from huggingface_hub import constants
    from huggingface_hub.errors import OfflineModeIsEnabled
    if constants.HF_HUB_OFFLINE:
        raise OfflineModeIsEnabled("HF_HUB_OFFLINE is set")
    for protocol in ("http", "https", "all"):
        _check_proxy(f"{protocol.upper()}_PROXY", getproxies().get(protocol, ""))


def _check_proxy(name, address):
    """Raise OSError for a proxy that cannot be used; its address may hold a password, so it is not shown."""
    try:
        parts = urlsplit(address if "://" in address else f"http://{address}")
        is_address = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_address = False
    if not address or is_address and parts.scheme in ("http", "https"):
        return
    if not is_address or parts.scheme not in ("socks5", "socks5h"):
        raise OSError(f"{name} is set to no proxy that can be used; unset it, or give http://HOST:PORT or "
                      "socks5://HOST:PORT")
    if importlib.util.find_spec("socksio") is None:
        raise OSError(f"{name} names a SOCKS proxy, which takes one more package: pip install socksio; or "
                      "unset it")


def _enter(source):
    """Path in the hub's cache of a file whose content has been downloaded; its library makes the links."""
    from huggingface_hub import hf_hub_download
    return Path(hf_hub_download(source.repo, source.file, revision=source.revision))


# Loading ----------------------------------------------------------------------------------------------------


def _transfer(located):
    """Download the rest of a file and append it to the part that is there.

    hf_hub_download begins a file again after a break, which for 11 GB is too much: its http_get, which
    retries and can resume, is used here.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers
    source, partial = located.source, located.partial
    partial.parent.mkdir(parents=True, exist_ok=True)
    url, headers = source.url, {}  # a token is for the hub alone
    if source.repo:
        url, headers = hf_hub_url(source.repo, source.file, revision=source.revision), build_hf_headers()
    if partial.exists() and source.size and partial.stat().st_size > source.size:
        partial.unlink()
    with open(partial, "ab") as file:
        http_get(url, file, resume_size=file.tell(), headers=headers, expected_size=source.size,
                 displayed_filename=Path(source.file).name, tqdm_class=Bar)


def _verify(located, path):
    """SHA-256 of the file; OSError where it, the size or the hub's hash differs from what is expected."""
    source, size = located.source, path.stat().st_size
    digests = {"sha256": hashlib.sha256()}
    if located.etag and len(located.etag) == 40:
        digests["git"] = hashlib.sha1(f"blob {size}\0".encode())
    with open(path, "rb") as file, Bar(desc=f"verify {Path(source.file).name}", total=size) as bar:
        while piece := file.read(2**22):
            for digest in digests.values():
                digest.update(piece)
            bar.update(len(piece))
    found = {name: digest.hexdigest() for name, digest in digests.items()}
    named = located.etag if located.etag and re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", located.etag) else None
    wanted = [hash for hash in (source.sha256, named) if hash]
    wrong = [hash for hash in wanted if hash not in found.values()]
    if not wrong and source.size in (None, size):
        return found["sha256"]
    problem = f"{source.size} bytes expected, {size} found"
    if wrong:
        other = found["git" if len(wrong[0]) == 40 else "sha256"]
        problem = f"hash {wrong[0][:12]}... expected, {other[:12]}... found"
    if located.path is None:
        path.unlink()
        raise OSError(f"{source.where}: {problem}; what was loaded is deleted, the same command loads it "
                      "again")
    raise OSError(f"{source.where}: {problem}; {path.resolve()} is damaged or another file: delete it, then "
                  "the same command loads it again")


@contextmanager
def _one_line(source):
    """Context manager: errors of the hub and the network become an OSError of one line with the remedy."""
    from huggingface_hub import constants, errors
    where, hub = source.where, constants.ENDPOINT
    try:
        yield
    except KeyboardInterrupt:
        raise InterruptedError(f"{where}: interrupted; {_GOES_ON}") from None
    except errors.OfflineModeIsEnabled:
        raise OSError(f"{where} is not in the cache and HF_HUB_OFFLINE is set; unset it, or copy the file "
                      "there") from None
    except errors.GatedRepoError:
        raise OSError(f"{where}: its owner wants you to ask for it; do so at {hub}/{source.repo}, then run "
                      "hf auth login (or set HF_TOKEN)") from None
    except errors.RepositoryNotFoundError:
        raise OSError(f"{where}: the repository is gone, renamed or closed; if you have access, run "
                      "hf auth login (or set HF_TOKEN)") from None
    except (errors.RevisionNotFoundError, errors.RemoteEntryNotFoundError):
        raise OSError(f"{where}: gone from the repository at revision {source.revision or 'main'}") from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if source.repo and status in (401, 403):
            raise OSError(f"{where}: the hub refuses your token ({status}); run hf auth login for another "
                          "one, or leave HF_TOKEN out") from None
        problem = "gone" if status == 404 else f"the server answers {status}"
        raise OSError(f"{where}: {problem}; try again later, {_GOES_ON}") from None
    except errors.HTTPError as error:
        raise OSError(f"{where}: no connection ({type(error).__name__}); {_GOES_ON}") from None
    except errors.LocalEntryNotFoundError:
        raise OSError(f"{where}: no connection; {_GOES_ON}") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(f"{where}: the disk is full; make room, {_GOES_ON}") from None
        if "Consistency check" in str(error):
            raise OSError(f"{where}: the connection ended early; {_GOES_ON}") from None
        raise


def lock_row(source):
    """The entry of a downloaded file in a lock file."""
    return {name: value for name, value in asdict(source).items() if value is not None}


def pinned(source, row):
    """The Source with revision, size and hash of its entry in a lock file, unless that is of another file."""
    if not row or any(row.get(name) != getattr(source, name) for name in ("repo", "url", "file")):
        return source
    same = {name: row.get(name) for name in ("revision", "size", "sha256") if getattr(source, name) is None}
    return replace(source, **same)

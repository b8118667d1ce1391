"""Stand-ins for published files: checkpoints of every layout, and a hub that serves them on this machine."""
import hashlib
import math
import re
import threading
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import torch

from worldplay.hub.convert import StoredTensor, read_index, transformer_shapes
from worldplay.models.configs import TransformerConfig

TINY = TransformerConfig(dim=16, ffn_dim=24, num_heads=2, num_layers=2, in_channels=4, out_channels=4,
                         freq_dim=8, text_dim=12, text_len=5)
COMMIT = "c0ffee" * 6 + "beef"


def tiny_weights(has_camera=False, seed=0):
    """name -> float32 tensor of a published TINY transformer."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator)
            for name, shape in transformer_shapes(replace(TINY, has_camera=has_camera)).items()}


def write_big_checkpoint(path, shapes, seed=0):
    """Write a .pt as published, {"generator_ema": {"model._fsdp_wrapped_module.NAME": float32}}."""
    names = {f"model._fsdp_wrapped_module.{name}": shape for name, shape in shapes.items()}
    with torch._subclasses.FakeTensorMode():
        tensors = {name: torch.empty(shape) for name, shape in names.items()}
    with torch.serialization.skip_data(materialize_fake_tensors=True):
        torch.save({"generator_ema": tensors}, path)
    _, stored = read_index(path)
    rng = np.random.default_rng(seed)
    with open(path, "r+b") as file:
        for x in stored.values():
            file.seek(x.offset)
            for start in range(0, x.num_values, 2**22):
                file.write(rng.standard_normal(min(2**22, x.num_values - start), np.float32))


def first_values(path, x: StoredTensor, count=1000):
    """The first numbers of a stored tensor."""
    count = min(count, math.prod(x.shape))
    with open(path, "rb") as file:
        file.seek(x.offset)
        return torch.frombuffer(bytearray(file.read(count * x.dtype.itemsize)), dtype=x.dtype)


class FakeHub:
    """A hub with one commit, and with the failures that a test asks for.

    files      "OWNER/NAME/FILE" -> bytes, or a memoryview of them
    etags      by the same names, where they are not to be computed at every request
    requests   (method, path, Range header or None) of all that was asked
    cut_after  bytes after which the connection breaks off, once for every number in the list
    status     "OWNER/NAME" -> (HTTP status, X-Error-Code) of a repository that is closed or gone
    false_etag whether the hash it tells is not that of the content
    """

    def __init__(self):
        self.files, self.requests, self.cut_after, self.status, self.false_etag = {}, [], [], {}, False
        self.etags, self.authorization = {}, []

    def etag(self, name):
        """sha256 for weights, git's hash for other files, as the hub tells them."""
        if name in self.etags:
            return self.etags[name]
        content = self.files[name] + (b"x" if self.false_etag else b"")
        if name.endswith((".pt", ".pth", ".safetensors")):
            return hashlib.sha256(content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def serving(hub):
    """URL of the hub while it answers."""
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args):
            pass

        def do_HEAD(self):
            self.answer(False)

        def do_GET(self):
            self.answer(True)

        def answer(self, with_body):
            hub.requests.append((self.command, self.path, self.headers.get("Range")))
            hub.authorization.append(self.headers.get("Authorization"))
            match = re.fullmatch(
                r"/(?P<repo>[^/]+/[^/]+)/(?:resolve|raw)/(?P<revision>[^/]+)/(?P<file>.+)", self.path)
            if not match:  # the hub's library also asks other things
                return self.refuse(404, "EntryNotFound")
            name = f"{match['repo']}/{match['file']}".replace("%2B", "+")
            if match["repo"] in hub.status:
                return self.refuse(*hub.status[match["repo"]])
            if match["revision"] not in ("main", COMMIT):
                return self.refuse(404, "RevisionNotFound")
            if name not in hub.files:
                return self.refuse(404, "EntryNotFound")
            content = hub.files[name]
            start = int((self.headers.get("Range") or "bytes=0-")[6:].split("-")[0])
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("ETag", f'"{hub.etag(name)}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if with_body:
                end = start + hub.cut_after.pop(0) if hub.cut_after else len(content)
                self.wfile.write(content[start:end])
                self.close_connection = end < len(content)

        def refuse(self, status, code):
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def lay_out(cache, repo, files, commit=COMMIT):
    """Write files (path in the repository -> bytes) into the hub's cache as a download of main does."""
    root = cache / f"models--{repo.replace('/', '--')}"
    (root / "blobs").mkdir(parents=True, exist_ok=True)
    (root / "refs").mkdir(exist_ok=True)
    (root / "refs" / "main").write_text(commit)
    for name, content in files.items():
        blob = root / "blobs" / hashlib.sha256(content).hexdigest()
        blob.write_bytes(content)
        pointer = root / "snapshots" / commit / name
        pointer.parent.mkdir(parents=True, exist_ok=True)
        pointer.symlink_to(blob)

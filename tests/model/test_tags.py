"""Weights by open_clip's tags: downloaded once, from a URL or from a hub's cache; what cannot be had is said in a line.

The tags are made up, and what they name lies on this machine: the code on the way there is the one that downloads.
"""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import huggingface_hub.constants
import open_clip.pretrained
import pytest
import torch
from safetensors.torch import save_file

from flora_secure.model.clip import ModelError
from flora_secure.model.loading import load_clip

MEAN = (0.1, 0.2, 0.3)


def weights_of(model: str) -> dict[str, torch.Tensor]:
    """Other than the random ones that a run would draw."""
    return {name: value + 0.5 for name, value in load_clip(model, "none").model.state_dict().items()}


def require_loaded(model: str, tag: str, weights: dict[str, torch.Tensor]) -> None:
    clip = load_clip(model, tag)
    assert clip.mean == MEAN  # the tag's, as its training had it
    found = clip.model.state_dict()
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], value) for name, value in weights.items())


@pytest.fixture
def asked() -> list[str]:
    """Paths that the server was asked for."""
    return []


@pytest.fixture
def server(transformer: str, asked: list[str]) -> Iterator[str]:
    """The address of a server on this machine that has `small.pt`, the weights of the small transformer."""
    buffer = BytesIO()
    torch.save(weights_of(transformer), buffer)
    content = buffer.getvalue()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            if self.path != "/small.pt":
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def tagged(monkeypatch: pytest.MonkeyPatch, model: str, **tags: dict[str, str]) -> None:
    found = {name: {"mean": MEAN, "std": (0.5, 0.5, 0.5), **tag} for name, tag in tags.items()}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, model, found)


def test_a_url_is_asked_once(
    transformer: str, server: str, asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # under which open_clip keeps what it downloads
    tagged(monkeypatch, transformer, here={"url": f"{server}/small.pt"}, gone={"url": f"{server}/gone.pt"})
    for _ in range(2):
        require_loaded(transformer, "here", weights_of(transformer))
    assert asked == ["/small.pt"]
    with pytest.raises(ModelError, match=r"load weights 'gone'.*404.*without a network, model.pretrained PATH") as e:
        load_clip(transformer, "gone")
    assert "\n" not in str(e.value)
    with pytest.raises(ModelError, match=r"has no weights 'her': use .* a tag \(here, gone\) or 'none'"):
        load_clip(transformer, "her")


def test_a_hubs_cache_is_enough(transformer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    repository = tmp_path / "models--somebody--small"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("a" * 40)
    snapshot = repository / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    weights = weights_of(transformer)
    save_file({name: value.contiguous() for name, value in weights.items()}, snapshot / "open_clip_model.safetensors")
    tagged(monkeypatch, transformer, here={"hf_hub": "somebody/small/"}, gone={"hf_hub": "somebody/else/"})
    require_loaded(transformer, "here", weights)
    with pytest.raises(ModelError, match=r"cannot load weights 'gone'.*without a network, model.pretrained PATH"):
        load_clip(transformer, "gone")

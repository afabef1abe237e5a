"""Weights by a name. The hub is a server of this test's own: its library asks it as it asks the real one."""

import hashlib
import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from huggingface_hub import constants

import tnt
import tnt.weights
from pipeline.evaluate import as_settings
from tnt.commandline import add_model_options
from tnt.untrusted.arguments import Parser
from tnt.untrusted.reading import UserError
from tnt.weights import named
from tnt.weights.models import main


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Random weights of TNT-S as timm writes them."""
    model = tnt.create_model("tnt_s")
    path = tmp_path_factory.mktemp("published") / "model.safetensors"
    tnt.weights.save(model, path, "timm")
    return model, path


@pytest.fixture
def hub(published, monkeypatch):
    content = published[1].read_bytes()
    asked = []

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self):
            asked.append(f"{self.command} {self.path.rpartition('/')[2]}")
            found = self.path == "/timm/tnt_s_patch16_224.in1k/resolve/main/model.safetensors" or (
                self.path == f"/timm/tnt_s_patch16_224.in1k/resolve/{'c' * 40}/model.safetensors"
            )
            self.send_response(200 if found else 404)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", "c" * 40)
            self.send_header("Content-Length", str(len(content) if found else 0))
            self.end_headers()
            if found and self.command == "GET":
                self.wfile.write(content)

        do_GET = do_HEAD

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        point_at(monkeypatch, f"http://127.0.0.1:{server.server_port}")
        yield asked
        server.shutdown()


def point_at(monkeypatch, address):
    """What HF_ENDPOINT does before the library is imported."""
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def same(one, other):
    theirs = other.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in one.state_dict().items())


def test_published_weights_come_by_timm_s_name_and_once(hub, published):
    model = tnt.create_model("tnt_s", pretrained=True)
    assert same(model, published[0])
    assert hub.count("GET model.safetensors") == 1
    assert same(tnt.create_model("tnt_s", weights="timm:tnt_s_patch16_224"), published[0])
    assert hub.count("GET model.safetensors") == 1


def test_timm_s_words_are_understood_and_other_classes_get_a_new_head(hub, published):
    model = tnt.create_model("tnt_s", pretrained=True, num_classes=10, img_size=192, drop_path_rate=0.1)
    assert (model.config.classes, model.config.image_size, model.config.drop_path) == (10, 192, 0.1)
    assert torch.equal(model.stem.conv.weight, published[0].stem.conv.weight)


def test_without_a_net_one_line_says_which_file_belongs_where(monkeypatch, capsys, tmp_path, published):
    point_at(monkeypatch, "http://127.0.0.1:9")
    assert main(["timm:tnt_s_patch16_224", "out.safetensors"]) == 2
    [fetching, line] = capsys.readouterr().err.splitlines()
    place = tmp_path / "torch" / "checkpoints" / "tnt_s_patch16_224.safetensors"
    url = "http://127.0.0.1:9/timm/tnt_s_patch16_224.in1k/resolve/main/model.safetensors"
    assert fetching == f"fetching {url}"
    assert line.startswith("tnt.weights: timm:tnt_s_patch16_224 could not be fetched (")
    assert line.endswith(f"fetch {url} and put it here as {place}")
    place.parent.mkdir(parents=True)
    shutil.copy(published[1], place)
    assert main(["timm:tnt_s_patch16_224", "out.safetensors"]) == 0
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"tnt_b_patch16_224 could not be fetched \(HF_HUB_OFFLINE is set\)"):
        named.located("timm:tnt_b_patch16_224")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("timm:tnt_s_patch16_22", "did you mean 'tnt_s_patch16_224'"),
        ("timm:resnet50", "timm has no weights of a TNT named 'resnet50'"),
        ("demo", "`make demo` trains them"),
    ],
)
def test_a_name_that_means_nothing_is_refused(name, says):
    with pytest.raises(UserError, match=says):
        named.located(name)


def test_variants_that_nobody_published_and_two_sources_are_refused():
    with pytest.raises(UserError, match="nobody has published weights of tnt_ti; pretrained=True is"):
        tnt.create_model("tnt_ti", pretrained=True)
    with pytest.raises(ValueError, match="both given"):
        tnt.create_model("tnt_s", weights="x", pretrained=True)


def test_demo_means_its_run_with_the_highest_accuracy(tmp_path):
    for id, top1 in (("a" * 12, 96.0), ("b" * 12, 97.5), ("c" * 12, 97.5), ("d" * 12, 99.0)):
        record = tmp_path / "demo" / "records" / f"{id}.json"
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps({"exported": "ema", "ema": {"top1": top1}}))
        if id[0] != "d":  # its weights were removed
            (tmp_path / "demo" / "runs" / id).mkdir(parents=True)
            (tmp_path / "demo" / "runs" / id / "model.safetensors").touch()
    assert named.located("demo").parent.name == "b" * 12
    assert str(named.located("a/file.pth")) == "a/file.pth"


@pytest.mark.parametrize("words", [["weights=a=b.pth"], ["--weights=a=b.pth"], ["--weights", "a=b.pth"]])
def test_every_command_takes_weights_in_both_spellings(words):
    parser = Parser()
    add_model_options(parser)
    assert parser.parse_args(words).weights == "a=b.pth"
    assert as_settings(["data=digits", *words]) == ["data=digits", "weights=a=b.pth"]

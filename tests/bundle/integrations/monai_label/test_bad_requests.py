"""What the started server refuses, and what it does not answer at all; run with -s, it prints what it said."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

pytest.importorskip("monailabel", reason="MONAI Label is not installed here: make test-label")

ROOT = Path(__file__).parents[4]
EVIL = "$__import__('pathlib').Path('evaluated').touch()"
BAD = {
    "unknown gene": ("infer", "P3", {"gene": "ERBB9000"}),
    "path outside of the studies folder": ("infer", "../../../../etc/hostname", {}),
    "file of this machine": ("infer", str(ROOT / "README.md"), {}),
    "path in the parameters": ("infer", "P3", {"image": "/etc/hostname"}),
    "absurd size": ("region", "P3", {"size": [10**8, 10**8]}),
    "absurdly small units": ("infer", "P3", {"unit_um": 1e-9}),
    "size below 0": ("region", "P3", {"size": [-5, 10]}),
    "region outside of the slide": ("region", "P3", {"location": [10**6, 0], "size": [100, 100]}),
    "unknown result": ("infer", "P3", {"result": "picture"}),
    "unknown slide": ("infer", "P99", {}),
    "a size that is no list": ("region", "P3", {"size": "large"}),
    "unknown output": ("painting", "P3", {}),
    "output of another kind": ("asap", "P3", {}),
    "unknown model": ("model", "P3", {}),
    "parameters that are no JSON": ("json", "P3", "{gene"),
    "no slide": ("infer", "", {}),
    "an option's name with a slip": ("infer", "P3", {"treshold": 2}),
    "parameters that are a list": ("infer", "P3", [1]),
    "parameters that are a number": ("infer", "P3", 5),
    "a region that is a list": ("region", "P3", [1]),
    "a region's parameters that are a list": ("region", "P3", {"params": [1]}),
    "another model in the parameters": ("infer", "P3", {"model": ["a"]}),
    "another model in a region's parameters": ("region", "P3", {"params": {"model": ["a"]}}),
    "a number of 400 digits": ("infer", "P3", {"unit_um": 10**400}),
    "a place of 400 digits": ("region", "P3", {"location": [10**400, 0], "size": [10, 10]}),
    "a number of 5000 digits": ("json", "P3", '{"unit_um": 1' + "0" * 5000 + "}"),
    "brackets without end": ("json", "P3", "[" * 100_000),
    "DICOM": ("dicom_seg", "P3", {}),
    "code as a size": ("infer", "P3", {"unit_um": EVIL}),
    "code as a gene": ("infer", "P3", {"gene": EVIL}),
    "code as epochs": ("train", "", {"max_epochs": EVIL}),
    "code as a learning rate": ("train", "", {"learning_rate": EVIL}),
    "code in a list": ("train", "", {"learning_rate": [EVIL]}),
    "a reference as epochs": ("train", "", {"max_epochs": "@train#dataset"}),
    "one and a half epochs": ("train", "", {"max_epochs": 1.5}),
    "epochs without end": ("train", "", {"max_epochs": 10**9}),
    "a training that is a list": ("train", "", [1]),
    "a training without a body": ("train", "", None),
    "training of an unknown model": ("train nobody", "", {}),
    "training without epochs": ("train", "", {"max_epochs": 0}),
    "training with a slip": ("train", "", {"max_epoch": 3}),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_request_gets_a_sentence_and_the_server_stays_up(server, what):
    computed = server.log.read_text().count("tile 1 of")
    kind, image, asked = BAD[what]
    if kind == "infer":
        answer = server.infer(image, asked)
    elif kind == "region":
        answer = server.infer_region(image, asked)
    elif kind == "asap":
        answer = server.infer_region(image, {}, "asap")
    elif kind in ("painting", "dicom_seg"):
        answer = server.infer(image, output=kind)
    elif kind == "model":
        answer = server.post("/infer/nobody", params={"image": image})
    elif kind.startswith("train"):
        answer = server.post(f"/train/{kind[6:] or 'pixnet'}", json=asked)
    else:
        answer = server.post("/infer/pixnet?image=P3", data={"params": asked})
    server.say(f"bad request, {what}", f"{answer.status_code} {json.dumps(answer.json()['detail'])[:300]}")
    assert 400 <= answer.status_code < 500
    detail = answer.json()["detail"]
    assert "Traceback" not in answer.text
    assert 20 < len(detail) < 300
    assert "\n" not in detail
    assert server.get("/info/").status_code == 200
    assert server.process.poll() is None
    assert server.get("/train/").status_code == 404  # none was started
    assert server.log.read_text().count("tile 1 of") == computed
    assert not list(server.log.parent.rglob("evaluated"))


def _state(*folders: Path) -> dict[str, str]:
    files = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


CLOSED = [
    "PUT /datastore/?image=../outside",
    "PUT /datastore/image?image=new",
    "PUT /datastore/label?image=P1",
    "DELETE /datastore/?id=P3",
    "DELETE /datastore/image?id=P3",
    "GET /datastore/image?image=P3",
    "GET /datastore/dataset",
    "PUT /model/pixnet",
    "DELETE /model/pixnet",
    "GET /model/pixnet",
    "PUT /session/",
    "POST /train/",
    "POST /batch/infer/pixnet",
    "POST /scoring/dice",
    "POST /activelearning/random",
    "POST /infer/wsi/pixnet?image=P3",
    "POST /reload",
    "GET /logs/",
    "GET /proxy/dicom/wado/x",
    "GET /static/index.html",
]


@pytest.mark.parametrize("call", CLOSED)
def test_routes_that_pixnet_does_not_serve_are_closed(server, studies, served, call):
    method, address = call.split()
    before = _state(studies.parent, served)
    files = {"file": ("x.pt", b"weights"), "files": ("x.pt", b"weights"), "label": ("x.pt", b"weights")}
    answer = server.request(method, address, files=files)
    assert answer.status_code in (404, 405)
    assert _state(studies.parent, served) == before


def test_the_page_of_routes_describes_those_that_are_open(server):
    assert server.get("/").status_code == server.get("/docs").status_code == 200
    described = server.get("/openapi.json").json()["paths"]
    routes = {f"{method.upper()} {path}" for path, methods in described.items() for method in methods}
    infer = {"POST /infer/{model}", "POST /infer/wsi_v2/{model}"}
    assert routes == {"GET /info/", "GET /train/", "DELETE /train/", "POST /train/{model}", *infer}
    server.say("GET /openapi.json", *sorted(routes))


def test_pages_of_other_origins_are_let_in_by_name_only(server):
    allow = "access-control-allow-origin"
    assert server.get("/info/", headers={"Origin": "http://localhost:3000"}).headers[allow] == "http://localhost:3000"
    asked = {"Origin": "http://elsewhere.example", "Access-Control-Request-Method": "DELETE"}
    assert allow not in server.get("/info/", headers=asked).headers
    assert allow not in server.request("OPTIONS", "/train/", headers=asked).headers
    # What a page may send without asking starts nothing.
    answer = server.post("/train/pixnet", data="{}", headers={"Content-Type": "text/plain"})
    assert answer.status_code == 422


def test_what_was_sent_is_not_kept(server):
    upload = {"file": ("x.tif", b"no slide"), "label": ("x.tif", b"no label")}
    answer = server.post("/infer/pixnet", files=upload)
    assert (answer.status_code, "names no slide" in answer.json()["detail"]) == (400, True)
    assert server.left() == []

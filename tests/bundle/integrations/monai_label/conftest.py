from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def studies(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three slides, two of which have units beside them."""
    folder = tmp_path_factory.mktemp("studies")
    for name in ("P1", "P2", "P3"):
        shutil.copy(phantom / "slides" / f"{name}.tif", folder)
    for name in ("P1", "P2"):
        shutil.copy(phantom / "units" / f"{name}_spot55.h5ad", folder / f"{name}.h5ad")
    return folder


@pytest.fixture(scope="module")
def served(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one's own to fine-tune."""
    return shutil.copytree(tiny_run, tmp_path_factory.mktemp("served") / "run")


class Server:
    def __init__(self, url: str, log: Path, process: subprocess.Popen) -> None:
        self.url, self.log, self.process = url, log, process

    @staticmethod
    def say(title: str, *lines: object) -> None:
        print(f"\n== {title}", *lines, sep="\n   ", flush=True)

    def request(self, method: str, path: str, **kw):
        import requests  # of MONAI Label's environment

        return requests.request(method, self.url + path, timeout=300, **kw)

    def get(self, path: str, **kw):
        return self.request("GET", path, **kw)

    def post(self, path: str, **kw):
        return self.request("POST", path, **kw)

    def left(self) -> list[str]:
        """Files of requests in the temporary folder."""
        names = [path.name for path in (self.log.parent / "tmp").iterdir()]
        return [name for name in names if name.endswith((".geojson", ".gz", ".tif"))]

    def infer(self, image: str, params: dict | None = None, output: str | None = "image"):
        query = {"image": image, **({"output": output} if output else {})}
        body = {"params": json.dumps(params or {})}
        return self.post("/infer/pixnet", params=query, data=body)

    def infer_region(self, image: str, wsi: dict, output: str | None = None):
        query = {"image": image, **({"output": output} if output else {})}
        return self.post("/infer/wsi_v2/pixnet", params=query, data={"wsi": json.dumps(wsi)})


@pytest.fixture(scope="module")
def server(studies, served, tmp_path_factory):
    import requests

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("server")
    log = folder / "server.log"
    command = [sys.executable, "-m", "monailabel.main", "start_server", "--app", str(ROOT / "bundle" / "label")]
    command += ["--studies", str(studies), "--conf", "run", str(served), "--conf", "device", "cpu"]
    command += ["--conf", "origins", "http://localhost:3000 http://127.0.0.1:3000"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    (folder / "tmp").mkdir()
    env = {**os.environ, "MONAI_LABEL_SESSION_PATH": str(folder / "sessions"), "TMPDIR": str(folder / "tmp")}
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=env, cwd=folder)
    started = Server(f"http://127.0.0.1:{port}", log, process)
    try:
        for _ in range(240):
            assert process.poll() is None, log.read_text()[-3000:]
            try:
                started.get("/info/")
                break
            except requests.ConnectionError:
                time.sleep(0.5)
        Server.say("server started", started.url)
        yield started
    finally:
        process.terminate()
        process.wait(30)
        Server.say(f"server stopped, status {process.returncode}")

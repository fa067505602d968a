"""What tests share: a cache that goes away, a model that knows bright from dark, and
a server of files."""

import subprocess
import sys

import numpy as np
import pytest

# In a process of its own: GDAL holds Python's lock while it waits for an answer.
WEB = """
import http.server, pathlib, sys, urllib.parse

sent = 0

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        global sent
        path = pathlib.Path(sys.argv[1]) / urllib.parse.urlsplit(self.path).path[1:]
        if path.name != "sent" and not path.is_file():
            return self.send_error(404)
        data = str(sent).encode() if path.name == "sent" else path.read_bytes()
        part = self.headers.get("Range")
        first, last = (part or "=0-").partition("=")[2].split("-")
        first, last = int(first), min(int(last or len(data)), len(data) - 1)
        self.send_response(206 if part else 200)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data[first : last + 1])
            sent += last + 1 - first

    do_HEAD = do_GET

    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


@pytest.fixture(autouse=True, scope="session")
def cache_of_the_tests(tmp_path_factory):
    """Keep decoded scenes in a folder that goes away."""
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


@pytest.fixture(scope="session")
def bright_model(tmp_path_factory):
    """File of a network that calls a pixel building whose bands sum up to over 375."""
    import keras

    from bdloss import models

    pixels = keras.Input((None, None, 3))
    conv = keras.layers.Conv2D(1, 1, activation="sigmoid", name="conv")
    bright = keras.Model(pixels, conv(pixels))
    conv.set_weights([np.full((1, 1, 3, 1), 0.1), np.array([-37.55])])
    path = tmp_path_factory.mktemp("model") / "bright.keras"
    models.save_model(bright, path, {"window": 32})
    return path


@pytest.fixture
def web(tmp_path):
    """A folder that a server gives out, and its address; at `/sent`, how many bytes."""
    folder = tmp_path / "web"
    folder.mkdir()
    words = [sys.executable, "-c", WEB, folder]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        yield folder, f"http://127.0.0.1:{int(process.stdout.readline())}"
        process.kill()

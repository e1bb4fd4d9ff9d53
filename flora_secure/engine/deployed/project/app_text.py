"""The other files of a federation's folder, as they are written: the app, Flower's connection, what to do next."""

from __future__ import annotations

import json
from pathlib import Path

from flora_secure.planning.protection import Unit

PACKAGE = '''\
"""What all parties of this federation have alike: nothing in this folder is secret."""
'''

APP = '''\
"""What Flower starts at a site and at the server."""

from pathlib import Path

from flora_secure.engine.flower.app import client_app, server_app

HERE = Path(__file__).parent

client = client_app(HERE)
server = server_app(HERE)
'''

DATA = '''\
"""Where the images of each party lie: edit the names, and the functions if your images lie elsewhere.

A folder has a folder of image files for each class, by the class's name. Class names and their order are the same at
all parties. Folders `public`, where all parties have the same one, hold images that belong to nobody.
"""

from pathlib import Path

from flora_secure import PartyData

CLASS_NAMES = [
    *("calendar", "house", "heart", "star", "padlock", "key", "bell", "camera", "cloud", "gear"),
    *("flag", "book", "person", "document", "folder", "envelope", "telephone", "magnifying glass", "shield", "clock"),
]
TEMPLATES = ["an icon of a {}", "a {} icon", "a pictogram of a {}", "a {}"]


def site_images(folder: Path) -> PartyData:
    """The private images of the site in `folder`. They are read there, and never leave."""
    return _images(folder)


def server_images(folder: Path) -> PartyData:
    """The test images of the server in `folder`."""
    return _images(folder)


def _images(folder: Path) -> PartyData:
    public = folder / "public"
    return PartyData(
        class_names=CLASS_NAMES,
        templates=TEMPLATES,
        images=folder / "images",
        public=public if public.is_dir() else None,
    )
'''

SERVER_README = """\
The server's own folder.

- `enrolment.toml`: a copy of the federation's, who takes part
- `images/`: test images, a folder for each class
- `certs/`, here or beside: with `signing.key`, which signs the run's receipt
- `run/`: written by the run; `flora-secure audit run` checks it
"""

_PYPROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "federation"
version = "1.0.0"
description = "A federation of flora-secure"
license = "Apache-2.0"
dependencies = ["flora-secure[train,flower]"]

[tool.hatch.build.targets.wheel]
packages = ["federation"]

[tool.flwr.app]
publisher = "federation"

[tool.flwr.app.components]
serverapp = "federation.app:server"
clientapp = "federation.app:client"

[tool.flwr.app.config]
# the server's folder, an absolute path on the server's machine; sites never read it
server = {server}
# the run's folder in it: a run that was broken off goes on there, a new name begins another one
out = "run"
# seconds that the server waits for what needs training, and for all other messages
patience = 600
trip-patience = 60
"""

_FLOWER = """\
# Flower's own configuration, for whoever starts runs: export FLWR_HOME=this folder
[superlink]
default = "loop"

[superlink.loop]
address = "127.0.0.1:8000"
root-certificates = {authority}
"""

_README = """\
# A federation

| file | for | edit |
|---|---|---|
| `app/federation/config.toml` | everybody | rounds, ε, unit{images} |
| `app/federation/data.py` | everybody | class names, prompts, where images lie |
| `app/pyproject.toml` | whoever starts runs | the server's folder, the run's name, patience |
| `policy.toml` | each site, a copy | what this site insists on: read every question in it |
| `server/` | the server | test images in `server/images`, a folder for each class |
| `flwr/config.toml` | whoever starts runs | the server's address |

`app/` is packed by Flower and sent to every site: nothing secret belongs there. Keys are in `certs/` and `sites/`,
which `flora-secure flower certs` makes, and never in `app/`.

In this folder's parent, where it is called DIR:

```sh
flora-secure flower certs DIR --clients 3      # a pilot: all keys on this machine
flora-secure flower example DIR                # images to try it with; leave it out where there are real ones
cp DIR/enrolment.toml DIR/server
for site in DIR/sites/*; do cp DIR/enrolment.toml DIR/policy.toml "$site"; done
```

Then the programs of Flower, each on its machine (docs/flower.md of flora-secure has the whole of it):

```sh
export FLWR_HOME="$PWD/DIR/flwr"
flower-superlink --host 127.0.0.1 --port 8000 --enable-supernode-auth --disable-runtime-dependency-installation \\
  --ssl-certfile DIR/certs/server.pem --ssl-keyfile DIR/certs/server.key --ssl-ca-certfile DIR/certs/ca.crt
flwr supernode register DIR/sites/siteN/node.key.pub loop
flower-supernode --superlink 127.0.0.1:8000 --root-certificates DIR/sites/siteN/ca.crt --port 9100 \\
  --auth-supernode-private-key DIR/sites/siteN/node.key --node-config "site=\\"$PWD/DIR/sites/siteN\\""
flwr run DIR/app loop --stream
flora-secure audit DIR/server/run
```
"""


def pyproject(server: Path) -> str:
    """The app's pyproject.toml, for the server's folder at the absolute path `server`."""
    return _PYPROJECT.format(server=_toml(server))


def flower_config(authority: Path) -> str:
    """Flower's config.toml with the connection "loop", for the authority's certificate at that absolute path."""
    return _FLOWER.format(authority=_toml(authority))


def readme(unit: Unit) -> str:
    """The folder's README.md."""
    return _README.format(images=", how many images there are" if unit == "example" else "")


def _toml(path: Path) -> str:
    return json.dumps(str(path), ensure_ascii=False)

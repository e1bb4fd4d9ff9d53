"""The files of a federation's folder that are for NVFlare: its job, and what to do next."""

from __future__ import annotations

import json
from pathlib import Path

_JOB = '''\
"""The federation as a job of NVFlare.

    python job.py                  run it here, in NVFlare's simulator
    python job.py --export JOBS    write the job into that folder, to be submitted

Each site's own folder is in the environment of its process, FLORA_SECURE_SITE, and never in the job.
"""

import argparse

from nvflare.collab import CollabRecipe
from nvflare.recipe import SimEnv

from flora_secure.engine.nvflare.app import FederationServer, FederationSite

APP = {app}  # config.toml and data.py: the place where every party has them
SERVER = {server}  # the server's own folder
SITES = {sites}  # NVFlare's names of the sites

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Run or write the federation as a job of NVFlare.")
    parser.add_argument("--export", metavar="JOBS", help="write the job into this folder and run nothing")
    given = parser.parse_args()
    recipe = CollabRecipe(
        "federation", server=FederationServer(APP, SERVER), client=FederationSite(APP), min_clients=len(SITES)
    )
    if given.export:
        recipe.export(given.export)
    else:
        recipe.execute(SimEnv(clients=SITES, workspace_root=SERVER + "/nvflare"))
'''

README = """\
# A federation over NVFlare

| file | for | edit |
|---|---|---|
| `app/federation/config.toml` | everybody | rounds, ε, unit, for unit example how many images there are |
| `app/federation/data.py` | everybody | class names, prompts, where images lie |
| `app/job.py` | whoever starts runs | where the app lies, NVFlare's names of the sites |
| `policy.toml` | each site, a copy | what this site insists on: read every question in it |
| `server/` | the server | test images in `server/images`, a folder for each class |

In this folder's parent, where it is called DIR:

```sh
flora-secure flower certs DIR --clients 3      # a pilot: all keys on this machine
flora-secure flower example DIR                # images to try it with; leave it out where there are real ones
cp DIR/enrolment.toml DIR/server
for site in DIR/sites/*; do cp DIR/enrolment.toml DIR/policy.toml "$site"; done
FLORA_SECURE_SITE="$PWD/DIR/sites/{site}" python DIR/app/job.py
flora-secure audit DIR/server/run
```

Between organisations: docs/nvflare.md of flora-secure.
"""


def job(home: Path, clients: int) -> str:
    """The job's program, for the federation in the folder at the absolute path `home`."""
    sites = json.dumps([f"site{client}" for client in range(clients)])
    app, server = (json.dumps(str(home / part), ensure_ascii=False) for part in ("app/federation", "server"))
    return _JOB.format(app=app, server=server, sites=sites)

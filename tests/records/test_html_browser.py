"""The page in a browser: as wide as its window, and nothing to complain of. Needs Chromium; run with -m slow."""

import html
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from test_run_folder import written

import flora_secure

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SWITCHES = """headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking disable-sync
disable-component-update hide-scrollbars enable-logging=stderr allow-file-access-from-files virtual-time-budget=4000"""
QUIET = [f"--{switch}" for switch in SWITCHES.split()]
# the page allows no script of its own: another one looks at it
AROUND = """<!DOCTYPE html><iframe id="seen" style="border:0;height:900px;width:{width}px" src="{page}"></iframe><p></p>
<script>document.getElementById("seen").onload = (event) => {{
  const inner = event.target.contentDocument, wide = inner.documentElement;
  const out = [...inner.querySelectorAll("body *")].filter((e) => !e.closest(".scroll")
    && e.getBoundingClientRect().right > wide.clientWidth + 1).map((e) => e.tagName);
  const small = [...inner.querySelectorAll("svg text")].map((e) => e.getBoundingClientRect().height);
  document.querySelector("p").textContent = JSON.stringify([wide.clientWidth, wide.scrollWidth, out.length,
    Math.min(...small) >= 8]);
}};</script>"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize("width", [375, 1440])
@pytest.mark.parametrize("count", [1, 3])
def test_a_browser_shows_all_of_it(tmp_path: Path, width: int, count: int) -> None:
    runs = [written(tmp_path / f"run-{number}").path for number in range(count)]
    page = flora_secure.report(*runs, out=tmp_path / "page.html")
    (tmp_path / "around.html").write_text(AROUND.format(width=width, page=page.name))
    assert CHROMIUM is not None
    done = subprocess.run(
        [CHROMIUM, *QUIET, f"--user-data-dir={tmp_path / 'user'}", "--window-size=1500,1000", "--dump-dom",
         (tmp_path / "around.html").as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    found = re.search(r"<p>(.*?)</p>", done.stdout)
    assert found is not None
    assert html.unescape(found[1]) == f"[{width},{width},0,true]"
    assert "CONSOLE" not in done.stderr, done.stderr

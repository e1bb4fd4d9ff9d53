"""`flora-secure simulate` leaves a page for a browser behind, and needs it for nothing."""

import sys

from command import flora_here

SMALL = ("--dataset", "digits", "--clients", 8, "--rounds", 2, "--corrupt", 0, "--simulation-noise")


def test_a_run_has_a_page_and_is_one_without_it(tmp_path, monkeypatch) -> None:
    done = flora_here("simulate", *SMALL, "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.endswith("\nwrote run/report.html\n")
    page = tmp_path / "run" / "report.html"
    first = page.read_bytes()
    assert b"simulation noise: the noise keys come from the seed" in first
    page.unlink()
    again = flora_here("simulate", "--resume", "run", cwd=tmp_path)
    assert again.stdout == done.stdout
    assert page.read_bytes() == first
    page.unlink()
    for name in [name for name in sys.modules if name.startswith("flora_secure.records.html.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    without = flora_here("simulate", "--resume", "run", cwd=tmp_path)
    assert (without.returncode, without.stdout) == (0, done.stdout)
    last = "report.html was left out: a report needs matplotlib: pip install 'flora-secure[report]'\n"
    assert without.stderr.endswith(last)
    assert not page.exists()

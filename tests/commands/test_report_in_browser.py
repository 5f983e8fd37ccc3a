"""The report in a real browser, where there is Chromium: sorting, searching, pointing at cells, printing."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
from conftest import simulate

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here; Debian's package is chromium")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--virtual-time-budget=4000"),
)
# What a user does, and what is then to be seen; written to the page, which Chromium prints
ACTS = """
<pre id="seen"></pre><script>
window.onerror = (text) => { document.getElementById("seen").textContent = JSON.stringify({error: text}); };
setTimeout(() => {
  const seen = {}, text = (row, column) => row.cells[column].textContent.trim();
  const glance = document.getElementById("glance"), genes = document.getElementById("Top-genes");
  const sizes = () => [...glance.tBodies[0].rows].map(row => +row.cells[1].dataset.value);
  const heads = glance.tHead.rows[0].cells;
  heads[1].firstElementChild.click(); seen.up = sizes();
  heads[1].firstElementChild.click(); seen.down = sizes();
  const search = document.getElementById("search"), shown = () => [...genes.tBodies[0].rows].filter(row => !row.hidden);
  seen.all = shown().length;
  search.value = text(genes.tBodies[0].rows[0], 1).toUpperCase(); search.dispatchEvent(new Event("input"));
  seen.found = shown().map(row => text(row, 1)); seen.wanted = search.value;
  search.value = ""; search.dispatchEvent(new Event("input"));
  const only = document.getElementById("only");
  only.value = "1"; only.dispatchEvent(new Event("change"));
  seen.only = [...new Set(shown().map(row => text(row, 0)))];
  const map = document.getElementById("map"), box = map.getBoundingClientRect(), scale = (box.width - 24) / 4000;
  const point = i => map.dispatchEvent(new MouseEvent("mousemove",
    {clientX: box.left + 12 + xs[i] * scale, clientY: box.top + 12 + ys[i] * scale}));
  point(0); seen.under = under.textContent; seen.cluster = points.names[clusters[0]];
  seen.chosen = [...document.querySelectorAll("#glance .chosen")].map(row => row.dataset.cluster);
  const pixels = map.getContext("2d").getImageData(0, 0, map.width, map.height).data;
  seen.painted = pixels.some((value, i) => i % 4 === 3 && value > 0);
  map.dispatchEvent(new MouseEvent("mouseleave")); seen.left = under.textContent;
  seen.wide = document.documentElement.scrollWidth <= window.innerWidth;
  seen.cells = xs.length;
  document.getElementById("seen").textContent = JSON.stringify(seen);
}, 500);
</script>
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    simulate(150).write_h5ad(folder / "cells.h5ad")
    from scrcl.commands import script

    words = ["--epochs", 5, "--hidden", 16, "--n-pcs", 10, "--seeds", 2, "--report", "--output", folder / "out"]
    assert script.run("cells", ["--dataset", str(folder / "cells.h5ad"), *map(str, words)], "scrcl cells") == 0
    return folder / "out" / "report.html"


def browse(page, *flags: str) -> str:
    profile = page.parent / "profile"
    done = subprocess.run(
        [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", *flags, f"file://{page}"], capture_output=True, timeout=120
    )
    shutil.rmtree(profile, ignore_errors=True)
    return done.stdout.decode()


@pytest.mark.parametrize("width", [1280, 400])
def test_what_a_user_does(page, width):
    acted = page.with_name("acted.html")
    acted.write_text(page.read_text().replace("</body>", ACTS + "</body>"))
    dom = browse(acted, f"--window-size={width},900", "--dump-dom")
    told = dom.split('<pre id="seen">')[1].split("</pre>")[0].replace("&amp;", "&")
    seen = json.loads(told)
    assert "error" not in seen, seen
    assert seen["up"] == sorted(seen["up"]) and seen["down"] == seen["up"][::-1] and sum(seen["up"]) == 150
    assert seen["wanted"] in {name.upper() for name in seen["found"]} and len(seen["found"]) < seen["all"]
    assert seen["only"] == ["1"]
    assert seen["under"].startswith(f"cluster {seen['cluster']}, agreement ") and seen["chosen"] == [seen["cluster"]]
    assert seen["painted"] and seen["cells"] == 150 and seen["left"].startswith("UMAP. Point at a cell")
    assert seen["wide"], "the page is wider than the window"


def test_printing(page):
    target = page.with_name("printed.pdf")
    browse(page, f"--print-to-pdf={target}")
    assert target.read_bytes().startswith(b"%PDF") and target.stat().st_size > 50_000


def test_nothing_is_fetched(page):
    text = page.read_text()
    assert "http://" not in text.replace("http://www.w3.org", "") and "https://" not in text and 'src="/' not in text

"""Opens a page in headless Chromium and writes down what a reader would see."""

import html
import json
import shutil
import subprocess

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="Chromium is not installed, so that no page can be opened")

WIDTHS = (1280, 400)
"""A wide and a narrow window, pixels."""

# The page stands in a frame, since a window is never narrower than 500 pixels.
_FRAME = """<!doctype html><title>waiting</title><body style="margin:0"><iframe src="probe.html" id="page"
style="border:0;width:{width}px;height:900px"></iframe><script>
addEventListener('load', () => {{
  const page = document.getElementById('page').contentDocument, root = page.documentElement;
  const images = [...page.images].map(i => i.complete && i.naturalWidth > 0 && i.getBoundingClientRect().width > 200);
  const overflow = root.scrollWidth - root.clientWidth, width = root.clientWidth > {width} - 30;
  document.title = JSON.stringify({{images, overflow, width, text: root.innerText.length > 500}});
}})</script>"""


def check_in_browser(page, folder, *, width, images):
    """See that every one of so many images is drawn, nothing sticks out of the window and nothing is complained of."""
    copy = folder / f"browser_{width}"
    copy.mkdir()
    (copy / "probe.html").write_bytes(page.read_bytes())
    (copy / "frame.html").write_text(_FRAME.format(width=width), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    options += [f"--user-data-dir={copy / 'profile'}", "--window-size=1400,900", "--allow-file-access-from-files"]
    command = [BROWSER, *options, (copy / "frame.html").as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    seen = json.loads(html.unescape(shown.stdout.split("<title>")[1].split("</title>")[0]))
    assert seen == {"images": [True] * images, "overflow": 0, "width": True, "text": True}
    assert [line for line in shown.stderr.splitlines() if "CONSOLE" in line] == []

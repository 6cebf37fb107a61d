"""A picture of a report, as the README shows it: python docs/screenshot.py runs/helpdesk/report.html docs/report.png

Needs the `dev` extra and Debian's chromium. --width 390 is a phone, --dark the dark colours, --height 0 the whole page.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=1000)
    parser.add_argument("--dark", action="store_true")
    args = parser.parse_args()
    size = {"width": args.width, "height": args.height or 800}
    with sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_page(viewport=size, color_scheme="dark" if args.dark else "light")
        tab.goto(args.page.resolve().as_uri())
        tab.screenshot(path=args.picture, full_page=not args.height)
        browser.close()


if __name__ == "__main__":
    main()

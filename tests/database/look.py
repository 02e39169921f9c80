"""Open a report in Chromium, as a phone and as a desktop, light and dark: look.py CHROMIUM PAGE DIRECTORY.

Writes a picture of each to the directory, and prints what is wrong as a JSON list. Runs with the packages of
the group ``browser``.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

WIDTHS = {"phone": 390, "desktop": 1280}
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
FOCUSED = "document.activeElement.className"


def look(browser: Browser, address: str, directory: Path) -> Iterator[str]:
    """Yield what is wrong."""
    for scheme in ("light", "dark"):
        for name, width in WIDTHS.items():
            options = {"color_scheme": scheme, "viewport": {"width": width, "height": 900}}
            page = browser.new_context(**options).new_page()
            wrong: list[str] = []
            page.on("console", lambda message, wrong=wrong: wrong.append(f"console: {message.text}"))
            page.on("pageerror", lambda error, wrong=wrong: wrong.append(f"error: {error}"))
            page.on("request", lambda request, wrong=wrong: wrong.append(f"request: {request.url}"))
            page.goto(address, wait_until="load")
            page.screenshot(path=directory / f"{name}-{scheme}.png", full_page=True)
            wrong.remove(f"request: {address}")
            yield from (f"{name}, {scheme}: {one}" for one in wrong)
            yield from (f"{name}, {scheme}: {one}" for one in use(page))
            # axe is a script, which the policy of the page forbids.
            open_page = browser.new_context(bypass_csp=True, **options).new_page()
            open_page.goto(address)
            open_page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
            for violation in Axe().run(open_page).response["violations"]:
                targets = [node["html"][:150] for node in violation["nodes"][:3]]
                yield f"{name}, {scheme}: axe: {violation['id']}: {violation['help']}: {targets}"


def use(page: Page) -> Iterator[str]:
    """Yield what is wrong for who has a keyboard or a small screen."""
    if page.evaluate(OVERFLOW) > 0:
        yield "the page is wider than the screen"
    page.keyboard.press("Tab")
    if page.evaluate(FOCUSED) != "skip":
        yield "the first stop of the keyboard is not the link to the content"
    page.keyboard.press("Enter")
    if page.evaluate("document.activeElement.id") != "content":
        yield "the link to the content does not lead there"
    if page.evaluate("document.documentElement.outerHTML.length") < 1000:
        yield "the page is empty"


def main(chromium: str, page: str, directory: str) -> None:
    """Look, and print what is wrong."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        print(json.dumps(list(look(browser, Path(page).as_uri(), Path(directory)))))
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])

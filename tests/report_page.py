"""Opens HTML reports of runs in headless Chromium, as wide as a desk and as a telephone, and checks what a person would see.

    python tests/report_page.py --browser /usr/bin/chromium-headless-shell --pictures FOLDER run.html ...

Each page is opened with the network cut off, and must

- load nothing but itself, and have nothing to complain of on the console;
- be no wider than its window, and write no text smaller than 11 pixels or past the edge of a node's box;
- mark the node that was busy longest, in the drawing, in the table and in the figures, and show it without scrolling to the side;
- sort its table of nodes by any column, and bring a node that is asked for into view.

A picture of each, NAME-WIDTH-THEME.png, goes to FOLDER; `--themes light dark` takes both themes.
"""

import argparse
import pathlib
import sys

from playwright.sync_api import Page, sync_playwright

WIDTHS = {1280: 900, 390: 844}
SMALLEST_TEXT = 11

# What is wrong with what the page shows as it stands, in words.
LOOK = """
(smallest) => {
  const wrong = [];
  const shown = (e) => e.getClientRects().length > 0;
  const words = (e) => e.textContent.trim().slice(0, 40);
  const root = document.documentElement;
  if (Math.max(root.scrollWidth, document.body.scrollWidth) > window.innerWidth)
    wrong.push(`it is ${root.scrollWidth} pixels wide in a window of ${window.innerWidth}`);

  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const of = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || ["SCRIPT", "STYLE", "title"].includes(of.tagName) || !shown(of)) continue;
    // A drawing may be scaled.
    const scale = of instanceof SVGGraphicsElement ? of.getScreenCTM().a : 1;
    const size = parseFloat(getComputedStyle(of).fontSize) * scale;
    if (size < smallest) wrong.push(`"${words(of)}" is written ${size} pixels high`);
  }

  for (const node of document.querySelectorAll("svg .node")) {
    const box = node.querySelector(".box").getBoundingClientRect();
    const inside = [...node.querySelectorAll(".lines div, text:not(.tag)")];
    for (const text of inside) {
      const at = text.getBoundingClientRect();
      if (at.left < box.left || at.right > box.right || at.top < box.top || at.bottom > box.bottom)
        wrong.push(`"${words(text)}" leaves its node`);
    }
    const bar = node.querySelector(".track").getBoundingClientRect();
    const share = inside.at(-1).getBoundingClientRect();
    if (share.left < bar.right) wrong.push(`"${words(inside.at(-1))}" stands on its bar`);
  }
  return wrong;
}
"""

# The same of the node that was busy longest, where nodes were.
SLOWEST = """
() => {
  const rows = [...document.querySelectorAll("table.sortable tbody tr")];
  const wrong = [];
  if (rows.length === 0) return wrong;
  const share = (row) => Number(row.querySelector(".meter").parentElement.dataset.value);
  const most = Math.max(...rows.map(share));
  if (most === 0) return wrong;
  const marked = rows.filter((row) => row.classList.contains("slowest"));
  if (marked.length !== 1) return [`${marked.length} rows of the table are marked as the slowest`];
  const [row] = marked;
  if (share(row) !== most) wrong.push(`the row marked has a share of ${share(row)}, another one of ${most}`);
  if (!/slowest/.test(row.textContent)) wrong.push("the row does not say that it is the slowest");
  const link = document.querySelector(".figures .wide a");
  if (link?.getAttribute("href") !== "#" + row.id) wrong.push("the figures name another node as the slowest");
  const drawn = [...document.querySelectorAll("svg .node.slowest")];
  if (drawn.length !== 1) return [...wrong, `${drawn.length} nodes of the drawings are marked as the slowest`];
  if (drawn[0].closest("a").getAttribute("href") !== "#" + row.id) wrong.push("another node is marked in the drawing");
  const at = drawn[0].querySelector(".box").getBoundingClientRect();
  const view = drawn[0].closest(".scroll").getBoundingClientRect();
  if (at.left < view.left || at.right > view.right) wrong.push("the slowest node is out of sight in its drawing");
  return wrong;
}
"""


def sorting(page: Page) -> list[str]:
    """Presses the head of each column twice and compares the order of the rows."""
    wrong = []
    heads = page.locator("table.sortable thead th")
    for column in range(heads.count()):
        head = heads.nth(column)
        for _ in range(2):
            head.locator("button").click()
            cells = page.locator("table.sortable tbody tr").evaluate_all(
                "(rows, column) => rows.map((r) => [r.cells[column].dataset.value, r.cells[column].textContent.trim()])",
                column,
            )
            keys = [float(value) if value is not None else None for value, _ in cells]
            descending = head.get_attribute("aria-sort") == "descending"
            if None not in keys and keys != sorted(keys, reverse=descending):
                wrong.append(f"column {head.inner_text()!r} is not sorted: {keys}")
            firsts = [text[:1].lower() for _, text in cells if text[:1].isalpha()]
            if None in keys and firsts != sorted(firsts, reverse=descending):
                wrong.append(f"column {head.inner_text()!r} is not sorted: {firsts}")
    return wrong


def in_view(page: Page) -> list[str]:
    """Follows the link to the slowest node."""
    link = page.locator(".figures .wide a")
    if link.count() == 0:
        return []
    link.click()
    row = page.locator("tr:target")
    if row.count() != 1:
        return ["the link to the slowest node leads nowhere"]
    # Rows may begin between two pixels.
    top, height = row.bounding_box()["y"], page.viewport_size["height"]
    return [] if -1 < top < height else [f"the link to the slowest node leads {top} pixels away from it"]


def check(browser, file: pathlib.Path, width: int, theme: str, pictures: pathlib.Path) -> list[str]:
    address = file.resolve().as_uri()
    asked, said = [], []
    context = browser.new_context(viewport={"width": width, "height": WIDTHS[width]}, color_scheme=theme, offline=True)
    page = context.new_page()
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(address)
    # Before its first frame a page without a screen often has no picture.
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    wrong = page.evaluate(LOOK, SMALLEST_TEXT) + page.evaluate(SLOWEST)
    page.screenshot(path=pictures / f"{file.stem}-{width}-{theme}.png", full_page=True)
    wrong += sorting(page) + in_view(page)
    wrong += [f"it loads {url}" for url in asked if url.split("#")[0] != address]
    wrong += [f"on the console: {text}" for text in said]
    context.close()
    return wrong


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--browser", required=True)
    options.add_argument("--pictures", required=True, type=pathlib.Path)
    options.add_argument("--themes", nargs="+", choices=["light", "dark"], default=["light"])
    options.add_argument("pages", nargs="+", type=pathlib.Path)
    options = options.parse_args()
    options.pictures.mkdir(parents=True, exist_ok=True)
    n_wrong = 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=options.browser, args=["--no-sandbox", "--disable-gpu"])
        print(f"Chromium {browser.version}")
        for file in options.pages:
            for width in WIDTHS:
                for theme in options.themes:
                    wrong = check(browser, file, width, theme, options.pictures)
                    n_wrong += len(wrong)
                    print(f"{'FAILED' if wrong else 'ok    '} {file.name} at {width} pixels, {theme}")
                    for one in wrong:
                        print(f"       {one}")
        browser.close()
    return 1 if n_wrong else 0


sys.exit(main())

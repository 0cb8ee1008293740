"""Look at the built pages in Chromium, at the widths of a phone, a laptop and a large screen; what is wrong, as JSON.

``python tests/docs/browser.py docs/_build/html`` with PySide6-WebEngine, which brings Chromium from PyPI. A third
argument names a folder for a picture of each page at each width.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

WIDTHS = {390: 844, 1280: 900, 1920: 1080}

LOOK = """
(() => {
  const found = [], page = document.documentElement, column = document.querySelector('.bd-article-container');
  const name = e => e.tagName.toLowerCase() + ' ' + (e.textContent || '').trim().slice(0, 60).replace(/\\s+/g, ' ');
  if (page.scrollWidth > page.clientWidth + 1) found.push('the page scrolls sideways');
  const scrolls = e => ['auto', 'scroll'].includes(getComputedStyle(e).overflowX);
  const edge = column.getBoundingClientRect();
  for (const e of column.querySelectorAll('*')) {
    const box = e.getBoundingClientRect();
    if (!box.width || !box.height) continue;
    if (scrolls(e) && page.clientWidth > 1000 && e.scrollWidth > e.clientWidth + 1) found.push('cut off: ' + name(e));
    if (box.right <= edge.right + 1 && box.left >= edge.left - 1) continue;
    let above = e.parentElement;
    while (above !== column && !scrolls(above)) above = above.parentElement;
    if (above === column) found.push('wider than its column: ' + name(e));
  }
  for (const side of document.querySelectorAll('.bd-sidebar-primary, .bd-sidebar-secondary')) {
    const edge = side.getBoundingClientRect();
    for (const e of side.querySelectorAll('a, code, span'))
      if (edge.width && e.getBoundingClientRect().right > edge.right + 1) found.push('cut in a sidebar: ' + name(e));
  }
  const header = document.querySelector('.bd-header');
  if (header && header.getBoundingClientRect().height > 90) found.push('the header takes two lines');
  for (const e of document.querySelectorAll('img'))
    if (e.complete && !e.naturalWidth) found.push('no picture: ' + e.getAttribute('src'));
  return JSON.stringify(found);
})()
"""

SEARCHED = "JSON.stringify([...document.querySelectorAll('#search-results a')].map(e => e.getAttribute('href')))"


def look(root: Path, words: list[str], pictures: Path | None = None) -> dict[str, Any]:
    """Return what is wrong with each page at each width, what the console said, and what the search finds for words."""
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    os.environ.setdefault("QTWEBENGINE_DISABLE_SANDBOX", "1")
    os.environ.setdefault("QTWEBENGINE_CHROMIUM_FLAGS", "--no-sandbox --disable-gpu --allow-file-access-from-files")
    from PySide6.QtCore import QEventLoop, QTimer, QUrl
    from PySide6.QtWebEngineCore import QWebEnginePage
    from PySide6.QtWebEngineWidgets import QWebEngineView
    from PySide6.QtWidgets import QApplication

    application = QApplication([sys.argv[0]])
    said: list[str] = []

    class Page(QWebEnginePage):
        def javaScriptConsoleMessage(self, level: Any, message: str, line: int, source: str) -> None:  # noqa: N802
            said.append(f"{Path(source).name}: {message}")

    view = QWebEngineView()
    view.setPage(Page(view))

    def wait(milliseconds: int) -> None:
        loop = QEventLoop()
        QTimer.singleShot(milliseconds, loop.quit)
        loop.exec()

    def show(address: QUrl) -> None:
        loop = QEventLoop()
        view.loadFinished.connect(loop.quit)
        QTimer.singleShot(30_000, loop.quit)
        view.load(address)
        loop.exec()
        view.loadFinished.disconnect(loop.quit)

    def ask(script: str) -> Any:
        loop, answers = QEventLoop(), []
        view.page().runJavaScript(script, 0, lambda answer: (answers.append(answer), loop.quit()))
        QTimer.singleShot(30_000, loop.quit)
        loop.exec()
        return json.loads(answers[0])

    wrong: dict[str, list[str]] = {}
    pages = sorted(
        path for path in root.rglob("*.html") if "_static" not in path.parts and "_modules" not in path.parts
    )
    view.show()
    for path in pages:
        show(QUrl.fromLocalFile(str(path)))
        for width, height in WIDTHS.items():
            view.resize(width, height)
            for _ in range(100):
                wait(50)
                if ask("String(window.innerWidth)") == width:
                    break
            name = str(path.relative_to(root))
            if found := ask(LOOK):
                wrong[f"{name} at {width}"] = found
            if pictures is not None:
                wait(300)  # what is drawn follows what is laid out
                view.grab().save(str(pictures / f"{name.replace('/', '-')}-{width}.png"))
    results: dict[str, list[str]] = {}
    for word in words:
        address = QUrl.fromLocalFile(str(root / "search.html"))
        address.setQuery(f"q={word}")
        show(address)
        for _ in range(100):
            wait(100)
            if found := ask(SEARCHED):
                break
        results[word] = found
    view.close()
    view.setPage(None)  # type: ignore[arg-type]
    application.quit()
    return {"pages": len(pages), "wrong": wrong, "console": said, "search": results}


if __name__ == "__main__":
    folder = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    print(json.dumps(look(Path(sys.argv[1]).resolve(), ["segmentation", "mixup", "SaveState"], folder)))
    sys.stdout.flush()
    os._exit(0)  # Chromium's processes are not waited for

"""The pages of a run whose every string is hostile, opened in a browser under a content policy that reports: nothing on them
is active, and nothing is asked of anybody. So is the page to try a model in.

Needs playwright and a Chromium, as `test_app`.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.browser.test_app import ARGS, CHROMIUM, FINAL, WAIT, serving
from tests.security.hostile import ALL, BEACON, NAME, World, on_a_terminal

playwright = pytest.importorskip("playwright.sync_api")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not Path(CHROMIUM).is_file(), reason="no Chromium")]

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; report-uri /reports"
)
OWN_POLICY = re.compile('<meta http-equiv="Content-Security-Policy"[^>]*>')
WITNESS = """
window.owned = what => witness(`owned ${what}`);
window.open = (...given) => witness(`open ${given}`);
document.addEventListener('securitypolicyviolation', it => witness(`${it.violatedDirective} ${it.blockedURI}`));
"""
ACTIVE = """
() => [
  ...document.querySelectorAll('script, iframe, object, embed, base, form, link, meta[http-equiv=refresh], video, audio, foreignObject'),
  ...[...document.querySelectorAll('*')].filter(one => one.getAttributeNames().some(name => /^on/i.test(name))),
  ...[...document.querySelectorAll('[href], [src], [action], [xlink\\\\:href]')].filter(
      one => !/^(#|data:image|[\\w.-]+\\.html)/.test(one.getAttribute('href') ?? one.getAttribute('src') ?? one.getAttribute('xlink:href') ?? '')),
].map(one => one.outerHTML.slice(0, 200))
"""
"""What of a page could do something: none of ours has any of it, nor a link that leaves it."""


@dataclass
class Site:
    """A server of pages: which it has been asked for, and what a browser reported of its policy."""

    pages: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    reports: list[str] = field(default_factory=list)
    policy: str = POLICY
    address: str = ""


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    found = Site()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            found.asked.append(self.path)
            page = found.pages.get(self.path)
            self.send_response(200 if page is not None else 204)
            self.send_header("content-type", "text/html; charset=utf-8")
            if found.policy:
                self.send_header("content-security-policy", found.policy)
            self.end_headers()
            self.wfile.write(page or b"")

        def do_POST(self) -> None:
            found.reports.append(self.rfile.read(int(self.headers["content-length"])).decode())
            self.send_response(204)
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    found.address = f"http://127.0.0.1:{server.server_address[1]}"
    yield found
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        yield chromium
        chromium.close()


@dataclass
class Visit:
    """What a page did: everything that it asked for, said on the console, or called."""

    page: Any
    urls: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    hits: list[str] = field(default_factory=list)


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[[str], Visit]]:
    contexts = []

    def visit(url: str) -> Visit:
        context = browser.new_context(viewport={"width": 1200, "height": 900}, locale="en-US")
        contexts.append(context)
        context.add_init_script(WITNESS)
        found = Visit(None)
        context.expose_binding("witness", lambda source, what: found.hits.append(what))
        found.page = context.new_page()
        context.on("request", lambda request: found.urls.append(request.url))
        context.on("page", lambda page: found.told.append(f"another page: {page.url}"))
        found.page.on("pageerror", lambda error: found.told.append(f"error: {error}"))
        found.page.on("console", lambda line: found.told.append(f"{line.type}: {line.text}"))
        found.page.on(
            "dialog", lambda dialog: (found.told.append(f"dialog: {dialog.message}"), dialog.dismiss())
        )
        found.page.on("download", lambda it: found.told.append(f"download: {it.url}"))
        found.page.goto(url)
        return found

    yield visit
    for context in contexts:
        context.close()


# --- the pages --------------------------------------------------------------------------------------------------------


def card(world: World, run: str) -> str:
    """The model card as a renderer shows it that lets HTML through."""
    from markdown_it import MarkdownIt

    text = (world.folder / run / "model" / "README.md").read_text().split("---\n", 2)[2]
    return f"<!doctype html><title>a card</title>{MarkdownIt('commonmark', {'html': True}).enable('table').render(text)}"


def reproduction(*_: Any) -> str:
    """The page of a reproduction whose names, sources and errors are hostile."""
    from bert_ft.tools.reproduce import page

    results = {
        "name": ALL, "checkpoint": ALL, "seeds": [1, 2], "suite": {}, "verdicts": [], "soups": {}, "looks": [], "version": ALL,
        "made": {"date": ALL, ALL: ALL, "versions": {ALL: ALL}}, "tasks": {ALL: {"grid": None}},
        "runs": [{"folder": ALL, "state": ALL, "cause": ALL, "task": ALL, "grid": None}],
    }  # fmt: skip
    row = dict.fromkeys(
        ["task", "set", "metric", "published", "measured", "seeds", "verdict", "statistic", "source"], ALL
    )
    return page.html(results, [row], {ALL: [(ALL, ALL, [90.0, 91.0], [90.5])]})


def made(argv: list[str], name: str) -> Callable[[World], str]:
    """The page that a command leaves."""

    def page(world: World) -> str:
        file = world.folder / name
        if not file.exists():
            shown = on_a_terminal(world.words(*argv), world.folder)
            assert shown.code == 0, shown.text
        return file.read_text()

    return page


GIVEN = [
    "classification",
    "-c",
    f"model{NAME}",
    "--train",
    "ROWS:classification",
    "--validation",
    "ROWS:classification",
]
SEARCH = f"look{NAME}".replace("\x1b(0", "")
PAGES: dict[str, Callable[[World], str]] = {
    **{kind: lambda made, kind=kind: (made.folder / made.run(kind) / "report.html").read_text()
       for kind in ("classification", "ner", "qa", "folds", "task")},
    "two runs": made(["report", "RUN:classification", "RUN:second", "-o", f"two{NAME}.html"], f"two{NAME}.html"),
    "curve": made(["curve", *GIVEN, "--shares", "9", "18", "--seeds", "2", "-o", f"bend{NAME}", "--max-steps", "2"], f"bend{NAME}/curve.html"),
    "search": made(["search", *GIVEN, "-o", SEARCH, "--trials", "2", "--space", "learning_rate=1e-5,1e-4", "--set", "max_steps=2"],
                   f"{SEARCH}/search.html"),
    "reproduction": reproduction,
    "card": lambda made: card(made, made.run("classification")),
    "card of entities": lambda made: card(made, made.run("ner")),
}  # fmt: skip


@pytest.mark.parametrize("policy", [POLICY, ""], ids=["reporting", "no policy"])
@pytest.mark.parametrize("kind", PAGES)
def test_nothing_on_a_page_is_active(world: World, site: Site, visit: Any, kind: str, policy: str) -> None:
    """Under the policy that reports, and with none that would stop it."""
    content = PAGES[kind](world)
    if not policy:  # nor with the one of the page itself
        content = OWN_POLICY.sub("", content)
    site.pages["/page.html"], site.policy = content.encode(), policy
    site.asked.clear(), site.reports.clear()
    found = visit(f"{site.address}/page.html")
    found.page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    for link in found.page.locator("a[href^='#']").all()[:5]:
        link.click()
    found.page.mouse.move(600, 400)
    found.page.wait_for_timeout(500)
    active = found.page.evaluate(ACTIVE)
    if kind.startswith("card"):  # which links to the pages of bert-ft and of the checkpoint
        active = [one for one in active if not re.match(r'<a href="https://[\w./-]+">', one)]
    assert not active, active
    assert not found.hits, found.hits
    assert not found.told, found.told
    assert not site.reports, site.reports
    assert {*site.asked} <= {"/page.html", "/favicon.ico"} and {*found.urls} <= {
        f"{site.address}/{name}" for name in ("page.html", "favicon.ico")
    }, (site.asked, found.urls)
    text = found.page.evaluate("document.body.textContent")
    assert "owned" in text and "\x1b" not in text and "\u202e" not in text
    assert found.page.url.partition("#")[0] == f"{site.address}/page.html"


def test_the_witness_sees_what_is_active(site: Site, visit: Any) -> None:
    """The judge itself: the stand-ins, unescaped, are seen by each of its eyes."""
    site.pages["/page.html"] = f"<!doctype html><body><p>{ALL}</p>".encode()
    for policy in (POLICY, ""):
        site.policy = policy
        site.reports.clear()
        found = visit(f"{site.address}/page.html")
        found.page.wait_for_timeout(500)
        if policy:
            assert {"script-src-elem", "img-src"} <= {
                re.findall('"violated-directive":"([\\w-]+)', it)[0] for it in site.reports
            }
            assert found.hits and found.told
        else:
            assert {"owned script", "owned img", "owned svg"} <= {*found.hits}
            assert any(url.startswith(BEACON) for url in found.urls)


# --- the page to try a model in ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["classification", "ner", "qa"])
def test_nothing_of_a_hostile_model_is_active_in_the_app(
    world: World, visit: Any, tmp_path: Path, kind: str
) -> None:  # fmt: skip
    pytest.importorskip("gradio", reason="the extra `app`")
    with serving(world.folder / world.run(kind), tmp_path / "own") as served:
        found = visit(served.address)
        found.page.wait_for_selector("#answer", timeout=WAIT)
        for box in found.page.locator("[id^=field-] textarea").all():
            box.fill(ALL)
        found.page.click("#answer")
        found.page.wait_for_selector(FINAL, timeout=WAIT)
        if (example := found.page.locator(".example")).count():
            example.first.click()
            found.page.wait_for_timeout(500)
            found.page.wait_for_selector(FINAL, timeout=WAIT)
        upload = tmp_path / f"rows{NAME[:60]}.csv"
        upload.write_bytes((world.folder / world.files["classification"]).read_bytes())
        with found.page.expect_file_chooser() as chooser:
            found.page.click("#upload")
        chooser.value.set_files(upload)
        found.page.wait_for_selector("#outcome .bert-ft", timeout=WAIT)
        found.page.wait_for_timeout(1000)
        assert found.page.locator("[onerror], [onload], iframe[src^=javascript]").count() == 0
        assert found.page.locator("img[src=x], meta[http-equiv=refresh]").count() == 0
        assert not [hit for hit in found.hits if "owned" in hit], found.hits
        assert not found.told, found.told
        assert not [url for url in found.urls if not url.startswith((served.address, "data:", "blob:"))], (
            found.urls
        )
        assert not served.reached, served.reached
        assert "owned" in found.page.evaluate("document.body.innerText")

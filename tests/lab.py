"""Read the course as a reader does: in JupyterLab, in a browser.

    make lab-test                  the index and every chapter
    make lab-test CH="index 11"    those whose file name starts with one of these

`make test` proves what the cells compute; this test proves what a reader sees. It starts JupyterLab by `make lab`,
opens each notebook in headless Chromium through Playwright, runs "Restart Kernel and Run All Cells", and reports
  - a printed address that does not open the index,
  - a dialog that keeps the notebook from opening, as for a missing kernelspec,
  - a folded section that is open when the notebook opens,
  - an error output, a cell that did not run, be it in a folded section, a notebook that takes longer than TIMEOUT,
  - a slow cell or a benchmark that ran although nobody asked for it,
  - a missing figure: a cell that shows fewer images than in its saved outputs, or an image that does not load; a cell
    that cannot run on this machine must show the images that were kept of it,
  - a figure with sliders (`explore`) whose picture stays the same when the first slider, or menu where there is none, moves,
  - a widget that cannot be shown when the notebook is opened again as it would have been saved,
  - a broken link: every relative link to a notebook must lead to a file, and one "next" link is clicked.
A screenshot of each whole notebook is left in tests/screenshots/. The notebooks on disk stay as they are: JupyterLab
runs with a configuration of its own, in which it saves none of them. The test ends with a line `N passed, M failed`.
"""
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from playwright.sync_api import Error, Locator, Page, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeout

ROOT = Path(__file__).resolve().parents[1]
NBS = ROOT / "nbs"
SCREENSHOTS = ROOT / "tests" / "screenshots"
TIMEOUT = 300  # seconds for all cells of one notebook
PATIENCE = 120  # seconds for anything else: the server to start, a page to load, a kernel to answer
WIDTH, TALLEST = 1280, 16_000  # pixels of a screenshot; Chromium cannot draw a page of 16,384 or more

# A cell with one of these flags runs only where the reader asked for it, and says so.
UNASKED = re.compile(r"^#\|\s*(slow|bench)\b", re.M)
COPY = "_lab-test.ipynb"  # of a notebook that is opened again; no chapter's name begins with _
WIDGET = "application/vnd.jupyter.widget-view+json"
# The target of [text](target), of [name]: target and of <a href="target">, where it is a notebook and not an address.
LINK = re.compile(r"""(?:\]\(|\]:\s*|href=["'])<?(?!\w+:)([^\s)"'>#]+\.ipynb)""")
NEXT = re.compile(r"next: \[[^\]]*\]\(([^)#]+\.ipynb)\)")

# JupyterLab shall not save, nor ask whether it may look for news, nor leave half a page empty below the last cell.
SETTINGS = {
    "docmanager-extension/plugin": {"autosave": False},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"scrollPastEnd": False},
}
# Chromium shall neither need a graphics card nor look for a network.
BROWSER = ["--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
           "--disable-sync", "--disable-quic"]
AS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0

# Places in the page: CSS selectors, and the open notebook in JavaScript.
DIALOG = ".jp-Dialog-content"
SCROLLER = ".jp-NotebookPanel:not(.lm-mod-hidden) .jp-WindowedPanel-outer"
PANEL = "window.jupyterapp?.shell.currentWidget"
CELLS = f"{PANEL}.content.widgets"
OPENED = f"(path => {PANEL}?.context?.path === path && {PANEL}.context.isReady)"
IDLE = f"{PANEL}?.sessionContext.session?.kernel?.status === 'idle'"


def chapters(prefixes: list[str]) -> list[Path]:
    "The index and the chapters in reading order; with `prefixes`, those whose names start with one of them."
    found = [NBS / "index.ipynb", *sorted(NBS.glob("[0-9]*/*.ipynb"))]
    for prefix in prefixes:
        if not any(path.name.startswith(prefix) for path in found):
            sys.exit(f"no notebook under {NBS} has a name that starts with {prefix!r}")
    return [path for path in found if path.name.startswith(tuple(prefixes or [""]))]


def find_chromium(downloaded: str) -> str:
    "The path of a Chromium: $CHROMIUM, else the system's, else the one that Playwright has `downloaded`."
    chosen = os.environ.get("CHROMIUM")
    names = [chosen] if chosen else ["chromium", "chromium-browser", "google-chrome", downloaded]
    found = next(filter(None, map(shutil.which, names)), None)
    return found or sys.exit(f"No Chromium at {', '.join(names)}: install it with `apt install chromium` or "
                             "`.venv/bin/playwright install chromium`, or give its path in the variable CHROMIUM.")


@contextmanager
def jupyterlab():
    "`make lab` without the reader's own configuration: gives its address, token and what it prints; ends it with its kernels."
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        config = Path(folder)
        for name, settings in SETTINGS.items():
            file = config / "lab/user-settings/@jupyterlab" / f"{name}.jupyterlab-settings"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(settings))
        checkpoints = {"FileCheckpoints": {"checkpoint_dir": str(config / "checkpoints")}}
        (config / "jupyter_server_config.json").write_text(json.dumps(checkpoints))

        # MAKE... and CH come from `make lab-test`; without DLVISION_DATA the cells on real data find none.
        unwanted = re.compile("MAKE|MFLAGS$|CH$|DLVISION_DATA$|JUPYTER")
        environment = {name: value for name, value in os.environ.items() if not unwanted.match(name)}
        environment |= {"JUPYTER_CONFIG_DIR": folder, "IPYTHONDIR": str(config / "ipython")}
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            port, token = probe.getsockname()[1], secrets.token_hex(16)
        options = ["--no-browser", f"--port {port}", "--ServerApp.port_retries=0",
                   f"--IdentityProvider.token={token}", "--LabApp.expose_app_in_browser=True"]
        # `make lab-test` has made the environment ready: the test never installs anything into it.
        command = ["make", "--old-file=.venv/.ready", "lab", f"ARGS={' '.join(options + ['--allow-root'] * AS_ROOT)}"]
        log = config / "log.txt"
        with log.open("w") as output:
            server = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL,
                                      stdout=output, stderr=output, start_new_session=True)
        try:
            deadline = time.monotonic() + PATIENCE
            while not (listens(port) and (printed := re.search(rf"http://localhost:{port}/\S+", log.read_text()))):
                if server.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"JupyterLab did not start:\n{log.read_text()[-2000:]}")
                time.sleep(0.2)
            yield f"http://localhost:{port}", token, printed[0].replace("...", token)  # a token of our own is not printed
        finally:
            for sign in (signal.SIGTERM, signal.SIGKILL):  # ask, so that the server ends its kernels; then force
                with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                    os.killpg(server.pid, sign)
                    server.wait(timeout=10)


def listens(port: int) -> bool:
    "Whether anything on this machine listens at `port`."
    with socket.socket() as probe:
        return probe.connect_ex(("localhost", port)) == 0


def links(cells: list[dict], pattern: re.Pattern = LINK) -> list[str]:
    "The notebooks that the markdown of `cells` links to, as written there."
    texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    return [link for text in texts for link in pattern.findall(text)]


def figures(cell: dict) -> int:
    "How many images the outputs of `cell` hold."
    return sum("image/png" in output.get("data", {}) for output in cell["outputs"])


def judge(saved: list[dict], cells: list[dict]) -> list[str]:
    "What is wrong with `cells` as they are after the run, given the `saved` ones, down to the first that failed."
    problems = []
    for number, (old, new) in enumerate(zip(saved, cells, strict=True)):
        if new["cell_type"] != "code":
            continue
        source = "".join(new["source"])
        for output in new["outputs"]:
            if output["output_type"] == "error":
                return [*problems, f"cell {number}: {output['ename']}: {output['evalue']}"]
        if source.strip() and new["execution_count"] is None:
            return [*problems, f"cell {number} did not run"]
        if figures(new) < figures(old):
            problems.append(f"cell {number}: missing figure, {figures(new)} of {figures(old)}")
        said = "".join("".join(output.get("text", "")) for output in new["outputs"])
        if UNASKED.search(source) and "ready(" in source and not said.startswith("Not run here"):
            problems.append(f"cell {number} ran although nobody asked for it")
    return problems


def open_notebook(page: Page, address: str, token: str, name: str) -> None:
    "Open `name` in an empty workspace and wait for its kernel."
    page.goto(f"{address}/lab/workspaces/lab-test/tree/{quote(name)}?reset&token={token}")
    page.wait_for_function(f"path => document.querySelector('{DIALOG}') || {OPENED}(path) && {IDLE}", arg=name)
    dialog = page.locator(DIALOG)
    if dialog.count():
        raise Error(f"opens with a dialog: {' '.join(dialog.first.inner_text().split())}")


def open_folds(page: Page) -> list[str]:
    "The sections that are to be folded and are not."
    return page.evaluate(f"""() => {CELLS}.map((cell, i) => [cell, {CELLS}[i + 1]])
        .filter(([cell, next]) => cell.model.getMetadata('jp-MarkdownHeadingCollapsed'))
        .filter(([cell, next]) => !cell.headingCollapsed || (next && !next.isHidden))
        .map(([cell]) => `not folded: ${{cell.model.sharedModel.source.split('\\n')[0]}}`)""")


def run_all(page: Page) -> list[dict]:
    "Restart the kernel, run all cells, and give them with their new outputs."
    page.evaluate("""() => {
        const commands = window.jupyterapp.commands, finish = () => window.finished = true;
        commands.execute('notebook:clear-all-cell-outputs');
        commands.execute('notebook:restart-run-all').then(finish, finish);
    }""")
    page.locator(f"{DIALOG} .jp-mod-accept").click()  # "Restart Kernel?"
    try:
        page.wait_for_function(f"window.finished && {IDLE}", timeout=TIMEOUT * 1000, polling=200)
    except PlaywrightTimeout:
        raise Error(f"not finished after {TIMEOUT} s") from None
    # JupyterLab draws only what is in view, so the outputs are read from its model.
    return json.loads(page.evaluate(f"() => JSON.stringify({PANEL}.context.model.toJSON().cells)"))


def has_widget(cell: dict) -> bool:
    "Whether an output of `cell` is a widget."
    return any(WIDGET in output.get("data", {}) for output in cell.get("outputs", []))


def show_cell(page: Page, number: int) -> Locator:
    "Scroll to a cell, so that JupyterLab draws it."
    page.evaluate(f"async n => {{ await {PANEL}.content.scrollToItem(n, 'center'); }}", number)
    cell = page.locator(f"{SCROLLER} .jp-Cell[data-windowed-list-index='{number}']")
    cell.wait_for()
    return cell


def move(page: Page, cells: list[dict]) -> list[str]:
    "Move the first slider, or else menu, of the first figure that has some, and see its picture change; what went wrong."
    explored = [n for n, cell in enumerate(cells) if "explore(" in "".join(cell["source"]) and has_widget(cell)]
    if not explored:
        asked = any(re.search(r"^explore\(", "".join(c["source"]), re.M) for c in cells if c["cell_type"] == "code")
        return ["explore shows no sliders"] if asked else []
    figure = show_cell(page, explored[0]).locator(".dlvision-explore")
    source = "n => document.querySelector(`[data-windowed-list-index='${n}'] .dlvision-explore img`)?.src"
    page.wait_for_function(source, arg=explored[0])
    before = page.evaluate(source, explored[0])
    slider, menu = figure.locator(".noUi-handle").first, figure.locator("select").first
    moves = [lambda key=key: slider.press(key) for key in ("ArrowRight", "ArrowLeft")]  # at its end it moves one way only
    if not slider.count():
        moves = [lambda i=i: menu.select_option(index=i) for i in (1, 0)]
    for turn in moves:
        turn()
        with suppress(PlaywrightTimeout):
            page.wait_for_function(f"([n, was]) => ({source})(n) !== was", arg=[explored[0], before], timeout=30_000)
            return []
    return [f"cell {explored[0]}: a control moves and the picture stays"]


def reopen(page: Page, address: str, token: str, notebook: dict) -> list[str]:
    "The widgets that cannot be shown where `notebook` was saved and is opened again; it is saved as another file."
    numbers = [n for n, cell in enumerate(notebook["cells"]) if has_widget(cell)]
    if not numbers:
        return []
    file, sign = f"{address}/api/contents/{COPY}", {"Authorization": f"token {token}"}
    page.evaluate("() => window.jupyterapp.serviceManager.sessions.shutdownAll()")
    try:
        saved = page.request.put(file, headers=sign, data=dict(type="notebook", format="json", content=notebook))
        if not saved.ok:
            return [f"cannot be saved: {saved.status} {saved.text()[:200]}"]
        open_notebook(page, address, token, COPY)
        page.wait_for_timeout(2000)  # the widgets' models are looked for
        lost = []
        for n in numbers:
            area = show_cell(page, n).locator(".jp-OutputArea")
            with suppress(PlaywrightTimeout):  # a busy machine draws late
                area.locator("img").first.wait_for(state="attached", timeout=30_000)
            if "Error displaying" in area.inner_text() or not area.locator("img").count():
                lost.append(f"cell {n} shows no picture when opened again")
        return lost
    finally:
        page.request.delete(file, headers=sign)


def photograph(page: Page, file: Path) -> list[str]:
    "Save a picture of the whole notebook; give the images that do not load."
    for _ in range(2):  # twice, since the height of what has not been in view is an estimate
        height = page.evaluate(f"""() => {{
            const notebook = document.querySelector('{SCROLLER}');
            notebook?.scrollTo(0, 0);
            return window.innerHeight + (notebook ? notebook.scrollHeight - notebook.clientHeight : 0);
        }}""")
        page.set_viewport_size({"width": WIDTH, "height": min(height, TALLEST)})
        page.wait_for_timeout(500)
    broken = f"[...document.querySelectorAll('{SCROLLER} img')].filter(i => !i.naturalWidth).map(i => i.alt || i.src)"
    with suppress(PlaywrightTimeout):
        page.wait_for_function(f"{broken}.length === 0", timeout=10_000)
    page.screenshot(path=file)
    return [f"image does not load: {name[:100]}" for name in page.evaluate(f"() => {broken}")]


def follow_next(page: Page, path: Path) -> bool:
    "Click the link to the next chapter in the open notebook and wait for that to open; False if there is no link."
    for link in links(json.loads(path.read_bytes())["cells"], NEXT):
        target = (path.parent / link).resolve().relative_to(NBS).as_posix()
        page.locator(f"{SCROLLER} .jp-RenderedMarkdown a[href*='/{quote(target)}']").first.click()
        try:
            page.wait_for_function(OPENED, arg=target)
        except PlaywrightTimeout:
            raise Error(f"a click on the link to {link} does not open it") from None
        return True
    return False


def check(page: Page, address: str, token: str, path: Path) -> list[str]:
    "What is wrong with the notebook at `path`."
    content, name = path.read_bytes(), path.relative_to(NBS).as_posix()
    saved = json.loads(content)["cells"]
    problems = [f"broken link: {link}" for link in links(saved) if not (path.parent / link).is_file()]
    try:
        open_notebook(page, address, token, name)
        problems += open_folds(page)
        cells = run_all(page)
        problems += judge(saved, cells) + move(page, cells)
        problems += photograph(page, SCREENSHOTS / f"{path.stem}.png")
        problems += reopen(page, address, token, json.loads(content) | {"cells": cells})
    except Error as error:
        problems += [str(error).splitlines()[0], *photograph(page, SCREENSHOTS / f"{path.stem}.png")]
    page.evaluate("() => window.jupyterapp?.serviceManager.sessions.shutdownAll()")
    if path.read_bytes() != content:
        problems.append("its file changed while it was open")
    return problems


def main(prefixes: list[str]) -> int:
    "Check the notebooks and print the verdict on each; the exit status."
    paths, failed, clicked = chapters(prefixes), 0, False
    SCREENSHOTS.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        options = {"executable_path": find_chromium(playwright.chromium.executable_path),
                   "args": BROWSER + ["--no-sandbox"] * AS_ROOT}
        with jupyterlab() as (*server, printed), playwright.chromium.launch(**options) as browser, browser.new_context() as context:
            context.set_default_timeout(PATIENCE * 1000)
            opened = context.new_page()
            opened.goto(printed)
            opened.wait_for_function(OPENED, arg="index.ipynb")
            opened.close()
            for path in paths:
                start, page = time.monotonic(), context.new_page()
                try:
                    problems = check(page, *server, path)
                    if not (clicked or problems):
                        open_notebook(page, *server, path.relative_to(NBS).as_posix())  # it may be a copy that is open
                        clicked = follow_next(page, path)
                except (Error, ValueError) as error:  # ValueError: the file is no JSON
                    problems = [str(error).splitlines()[0]]
                page.close()
                failed += bool(problems)
                verdict = f"{'FAIL' if problems else 'ok':4} {time.monotonic() - start:6.1f} s  {path.relative_to(NBS)}"
                print(verdict, *problems, sep="\n    ", flush=True)
    if not clicked:
        print("no link to a next chapter was followed")
    print(f"{len(paths) - failed} passed, {failed} failed")
    return int(failed > 0 or not (clicked or prefixes))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that JupyterLab ends with the test
    sys.exit(main(sys.argv[1:]))

"""What `make export`, `make test` and `make bench` do: keep package, README and notebooks in step, and run the chapters.

    python .ci/course.py export
    python .ci/course.py test [--chapter 33] [--flags "realdata"]
    python .ci/course.py bench [--chapter 91]
"""

import argparse
import base64
import filecmp
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
NOTEBOOKS, PACKAGE, README, FIGURE = ROOT / "nbs", ROOT / "dlvision", ROOT / "README.md", ROOT / "data" / "course.png"


def chapters(start: str = "") -> list[Path]:
    "The notebooks in reading order; with `start`, those whose file name begins with it."
    found = [p for p in NOTEBOOKS.rglob("*.ipynb") if not any(s[0] in "._" for s in p.relative_to(NOTEBOOKS).parts)]
    return sorted((p for p in found if p.name.startswith(start)), key=lambda p: (p.name != "index.ipynb", p))


def has_flag(chapter: Path, flags: str) -> bool:
    "Whether a chapter has a cell with one of `flags`; every chapter has none of no flags."
    cells = nbformat.read(chapter, as_version=4).cells
    return not flags or any(re.search(rf"^#\|\s*{flag}\b", c.source, re.M) for c in cells for flag in flags.split())


def readme() -> tuple[str, bytes]:
    "README.md as nbconvert makes it from the index, without the code of collapsed cells, and the index's figure."
    notebook = nbformat.read(NOTEBOOKS / "index.ipynb", as_version=4)
    cells, figure = [], b""
    for cell in notebook.cells:
        if not cell.metadata.get("jupyter", {}).get("source_hidden"):
            cells.append(cell)
        for output in cell.get("outputs", []):
            if png := output.get("data", {}).get("image/png"):
                figure = base64.b64decode(png)
                cells.append(nbformat.v4.new_markdown_cell(f"![dlvision](../{FIGURE.relative_to(ROOT).as_posix()})"))
    notebook.cells = cells
    text, _ = MarkdownExporter().from_notebook_node(notebook)
    links = r"\]\((?!https?:|#)(\.\./)?"  # relative to nbs/ in the notebook, to the root in the README
    text = re.sub(links, lambda link: "](" if link[1] else "](nbs/", text)
    return "<!-- made from nbs/index.ipynb by `make export`; edit that -->\n" + text.strip() + "\n", figure


def tool(*command: str | Path) -> None:
    "Run one of nbdev's commands; its failure ends this program."
    subprocess.run([BIN / command[0], *command[1:]], cwd=ROOT, check=True)


def export() -> None:
    "Write the package and the README from the notebooks, and clean the notebooks."
    tool("nbdev-clean")
    tool("nbdev-export")
    text, figure = readme()
    README.write_text(text, encoding="utf-8")
    FIGURE.write_bytes(figure)


def differences(old: Path, new: Path) -> list[str]:
    "The files below `new`, or `new` itself, that are not the same in `old`; and those that are only there."
    def names(root):
        paths = root.rglob("*") if root.is_dir() else [root]
        return {p.relative_to(root) for p in paths if p.is_file() and p.suffix != ".pyc"}

    both = names(old) & names(new)
    changed = [p for p in both if not filecmp.cmp(old / p, new / p, shallow=False)]
    return sorted((new.relative_to(ROOT) / p).as_posix() for p in {*changed, *(names(old) ^ names(new))})


def check() -> None:
    "Export, and stop where that changed anything: what is tracked must be what the notebooks say."
    made = (NOTEBOOKS, PACKAGE, README, FIGURE)
    with tempfile.TemporaryDirectory() as folder:
        for path in made:
            if path.is_dir():
                shutil.copytree(path, Path(folder) / path.name)
            elif path.exists():
                shutil.copy(path, folder)
        export()
        stale = [name for path in made for name in differences(Path(folder) / path.name, path)]
    if stale:
        sys.exit("These were not clean, or not what the notebooks say; they are now. Look at them and commit:\n  " + "\n  ".join(stale))
    if orphans := [str(module.relative_to(ROOT)) for module in PACKAGE.rglob("*.py") if not has_notebook(module)]:
        sys.exit("No notebook makes these modules: " + ", ".join(orphans))
    print("The package, the README and the notebooks are in step.")


def has_notebook(module: Path) -> bool:
    "Whether the notebook that a module names exists; `_modidx.py` and empty `__init__.py` files need none."
    text = module.read_text(encoding="utf-8")
    if module.name == "_modidx.py" or (module.name == "__init__.py" and not text.strip()):
        return True
    origin = re.search(r"File to edit: (\S+\.ipynb)", text)
    return bool(origin) and (module.parent / origin[1]).resolve().exists()


def run(chapter: Path, flags: str, save: bool = False) -> bool:
    "Run one chapter with nbdev-test in one thread, print the seconds it took, and say whether it passed."
    start = time.monotonic()
    single = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    command = [BIN / "nbdev-test", chapter, "--flags", flags, *["--save"] * save]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | single, capture_output=True, text=True)
    passed = done.returncode == 0
    print(f"{chapter.relative_to(NOTEBOOKS)!s:44} {time.monotonic() - start:6.1f} s  {'' if passed else 'FAILED'}", flush=True)
    if not passed:
        print(done.stdout + done.stderr, flush=True)
    return passed


def select(start: str, flags: str) -> list[Path]:
    "The chapters whose names begin with `start` and that have cells with one of `flags`; ends this program if none has."
    found = [path for path in chapters(start) if has_flag(path, flags)]
    if not found:
        sys.exit(f"no chapter begins with {start!r} and has a cell flagged {flags!r}; chapters: " + ", ".join(p.stem for p in chapters()))
    return found


def finish(results: list[bool]) -> None:
    "End with the count, and with a failure if there was one."
    print(f"{sum(results)} passed, {len(results) - sum(results)} failed")
    sys.exit(not all(results))


def test(start: str, flags: str) -> None:
    "Check that all is in step, and run the chapters on all cores."
    check()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with ThreadPoolExecutor(cores) as pool:
        finish(list(pool.map(lambda path: run(path, flags), select(start, flags))))


def bench(start: str) -> None:
    "Run the chapters that have benchmarks one by one, so that they do not disturb each other, and save what they print."
    results = [run(path, "bench", save=True) for path in select(start, "bench")]
    tool("nbdev-clean")
    finish(results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("export", "test", "bench"):
        command = commands.add_parser(name)
        if name != "export":
            command.add_argument("--chapter", default="", help="how the chapters' file names begin, like 33")
        if name == "test":
            command.add_argument("--flags", default="", help="only chapters with cells so flagged, those cells too, like 'realdata slow'")
    given = vars(parser.parse_args())
    {"export": export, "test": test, "bench": bench}[given.pop("command")](*given.values())


if __name__ == "__main__":
    main()

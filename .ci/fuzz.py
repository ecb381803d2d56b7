"""Run one chapter, then again and again its folded tests, each round under another seed.

    python .ci/fuzz.py nbs/1_images/11_pixels.ipynb --rounds 20 --first 0

What is repeated: every cell below the heading "Under test", and every other cell that asks for `fuzz_seed()`.
Prints the seeds that fail, with what they fail of, and ends with a failure if there are any.
"""

import argparse
import os
import sys
from pathlib import Path

from execnb.shell import CaptureShell
from fastcore.xtras import working_directory
from nbdev.config import get_config
from nbdev.process import NBProcessor
from nbdev.test import nb_test_cells


def repeated(chapter: Path) -> set[str]:
    "The ids of the code cells whose random inputs are drawn anew in each round."
    ids, folded = set(), False
    for cell in NBProcessor(chapter).nb.cells:
        folded |= cell.cell_type == "markdown" and cell.source.startswith("## Under test")
        if cell.cell_type == "code" and (folded or "fuzz_seed(" in cell.source):
            ids.add(cell.id)
    return ids


def failure(shell: CaptureShell, cells: list) -> str:
    "Run cells up to the first that fails: its first line and its error; empty where all pass."
    for cell in cells:
        shell.run(cell.source)
        if shell.exc:
            return f"{cell.source.strip().splitlines()[0][:80]}: {type(shell.exc).__name__}: {str(shell.exc)[:300]}"
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chapter", type=Path)
    parser.add_argument("--rounds", type=int, default=20, help="how often the folded tests run")
    parser.add_argument("--first", type=int, default=0, help="seed of the first round; each next is greater by one")
    given = parser.parse_args()
    chapter = given.chapter.resolve()
    cells, again = nb_test_cells(chapter, skip_flags=get_config(chapter.parent).tst_flags), repeated(chapter)
    sys.path.insert(0, str(chapter.parents[2]))
    os.environ |= {"IN_TEST": "1", "DLVISION_FUZZ": str(given.first)}
    with working_directory(chapter.parent):
        shell = CaptureShell(chapter)
        failed = {given.first: problem} if (problem := failure(shell, cells)) else {}
        for seed in range(given.first + 1, given.first + given.rounds) if not failed else ():
            os.environ["DLVISION_FUZZ"] = str(seed)
            shell.run(f"import dlvision.runs\ndlvision.runs.seed_everything({seed})")
            if problem := failure(shell, [cell for cell in cells if cell.id in again]):
                failed[seed] = problem
    for seed, problem in failed.items():
        print(f"seed {seed}: {problem}")
    print(f"{given.rounds} rounds of {len(again)} cells from seed {given.first}, {len(failed)} failed")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()

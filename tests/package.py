"""What is published: built, checked, installed into a clean environment, and looked at there.

`python -m tests.package` does it; the gate does, too.
"""

import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
PACKAGE: Final = "trio_wsprim"


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Run a command, and show what it said if it failed."""
    done = subprocess.run(
        command,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        print(done.stdout)
        raise SystemExit(f"{' '.join(map(str, command))} failed with {done.returncode}")
    return done.stdout


def build(folder: Path) -> tuple[Path, Path]:
    """Build wheel and sdist, and have them checked as the index checks them."""
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT)
    (wheel,) = folder.glob("*.whl")
    (sdist,) = folder.glob("*.tar.gz")
    run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist)
    return wheel, sdist


def install(wheel: Path, folder: Path) -> Path:
    """Install a wheel into an environment that has nothing else; give its Python."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", f"{wheel}[fast]")
    return python


def completeness(python: Path, folder: Path) -> float:
    """Tell how much of the public interface has known types, from 0 to 1."""
    command: Sequence[str | Path] = (
        *(sys.executable, "-m", "pyright"),
        *("--outputjson", "--ignoreexternal", "--verifytypes", PACKAGE),
    )
    # For this it does not heed `--pythonpath`, and takes the Python that comes first.
    environment = {**os.environ, "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    report = json.loads(done.stdout)
    for symbol in report["typeCompleteness"]["symbols"]:
        if symbol["isExported"] and not symbol["isTypeKnown"]:
            print("of unknown type:", symbol["name"])
    score: float = report["typeCompleteness"]["completenessScore"]
    return score


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel, sdist = build(folder / "dist")
        print(f"built and checked {wheel.name} and {sdist.name}")
        python = install(wheel, folder / "venv")
        told = run(python, "-c", f"import {PACKAGE}; print({PACKAGE}.create_ws.__module__)", cwd=folder)
        print(f"imported in a clean environment: {told.strip()}")
        for arguments in (["--help"], ["connect", "--help"], ["serve", "--help"]):
            run(python.with_name("trio-wsprim"), *arguments, cwd=folder)
        print("the command line starts")
        score = completeness(python, folder)
        print(f"{score:.1%} of the public interface has known types")
    return int(score < 1)


if __name__ == "__main__":
    sys.exit(main())

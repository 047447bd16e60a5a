"""The gate: every check that a change must pass, one after the other.

Run `python -m tests.gate` for all of them, `--fast` to leave out tests, docs and package,
or name steps: `python -m tests.gate lint mypy`.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One check: commands run in order, of which the first that fails ends it."""

    name: str
    commands: Sequence[Sequence[str]]
    is_fast: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How a step ended, and how long it took in seconds."""

    name: str
    seconds: float
    exit_code: int

    def __str__(self) -> str:
        how = "passed" if self.exit_code == 0 else f"FAILED ({self.exit_code})"
        return f"{self.name:<10} {self.seconds:>7.1f} s  {how}"


def python_module(module: str, *arguments: str) -> Sequence[str]:
    return (sys.executable, "-m", module, *arguments)


# import-linter has no `__main__`, and its script need not be on PATH.
LINT_IMPORTS: Final = (
    *(sys.executable, "-c"),
    "from importlinter.cli import lint_imports_command as main; main()",
    "--no-logo",
)


def build_docs(scratch: Path) -> Sequence[str]:
    return python_module(
        "sphinx",
        *("--fail-on-warning", "--quiet", "--fresh-env"),
        *("--doctree-dir", str(scratch / "doctrees")),
        *("docs", str(scratch / "html")),
    )


def all_steps(scratch: Path) -> Sequence[Step]:
    """Every step, in the order of how soon each tells what is wrong.

    Args:
        scratch: A folder for what the steps leave behind, so that two gates in one tree do not
            write over each other.
    """
    # Without `--pythonpath`, pyright takes whichever `python` comes first on PATH.
    pyright = python_module("pyright", "--pythonpath", sys.executable)
    # A fragment that towncrier cannot place would be found only on the day of a release.
    draft = python_module("towncrier", "build", "--draft", "--version", "next")
    # `coverage run` rather than pytest-cov: it sees what a pytest plugin imports, too.
    # A process for each core; each file's tests in one of them.
    tests = python_module("coverage", "run", "-m", "pytest", "-n", "auto", "--dist", "loadfile")
    coverage = [python_module("coverage", "combine", "--quiet"), python_module("coverage", "report")]
    return (
        Step(name="format", commands=[python_module("ruff", "format", "--check", ".")]),
        Step(name="lint", commands=[python_module("ruff", "check", ".")]),
        Step(name="mypy", commands=[python_module("mypy")]),
        Step(name="pyright", commands=[pyright]),
        Step(name="imports", commands=[LINT_IMPORTS]),
        Step(name="changes", commands=[draft]),
        Step(name="tests", commands=[tests, *coverage], is_fast=False),
        Step(name="docs", commands=[build_docs(scratch)], is_fast=False),
        Step(name="package", commands=[python_module("tests.package")], is_fast=False),
    )


def run(step: Step, environment: dict[str, str]) -> Verdict:
    """Run a step with its output going straight to ours, so that a hang is seen where it hangs."""
    print(f"\n=== {step.name} ===", flush=True)
    start = time.perf_counter()
    exit_code = 0
    for command in step.commands:
        exit_code = subprocess.run(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, check=False).returncode
        if exit_code:
            break
    verdict = Verdict(name=step.name, seconds=time.perf_counter() - start, exit_code=exit_code)
    print(f"--- {verdict}", flush=True)
    return verdict


def chosen_steps(steps: Sequence[Step], arguments: Sequence[str] | None) -> Sequence[Step]:
    names = [step.name for step in steps]
    parser = argparse.ArgumentParser(prog="python -m tests.gate", description=__doc__)
    parser.add_argument("steps", nargs="*", metavar="STEP", help=f"of {', '.join(names)}")
    parser.add_argument("--fast", action="store_true", help="leave out tests, docs and package")
    options = parser.parse_args(arguments)
    for name in options.steps:
        if name not in names:
            parser.error(f"no step is called {name!r}; there are {', '.join(names)}")
    return [
        step for step in steps if (step.name in options.steps if options.steps else step.is_fast or not options.fast)
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        environment = {**os.environ, "COVERAGE_FILE": str(scratch / "coverage")}
        verdicts = [run(step, environment) for step in chosen_steps(all_steps(scratch), arguments)]

    print("\n=== gate ===")
    for verdict in verdicts:
        print(verdict)
    return int(any(verdict.exit_code for verdict in verdicts))


if __name__ == "__main__":
    sys.exit(main())

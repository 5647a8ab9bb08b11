"""Pins every dependency with hashes: requirements/*.txt from requirements/*.in and the two pyproject.toml.

`make lock` calls it to compile (with uv, over the network), `make check` calls it with --check (offline): each .txt
records a digest of the requirements that it was made from, so a changed requirement without a new lock is found.

    build.txt    what builds podium (hatchling, uv)
    podium.txt   podium with all of its extras, and podium-runtime
    dev.txt      both of the above, and what tests and checks need: this is what `make setup` installs

Beside these, each for an environment of its own with versions of its own:

    mlserver.txt    the server that benchmarks compare with
    clients-*.txt   other people's clients of the inference protocol
    flavors.txt     the frameworks whose models are served, torch left out (requirements/flavors.in says why)
"""

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path("requirements")
# The order matters: dev holds the other two, and they are compiled to the versions that it chose.
LOCKS: dict[str, list[str]] = {
    "dev": ["requirements/dev.in", "requirements/build.in", "pyproject.toml", "runtime/pyproject.toml"],
    "podium": ["pyproject.toml", "runtime/pyproject.toml"],
    "build": ["requirements/build.in"],
    "mlserver": ["requirements/mlserver.in"],
    "clients-tritonclient": ["requirements/clients-tritonclient.in"],
    "clients-kserve": ["requirements/clients-kserve.in"],
    "flavors": ["requirements/flavors.in", "requirements/flavors-overrides.txt", "runtime/pyproject.toml"],
}
# What is installed together with dev has the versions of dev.
WITH_DEV = frozenset({"podium", "build", "flavors"})
_OVERRIDES = re.compile(r"^requirements/.*-overrides\.txt$")
_OLDEST_PYTHON = "3.11"
_NOTE = "# Made by `make lock`; do not edit.\n# Made from requirements with sha256 {digest}\n"
_RECORDED = re.compile(r"^# Made from requirements with sha256 ([0-9a-f]{64})$", re.MULTILINE)
_PIN = re.compile(r"^[A-Za-z0-9][-A-Za-z0-9._]*==\S+( ; .+)? \\$")
_HASH = re.compile(r"^    --hash=sha256:[0-9a-f]{64}( \\)?$")


def requirements_of(root: Path, source: str) -> list[str]:
    """The requirement lines of one source, comments and order left out."""
    path = root / source
    if path.suffix == ".toml":
        project = tomllib.loads(path.read_text())["project"]
        extras = project.get("optional-dependencies", {})
        lines = [*project["dependencies"], *(line for extra in extras.values() for line in extra)]
    else:
        lines = [line.partition("#")[0].strip() for line in path.read_text().splitlines()]
    return sorted(line for line in lines if line)


def digest_of(root: Path, name: str) -> str:
    """The sha256, in hex, of everything that requirements/`name`.txt is made from."""
    lines = [f"python>={_OLDEST_PYTHON}"]
    for source in LOCKS[name]:
        lines += [source, *requirements_of(root, source)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def compile_lock(root: Path, name: str, uv: str, *, upgrade: bool) -> None:
    """Write requirements/`name`.txt anew. Raises CalledProcessError with uv's own words on stderr."""
    target = root / FOLDER / f"{name}.txt"
    # A draft beside the old lock: uv keeps the pins that it finds there, and a failure leaves the lock as it was.
    draft = target.with_suffix(".draft")
    draft.write_text(target.read_text() if target.exists() and not upgrade else "")
    command = [uv, "pip", "compile", "--universal", "--python-version", _OLDEST_PYTHON]
    command += ["--generate-hashes", "--no-header", "--no-annotate", "--no-emit-index-url"]
    command += ["--no-emit-find-links", "--quiet"]
    if "pyproject.toml" in LOCKS[name]:
        command.append("--all-extras")
    if name in WITH_DEV:
        command += ["--constraints", str(FOLDER / "dev.txt")]
    if upgrade:
        command.append("--upgrade")
    for source in LOCKS[name]:
        command += ["--overrides", source] if _OVERRIDES.match(source) else [source]
    command += ["--output-file", str(draft.relative_to(root))]
    try:
        subprocess.run(command, cwd=root, check=True, stdout=subprocess.DEVNULL)
        target.write_text(_NOTE.format(digest=digest_of(root, name)) + draft.read_text())
    finally:
        draft.unlink(missing_ok=True)


def faults_of(root: Path, name: str) -> list[str]:
    """What is wrong with requirements/`name`.txt, one sentence each; nothing when it is in step."""
    path = FOLDER / f"{name}.txt"
    if not (root / path).is_file():
        return [f"{path} is missing: run `make lock`"]
    text = (root / path).read_text()
    recorded = _RECORDED.search(text)
    if not recorded or recorded[1] != digest_of(root, name):
        return [
            f"{path} was made from other requirements than {', '.join(LOCKS[name])} name: run `make lock`"
        ]
    return [
        f"{path}:{number}: expected a pinned version or its hash, found: {line[:80]}"
        for number, line in enumerate(text.splitlines(), start=1)
        if line and not line.startswith("#") and not _PIN.match(line) and not _HASH.match(line)
    ]


def main() -> int:
    """Entry point: 0 when the locks are in step (or were written), 1 otherwise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare only; no network")
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions that fit")
    options = parser.parse_args()
    if options.check:
        faults = [fault for name in LOCKS for fault in faults_of(ROOT, name)]
        print("\n".join(faults) or f"requirements: {len(LOCKS)} locks are in step")
        return 1 if faults else 0
    uv = os.environ.get("UV") or str(Path(sys.executable).parent / "uv")
    for name in LOCKS:
        print(f"locking {FOLDER / name}.txt ...", flush=True)
        try:
            compile_lock(ROOT, name, uv, upgrade=options.upgrade)
        except subprocess.CalledProcessError:
            print(
                f"{FOLDER / name}.txt is as it was: uv found no set of versions that fits (its words are above)"
            )
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

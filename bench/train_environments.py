"""The environments of bench/train_cpu.py: one for each peer, in .nox/bench-train, installed by uv at first use.

They stay as they are when constraints.txt changes, until their folder is removed; `versions_of` says what they hold.

LLaMA-Factory wants older versions of transformers, peft and trl than those of constraints.txt, so none of them apply
to it. Its torchvision and torchaudio stay out, as everywhere here: their registry builds do not fit a CPU build of
torch. It imports torchaudio at its start and uses it for sounds alone, so an empty module takes the place.
"""

from __future__ import annotations

import subprocess
import sys
import time
import venv
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parent.parent
_FOLDER = ROOT / ".nox" / "bench-train"
_CONSTRAINTS = ROOT / "constraints.txt"
# On its own and first: pip finds a CPU build where one is provided.
_TORCH = "torch==2.13.0"
_PEFT = "peft==0.21.2"
_SHOWN = ("torch", "transformers", "peft", "accelerate", "trl", "ms-swift", "llamafactory", "llmtune")


@dataclass(frozen=True, kw_only=True)
class Environment:
    """A virtual environment with one peer."""

    name: str
    packages: tuple[str, ...]
    constrained: bool = True
    """Whether constraints.txt applies."""
    not_constrained: tuple[str, ...] = ()
    """Packages of constraints.txt whose version there this peer does not accept."""
    left_out: tuple[str, ...] = ()
    """Packages that this peer asks for and rows of text do not need."""
    empty_modules: tuple[str, ...] = ()
    """Those of them that are imported all the same."""


SWIFT = Environment(name="ms-swift", packages=("ms-swift==4.6.0",), not_constrained=("peft",))
TRL = Environment(name="trl", packages=("trl==1.16.0", _PEFT))
FACTORY = Environment(
    name="llamafactory",
    packages=("llamafactory==0.9.5",),
    constrained=False,
    left_out=("torchvision", "torchaudio"),
    empty_modules=("torchaudio",),
)
TRAINER = Environment(name="trainer", packages=("transformers", "accelerate", _PEFT))


def bin_of(environment: Environment | None) -> Path:
    """Return the folder of an environment's programs, made at first use; None is the one that runs the benchmark."""
    if environment is None:
        return Path(sys.executable).parent
    folder, wanted = _FOLDER / environment.name, f"{environment}\n{_TORCH}\n"
    mark = folder / "installed.txt"
    if not mark.exists() or mark.read_text(encoding="utf-8") != wanted:
        print(f"installing {' '.join(environment.packages)} into {folder.relative_to(ROOT)} (once)", flush=True)
        started = time.perf_counter()
        _install(environment, folder)
        print(f"installed in {time.perf_counter() - started:.0f} s", flush=True)
        mark.write_text(wanted, encoding="utf-8")
    return folder / "bin"


def versions_of(environment: Environment | None) -> dict[str, str]:
    """Return the versions of the packages that matter."""
    places = sys.path if environment is None else [str(_site_packages(_FOLDER / environment.name))]
    found = {name: _first(metadata.distributions(name=name, path=places)) for name in _SHOWN}
    return {name: distribution.version for name, distribution in found.items() if distribution is not None}


def _first(found: Iterable[metadata.Distribution]) -> metadata.Distribution | None:
    return next(iter(found), None)


def _site_packages(folder: Path) -> Path:
    return next(folder.glob("lib/python*/site-packages"))


def _install(environment: Environment, folder: Path) -> None:
    venv.create(folder, clear=True, with_pip=True)
    python = str(folder / "bin" / "python")
    constraints, left_out = folder / "constraints.txt", folder / "left-out.txt"
    constraints.write_text(_constraints(environment), encoding="utf-8")
    left_out.write_text(
        "".join(f"{name}; sys_platform == 'never'\n" for name in environment.left_out), encoding="utf-8"
    )
    subprocess.run([python, "-m", "pip", "install", "-qq", "-c", str(constraints), _TORCH], check=True)
    uv = (sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", python)
    files = ("--constraints", str(constraints), "--overrides", str(left_out))
    subprocess.run([*uv, *files, _TORCH, *environment.packages], check=True)
    for name in environment.empty_modules:
        text = f'"""Stands for {name}, whose registry build does not fit a CPU build of torch."""\n'
        _site_packages(folder).joinpath(f"{name}.py").write_text(text, encoding="utf-8")


def _constraints(environment: Environment) -> str:
    if not environment.constrained:
        return ""
    lines = _CONSTRAINTS.read_text(encoding="utf-8").splitlines(keepends=True)
    return "".join(line for line in lines if line.partition("==")[0] not in environment.not_constrained)

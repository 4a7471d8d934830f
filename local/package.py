"""Builds the zips that go to AWS: small binaries, for arm64 where cargo-lambda can cross-compile, else for this one.

Usage: python3 local/package.py
"""

import shutil
import subprocess
import sys

import deploy
from settings import ROOT, TARGET


def main() -> int:
    names = deploy.functions()
    packages = [argument for name in names for argument in ("-p", name)]
    folder = TARGET / "lambda"
    if shutil.which("cargo-lambda"):
        command = ["cargo", "lambda", "build", "--release", "--arm64", "--output-format", "zip", "--locked", *packages]
        subprocess.run(command, cwd=ROOT, check=True)
        for name in names:
            (folder / name / "bootstrap.zip").replace(folder / f"{name}.zip")
        deploy.write_manifest(folder, "arm64")
    else:
        print("cargo-lambda is not installed (cargo install cargo-lambda): building for this machine", file=sys.stderr)
        subprocess.run(["cargo", "build", "--release", "--locked", *packages], cwd=ROOT, check=True)
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            deploy.zip_binary(TARGET / "release" / name, folder / f"{name}.zip")
        deploy.write_manifest(folder, deploy.architecture())
    for name in names:
        size = (folder / f"{name}.zip").stat().st_size / 1_000_000
        print(f"{size:6.1f} MB  {(folder / name).relative_to(ROOT)}.zip")
    return 0


sys.exit(main())

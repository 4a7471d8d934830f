"""Checks statemachine/*.asl.json against the service's schema, without asking it: by cfn-lint, which knows them inside
CloudFormation templates.

Usage: python3 local/definitions.py [FILE...]
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import tools
from settings import ROOT, CloudError, own_state


def template(definition: dict) -> dict:
    properties = {"RoleArn": "arn:aws:iam::123456789012:role/any", "Definition": definition}
    machine = {"Type": "AWS::StepFunctions::StateMachine", "Properties": properties}
    return {"AWSTemplateFormatVersion": "2010-09-09", "Resources": {"Machine": machine}}


def faults(path: Path) -> list[str]:
    """What is wrong with a definition, each with the place where it is."""
    try:
        definition = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        return [f"{path.name}: {error}"]
    linter = tools.python_packages("requirements-check.txt") / "bin/cfn-lint"
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(template(definition), file)
        file.flush()
        ended = subprocess.run([linter, "--format", "json", "--template", file.name], capture_output=True, text=True)
    # cfn-lint ends with 0 where it found nothing, with 2 to 14 where it did, and with others when it broke.
    if ended.returncode not in (0, 2, 4, 6, 8, 10, 12, 14):
        raise CloudError(f"cfn-lint broke:\n{ended.stderr}")
    found = json.loads(ended.stdout or "[]")
    places = ["/".join(map(str, match["Location"]["Path"][4:])) for match in found]
    return [f"{path.name}: {place}: {match['Message']}" for place, match in zip(places, found)]


def main() -> int:
    try:
        own_state()
        files = [Path(name) for name in sys.argv[1:]] or sorted((ROOT / "statemachine").glob("*.asl.json"))
        found = [fault for path in files for fault in faults(path)]
    except CloudError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for fault in found:
        print(fault)
    print(f"{len(files)} definitions, {len(found)} faults")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

"""What the Jenkinsfile calls, against the local cloud that the environment names: a second deployment beside the first
is planned, applied as planned, and removed. Its functions are placeholders.

Usage: python3 local/try_delivery.py      (after `python3 local/cloud.py up`)
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import tools
from deploy import TERRAFORM, placeholders
from settings import AWS, ROOT, STATE, CloudError, credentials, endpoints, own_state

ENVIRONMENT = "delivery-check"
VALUES = ROOT / f"infra/environments/{ENVIRONMENT}.tfvars"
WORKSPACE = ROOT / f"infra/terraform.tfstate.d/{ENVIRONMENT}"
PLAN = ROOT / f"target/terraform/{ENVIRONMENT}.tfplan"
# Beside what `make up` deployed, and smaller: the source does not matter here.
OWN = {"prefix": "delivery", "message_source": "api", "api_url": "http://127.0.0.1:1"}


def make(target: str, *arguments: str) -> str:
    chosen = endpoints()[AWS.name]
    environment = os.environ | credentials(chosen) | {
        "TF_DATA_DIR": str(TERRAFORM / "delivery"), "TF_IN_AUTOMATION": "1",
        "PATH": f"{Path(tools.provide(tools.TERRAFORM)).parent}{os.pathsep}{os.environ['PATH']}"}
    ended = subprocess.run(
        ["make", target, f"ENVIRONMENT={ENVIRONMENT}", *arguments], cwd=ROOT, env=environment, capture_output=True,
        text=True)
    print(f"make {target}: {'well' if ended.returncode == 0 else f'exit code {ended.returncode}'}", flush=True)
    if ended.returncode:
        raise CloudError((ended.stdout + ended.stderr)[-4000:])
    return ended.stdout


def expect(is_so: bool, what: str) -> None:
    if not is_so:
        raise CloudError(what)


def deliver() -> None:
    values = {"endpoint": endpoints()[AWS.name].url, "package_dir": str(placeholders())} | OWN
    local = (ROOT / "infra/environments/local.tfvars").read_text()
    lines = [line for line in local.splitlines() if not line.startswith("prefix ")]
    VALUES.write_text("\n".join([*lines, *(f"{name} = {json.dumps(value)}" for name, value in values.items())]) + "\n")
    # tf-validate looks at the format of every file.
    subprocess.run([tools.provide(tools.TERRAFORM), "fmt", str(VALUES)], check=True, capture_output=True)
    make("tf-init")
    make("tf-validate")
    make("tf-plan")
    expect(PLAN.exists() and PLAN.stat().st_mode & 0o077 == 0, f"{PLAN} must be there, for its owner only")
    make("tf-apply")
    expect(not PLAN.exists(), "a plan is applied once")
    try:
        make("tf-destroy")
    except CloudError as refused:
        expect("CONFIRM" in str(refused), f"tf-destroy failed for another reason: {refused}")
    else:
        raise CloudError("tf-destroy asked for no confirmation")
    make("tf-destroy", f"CONFIRM={ENVIRONMENT}")
    state = json.loads((WORKSPACE / "terraform.tfstate").read_text())
    expect(not state["resources"], f"{len(state['resources'])} resources are left")


def main() -> int:
    try:
        own_state()
        deliver()
    except CloudError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        VALUES.unlink(missing_ok=True)
        PLAN.unlink(missing_ok=True)
        shutil.rmtree(WORKSPACE.parent, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Deploys to the local cloud, or to the endpoint that is given, with the same Terraform that goes to AWS.

Usage: python3 local/deploy.py storage | all | validate | test | plan | plugin-dir
  storage   what needs no binaries: buckets, tables, queues
  all       everything
  validate  terraform validate
  test      terraform test, which plans for AWS with a mocked provider
  plan      what those plans hold, as JSON
  plugin-dir  the option with which `terraform init` takes the provider from this machine, if it is here
"""

import fcntl
import json
import os
import platform
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import database
import tools
from settings import (
    API, AWS, BINARIES, DASHBOARD, OPENSEARCH, OUTPUTS_FILE, POSTGRES, ROOT, STATE, CloudError, credentials, endpoints,
    message_source, own_state, write_atomically,
)

TERRAFORM = STATE / "terraform"
# Of each profile its own: a zip stays while it is newer than its binary.
PACKAGES = STATE / ("packages" if BINARIES.name == "debug" else f"packages-{BINARIES.name}")
# Buckets, tables and queues need no binaries, and waiting for them is what takes the time: they are applied while the
# compiler runs.
STORES = (
    "module.storage", "module.warehouse_table", "module.warehouse_bucket",
    "module.feeds.module.source", "module.feeds_bucket", "module.feed_files", "module.feed_batches",
    "module.logs_pipeline.module.source", "module.log_objects", "module.log_errors",
    "module.monitoring.aws_sqs_queue_policy.undelivered")


def variables() -> dict[str, str]:
    """What `make env` says of the deployment, from each workflow's output *_environment; empty before there is one."""
    if not OUTPUTS_FILE.exists():
        return {}
    outputs = json.loads(OUTPUTS_FILE.read_text())
    environments = [output["value"] for name, output in outputs.items() if name.endswith("_environment")]
    return {name: value for environment in environments for name, value in environment.items()}


def functions() -> list[str]:
    return sorted(folder.name for folder in (ROOT / "functions").iterdir() if (folder / "Cargo.toml").exists())


def architecture() -> str:
    """As Lambda calls that of this machine."""
    return "arm64" if platform.machine() in ("aarch64", "arm64") else "x86_64"


def write_manifest(folder: Path, built_for: str) -> None:
    """What Terraform must know of the zips beside it."""
    write_atomically(folder / "manifest.json", json.dumps({"architecture": built_for}) + "\n")


def package() -> None:
    """<function>.zip for each function, from the binaries of this profile; one that is newer than its binary stays."""
    PACKAGES.mkdir(parents=True, exist_ok=True)
    for name in functions():
        binary, target = BINARIES / name, PACKAGES / f"{name}.zip"
        if not binary.exists():
            raise CloudError(f"{binary} is missing: make build, with the same PROFILE")
        if target.exists() and target.stat().st_mtime > binary.stat().st_mtime:
            continue
        zip_binary(binary, target, level=1)
    write_manifest(PACKAGES, architecture())


def zip_binary(binary: Path, target: Path, level: int = 9) -> None:
    """A zip with one file, `bootstrap`, which is what the provided.al2023 runtime starts."""
    # A fixed date, so that the same binary makes the same zip and Terraform sees no change.
    entry = zipfile.ZipInfo("bootstrap", (2020, 1, 1, 0, 0, 0))
    entry.external_attr = (stat.S_IFREG | 0o755) << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    # Renamed when it is complete: half a zip would be newer than its binary and would stay.
    draft = target.with_suffix(".part")
    with zipfile.ZipFile(draft, "w") as archive:
        archive.writestr(entry, binary.read_bytes(), compresslevel=level)
    draft.replace(target)


def terraform(*arguments: str) -> str:
    """Runs Terraform and gives its standard output; warnings stay out of it."""
    chosen = endpoints()
    settings = {"TF_DATA_DIR": str(TERRAFORM / "data"), "TF_IN_AUTOMATION": "1"}
    environment = os.environ | settings | credentials(chosen[AWS.name])
    if chosen[AWS.name].ours:
        environment.pop("AWS_PROFILE", None)
        environment.pop("AWS_SESSION_TOKEN", None)
    command = [tools.provide(tools.TERRAFORM), f"-chdir={ROOT / 'infra'}", *arguments]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    if ended.returncode:
        log = STATE / "logs" / "terraform.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(ended.stdout + ended.stderr)
        lines = diagnostics(ended.stdout) or (ended.stderr or ended.stdout).splitlines()[-25:]
        tail = "\n".join(f"    {line}" for line in lines)
        raise CloudError(f"terraform {arguments[0]} failed; from {log}:\n{tail}")
    return ended.stdout


def diagnostics(output: str) -> list[str]:
    """What `-json` says went wrong, each once; it stands before lines on the tests that were skipped because of it."""
    found = {}
    for line in output.splitlines():
        said = json.loads(line).get("diagnostic", {}) if line.startswith("{") else {}
        if said.get("severity") == "error":
            place = f"infra/{said['range']['filename']}:{said['range']['start']['line']}: " if "range" in said else ""
            found[f"{place}{said['summary']}: {' '.join(said.get('detail', '').split())}"] = None
    return list(found)


def provider_folder() -> Path | None:
    """A copy of the AWS provider on this machine: ALERT_ARCHIVE_TF_PLUGIN_DIR, else below the root's opt folder."""
    given = os.environ.get("ALERT_ARCHIVE_TF_PLUGIN_DIR")
    if given:
        return Path(given)
    for root in (Path("/opt"), Path.home() / ".terraform.d"):
        for found in root.glob("**/terraform-provider-aws*"):
            # <folder>/<host>/hashicorp/aws/<version>/<platform>/terraform-provider-aws*
            if "hashicorp" in found.parts:
                return Path(*found.parts[: found.parts.index("hashicorp") - 1])
    return None


def provider_option() -> list[str]:
    folder = provider_folder()
    return [f"-plugin-dir={folder}"] if folder else []


def init() -> None:
    """Fetches what infra/ needs, again when a module was added to it. One process at a time."""
    TERRAFORM.mkdir(parents=True, exist_ok=True)
    with open(TERRAFORM / "init.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = TERRAFORM / "initialised"
        sources = [path for path in (ROOT / "infra").rglob("*.tf*") if ".terraform" not in path.parts]
        written = max(path.stat().st_mtime_ns for path in sources)
        if done.exists() and done.stat().st_mtime_ns > written:
            return
        terraform("init", "-input=false", "-no-color", *provider_option())
        done.touch()


def placeholders() -> Path:
    """A folder that looks like that of `make package`: a plan only hashes the zips, and an apply only stores them."""
    folder = TERRAFORM / "placeholders"
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "bootstrap"
    program.write_text("#!/bin/sh\n")
    for name in functions():
        zip_binary(program, folder / f"{name}.zip")
    write_manifest(folder, "x86_64")
    return folder


def test() -> None:
    init()
    print(terraform("test", "-no-color", f"-var=package_dir={placeholders()}"), end="")


def plan() -> None:
    """Prints the resources that the production tests plan, as a list of {address, module_address, type, values}."""
    init()
    lines = terraform(
        "test", "-no-color", "-json", "-verbose", "-filter=tests/production.tftest.hcl",
        f"-var=package_dir={placeholders()}")
    resources = {}
    for line in lines.splitlines():
        for change in json.loads(line).get("test_plan", {}).get("resource_changes", []):
            found = {name: change.get(name, "") for name in ("address", "module_address", "type")}
            text = json.dumps(found | {"values": change["change"]["after"]})
            # Most are the same in all plans.
            resources[text] = None
    print("[" + ",\n".join(resources) + "]")


def apply(*only: str) -> None:
    """Applies all of infra/, or only the modules named."""
    with open(TERRAFORM / "lock", "w") as lock:
        # The storage part is applied while the compiler runs; the whole then waits for it.
        fcntl.flock(lock, fcntl.LOCK_EX)
        chosen = endpoints()
        source = message_source()
        values = {"endpoint": chosen[AWS.name].url, "package_dir": str(PACKAGES), "message_source": source.mode}
        if OPENSEARCH.name in chosen:
            values["opensearch_url"] = chosen[OPENSEARCH.name].url
        if API.name in chosen:
            values |= {
                "api_url": chosen[API.name].url, "api_page_size": source.page_size,
                "api_requests_per_second": source.requests_per_second,
            }
        values["local_database_credentials"] = json.dumps(database.secret(chosen[POSTGRES.name].port))
        # Copies cost the local AWS more time than the archive itself: a measurement can leave them out.
        if os.environ.get("ALERT_ARCHIVE_LOCAL_COPIES", "true") == "false":
            values |= {"write_jsonl": "false", "write_message_json": "false"}
        if chosen[AWS.name].ours:
            values["dashboard_url"] = chosen[DASHBOARD.name].url
        terraform(
            "apply", "-auto-approve", "-input=false", "-no-color", f"-state={TERRAFORM / 'terraform.tfstate'}",
            "-var-file=environments/local.tfvars", *[f"-var={name}={value}" for name, value in values.items()],
            *[f"-target={module}" for module in only])


def apply_twice() -> None:
    """Applies all; once again if that fails on a cloud of our own. What failed is told either way."""
    try:
        apply()
    except CloudError as error:
        if not endpoints()[AWS.name].ours:
            raise
        print(f"{error}\nonce again", file=sys.stderr, flush=True)
        begin_anew_if_never_deployed()
        apply()


def begin_anew_if_never_deployed() -> None:
    """What was made while its answer was lost stands in no state, and in the way of every later apply. Where nothing
    was ever deployed, nothing else is lost with it."""
    if OUTPUTS_FILE.exists():
        return
    import cloud
    cloud.empty_aws()
    (TERRAFORM / "terraform.tfstate").unlink(missing_ok=True)


def everything() -> None:
    package()
    init()
    apply_twice()
    write_atomically(OUTPUTS_FILE, terraform("output", "-json", f"-state={TERRAFORM / 'terraform.tfstate'}"))
    where = variables()
    put_api_secret(where)
    state_machine = where["ALERT_ARCHIVE_STATE_MACHINE_ARN"].rpartition(":")[2]
    print(f"deployed: s3://{where['ALERT_ARCHIVE_BUCKET']}, {state_machine}")


def put_api_secret(where: dict[str, str]) -> None:
    """The API's secret goes from here into Secrets Manager, and into no state of Terraform."""
    import cloud
    chosen = endpoints()
    value = cloud.api_secret() if API.name in chosen else None
    if not value:
        return
    # Through a pipe: a command line can be read by others.
    command = [
        str(tools.aws_command()), "--endpoint-url", chosen[AWS.name].url,
        "secretsmanager", "put-secret-value", "--secret-id",
        where["ALERT_ARCHIVE_API_SECRET_ID"], "--secret-string", "file:///dev/stdin",
    ]
    environment = os.environ | credentials(chosen[AWS.name])
    ended = subprocess.run(command, env=environment, input=value, capture_output=True, text=True)
    if ended.returncode:
        raise CloudError(f"the API's secret could not be stored: {ended.stderr.strip()}")


def main() -> int:
    try:
        own_state()
        if sys.argv[1:] == ["storage"]:
            init()
            apply(*STORES)
        elif sys.argv[1:] == ["all"]:
            everything()
        elif sys.argv[1:] == ["validate"]:
            init()
            terraform("validate", "-no-color")
        elif sys.argv[1:] == ["test"]:
            test()
        elif sys.argv[1:] == ["plan"]:
            plan()
        elif sys.argv[1:] == ["plugin-dir"]:
            print(*provider_option())
        else:
            print(__doc__, file=sys.stderr)
            return 2
    except CloudError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

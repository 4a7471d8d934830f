"""The Jenkinsfile, executed against a strict stand-in for Jenkins (local/jenkinsfile.groovy), and broken copies of it.

Where JENKINS_URL is set, the real validator of that server is asked too.
"""

import json
import os
import re
import shutil
import subprocess
import tempfile
import unittest
import urllib.parse
import urllib.request
from pathlib import Path

import tools
from settings import LOCAL, ROOT

JENKINSFILE = ROOT / "Jenkinsfile"


def check(*texts: str, **parameters: str) -> list[dict]:
    """What each of these files would do, or its error."""
    groovy = tools.provide(tools.GROOVY)
    # Groovy 2.4 looks for Debian's default Java only; the one on PATH will do, newer ones are too new for it.
    java = Path(shutil.which("java") or tools.java()).resolve()
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{number}.groovy" for number in range(len(texts))]
        for file, text in zip(files, texts):
            file.write_text(text)
        command = [groovy, str(LOCAL / "jenkinsfile.groovy"), *map(str, files),
            *(f"{name}={value}" for name, value in parameters.items())]
        ended = subprocess.run(
            command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300,
            env=os.environ | {"JAVA_HOME": str(java.parent.parent)})
    outcomes = [json.loads(line) for line in ended.stdout.splitlines()]
    if len(outcomes) != len(texts):
        raise AssertionError(ended.stderr)
    return outcomes


class TheJenkinsfile(unittest.TestCase):
    def plan(self, **parameters: str) -> dict:
        [plan] = check(JENKINSFILE.read_text(), **parameters)
        self.assertNotIn("error", plan)
        return plan

    def commands(self, plan: dict) -> list[str]:
        return [step.get("sh", "ask") for stage in plan["stages"] for step in stage["steps"]]

    def test_create_builds_plans_asks_and_applies_that_plan(self):
        plan = self.plan(ENVIRONMENT="staging", ACTION="create")
        self.assertEqual(self.commands(plan), [
            "make package", "make tf-init ENVIRONMENT=staging", "make tf-validate", "make tf-plan ENVIRONMENT=staging",
            "ask", "make tf-apply ENVIRONMENT=staging"])

    def test_destroy_asks_before_it_removes(self):
        plan = self.plan(ENVIRONMENT="production", ACTION="destroy")
        self.assertEqual(self.commands(plan), [
            "make tf-init ENVIRONMENT=production", "make tf-validate", "ask",
            "make tf-destroy ENVIRONMENT=production CONFIRM=production"])

    def test_everything_that_speaks_to_aws_has_a_role_for_a_short_time_and_no_other_step_has(self):
        for action in ("create", "destroy"):
            for stage in self.plan(ACTION=action)["stages"]:
                speaks = any(re.search(r"tf-(init|plan|apply|destroy)", step.get("sh", "")) for step in stage["steps"])
                self.assertEqual("withAWS" in stage["options"], speaks, stage["stage"])

    def test_people_are_told_of_success_and_of_failure(self):
        post = self.plan()["post"]
        self.assertEqual(sorted(post), ["success", "unsuccessful"])
        for steps in post.values():
            self.assertEqual(steps[0]["to"], "operations@example.com")

    def test_make_knows_every_command(self):
        for action in ("create", "destroy"):
            for command in self.commands(self.plan(ACTION=action)):
                if command == "ask":
                    continue
                self.assertTrue(command.startswith("make "), command)
                dry = subprocess.run([*command.split(), "-n"], cwd=ROOT, capture_output=True, text=True)
                self.assertEqual(dry.returncode, 0, f"{command}: {dry.stderr}")

    def test_the_check_finds_what_is_broken(self):
        text = JENKINSFILE.read_text()
        broken = [
            ("steps {", "step {", "has no `step`"),
            ("    stages {", "    stage {", "has no `stage`"),
            ("sh 'make package'", "shell 'make package'", "has no `shell`"),
            ("sh 'make package'", "", "does nothing"),
            ("params.ACTION == 'create'", "params.ACTOIN == 'create'", "params has no `ACTOIN`"),
            ("params.ACTION == 'create'", "ACTION == 'create'", "has no value `ACTION`"),
            ("disableConcurrentBuilds()", "", "lack disableConcurrentBuilds"),
            ("disableConcurrentBuilds()", "disableConcurrentBuild()", "has no `disableConcurrentBuild`"),
            ("            options { timeout(time: 60, unit: 'MINUTES') }\n", "", "has no timeout"),
            ("unit: 'HOURS'", "unit: 'HOUR'", "is no unit"),
            ("stage('Plan')", "stage('Init')", "stands twice"),
            ("duration: 3600", "duration: 43200", "a role for 43200 s"),
            ("unsuccessful {", "sucess {", "has no `sucess`"),
            ("mail(to:", "mail(too:", "knows no `too`"),
            ("choice(name: 'ACTION',", "choice(nam: 'ACTION',", "knows no `nam`"),
            ("    post {", "    posts {", "has no `posts`"),
            ("\n    agent { label 'alert-archive' }\n", "\n", "has no agent"),
            ("pipeline {", "pipelin {", "has no `pipelin`"),
            ("    stages {", "    stages {{", "startup failed"),
            ("TF_IN_AUTOMATION = '1'", "TF_IN_AUTOMATION('1')", "which is not known"),
            ("TF_IN_AUTOMATION = '1'", "TF_IN_AUTOMATION = 1", "is no text"),
            ("sh 'make package'", "if (params.ACTION == 'create') { sh 'make package' }",
                "IfStatements are not allowed"),
            ("sh 'make package'", "for (step in ['package']) { sh step }", "ForStatements are not allowed"),
            ("sh 'make package'", "def step = 'make package'; sh step", "DeclarationExpressions are not allowed"),
            ("{ expression { params.ACTION == 'create' } }", "{ params.ACTION == 'create' }", "asks for nothing"),
            ("{ label 'alert-archive' }", "{ label 'one'; label 'two' }", "label stands twice"),
            ("choices: ['create', 'destroy']", "choices: []", "ACTION has no choices"),
            ("unsuccessful {", "success {", "success stands twice"),
        ]
        for before, _, _ in broken:
            self.assertIn(before, text)
        outcomes = check(*(text.replace(before, after, 1) for before, after, _ in broken))
        for (before, after, expected), outcome in zip(broken, outcomes):
            with self.subTest(before=before, after=after):
                self.assertIn(expected, outcome.get("error", "nothing was found"))

    @unittest.skipUnless(os.environ.get("JENKINS_URL"), "JENKINS_URL names no server")
    def test_jenkins_itself_finds_it_valid(self):
        url = os.environ["JENKINS_URL"].rstrip("/") + "/pipeline-model-converter/validate"
        form = urllib.parse.urlencode({"jenkinsfile": JENKINSFILE.read_text()}).encode()
        with urllib.request.urlopen(url, form, timeout=30) as response:
            self.assertIn("successfully validated", response.read().decode())


if __name__ == "__main__":
    unittest.main()

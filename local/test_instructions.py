"""The guard of the hot paths: what passes, what does not, and what it says where it can count nothing."""

import contextlib
import io
import json
import os
import subprocess
import sys
import unittest
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import check

PROGRAM = Path(__file__).resolve().parent.parent / "bench" / "instructions"


def load():
    loader = SourceFileLoader("instructions", str(PROGRAM))
    module = module_from_spec(spec_from_loader("instructions", loader))
    loader.exec_module(module)
    return module


instructions = load()


class Compared(unittest.TestCase):
    def test_a_path_may_take_a_tenth_more_than_its_figure(self):
        known = {"read": 40_000, "hash": 80_000}
        self.assertEqual(instructions.slower({"read": 44_000, "hash": 60_000}, known, 40), [])

    def test_more_than_a_tenth_is_said_with_path_and_figures(self):
        said = instructions.slower({"read": 46_000, "hash": 80_000}, {"read": 40_000, "hash": 80_000}, 40)
        self.assertEqual(said, [
            "read: 1,150 instructions a message, 15.0% more than the 1,000 of instructions.json; 10% more would pass"])

    def test_a_path_that_has_no_figure_does_not_pass(self):
        self.assertEqual(
            instructions.slower({"read": 40_000}, {}, 40), ["read: has no figure in instructions.json yet"])

    def test_figures_stand_for_both_ways_of_compiling_and_for_every_path(self):
        grounds = json.loads(instructions.FIGURES.read_text())
        for compiler in {figures["compiler"] for figures in grounds}:
            of = [figures for figures in grounds if figures["compiler"] == compiler]
            self.assertEqual(sorted(figures["incremental"] for figures in of), [False, True], compiler)
            for figures in of:
                self.assertEqual(tuple(figures["instructions"]), instructions.PATHS)


class Step(unittest.TestCase):
    def test_without_valgrind_it_says_so_and_neither_passes_nor_fails(self):
        environment = os.environ | {"PATH": "/nowhere"}
        ended = subprocess.run([sys.executable, str(PROGRAM)], capture_output=True, text=True, env=environment)
        self.assertEqual(ended.returncode, check.NOT_RUN, ended.stderr)
        self.assertIn("valgrind is not installed", ended.stdout)

    def test_what_was_not_run_is_named_at_the_end_with_its_reason(self):
        checks, output = check.Checks(), io.StringIO()
        with contextlib.redirect_stdout(output):
            checks.run("format", "echo well")
            checks.run("hot paths", "echo NOT RUN: no valgrind; exit 77")
            self.assertEqual(checks.close(), 0)
        self.assertTrue(output.getvalue().endswith("hot paths  NOT RUN: no valgrind\n\n1 passed, 0 failed\n"))

    def test_a_path_that_is_too_slow_fails_the_step(self):
        checks = check.Checks()
        with contextlib.redirect_stdout(io.StringIO()) as output:
            checks.run("hot paths", "echo read: 15% more; exit 1")
            self.assertEqual(checks.close(), 1)
        self.assertIn("  read: 15% more", output.getvalue())


if __name__ == "__main__":
    unittest.main()

"""What can be checked of the local cloud without starting it. Run: python3 -m unittest discover -s local"""

import asyncio
import json
import os
import smtplib
import socket
import signal
import subprocess
import tempfile
import threading
import time
import unittest
from pathlib import Path
from unittest import mock

import cloud
import database
import deploy
import servers
import settings
import smtp_sink


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class MailSink(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder, self.port = Path(folder.name), free_port()
        loop = asyncio.new_event_loop()
        server = loop.run_until_complete(smtp_sink.listen(self.folder, self.port))
        thread = threading.Thread(target=loop.run_forever)
        thread.start()

        async def close():
            server.close()
            conversations = asyncio.all_tasks() - {asyncio.current_task()}
            await asyncio.wait_for(asyncio.gather(*conversations), 5)

        def stop():
            asyncio.run_coroutine_threadsafe(close(), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

        self.addCleanup(stop)

    def test_keeps_each_message_byte_for_byte(self):
        message = b"Subject: x\r\n\r\n.begins with a dot\r\n..two\r\n\xc3\xbc\r\n"
        with smtplib.SMTP("127.0.0.1", self.port) as client:
            client.sendmail("a@example.com", ["b@example.com"], message)
            client.sendmail("a@example.com", ["b@example.com"], message)
        self.assertEqual([path.read_bytes() for path in sorted(self.folder.glob("*.eml"))], [message, message])
        self.assertEqual(list(self.folder.glob("*.part")), [])

    def test_refuses_a_message_that_is_too_large_and_keeps_nothing(self):
        with mock.patch.object(smtp_sink, "MAX_MESSAGE_BYTES", 1000), smtplib.SMTP("127.0.0.1", self.port) as client:
            client.ehlo_or_helo_if_needed()
            client.esmtp_features.pop("size", None)
            with self.assertRaises(smtplib.SMTPDataError):
                client.sendmail("a@example.com", ["b@example.com"], b"line of text\r\n" * 200)
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_keeps_nothing_of_a_client_that_goes_away_in_the_middle(self):
        with socket.create_connection(("127.0.0.1", self.port)) as client:
            client.sendall(b"EHLO x\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\nSubject: half")
            client.recv(1000)
        self.assertEqual(list(self.folder.iterdir()), [])


class Endpoints(unittest.TestCase):
    def choose(self, variables: dict, remembered: dict | None = None) -> dict:
        cleared = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("ALERT_ARCHIVE_", "OPENSEARCH_", "AWS_", "SOURCE"))
        }
        with mock.patch.dict(os.environ, cleared | variables, clear=True), \
                mock.patch.object(settings, "remembered_ports", lambda: remembered or {}):
            return settings.endpoints()

    def test_without_a_word_all_parts_are_ours_on_their_usual_ports(self):
        chosen = self.choose({})
        self.assertEqual([e.port for e in chosen.values()], [4566, 9201, 5433, 2525, 4567])
        self.assertTrue(all(e.ours for e in chosen.values()))

    def test_a_given_address_replaces_the_part(self):
        chosen = self.choose({"OPENSEARCH_URL": "https://search.example.com/"})
        self.assertEqual((chosen["opensearch"].url, chosen["opensearch"].ours), ("https://search.example.com", False))
        self.assertTrue(chosen["aws"].ours)

    def test_the_addresses_that_make_env_prints_are_still_ours(self):
        self.assertTrue(self.choose({"AWS_ENDPOINT_URL": "http://127.0.0.1:4566"})["aws"].ours)

    def test_later_commands_take_the_ports_of_up(self):
        remembered = {"aws": {"url": "http://127.0.0.1:4600", "port": 4600, "ours": True}}
        self.assertEqual(self.choose({}, remembered)["aws"].port, 4600)

    def test_the_source_decides_which_parts_there_are(self):
        parts = {
            mode: set(self.choose({"SOURCE": mode})) & {"opensearch", "api"} for mode in ("opensearch", "api", "hybrid")
        }
        self.assertEqual(parts, {"opensearch": {"opensearch"}, "api": {"api"}, "hybrid": {"opensearch", "api"}})
        self.assertIn("api", self.choose({}, {"source": {"mode": "api"}}), "a later command needs no SOURCE")
        self.assertNotIn("api", self.choose({"SOURCE": "opensearch"}, {"source": {"mode": "api"}}))
        given = self.choose({"SOURCE": "api", "ALERT_ARCHIVE_API_URL": "https://messages.example.com/v1/"})["api"]
        self.assertEqual((given.url, given.ours), ("https://messages.example.com/v1", False))

    def test_a_source_that_nobody_knows_and_limits_that_cannot_be_are_refused_by_name(self):
        for name, value in (
            ("SOURCE", "elastic"),
            ("ALERT_ARCHIVE_API_PAGE_SIZE", "501"),
            ("ALERT_ARCHIVE_API_REQUESTS_PER_SECOND", "fast"),
        ):
            with self.subTest(name), self.assertRaisesRegex(settings.CloudError, f"{name}={value}"):
                self.choose({name: value})

    def test_a_port_that_the_runner_cannot_take_is_refused_by_name(self):
        with self.assertRaisesRegex(settings.CloudError, "ALERT_ARCHIVE_OPENSEARCH_PORT=9400"):
            self.choose({"ALERT_ARCHIVE_OPENSEARCH_PORT": "9400"})


class Deployment(unittest.TestCase):
    def test_of_a_plan_that_fails_only_the_errors_are_told_and_each_once(self):
        told = {
            "severity": "error",
            "summary": "Wrong",
            "detail": "two\n  lines",
            "range": {"filename": "logs.tf", "start": {"line": 3}},
        }
        lines = [
            {"diagnostic": told},
            {"diagnostic": told},
            {"diagnostic": {"severity": "warning", "summary": "Old"}},
            {"type": "test_run"},
        ]
        output = "\n".join(["no JSON", *map(json.dumps, lines)])
        self.assertEqual(deploy.diagnostics(output), ["infra/logs.tf:3: Wrong: two lines"])
        self.assertEqual(deploy.diagnostics("Success!"), [])


class State(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.state = Path(folder.name) / "state"
        for module in (settings, cloud):
            patch = mock.patch.object(module, "STATE", self.state)
            patch.start()
            self.addCleanup(patch.stop)
        patch = mock.patch.object(settings, "MARKER", self.state / ".local-cloud")
        patch.start()
        self.addCleanup(patch.stop)

    def test_down_removes_nothing_that_up_did_not_make(self):
        self.state.mkdir()
        (self.state / "thesis.tex").write_text("the only copy")
        with self.assertRaisesRegex(settings.CloudError, "nothing is removed"):
            cloud.down()
        self.assertTrue((self.state / "thesis.tex").exists())

    def test_up_takes_no_folder_in_which_something_lies(self):
        self.state.mkdir()
        (self.state / "thesis.tex").write_text("the only copy")
        with self.assertRaisesRegex(settings.CloudError, "ALERT_ARCHIVE_STATE_DIR"):
            settings.own_state()
        self.assertFalse(settings.MARKER.exists())

    def test_what_is_asked_of_it_before_it_is_up_does_not_keep_it_from_coming_up(self):
        with mock.patch.object(database, "HOME", self.state / "postgres"):
            first = database.password("owner")
            settings.own_state()
            self.assertEqual(database.password("owner"), first)

    def test_its_folder_is_for_this_user_alone_and_goes_when_it_is_taken_down(self):
        settings.own_state()
        self.assertEqual(self.state.stat().st_mode & 0o777, 0o700)
        with mock.patch.object(servers, "STATE", self.state), mock.patch.object(cloud, "print", create=True):
            cloud.down()
        self.assertFalse(self.state.exists())


class Children(unittest.TestCase):
    def test_ending_a_server_leaves_other_children_their_status(self):
        # Ended, and not waited for yet: an installation in another thread, at the wrong moment.
        failed = subprocess.Popen(["sh", "-c", "exit 3"], start_new_session=True)
        while servers.started_at(failed.pid):
            time.sleep(0.01)
        # It takes its time to end, so that it is looked at meanwhile.
        slow = "trap 'sleep 0.3; exit' TERM; echo ready; while :; do sleep 0.02; done"
        server = subprocess.Popen(["sh", "-c", slow], stdout=subprocess.PIPE, start_new_session=True)
        # Whatever happens here: a child that is left keeps our output open, and the process that reads it waits for
        # ever.
        self.addCleanup(server.kill)
        server.stdout.readline()
        servers._end([server.pid], signal.SIGTERM)
        self.assertIsNone(servers.started_at(server.pid))
        self.assertEqual(failed.wait(), 3)
        server.wait()
        server.stdout.close()


class Ownership(unittest.TestCase):
    def test_a_process_id_that_was_given_out_again_is_not_ours(self):
        with tempfile.TemporaryDirectory() as folder, mock.patch.object(servers, "STATE", Path(folder)):
            record = Path(folder) / "run/aws.json"
            record.parent.mkdir()
            record.write_text(f'{{"pid": {os.getpid()}, "port": 1, "started": "{servers.started_at(os.getpid())}"}}')
            self.assertIsNotNone(servers.running(settings.AWS))
            record.write_text(f'{{"pid": {os.getpid()}, "port": 1, "started": "0"}}')
            self.assertIsNone(servers.running(settings.AWS))

    def test_who_holds_a_port_is_named(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.assertIn(f"process {os.getpid()} ", servers.holder(listener.getsockname()[1]))


class Deployment(unittest.TestCase):
    def applied(self, *failures: bool, own: bool = True, deployed_before: bool = False) -> int:
        """How often Terraform is applied, the failures given one after the other."""
        ends = [settings.CloudError("a connection ended") if failed else None for failed in failures]
        where = {settings.AWS.name: settings.Endpoint(settings.AWS, "http://127.0.0.1:1", 1, ours=own)}
        with tempfile.TemporaryDirectory() as folder, mock.patch.object(deploy, "apply", side_effect=ends) as apply, \
                mock.patch.object(deploy, "endpoints", return_value=where), mock.patch("sys.stderr"), \
                mock.patch.object(deploy, "OUTPUTS_FILE", Path(folder) / "outputs.json") as outputs, \
                mock.patch.object(deploy, "TERRAFORM", Path(folder)), mock.patch.object(cloud, "empty_aws") as emptied:
            state = Path(folder) / "terraform.tfstate"
            state.touch()
            if deployed_before:
                outputs.touch()
            try:
                deploy.apply_twice()
            finally:
                self.calls, self.emptied = apply.call_count, emptied.call_count
                self.assertEqual(state.exists(), not self.emptied, "what AWS forgets, Terraform forgets")
        return self.calls

    def test_a_failed_apply_is_repeated_once_on_our_own_cloud_and_never_on_another(self):
        self.assertEqual(self.applied(False), 1)
        self.assertEqual(self.applied(True, False), 2)
        with self.assertRaises(settings.CloudError):
            self.applied(True, True)
        with self.assertRaises(settings.CloudError):
            self.applied(True, False, own=False)
        self.assertEqual((self.calls, self.emptied), (1, 0))

    def test_a_cloud_that_was_never_deployed_begins_anew_and_one_that_was_keeps_what_it_holds(self):
        self.applied(True, False)
        self.assertEqual(self.emptied, 1)
        self.applied(True, False, deployed_before=True)
        self.assertEqual(self.emptied, 0)
        self.applied(False)
        self.assertEqual(self.emptied, 0)


if __name__ == "__main__":
    unittest.main()

"""`raptorflow` as its users run it: a process of its own."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from redis_core.cli.app import run
from redis_core.errors import ConfigError, StoreUnavailable
from tests.command_line import WITHIN, Cli, fetch
from tests.server_process import free_port


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


class TestHealth:
    def test_a_store_that_serves(self, cli: Cli, valkey_socket: str) -> None:
        done = cli("health", MOCK_REDIS="", REDIS_URL=f"unix://{valkey_socket}")
        assert done.returncode == 0
        assert "pass" in done.stdout
        assert "valkey" in done.stdout
        assert done.stderr == ""

    def test_json_is_the_endpoints_document(self, cli: Cli) -> None:
        done = cli("health", "--json")
        document = json.loads(done.stdout)
        assert (done.returncode, document["status"], document["mode"]) == (0, "pass", "memory")
        assert done.stdout.count("\n") == 1

    def test_a_store_that_is_dead(self, cli: Cli) -> None:
        url = f"redis://user:geheim@127.0.0.1:{free_port()}"
        told, document = (
            cli("health", MOCK_REDIS="", REDIS_URL=url),
            cli("health", "--json", MOCK_REDIS="", REDIS_URL=url),
        )
        assert told.returncode == document.returncode == 1
        assert "fail" in told.stdout
        assert "raptorflow doctor" in told.stdout
        assert json.loads(document.stdout)["status"] == "fail"
        assert "geheim" not in told.stdout + told.stderr + document.stdout + document.stderr


class TestDoctor:
    def test_a_good_store(self, cli: Cli, valkey_socket: str) -> None:
        done = cli("doctor", "--json", MOCK_REDIS="", REDIS_URL=f"unix://{valkey_socket}")
        report = json.loads(done.stdout)
        assert done.returncode == 0
        assert {"settings", "reachable", "writes", "clock"} <= {
            finding["check"] for finding in report["findings"]
        }
        assert not [finding for finding in report["findings"] if finding["status"] in {"fail", "skip"}]

    def test_a_dead_one_and_what_to_do(self, cli: Cli) -> None:
        done = cli("doctor", MOCK_REDIS="", REDIS_URL=f"redis://127.0.0.1:{free_port()}")
        assert done.returncode == 1
        assert "do: check that the server runs" in done.stdout
        assert "1 failed" in done.stdout


class TestWrongSettings:
    def test_are_one_line_with_variable_value_and_remedy(self, cli: Cli) -> None:
        done = cli("health", MOCK_REDIS="", REDIS_URL="ftp://user:geheim@store")
        assert (done.returncode, done.stdout) == (3, "")
        assert done.stderr.startswith("raptorflow: REDIS_URL is 'ftp://***@store': begin it with one of ")
        assert done.stderr.count("\n") == 1

    def test_are_an_object_for_programs(self, cli: Cli) -> None:
        done = cli("doctor", "--json", MOCK_REDIS="perhaps")
        error = json.loads(done.stdout)["error"]
        assert done.returncode == 3
        assert (error["code"], error["variable"], error["value"]) == ("settings", "MOCK_REDIS", "perhaps")
        assert error["remedy"]

    def test_of_the_service_are_told_before_it_starts(self, cli: Cli) -> None:
        done = cli("gateway", "--port", "70000")
        assert (done.returncode, "GATEWAY_PORT is '70000'" in done.stderr) == (3, True)

    def test_production_without_a_gateway_token(self, cli: Cli) -> None:
        done = cli("gateway", "--port", "0", RAPTORFLOW_ENV="production", MOCK_REDIS_IN_PRODUCTION="true")
        assert (done.returncode, "GATEWAY_TOKEN is not set" in done.stderr) == (3, True)


class TestArguments:
    def test_that_are_wrong(self, cli: Cli) -> None:
        done = cli("healht")
        assert done.returncode == 2
        assert "healht" in done.stderr

    def test_help_tells_the_commands_and_exit_codes(self, cli: Cli) -> None:
        done = cli("--help")
        assert done.returncode == 0
        for word in ("up", "gateway", "health", "doctor", "Exit codes", "130"):
            assert word in done.stdout


class TestEnds:
    def test_ctrl_c_while_it_works_is_130(self, cli: Cli) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"redis://127.0.0.1:{silent.getsockname()[1]}"
            process = cli.start("health", MOCK_REDIS="", REDIS_URL=url, REDIS_CONNECT_TIMEOUT="60")
            try:
                silent.settimeout(WITHIN)
                connection, _ = silent.accept()
                with connection:
                    process.send_signal(signal.SIGINT)
                    out, err = process.communicate(timeout=WITHIN)
            finally:
                process.kill()
        assert (process.returncode, out) == (130, "")
        assert "Traceback" not in err

    @pytest.mark.parametrize(
        ("error", "code", "line"),
        [
            (ConfigError("REDIS_URL", None, "set it"), 3, "REDIS_URL is not set: set it"),
            (StoreUnavailable("redis://u:geheim@h is\naway"), 4, "StoreUnavailable: redis://***@h is away"),
            (KeyError("oops"), 70, "KeyError: 'oops' - a mistake of this program; "),
        ],
    )
    def test_an_error_is_one_line_and_an_exit_code(
        self,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        error: Exception,
        code: int,
        line: str,
    ) -> None:
        def app(prog_name: str) -> None:
            raise error

        monkeypatch.setattr("redis_core.cli.app.app", app)
        monkeypatch.setattr("sys.argv", ["raptorflow", "health"])
        with pytest.raises(SystemExit) as ended:
            run()
        assert ended.value.code == code
        said = capsys.readouterr().err
        assert said.startswith(f"raptorflow: {line}")
        assert said.count("\n") == 1

    def test_a_traceback_is_shown_to_whoever_asks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def app(prog_name: str) -> None:
            raise KeyError("oops")

        monkeypatch.setattr("redis_core.cli.app.app", app)
        monkeypatch.setattr("sys.argv", ["raptorflow", "--traceback", "health"])
        with pytest.raises(KeyError, match="oops"):
            run()


class TestUp:
    def test_serves_api_demo_and_gateway_with_numbers_until_ctrl_c(self, cli: Cli) -> None:
        with cli.serving("up", "--port", "0", "--gateway-port", "0") as (process, addresses):
            assert fetch(f"{addresses['api']}/api/v1/health/redis")["status"] == "pass"
            token, reading = (
                addresses["tokens"][name] for name in ("GATEWAY_TOKEN", "GATEWAY_READONLY_TOKEN")
            )
            assert fetch(addresses["gateway"], token, '["SET", "greeting", "hello", "EX", "60"]') == {
                "result": "OK"
            }
            assert fetch(f"{addresses['gateway']}/get/greeting", reading) == {"result": "hello"}
            until = time.monotonic() + WITHIN
            metrics = f"{addresses['api']}/api/v1/admin/redis-metrics"
            while fetch(metrics, addresses["tokens"]["ADMIN_TOKEN"])["transport"]["commands_total"] < 50:
                assert time.monotonic() < until, "the demo has no visitors"
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=WITHIN)
        assert (process.returncode, out) == (0, "")
        # The demo's visitors log in, which is told; nothing else is.
        said = [json.loads(line) for line in err.splitlines()]
        assert all(line["level"] == "info" and line["event"].startswith("session ") for line in said)

    def test_prints_for_people_what_to_try_and_keeps_set_tokens_to_itself(self, cli: Cli) -> None:
        arguments = ("up", "--port", "0", "--gateway-port", "0", "--no-traffic")
        process = cli.start(*arguments, GATEWAY_TOKEN="geheim" * 5)
        try:
            assert process.stdout is not None
            out = ""
            while "Ctrl-C" not in out:
                line = process.stdout.readline()
                assert line, process.communicate(timeout=WITHIN)
                out += line
        finally:
            process.terminate()
            rest, err = process.communicate(timeout=WITHIN)
        assert process.returncode == 0
        for word in ("/demo", "/api/v1/health/redis", "curl ", "$GATEWAY_TOKEN", "--traffic", "ADMIN_TOKEN"):
            assert word in out
        assert "geheim" not in out + rest + err

    def test_a_taken_port_is_a_clear_error(self, cli: Cli) -> None:
        with cli.serving("up", "--port", "0", "--gateway-port", "0", "--no-traffic") as (_, addresses):
            for variable, place in (("RAPTORFLOW_PORT", "api"), ("GATEWAY_PORT", "gateway")):
                port = addresses[place].rsplit(":", 1)[1]
                done = cli("up", **{"RAPTORFLOW_PORT": "0", "GATEWAY_PORT": "0", variable: port})
                assert done.returncode == 3
                assert done.stderr.startswith(
                    f"raptorflow: {variable} is '{port}': another program listens there"
                )

    def test_starts_though_the_store_is_away_and_says_so(self, cli: Cli) -> None:
        url = f"redis://user:geheim@127.0.0.1:{free_port()}"
        arguments = ("up", "--port", "0", "--gateway-port", "0", "--no-demo")
        with cli.serving(*arguments, MOCK_REDIS="", REDIS_URL=url) as (process, addresses):
            assert fetch(f"{addresses['api']}/api/v1/health/redis?probe=live")["status"] == "pass"
            assert "demo" not in addresses
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=WITHIN)
        assert process.returncode == 0
        assert json.loads(err.splitlines()[0])["event"] == "the store does not answer yet"
        assert "geheim" not in err

    def test_with_the_embedded_store_what_was_written_is_there_the_next_time(self, cli: Cli) -> None:
        settings = {"MOCK_REDIS": "", "GATEWAY_TOKEN": "one-token-for-both-runs"}
        for body, answer in (('["SET", "kept", "yes"]', "OK"), ('["GET", "kept"]', "yes")):
            with cli.serving("up", "--port", "0", "--gateway-port", "0", "--no-traffic", **settings) as (
                process,
                addresses,
            ):
                assert addresses["store"].startswith("embedded valkey")
                assert fetch(addresses["gateway"], settings["GATEWAY_TOKEN"], body) == {"result": answer}
                process.send_signal(signal.SIGINT)
                assert process.wait(WITHIN) == 0


class TestGateway:
    def test_ends_at_once_though_a_subscriber_listens(self, cli: Cli) -> None:
        with cli.serving("gateway", "--port", "0") as (process, addresses):
            headers = {
                "Authorization": f"Bearer {addresses['tokens']['GATEWAY_TOKEN']}",
                "Accept": "text/event-stream",
            }
            request = urllib.request.Request(f"{addresses['gateway']}/subscribe/news", headers=headers)
            with urllib.request.urlopen(request, timeout=WITHIN) as stream:
                assert stream.readline().startswith(b"data: subscribe,news")
                process.send_signal(signal.SIGINT)
                out, err = process.communicate(timeout=WITHIN)
        assert (process.returncode, out, err) == (0, "", "")


class TestVerificationScript:
    _SCRIPT = Path(__file__).with_name("test_redis_integration.py")

    def _run(self, cli: Cli, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(self._SCRIPT), *arguments]
        return subprocess.run(command, check=False, capture_output=True, timeout=WITHIN, **cli.options({}))

    def test_passes_on_a_good_store(self, cli: Cli, valkey_socket: str) -> None:
        done = self._run(cli, "--url", f"unix://{valkey_socket}")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "8 of 8 checks passed." in done.stdout

    def test_fails_on_a_dead_one(self, cli: Cli) -> None:
        done = self._run(cli, "--json", "--url", f"redis://127.0.0.1:{free_port()}")
        assert (done.returncode, json.loads(done.stdout)["passed"]) == (1, 0)

    def test_says_which_setting_is_wrong(self, cli: Cli) -> None:
        done = self._run(cli, "--url", "ftp://store")
        assert (done.returncode, done.stdout) == (3, "")
        assert "UPSTASH_REDIS_URL is 'ftp://store'" in done.stderr

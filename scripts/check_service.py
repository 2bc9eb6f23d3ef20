"""Start a command that serves, see that it is alive and ready and has its dashboard, end it by SIGTERM: check_service.py COMMAND ARGUMENT..."""

import json
import signal
import subprocess
import sys
import urllib.request


def main(command: list[str]) -> int:
    """What the check found, on standard output; exit code 0 if all is well."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line:
                print("it did not start", file=sys.stderr)
                return 1
            api = json.loads(line)["api"]
            for probe in ("live", "ready"):
                with urllib.request.urlopen(f"{api}/api/v1/health/redis?probe={probe}", timeout=10) as answer:
                    print(f"{probe}: {answer.status} {json.load(answer)['status']}")
            with urllib.request.urlopen(f"{api}/admin/performance/", timeout=10) as answer:
                print(f"dashboard: {answer.status} {answer.headers.get_content_type()}")
            process.send_signal(signal.SIGTERM)
            code = process.wait(timeout=30)
        finally:
            process.kill()
    print(f"ended by SIGTERM with {code}")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

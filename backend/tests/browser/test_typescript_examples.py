"""The TypeScript of the documentation compiles; what is marked `run` is run against a real site and prints what it says."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.chromium import SITE, Running
from tests.frontend import CLIENT, DEMO, ROOT, built
from tests.stores import clean_client

pytestmark = pytest.mark.timeout(300)

_PAGES = [ROOT / "README.md", ROOT / "docs" / "realtime.md", CLIENT / "README.md"]
_BLOCK = re.compile(r"^```(tsx?)( run)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_GLOBALS = "declare function token(): Promise<string>;\n"
_RUNNER = """\
const [site, program] = process.argv.slice(2);
globalThis.location = { href: site };
globalThis.token = async () => (await fetch(`${site}/token?user=ada`, { method: "POST" })).text();
await import(program);
"""


@pytest.fixture(scope="module")
def compiled() -> Iterator[Path]:
    """All examples as JavaScript, beside the demo's packages."""
    built()
    folder = DEMO / ".examples"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for page in _PAGES:
        for number, (kind, run, text) in enumerate(_BLOCK.findall(page.read_text("utf-8"))):
            name = f"{page.parent.name}-{page.stem}-{number}{'-run' if run else ''}.{kind}"
            (folder / name).write_text(text + "export {};\n", "utf-8")
    (folder / "globals.d.ts").write_text(_GLOBALS, "utf-8")
    (folder / "run.mjs").write_text(_RUNNER, "utf-8")
    (folder / "tsconfig.json").write_text(
        '{"extends": "../tsconfig.json", "include": ["*", "../src/events.ts"], "compilerOptions":'
        '{"noEmit": false, "allowImportingTsExtensions": false, "outDir": "out", "rootDir": ".."}}',
        "utf-8",
    )
    ran = subprocess.run(
        [str(DEMO / "node_modules/.bin/tsc"), "-p", "."],
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stdout
    yield folder
    shutil.rmtree(folder)


def test_there_are_examples(compiled: Path) -> None:
    assert len(list(compiled.glob("*.ts"))) >= 4
    assert list(compiled.glob("*-run.ts"))


async def test_an_example_that_is_run_prints_what_it_says(compiled: Path, valkey_socket: str) -> None:
    async with await clean_client(valkey_socket):
        pass
    with Running([str(SITE)], {"REDIS_URL": f"unix://{valkey_socket}"}, "/figures") as site:
        for example in compiled.glob("*-run.ts"):
            program = compiled / "out" / ".examples" / f"{example.stem}.js"
            ran = subprocess.run(
                ["node", "run.mjs", site.url, str(program)],
                cwd=compiled,
                check=False,
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert ran.returncode == 0, ran.stderr
            assert ran.stdout.splitlines() == re.findall(
                r"// -> (.*)$", example.read_text("utf-8"), re.MULTILINE
            )

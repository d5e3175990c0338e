"""The TypeScript snippets of the documents: each compiles, and the first one does what its page says."""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
from pathlib import Path

import pytest

from gapless.testing import run_gateway
from tests.docs.blocks import ROOT, Block, blocks, files
from tests.docs.programs import Reader
from tests.docs.test_stock import ADDRESS, Site

pytestmark = pytest.mark.needs_sdk

SDK = ROOT / "sdk"
PACKAGES = {
    "@gapless/core": "core/src/index.ts",
    "@gapless/core/platform": "core/src/platform/index.ts",
    "@gapless/react": "react/src/index.ts",
    "@gapless/react-native": "react-native/src/index.ts",
}
PAGES = [
    "README.md",
    *(f"docs/clients/{name}.md" for name in ("typescript", "react", "react-native")),
    *(f"sdk/packages/{name}/README.md" for name in ("core", "react", "react-native")),
]


def typescript(page: str) -> list[Block]:
    return [block for block in blocks(page) if block.language in ("ts", "tsx")]


async def complaints(tmp_path: Path) -> str:
    """What the compiler says of a folder."""
    for ambient in ("ambient.d.ts", "modules.d.ts"):
        (tmp_path / ambient).write_text((Path(__file__).parent / ambient).read_text())
    (tmp_path / "node_modules").symlink_to(SDK / "node_modules")
    options = {
        "target": "es2022",
        "module": "esnext",
        "moduleResolution": "bundler",
        "moduleDetection": "force",
        "strict": True,
        "noEmit": True,
        "skipLibCheck": True,
        "allowImportingTsExtensions": True,
        "jsx": "react-jsx",
        "types": ["node"],
        "lib": ["es2022", "dom", "dom.iterable", "dom.asynciterable"],
        "paths": {name: [str(SDK / "packages" / path)] for name, path in PACKAGES.items()},
    }
    (tmp_path / "tsconfig.json").write_text(json.dumps({"compilerOptions": options, "include": ["**/*"]}))
    compiler = await asyncio.create_subprocess_exec(
        str(SDK / "node_modules" / ".bin" / "tsc"), "-p", str(tmp_path), stdout=asyncio.subprocess.PIPE, cwd=tmp_path
    )
    out, _ = await compiler.communicate()
    return out.decode()


@pytest.mark.parametrize("page", PAGES)
async def test_snippets_compile(page: str, tmp_path: Path) -> None:
    snippets = typescript(page)
    assert snippets, "a page without snippets needs no test"
    for block in snippets:
        (tmp_path / f"line-{block.line}.{block.language}").write_text(block.code)
    assert await complaints(tmp_path) == ""


async def test_the_example_compiles(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples" / "crm" / "page", tmp_path / "page")
    assert await complaints(tmp_path) == ""


async def test_five_minutes(tmp_path: Path) -> None:
    hello = files("docs/clients/typescript.md")["hello.ts"]
    assert hello.prints is not None
    secret = secrets.token_hex(32)
    async with run_gateway(env={"GAPLESS_AUTH__SECRET": secret}) as gateway:
        token = Site(gateway, secret).token("7", "MANAGER")
        reader = Reader(tmp_path, {ADDRESS: gateway.http}, {"GAPLESS_TOKEN": token})
        reader.save("source.ts", hello.code)
        # The package as it is in the repository, not as it was built last.
        core = SDK / "packages" / PACKAGES["@gapless/core"]
        bundle = ("source.ts", "--bundle", "--platform=node", "--format=esm", "--packages=external", "--splitting")
        alias = f"--alias:@gapless/core={core}"
        await reader.run(
            str(SDK / "node_modules" / ".bin" / "esbuild"), *bundle, alias, "--outdir=out", "--out-extension:.js=.mjs"
        )
        reader.link_packages("sdk")
        out = await reader.run("out/source.mjs")
    assert sorted(out.splitlines()) == sorted(hello.prints.splitlines())

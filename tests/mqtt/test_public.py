"""The package's public names, pinned; and that it stays pure."""

from __future__ import annotations

import subprocess
import sys

from gapless import mqtt


def test_public_names() -> None:
    assert mqtt.__all__ == sorted(mqtt.__all__, key=lambda name: (not name.isupper(), not name[0].isupper(), name))
    assert all(hasattr(mqtt, name) for name in mqtt.__all__)
    assert {"Decoder", "encode", "PublishTemplate", "FilterTree", "MqttProtocolError"} <= set(mqtt.__all__)


def test_importing_it_imports_no_io() -> None:
    code = "import gapless.mqtt, sys; print(sorted({'asyncio', 'socket', 'ssl', 'selectors'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

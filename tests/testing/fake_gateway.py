"""A stand-in for `gapless serve`, so that the helper's own tests need no gateway.

Counts its starts in the data folder, answers each HTTP connection with that count, and misbehaves as told by
`--behave`: `fail`, `silent`, `dirty` (exit code 3 on SIGTERM), `deaf` (ignores SIGTERM), `crash` (ends
on the first connection).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socketserver
import sys
import threading
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true", required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--mqtt-port", type=int)
    parser.add_argument("--no-mqtt", action="store_true")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--behave", default="well")
    options = parser.parse_args()
    if options.behave == "fail":
        print("the data folder is on fire", file=sys.stderr)
        return 2
    counter = options.data / "starts"
    starts = int(counter.read_text()) + 1 if counter.exists() else 1
    options.data.mkdir(parents=True, exist_ok=True)
    counter.write_text(str(starts))

    class Answer(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            if options.behave == "crash":
                os._exit(9)
            self.wfile.write(b"%d" % starts)

    class Listener(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

    try:
        listener = Listener((options.host, options.port), Answer)
    except OSError as error:
        print(f"gapless: port {options.port} is in use ({error.strerror})", file=sys.stderr)
        return 2
    done = threading.Event()
    if options.behave == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: done.set())
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    print(f"listening, start {starts}, {os.environ.get('FAKE_NOTE', '')}", file=sys.stderr)
    print("not the ready line")
    if options.behave != "silent":
        ready = {"ready": True, "http": f"http://{options.host}:{options.port}", "epoch": "e1", "pid": os.getpid()}
        if not options.no_mqtt:
            ready["mqtt"] = f"mqtt://{options.host}:{options.mqtt_port}"
        print(json.dumps(ready))
    done.wait()
    return 3 if options.behave == "dirty" else 0


if __name__ == "__main__":
    sys.exit(main())

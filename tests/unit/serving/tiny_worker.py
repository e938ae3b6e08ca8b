"""A worker that speaks the supervisor's protocol and serves a made-up model with the standard library alone.

Its behaviour is the second argument: good, wrong (another label), liar (another version), babbler (no JSON), dead,
mute, stubborn, keyed (asks for the probe's key), mortal (dies as soon as there is the file named after a colon),
wedged (hears neither its supervisor nor SIGTERM once it serves), chatty (logs each request), slow (takes 4 s to end
with what it has begun, which it logs). Of several workers, all but the one that makes the file named after a colon are
late (ready once there is a file `now` beside it), frail (dead at their start) or shy (dead when they are to accept on
the public port).
"""

import argparse
import json
import os
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("tag")
parser.add_argument("behaviour")
parser.add_argument("--fd", type=int)
parser.add_argument("--control", type=int)
ARGUMENTS = parser.parse_args()
DRAINING = threading.Event()
NAME, _, VERSION = ARGUMENTS.tag.partition(":")
BEHAVIOUR, _, FILE = ARGUMENTS.behaviour.partition(":")


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/info" and self.refused():
            return
        model = {"name": NAME, "version": VERSION}
        self.answer(503 if BEHAVIOUR == "mute" else 200, {"pid": os.getpid(), "version": VERSION, "model": model})

    def do_POST(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if BEHAVIOUR == "slow":
            sys.stderr.write("begun\n" if "slow" in self.path else "")
        if BEHAVIOUR == "chatty" and b"\n" not in content:
            sys.stderr.write(f"{os.getpid()} was asked: {content.decode()}.\n")
        if self.refused():
            return
        version = "0" if BEHAVIOUR == "liar" else VERSION
        label = "cat" if BEHAVIOUR == "wrong" else "moth"
        if BEHAVIOUR == "babbler":
            self.answer(200, ["?"])
            return
        self.answer(
            200,
            {"model": {"name": NAME, "version": version}, "predictions": [{"label": label, "probability": 1.0}]},
        )

    def refused(self):
        asked = BEHAVIOUR == "keyed"
        refused = asked and self.headers["X-API-Key"] != os.environ["IMAGO_PROBE_KEY"]
        if refused:
            self.answer(401, {})
        return refused

    def answer(self, status, body):
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if "slow" in self.path:
            DRAINING.wait(30)
            if BEHAVIOUR == "slow":
                time.sleep(4)
        self.wfile.write(content)

    def log_message(self, *_):
        pass


def serve(listener):
    listener.setblocking(False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
    server.daemon_threads = False
    server.socket.close()
    server.socket = listener
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}).start()
    return server


if BEHAVIOUR == "dead":
    sys.exit("the model cannot be loaded")
if BEHAVIOUR in {"stubborn", "wedged"}:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def die():
    while not Path(FILE).exists():
        time.sleep(0.01)
    sys.stderr.write("out of memory, and out of luck\n")
    os._exit(3)


if BEHAVIOUR == "mortal":
    threading.Thread(target=die, daemon=True).start()


def is_first():
    with suppress(FileExistsError), Path(FILE).open("x"):
        return True
    return False


OTHER = BEHAVIOUR in {"late", "frail", "shy"} and not is_first()
if OTHER and BEHAVIOUR == "frail":
    sys.exit("out of memory")
while OTHER and BEHAVIOUR == "late" and not Path(FILE).with_name("now").exists():
    time.sleep(0.01)
control = socket.socket(fileno=ARGUMENTS.control)
servers = [serve(socket.socket(fileno=ARGUMENTS.fd))]
control.send(b"R")
while True:
    message, fds, _, _ = socket.recv_fds(control, 64, 4)
    if not message or b"D" in message:
        break
    if OTHER and BEHAVIOUR == "shy":
        sys.exit("it does not dare")
    servers += [serve(socket.socket(fileno=fd)) for fd in fds]
    control.send(b"A")
    if BEHAVIOUR == "wedged":
        threading.Event().wait()
DRAINING.set()
for server in servers:
    server.shutdown()
    server.server_close()

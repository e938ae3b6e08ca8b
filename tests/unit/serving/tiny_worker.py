"""A worker that speaks the supervisor's protocol and serves a made-up model with the standard library alone.

Its behaviour is the second argument: good, wrong (another label), liar (another version), babbler (no JSON), dead,
mute, stubborn, keyed (asks for the probe's key), mortal (dies as soon as there is the file named after a colon),
wedged (hears neither its supervisor nor SIGTERM once it serves), chatty (logs each request).
"""

import argparse
import json
import os
import signal
import socket
import sys
import threading
import time
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
control = socket.socket(fileno=ARGUMENTS.control)
servers = [serve(socket.socket(fileno=ARGUMENTS.fd))]
control.send(b"R")
while True:
    message, fds, _, _ = socket.recv_fds(control, 64, 4)
    if not message or b"D" in message:
        break
    servers += [serve(socket.socket(fileno=fd)) for fd in fds]
    control.send(b"A")
    if BEHAVIOUR == "wedged":
        threading.Event().wait()
DRAINING.set()
for server in servers:
    server.shutdown()
    server.server_close()

"""Somebody who is called: takes webhooks and letters, and writes down each as a line of JSON.

A line says how it came, and by which path. Arguments: the file, and the file in which it says its ports, that of webhooks and that
of letters.
"""

import http.server
import json
import os
import socketserver
import sys
import threading

lock = threading.Lock()
calls_of_the_shy = threading.Semaphore(2)


def write(kind, what):
    with lock, open(sys.argv[1], "a", encoding="utf-8") as file:
        file.write(json.dumps({"kind": kind, "what": what}) + "\n")


class Webhook(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        # Whoever is shy takes the third call.
        refuses = self.path == "/shy" and calls_of_the_shy.acquire(blocking=False)
        write(("refused" if refuses else "webhook") + self.path, json.loads(body))
        self.send_response(503 if refuses else 200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


class Letters(socketserver.StreamRequestHandler):
    def handle(self):
        def say(text):
            self.wfile.write(text.encode() + b"\r\n")

        say("220 letters")
        lines = None
        for raw in self.rfile:
            line = raw.decode().rstrip("\r\n")
            if lines is not None:
                if line == ".":
                    write("letter", "\n".join(lines))
                    lines = None
                    say("250 taken")
                else:
                    lines.append(line)
            elif line.upper().startswith("DATA"):
                lines = []
                say("354 go on")
            elif line.upper().startswith("QUIT"):
                say("221 goodbye")
                return
            else:
                say("250 good")


letters = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Letters)
webhooks = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Webhook)
threading.Thread(target=letters.serve_forever, daemon=True).start()
with open(sys.argv[2] + ".new", "w", encoding="utf-8") as ports:
    ports.write(f"{webhooks.server_address[1]} {letters.server_address[1]}")
os.rename(sys.argv[2] + ".new", sys.argv[2])
webhooks.serve_forever()

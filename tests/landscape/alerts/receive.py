"""Somebody who is called: takes webhooks and letters, and writes down each as a line of JSON.

Arguments: the port of webhooks, the port of letters, the file.
"""

import http.server
import json
import socketserver
import sys
import threading

lock = threading.Lock()


def write(kind, what):
    with lock, open(sys.argv[3], "a", encoding="utf-8") as file:
        file.write(json.dumps({"kind": kind, "what": what}) + "\n")


class Webhook(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        write("webhook", json.loads(body))
        self.send_response(200)
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


socketserver.ThreadingTCPServer.allow_reuse_address = True
letters = socketserver.ThreadingTCPServer(("127.0.0.1", int(sys.argv[2])), Letters)
threading.Thread(target=letters.serve_forever, daemon=True).start()
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Webhook).serve_forever()

"""A server that listens at once and is ready later, takes its time for each answer, and dies at once when it is told to end."""
import http.server
import os
import random
import socketserver
import time

READY = time.monotonic() + float(os.environ["WARMUP"])


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        ready = time.monotonic() > READY
        if self.path == "/slow":
            time.sleep(random.uniform(0, 0.4))
        self.send_response(200 if ready else 503)
        self.end_headers()
        self.wfile.write(os.environ["COLOUR"].encode())

    def log_message(self, *_):
        pass


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 500


Server(("", 80), Handler).serve_forever()

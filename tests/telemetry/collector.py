"""A collector as OpenTelemetry's exporters find it: OTLP over HTTP, and the ways in which one can be no help."""

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Collector:
    """Keeps what it is sent. `mood` is what it does instead: `hang`, `slow`, `garbage`, `refuse`, `broken` or `busy`."""

    def __init__(self):
        self.spans, self.resources, self.metrics = [], [], {}
        self.mood = ""
        self.asked = threading.Event()
        self.go_on = threading.Event()

    def span(self, name):
        (found,) = [span for span in self.spans if span.name == name]
        return found

    def take(self, path, body):
        if path == "/v1/traces":
            for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                self.resources.append({item.key: item.value.string_value for item in of_resource.resource.attributes})
                for scoped in of_resource.scope_spans:
                    self.spans += scoped.spans
        else:
            for of_resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                for scoped in of_resource.scope_metrics:
                    self.metrics |= {metric.name: metric for metric in scoped.metrics}


def attributes(span):
    return {item.key: item.value.string_value for item in span.attributes}


@contextlib.contextmanager
def collecting(mood=""):
    """A collector on a port of its own, and OpenTelemetry's variables that name it."""
    collector = Collector()
    collector.mood = mood

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            collector.asked.set()
            match collector.mood:
                case "hang":
                    collector.go_on.wait()
                    self.send_response(200)
                    self.end_headers()
                case "garbage":
                    self.wfile.write(b"\x00\xffHTTP/9.9 what?\r\n\r\n\r\n" * 100)
                case "refuse" | "broken" | "busy":
                    status = {"refuse": 400, "broken": 500, "busy": 429}[collector.mood]
                    self.send_response(status)
                    self.send_header("retry-after", "3600")
                    self.send_header("content-length", "6")
                    self.end_headers()
                    self.wfile.write(b"canary")
                case "slow":
                    # A byte now and then: each keeps a time limit for a single read from running out.
                    self.send_response(200)
                    self.send_header("content-length", "1000000")
                    self.end_headers()
                    while not collector.go_on.wait(0.02):
                        self.wfile.write(b"x")
                case _:
                    collector.take(self.path, body)
                    self.send_response(200)
                    self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield collector, {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{server.server_address[1]}"}
    finally:
        collector.go_on.set()
        server.shutdown()
        thread.join()
        server.server_close()

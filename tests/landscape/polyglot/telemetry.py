"""Sends a span, a log line and a measurement by a stock OpenTelemetry SDK: python telemetry.py GRPC_URL HTTP_URL
Prints the trace ids of the span sent by gRPC and of the span sent by HTTP."""

import logging
import sys

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc import _log_exporter as grpc_logs
from opentelemetry.exporter.otlp.proto.grpc import metric_exporter as grpc_metrics
from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc_traces
from opentelemetry.exporter.otlp.proto.http import _log_exporter as http_logs
from opentelemetry.exporter.otlp.proto.http import metric_exporter as http_metrics
from opentelemetry.exporter.otlp.proto.http import trace_exporter as http_traces
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor


def send(name, span_exporter, log_exporter, metric_exporter):
    resource = Resource.create({"service.name": name, "service.instance.id": f"{name}-1"})
    spans = TracerProvider(resource=resource)
    spans.add_span_processor(BatchSpanProcessor(span_exporter))
    logs = LoggerProvider(resource=resource)
    logs.add_log_record_processor(BatchLogRecordProcessor(log_exporter))
    metrics = MeterProvider(resource=resource, metric_readers=[PeriodicExportingMetricReader(metric_exporter)])
    logger = logging.getLogger(name)
    logger.addHandler(LoggingHandler(logger_provider=logs))
    logger.setLevel(logging.INFO)
    metrics.get_meter("test").create_counter("pumped").add(7, {"pump": "left"})
    with spans.get_tracer("test").start_as_current_span("pump") as span:
        logger.info("water flows")
        print(trace.format_trace_id(span.get_span_context().trace_id), flush=True)
    for provider in (spans, logs, metrics):
        provider.shutdown()


grpc_url, http_url = sys.argv[1:]
send(
    "stock-grpc",
    grpc_traces.OTLPSpanExporter(endpoint=grpc_url, insecure=True),
    grpc_logs.OTLPLogExporter(endpoint=grpc_url, insecure=True),
    grpc_metrics.OTLPMetricExporter(endpoint=grpc_url, insecure=True),
)
send(
    "stock-http",
    http_traces.OTLPSpanExporter(endpoint=f"{http_url}/v1/traces"),
    http_logs.OTLPLogExporter(endpoint=f"{http_url}/v1/logs"),
    http_metrics.OTLPMetricExporter(endpoint=f"{http_url}/v1/metrics"),
)

"""Figures for Prometheus, read when they are asked for: the batchers keep count anyway."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from jpeglm.serving.service import Service

__all__ = ["Metrics"]

SECONDS = (0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)


class Metrics(Collector):
    """Of one server, in a registry of its own."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.registry = CollectorRegistry()
        self.registry.register(self)
        self.requests = Counter(
            "jpeglm_requests", "Requests answered.", ["path", "status"], registry=self.registry
        )
        self.first = Histogram(
            "jpeglm_first_partial_seconds",
            "From a stream's request to its first partial picture.",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.seconds = Histogram(
            "jpeglm_request_seconds",
            "From a request to its last picture.",
            buckets=SECONDS,
            registry=self.registry,
        )

    def collect(self) -> Iterator[Metric]:
        """What the batchers know, of each model."""
        open_ = GaugeMetricFamily("jpeglm_open", "Pictures drawn now or waiting.", labels=["model"])
        drawn = CounterMetricFamily("jpeglm_pictures", "Pictures drawn.", labels=["model"])
        tokens = CounterMetricFamily("jpeglm_tokens", "Tokens drawn.", labels=["model"])
        for name, served in self.service.models.items():
            if served.batcher:
                open_.add_metric([name], served.batcher.open)
                drawn.add_metric([name], served.batcher.drawn)
                tokens.add_metric([name], served.batcher.session.tokens)
        yield from (open_, drawn, tokens)

    def text(self) -> bytes:
        """The exposition format's text."""
        return generate_latest(self.registry)

"""Accounts and conversations: users, sign-in, messages and notifications."""

from __future__ import annotations

from voice_policies import Rate

from components.node import Replicas, Service, Sizing
from components.operation import hard, operation, soft, stage
from stack.voiceassistant.site import APPS

IDENTITY = Service(
    name="identity-service",
    namespace=APPS,
    purpose="authentication, JWT, users, permissions",
    language="go",
    tier="core",
    grpc_port=9000,
    http_port=8080,
    sizing=Sizing.of(cpu=("250m", "500m"), memory=("256Mi", "512Mi")),
    replicas=Replicas(min=3, max=10),
    capacity=Rate("400/s"),
    connection_pool=10,
    without_features="every request needs a complete check of its permissions",
    operations=(
        operation(
            "verify",
            stage(hard("postgresql.read", "idempotent"), soft("redis.access", "no session cache")),
            p95="50ms",
            deadline="200ms",
        ),
        operation(
            "login",
            stage(hard("postgresql.read", "idempotent"), soft("redis.access", "no session cache")),
            p95="150ms",
            deadline="400ms",
        ),
    ),
)

CONVERSATION = Service(
    name="conversation-service",
    namespace=APPS,
    purpose="conversations, messages, context",
    language="go",
    tier="core",
    grpc_port=9000,
    http_port=8080,
    sizing=Sizing.of(cpu=("500m", "1"), memory=("512Mi", "1Gi")),
    replicas=Replicas(min=3, max=15),
    capacity=Rate("200/s"),
    connection_pool=10,
    without_features="it must store each message; the call for the answer is already soft",
    operations=(
        operation(
            "list",
            stage(hard("postgresql.read", "idempotent"), soft("redis.access", "no cache of lists and contexts")),
            p95="150ms",
            deadline="300ms",
        ),
        operation(
            "send",
            stage(hard("postgresql.write", "with_key"), soft("redis.access", "no cache of lists and contexts")),
            stage(
                soft(
                    "ai-orchestrator.answer", "the message is kept and answered later", "with_key", needed_by_flows=True
                )
            ),
            p95="2400ms",
            deadline="15s",
            transport="streamed",
            publishes=("message.created",),
        ),
    ),
)

NOTIFICATION = Service(
    name="notification-service",
    namespace=APPS,
    purpose="e-mail, SMS, webhooks; consumes events",
    language="go",
    tier="batch",
    grpc_port=9006,
    http_port=8080,
    sizing=Sizing.of(cpu=("250m", "500m"), memory=("256Mi", "512Mi")),
    replicas=Replicas(min=2, max=2),
    capacity=Rate("50/s"),
    connection_pool=5,
    operations=(
        operation(
            "deliver",
            stage(hard("postgresql.write", "with_key")),
            # Nobody can unsend a message, and neither provider accepts an idempotency key. So the service makes one
            # attempt, and keeps a message whose attempt failed.
            stage(
                soft("smtp-provider.send", "the message is kept and sent later", "never"),
                soft("sms-provider.send", "the message is kept and sent later", "never"),
            ),
            p95="2s",
            deadline="6s",
            background=True,
            consumes=("message.created",),
        ),
        operation("webhook", stage(hard("postgresql.write", "with_key")), p95="200ms", deadline="500ms"),
    ),
)

ANALYTICS = Service(
    name="analytics-service",
    namespace=APPS,
    purpose="live counters, reports; consumes events",
    language="go",
    tier="batch",
    grpc_port=9006,
    http_port=8080,
    sizing=Sizing.of(cpu=("250m", "500m"), memory=("512Mi", "1Gi")),
    replicas=Replicas(min=2, max=2),
    capacity=Rate("50/s"),
    connection_pool=5,
    operations=(
        operation(
            "report",
            stage(
                hard("postgresql.read", "idempotent"),
                soft("column-store.read", "live counters only"),
            ),
            p95="1s",
            deadline="2s",
            consumes=("message.created", "model.attempted"),
        ),
    ),
)

SERVICES: tuple[Service, ...] = (IDENTITY, CONVERSATION, NOTIFICATION, ANALYTICS)

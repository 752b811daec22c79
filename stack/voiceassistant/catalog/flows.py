"""The flows that users see, with their targets. Diagrams, load scenarios and latency budgets are computed from them."""

from __future__ import annotations

from voice_policies import Duration, Ratio

from stack.model.flow import Flow, Milestone


def _flow(
    name: str,
    title: str,
    *,
    route: str,
    p95: str,
    availability: str | None = None,
    diagram: bool = False,
    continues: str | None = None,
    milestones: tuple[Milestone, ...] = (),
) -> Flow:
    return Flow(
        name=name,
        title=title,
        route=route,
        latency=Duration(p95),
        availability=None if availability is None else Ratio(availability),
        diagram=diagram,
        continues=continues,
        milestones=milestones,
    )


FIRST_FRAME = Milestone(
    title="the first frame of the stream",
    operation="conversation-service.send",
    first_stage=True,
    target=Duration("300ms"),
)
FIRST_AUDIO = Milestone(title="the first audio of a text", operation="speech.synthesize", target=Duration("300ms"))

FLOWS = (
    _flow(
        "voice-dialogue",
        "Voice dialogue",
        route="voice-engine-dialogue",
        p95="2500ms",
        availability="99.9%",
        diagram=True,
        milestones=(FIRST_AUDIO,),
    ),
    _flow(
        "chat",
        "Chat with retrieval and re-rank",
        route="conversation-service-send",
        p95="2500ms",
        availability="99.9%",
        diagram=True,
        milestones=(FIRST_FRAME,),
    ),
    _flow("tool-call", "Tool call", route="ai-orchestrator-task", p95="2500ms", diagram=True),
    _flow(
        "document-indexing",
        "Document indexing",
        route="knowledge-service-upload",
        p95="200ms",
        diagram=True,
        continues="indexing-service.index",
    ),
    _flow(
        "document-deletion",
        "Document deletion",
        route="knowledge-service-upload",
        p95="200ms",
        continues="indexing-service.delete",
    ),
    _flow("login", "Login", route="identity-service-login", p95="200ms", availability="99.95%"),
    _flow("verify", "Token verification", route="identity-service-verify", p95="200ms"),
    _flow(
        "conversation-list",
        "List of conversations",
        route="conversation-service-list",
        p95="200ms",
        availability="99.95%",
    ),
    _flow("search", "Search in knowledge", route="knowledge-service-search", p95="500ms", availability="99.5%"),
)

"""The flows people see, each with its targets: a sequence diagram, a load scenario and a latency budget."""

from __future__ import annotations

from voice_policies import Duration, Ratio

from stack.model.flow import Flow, Milestone


def _flow(
    name: str,
    title: str,
    route: str,
    latency: str,
    availability: str | None = None,
    *,
    diagram: bool = False,
    continues: str | None = None,
    milestones: tuple[Milestone, ...] = (),
) -> Flow:
    return Flow(
        name=name,
        title=title,
        route=route,
        latency=Duration(latency),
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
FIRST_AUDIO = Milestone(
    title="the first audio of a text", operation="speech-providers.synthesize", target=Duration("300ms")
)

FLOWS = (
    _flow(
        "voice-dialogue",
        "Voice dialogue",
        "voice-engine-dialogue",
        "2500ms",
        "99.9%",
        diagram=True,
        milestones=(FIRST_AUDIO,),
    ),
    _flow(
        "chat",
        "Chat with retrieval and re-rank",
        "conversation-service-send",
        "2500ms",
        "99.9%",
        diagram=True,
        milestones=(FIRST_FRAME,),
    ),
    _flow("tool-call", "Tool call", "ai-orchestrator-task", "2500ms", diagram=True),
    _flow(
        "document-indexing",
        "Document indexing",
        "knowledge-service-upload",
        "200ms",
        diagram=True,
        continues="indexing-service.index",
    ),
    _flow(
        "document-deletion",
        "Document deletion",
        "knowledge-service-upload",
        "200ms",
        continues="indexing-service.delete",
    ),
    _flow("login", "Login", "identity-service-login", "200ms", "99.95%"),
    _flow("verify", "Token verification", "identity-service-verify", "200ms"),
    _flow("conversation-list", "List of conversations", "conversation-service-list", "200ms", "99.95%"),
    _flow("search", "Search in knowledge", "knowledge-service-search", "500ms", "99.5%"),
)

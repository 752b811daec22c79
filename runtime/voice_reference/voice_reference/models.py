"""Model calls through OpenAI's SDK.

Requests go to the addresses in the configuration. If the configuration has no address for a provider, a fake in this
process answers. So no reference service needs a real provider.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

import httpx
from voice_models import ModelRuntime, ModelTransport
from voice_models.fake_answers import chat_stream, embeddings, error, speech, transcription
from voice_models.fake_provider import Answer, FakeNetwork, FakeProvider, FakeRequest
from voice_models.prometheus import ModelCollector
from voice_policies import OutboundCall
from voice_runtime import Runtime

from voice_reference.configuration import ConfigurationFile
from voice_reference.simulation import latency

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types.chat import ChatCompletionMessageParam

PROMPT: list[ChatCompletionMessageParam] = [{"role": "user", "content": "When is high tide?"}]
ANSWER = ("High ", "tide ", "is ", "at ", "noon.")
RANKING = b'{"results": [{"index": 0, "relevance_score": 1.0}], "usage": {"total_tokens": 10}}'
SOUND = b"\0\0" * 160
"""10 ms of 16-bit silence at 16 kHz."""


class ModelCalls:
    """The model calls of one process."""

    def __init__(self, runtime: Runtime, configuration: ConfigurationFile) -> None:
        self._models = ModelRuntime(runtime)
        self.collector = ModelCollector(self._models)
        """The collector of the calls' metrics, for Prometheus."""
        self._configuration = configuration
        self._clients: dict[str, AsyncOpenAI] = {}
        if runtime.bundle.models is not None:
            _sdk()  # import the SDK now, and not during the first request

    async def texts(self, call: OutboundCall) -> AsyncGenerator[str, None]:
        """Call the endpoint that fits the route's capabilities. Yields the parts of a chat's answer, otherwise nothing.

        Raises `ModelError`, and the errors of the policies.
        """
        client, kinds = self._client(call.name), self._kinds(call)
        if "text" in kinds:
            stream = await client.chat.completions.create(model="", messages=PROMPT, stream=True)
            async with stream:
                async for chunk in stream:
                    if chunk.choices and (text := chunk.choices[0].delta.content):
                        yield text
        elif "embeddings" in kinds:
            await client.embeddings.create(model="", input="high tide")
        elif "reranking" in kinds:
            await client.post("/rerank", body={"model": "", "query": "tide", "documents": ["noon"]}, cast_to=object)
        elif "transcription" in kinds:
            await client.audio.transcriptions.create(model="", file=("question.wav", SOUND))
        else:
            sounds = client.audio.speech.with_streaming_response
            async with sounds.create(model="", voice="alloy", input="".join(ANSWER)) as answer:
                async for _ in answer.iter_bytes():
                    """Read the audio and drop it."""

    async def aclose(self) -> None:
        """Wait for unfinished writes of usage events and cached answers, then close the connections."""
        for client in self._clients.values():
            await client.close()

    def _kinds(self, call: OutboundCall) -> tuple[str, ...]:
        _, models, route = self._models.declared(call.name)
        return models.routes[route].capabilities

    def _client(self, name: str) -> AsyncOpenAI:
        if name not in self._clients:
            network = _Providers(name, self._models.runtime, self._configuration)
            http = httpx.AsyncClient(transport=ModelTransport(self._models, name, network))
            self._clients[name] = _sdk()(api_key="of the route", base_url="http://route/v1", http_client=http)  # type: ignore[arg-type]  # the SDK accepts httpx and declares httpx2
        return self._clients[name]


def _sdk() -> type[AsyncOpenAI]:
    """Import OpenAI's client here, because the import takes half a second and some services make no model calls."""
    from openai import AsyncOpenAI  # noqa: PLC0415

    return AsyncOpenAI


class _Providers(httpx.AsyncBaseTransport):
    """Sends each request to the provider that the request's Host header names."""

    def __init__(self, name: str, runtime: Runtime, configuration: ConfigurationFile) -> None:
        self._name = name
        self._runtime = runtime
        self._configuration = configuration
        self._network = httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        host = request.headers["host"].partition(":")[0]
        models = self._runtime.bundle.models
        names = [name for name, each in models.providers.items() if each.address.host == host] if models else []
        addresses = self._configuration.current().providers
        for name in names:
            if name in addresses:
                address, _, port = addresses[name].rpartition(":")
                request.url = request.url.copy_with(scheme="http", host=address, port=int(port))
                return await self._network.handle_async_request(request)
        request.url = request.url.copy_with(host=host)
        return await FakeNetwork({host: FakeProvider(self._answer)}).handle_async_request(request)

    async def aclose(self) -> None:
        await self._network.aclose()

    def _answer(self, request: FakeRequest) -> Answer:
        behaviour, random = self._configuration.current().of(self._name), self._runtime.random
        delay = latency(behaviour, random)
        if random.random() < behaviour.error_ratio:
            return error(503)
        return _healthy(request.path, delay)


def _healthy(path: str, delay: float) -> Answer:
    match path.rpartition("/")[2]:
        case "completions":
            return chat_stream(*ANSWER, first=delay)
        case "embeddings":
            return embeddings(delay=delay)
        case "transcriptions":
            return transcription("When is high tide?", delay=delay)
        case "speech":
            return speech(first=delay)
    return Answer((RANKING,), headers={"content-type": "application/json"}, delay=delay)

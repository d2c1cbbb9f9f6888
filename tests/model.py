"""A stand-in for the model behind a coding agent: it asks for the tools that a test wants used."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# What an answer is made of: a tool and its input, or plain words.
Step = tuple[str, dict[str, Any]] | str


class Model:
    """Answers the Messages API of Anthropic, with streaming, on a port of 127.0.0.1.

    ``plans`` are the steps for a conversation, by a word of its first prompt; what is in none is
    answered with a word. ``requests`` is all that was asked, in order.
    """

    def __init__(self, plans: Mapping[str, Sequence[Step]]) -> None:
        """Start to listen."""
        self.plans = plans
        self.requests: list[dict[str, Any]] = []
        model = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                """Answer one request."""
                given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if not self.path.startswith("/v1/messages?") and self.path != "/v1/messages":
                    self._send(json.dumps({"input_tokens": 1}), "application/json")
                    return
                model.requests.append(given)
                message = model.answer(given)
                if given.get("stream"):
                    self._send("".join(map(_event, _events(message))), "text/event-stream")
                else:
                    self._send(json.dumps(message), "application/json")

            def do_GET(self) -> None:
                """Know of nothing."""
                self._send("{}", "application/json")

            do_HEAD = do_GET  # noqa: N815  # the name of the base class

            def _send(self, text: str, kind: str) -> None:
                content = text.encode()
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # likewise
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the next message of the conversation that a request is about."""
        messages = given["messages"]
        first = text_of(messages[0]) if messages else ""
        steps = next((plan for word, plan in self.plans.items() if word in first), ())
        done = sum(message["role"] == "assistant" for message in messages)
        step: Step = steps[done] if given.get("tools") and done < len(steps) else "done"
        if isinstance(step, str):
            content: dict[str, Any] = {"type": "text", "text": step}
        else:
            name, wanted = step
            content = {"type": "tool_use", "id": f"toolu_{len(self.requests)}"}
            content |= {"name": name, "input": wanted}
        return {
            "id": f"msg_{len(self.requests)}",
            "type": "message",
            "role": "assistant",
            "model": given["model"],
            "content": [content],
            "stop_reason": "end_turn" if isinstance(step, str) else "tool_use",
            "stop_sequence": None,
            "usage": {"input_tokens": 1, "output_tokens": 1},
        }

    def seen(self, word: str) -> list[str]:
        """Return all that the conversation of a word has told the model, in order, once each."""
        asked = [
            request
            for request in self.requests
            if request.get("tools") and word in text_of(request["messages"][0])
        ]
        if not asked:
            return []
        last = max(asked, key=lambda request: len(request["messages"]))
        return [text_of(message) for message in last["messages"] if message["role"] != "assistant"]


def text_of(message: Mapping[str, Any]) -> str:
    """Return all text of a message, that of tool results too."""
    return _text(message["content"])


def _text(content: Any) -> str:  # noqa: ANN401  # what JSON holds
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(map(_text, content))
    return _text(content.get("text") or content.get("content") or "")


def _events(message: dict[str, Any]) -> list[dict[str, Any]]:
    [content] = message["content"]
    if content["type"] == "text":
        empty = {"type": "text", "text": ""}
        delta = {"type": "text_delta", "text": content["text"]}
    else:
        empty = {**content, "input": {}}
        delta = {"type": "input_json_delta", "partial_json": json.dumps(content["input"])}
    begun = {**message, "content": [], "stop_reason": None}
    end = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    return [
        {"type": "message_start", "message": begun},
        {"type": "content_block_start", "index": 0, "content_block": empty},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": end, "usage": {"output_tokens": 1}},
        {"type": "message_stop"},
    ]


def _event(event: Mapping[str, Any]) -> str:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"

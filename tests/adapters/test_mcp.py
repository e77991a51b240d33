"""`adiabat mcp` as its own process, spoken to by the protocol's own client."""

import asyncio
import os
import sys

import pytest

from tests.adapters.conftest import GERMAN
from tests.conftest import Service

pytest.importorskip("mcp", reason="the extra 'mcp' is not installed")

from mcp import Client
from mcp.client.stdio import StdioServerParameters


def test_a_host_searches_and_reads_and_is_told_what_is_wrong(filled: Service) -> None:
    command = [sys.executable, "-m", "app.cli", "mcp", "--url", filled.url]
    server = StdioServerParameters(command=command[0], args=command[1:], env=dict(os.environ))

    async def host() -> None:
        async with Client(server) as client:
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}
            assert set(tools) == {"search", "passage"}
            assert tools["search"].annotations.read_only_hint
            answer = await client.call_tool("search", {"query": "water pump", "limit": 2})
            hits = filled.client.search("water pump", limit=2).hits
            found = answer.structured_content["result"]
            assert [(one["id"], one["text"], one["score"]) for one in found] == [
                (hit.id, hit.text, hit.score) for hit in hits
            ]
            german = await client.call_tool("search", {"query": "water pump", "filter": GERMAN})
            assert [one["id"] for one in german.structured_content["result"]] == ["b"]
            assert tools["search"].input_schema["properties"]["mode"]["enum"] == ["dense", "lexical", "hybrid"]
            for mode in ("lexical", "hybrid"):
                by_mode = await client.call_tool("search", {"query": "water pump", "mode": mode})
                expected = filled.client.search("water pump", mode=mode, limit=5).hits
                told = by_mode.structured_content["result"]
                assert [(one["id"], one["score"]) for one in told] == [(hit.id, hit.score) for hit in expected]
            one = await client.call_tool("passage", {"id": "a"})
            assert one.structured_content["title"] == "pump"
            for name, asked, word in (
                ("passage", {"id": "gone"}, "No passage has the id"),
                ("search", {"query": "x", "limit": 0}, "1 to 50"),
                ("search", {"query": "x", "mode": "sparse"}, "hybrid"),
                ("search", {"query": "x", "filter": {"must": [{"kee": 1}]}}, "kee"),
            ):
                refused = await client.call_tool(name, asked)
                assert refused.is_error
                assert word in refused.content[0].text

    asyncio.run(host())

"""An MCP server over a running service: what a model's host may ask of it. It only reads."""

from typing import Any

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations

from app import __version__
from app.client import AdiabatClient, ApiError, Unreachable
from app.wire.passages import PassagePublic
from app.wire.search import HitPublic, Mode

MAX_HITS = 50
FIELDS = set(HitPublic.model_fields)
READS = ToolAnnotations(read_only_hint=True, open_world_hint=False)


def make_server(client: AdiabatClient) -> MCPServer[Any]:
    """With the tools `search` and `passage`. What the service refuses is told to the model as the tool's error."""
    server: MCPServer[Any] = MCPServer(
        "adiabat",
        version=__version__,
        log_level="WARNING",
        instructions="Search a knowledge base by meaning, in any language its encoder knows, or by words, and read its "
        "passages.",
    )

    @server.tool(annotations=READS)
    def search(
        query: str, limit: int = 5, filter: dict[str, Any] | None = None, mode: Mode = "dense"
    ) -> list[HitPublic]:
        """The passages that answer a question, best first.

        query: the question, as a person would ask it. limit: how many, up to 50. filter: Qdrant's filter JSON over
        the passages' metadata, such as {"must": [{"key": "lang", "match": {"value": "de"}}]}. mode: "dense" by meaning;
        "lexical" by words in common, for part numbers, names and quotations; "hybrid" by both. Scores of different
        modes cannot be compared.
        """
        if not 1 <= limit <= MAX_HITS:
            raise ToolError(f"limit is {limit}; 1 to {MAX_HITS} is expected.")
        try:
            hits = client.search(query, mode=mode, limit=limit, filter=filter).hits
        except (ApiError, Unreachable) as error:
            raise ToolError(str(error)) from error
        return [HitPublic(**hit.model_dump(include=FIELDS)) for hit in hits]

    @server.tool(annotations=READS)
    def passage(id: str) -> PassagePublic:
        """One passage in full, by the id that a search told."""
        try:
            return client.passage(id)
        except (ApiError, Unreachable) as error:
            raise ToolError(str(error)) from error

    return server

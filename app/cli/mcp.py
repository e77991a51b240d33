"""`adiabat mcp`."""

import typer

from app.cli.common import ApiKey, Url, connect
from app.client import DEFAULT_URL
from app.errors import BadInput


def install(cli: typer.Typer) -> None:
    cli.command()(mcp)


def mcp(url: Url = DEFAULT_URL, api_key: ApiKey = None) -> None:
    """An MCP server on standard input and output, with which a model's host searches a running service.

    The host starts it: its configuration names this command. Needs: pip install 'adiabat[mcp]'.

    Example: adiabat mcp --url http://127.0.0.1:8000
    """
    try:
        from app.adapters.mcp import make_server
    except ImportError as error:
        raise BadInput("To serve MCP, install its library: pip install 'adiabat[mcp]'.") from error
    with connect(url, api_key) as client:
        make_server(client).run()

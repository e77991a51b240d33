"""What Schemathesis has to be told of this API: how lines of JSON are written."""

from typing import Any

import orjson
import schemathesis


@schemathesis.serializer("application/x-ndjson")
def ndjson(_context: Any, value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    lines = value if isinstance(value, list) else [value]
    return b"\n".join(line.encode() if isinstance(line, str) else orjson.dumps(line) for line in lines)

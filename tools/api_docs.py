"""Write `docs/api.md` from the service's own OpenAPI description.

python tools/api_docs.py [--check]
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from app.main import create_app
from app.settings import Settings

TARGET = Path(__file__).resolve().parent.parent / "docs" / "api.md"
Json = dict[str, Any]
HEAD = """# The HTTP interface

Made from `/openapi.json` by `tools/api_docs.py`; a running service shows the same at `/docs`. Bodies are JSON in
UTF-8 unless said otherwise. Refusals are `application/problem+json`: [errors.md](errors.md) lists them all. Every call
but those under *health* needs `Authorization: Bearer KEY` once there is a key, and that key the scope that is told:
`search`, `write`, which may do that too, or `admin`, which may do everything. Unknown fields and parameters are
refused.
"""


class Document:
    def __init__(self, description: Json) -> None:
        self._schemas: Json = description["components"]["schemas"]
        self._paths: Json = description["paths"]
        self._tags: list[Json] = description["tags"]
        self._lines = [HEAD]

    def text(self) -> str:
        for tag in self._tags:
            self._lines.append(f"\n## {tag['name']}\n\n{tag['description']}\n")
            for path, calls in self._paths.items():
                for method, call in calls.items():
                    if tag["name"] in call["tags"]:
                        self._call(method.upper(), path, call)
        return "\n".join(self._lines).rstrip() + "\n"

    def _call(self, method: str, path: str, call: Json) -> None:
        scope = f"Scope: `{call['x-scope']}`\n" if "x-scope" in call else "Open.\n"
        self._lines.append(f"### `{method} {path}`\n\n{call.get('description', '').strip()}\n\n{scope}")
        parameters = [
            (f"`{each['name']}` ({each['in']})", self._type(each["schema"]), _said(each["schema"] | each))
            for each in call.get("parameters", [])
        ]
        self._table("parameter", parameters)
        for kind, content in call.get("requestBody", {}).get("content", {}).items():
            self._body(kind, content)
        for status, answer in call["responses"].items():
            if status < "400":
                self._answer(status, answer)

    def _body(self, kind: str, content: Json) -> None:
        self._lines.append(f"Body: `{kind}`\n")
        schema = self._resolved(content.get("schema", {}))
        self._table("field", self._fields(schema))
        examples = content.get("examples") or schema.get("examples") or []
        named = examples.values() if isinstance(examples, dict) else [{"value": each} for each in examples]
        for example in named:
            if "description" in example:
                self._lines.append(f"{example['description'].rstrip()}\n")
            if "value" in example:
                value = example["value"]
                text = value if isinstance(value, str) else _written(value)
                self._lines.append(f"```json\n{text.rstrip()}\n```\n")

    def _answer(self, status: str, answer: Json) -> None:
        kinds = ", ".join(f"`{kind}`" for kind in answer.get("content", {})) or "no body"
        self._lines.append(f"Answers {status}: {kinds}\n")
        for content in answer.get("content", {}).values():
            schema = self._resolved(content.get("schema", {}))
            for each in map(self._resolved, schema.get("anyOf", [schema])):
                if "anyOf" in schema and "description" in each:
                    self._lines.append(f"{each['description']}\n")
                self._table("field", self._fields(each))

    def _fields(self, schema: Json, depth: int = 0, prefix: str = "") -> list[tuple[str, str, str]]:
        rows = []
        for name, field in schema.get("properties", {}).items():
            required = "" if name in schema.get("required", []) or depth else "?"
            rows.append((f"`{prefix}{name}`{required}", self._type(field), _said(field)))
            inner, many = self._inner(field)
            if inner and depth < 2:
                rows += self._fields(inner, depth + 1, f"{prefix}{name}{'[]' if many else ''}.")
        return rows

    def _inner(self, field: Json) -> tuple[Json | None, bool]:
        for each in [field, *field.get("anyOf", [])]:
            if "$ref" in each:
                return self._resolved(each), False
            if "$ref" in each.get("items", {}):
                return self._resolved(each["items"]), True
        return None, False

    def _resolved(self, schema: Json) -> Json:
        name = schema.get("$ref", "").rpartition("/")[2]
        return dict(self._schemas[name]) if name else schema

    def _type(self, field: Json) -> str:
        if "$ref" in field:
            return self._type(self._resolved(field))
        if "anyOf" in field:
            return " or ".join(dict.fromkeys(self._type(each) for each in field["anyOf"] if each.get("type") != "null"))
        if "const" in field:
            return f'"{field["const"]}"'
        if "enum" in field:
            return ", ".join(f'"{each}"' for each in field["enum"])
        if field.get("type") == "array":
            return f"list of {self._type(field.get('items', {}))}"
        return str(field.get("type", "any"))

    def _table(self, heading: str, rows: list[tuple[str, str, str]]) -> None:
        if rows:
            self._lines += [f"| {heading} | type | |", "|---|---|---|"]
            self._lines += [f"| {name} | {kind} | {said} |" for name, kind, said in rows]
            self._lines.append("")


def _written(example: Any) -> str:
    """In one line where it fits."""
    line = json.dumps(example, ensure_ascii=False)
    return line if len(line) <= 120 else json.dumps(example, ensure_ascii=False, indent=2)


def _said(field: Json) -> str:
    """Description, limits and default in one cell."""
    limits = [
        f"{word} {field[key]:g}"
        for key, word in (
            ("minimum", "at least"),
            ("exclusiveMinimum", "over"),
            ("maximum", "at most"),
            ("maxItems", "at most"),
            ("maxLength", "at most"),
        )
        if key in field
    ]
    default = field.get("default")
    if default not in (None, "", [], {}):
        limits.append(f"default `{json.dumps(default)}`")
    said = " ".join(str(field.get("description", "")).split())
    return " ".join(filter(None, [said, f"({', '.join(limits)})" if limits else ""])).replace("|", "\\|")


def main() -> None:
    parts = SimpleNamespace(
        metrics=None, traces=None, ring=None, refusals=None, replicas=None
    )  # nothing is asked of it: the description is all that is wanted
    app = create_app(Settings.model_construct(), parts)  # type: ignore[arg-type]
    made = Document(app.openapi()).text()
    if "--check" in sys.argv:
        if not TARGET.exists() or TARGET.read_text() != made:
            sys.exit("docs/api.md is not what the service says of itself; run: python tools/api_docs.py")
        return
    TARGET.write_text(made)


if __name__ == "__main__":
    main()

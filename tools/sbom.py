"""Write the bill of materials (CycloneDX, JSON) of what is installed to serve and to tune; no tool of the developers'.

python tools/sbom.py sbom.cdx.json     # from the virtual environment that it is to tell of; asks nobody
"""

import json
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import requires, version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT = ROOT / "pyproject.toml"
EXTRAS = ("otel", "parquet", "postgres", "s3")  # whoever serves may have installed them
Bom = dict[str, Any]


def main() -> None:
    target = Path(sys.argv[1])
    command = ["environment", sys.prefix, "--pyproject", str(PROJECT), "--output-file", str(target)]
    subprocess.run([sys.executable, "-m", "cyclonedx_py", *command, "--output-reproducible"], check=True)
    bom = only(json.loads(target.read_text()), shipped())
    target.write_text(json.dumps(bom, indent=2) + "\n")
    print(f"{target}: {len(bom['components'])} packages")


def shipped() -> set[str]:
    """Names of all that the product's dependencies lead to on this machine, theirs included."""
    project = tomllib.loads(PROJECT.read_text())["project"]
    waiting = [*project["dependencies"], *(line for each in EXTRAS for line in project["optional-dependencies"][each])]
    reached: set[tuple[str, str]] = set()
    while waiting:
        wanted = Requirement(waiting.pop())
        name = canonicalize_name(wanted.name)
        for extra in {"", *wanted.extras} - {extra for known, extra in reached if known == name}:
            reached.add((name, extra))
            waiting += needed(requires(name) or (), extra)
    return {name for name, _ in reached}


def needed(lines: Iterable[str], extra: str) -> list[str]:
    found = [Requirement(line) for line in lines]
    return [str(each) for each in found if each.marker is None or each.marker.evaluate({"extra": extra})]


def only(bom: Bom, names: set[str]) -> Bom:
    """The bill of the product and the components of these names."""
    product = bom["metadata"]["component"]
    product["version"] = version(product["name"])
    bom["components"] = [each for each in bom["components"] if canonicalize_name(each["name"]) in names]
    kept = {product["bom-ref"], *(each["bom-ref"] for each in bom["components"])}
    bom["dependencies"] = [
        {"ref": each["ref"], "dependsOn": sorted(kept & set(each.get("dependsOn", [])))}
        for each in bom["dependencies"]
        if each["ref"] in kept
    ]
    return bom


if __name__ == "__main__":
    main()

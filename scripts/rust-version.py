"""No published crate may need a dependency that wants a younger Rust than the one that the crate declares.

Reads what `cargo metadata --all-features` writes.
"""

import json
import sys


def version(package):
    parts = [int(part) for part in (package["rust_version"] or "0").split(".")]
    return parts + [0] * (3 - len(parts))


def needed(package, packages, nodes):
    """The packages that this one is built with, itself included; not those of its tests."""
    reached, waiting = set(), [package["id"]]
    while waiting:
        id = waiting.pop()
        if id not in reached:
            reached.add(id)
            for dependency in nodes[id]["deps"]:
                if any(kind["kind"] in (None, "build") for kind in dependency["dep_kinds"]):
                    waiting.append(dependency["pkg"])
    return [packages[id] for id in reached]


def main():
    metadata = json.load(sys.stdin)
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    problems = []
    for package in (packages[id] for id in metadata["workspace_members"]):
        if package["publish"] == []:
            continue
        for other in needed(package, packages, nodes):
            if version(other) > version(package):
                problems.append(
                    f"{package['name']} declares Rust {package['rust_version']}, but "
                    f"{other['name']} {other['version']} needs {other['rust_version']}"
                )
    if problems:
        sys.exit("\n".join(sorted(problems)))


main()

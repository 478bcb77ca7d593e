"""Checks licences and single versions of all packages in Cargo.lock against deny.toml."""

import json
import re
import subprocess
import sys
import tomllib
from collections import defaultdict

with open("deny.toml", "rb") as file:
    rules = tomllib.load(file)
allowed = set(rules["licenses"]["allow"])
exceptions = {rule["crate"]: set(rule["allow"]) for rule in rules["licenses"]["exceptions"]}
clarified = {rule["crate"]: rule["expression"] for rule in rules["licenses"].get("clarify", [])}
single = {rule["crate"] for rule in rules["bans"]["deny"]}


def permitted(expression, extra):
    """True if an SPDX expression (AND, OR, WITH, parentheses; `/` is an old OR) can be met."""
    words = re.findall(r"\(|\)|[^\s()/]+|/", expression)

    def either(at):
        result, at = both(at)
        while at < len(words) and words[at] in ("OR", "/"):
            other, at = both(at + 1)
            result = result or other
        return result, at

    def both(at):
        result, at = one(at)
        while at < len(words) and words[at] == "AND":
            other, at = one(at + 1)
            result = result and other
        return result, at

    def one(at):
        if words[at] == "(":
            result, at = either(at + 1)
            return result, at + 1
        name, at = words[at], at + 1
        if at < len(words) and words[at] == "WITH":
            name, at = f"{name} WITH {words[at + 1]}", at + 2
        return name in allowed | extra, at

    return either(0)[0]


metadata = json.loads(
    subprocess.run(
        ["cargo", "metadata", "--format-version", "1", "--locked", "--all-features"],
        check=True,
        capture_output=True,
    ).stdout
)
faults, versions = [], defaultdict(list)
for package in metadata["packages"]:
    name, version, licence = package["name"], package["version"], package["license"] or clarified.get(package["name"])
    versions[name].append(version)
    if not licence:
        faults.append(f"{name} {version} states no licence")
    elif not permitted(licence, exceptions.get(name, set())):
        faults.append(f"{name} {version} is under {licence}, which deny.toml does not allow")
    source = package["source"]
    if source and not source.startswith("registry+https://github.com/rust-lang/crates.io-index"):
        faults.append(f"{name} {version} comes from {source}, not from crates.io")
for name in single:
    if len(versions[name]) != 1:
        faults.append(f"{name} must be there in one version, found {versions[name]}")
for fault in faults:
    print(fault, file=sys.stderr)
print(f"{len(metadata['packages'])} packages, {len(faults)} faults")
sys.exit(1 if faults else 0)

"""Checks the JSON object on the last line of a file: figures.py FILE 'path.to.figure <= 1.5' ..."""

import json
import operator
import sys

COMPARE = {"<=": operator.le, ">=": operator.ge, "==": operator.eq, "begins": str.startswith}


def value(text):
    """A bound: JSON where it is JSON, else the text itself."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


path, *claims = sys.argv[1:]
with open(path, encoding="utf-8") as file:
    figures = json.loads(file.read().strip().splitlines()[-1])
failed = False
for claim in claims:
    name, compare, bound = claim.split(maxsplit=2)
    found = figures
    for part in name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    holds = found is not None and COMPARE[compare](found, value(bound))
    failed |= not holds
    print(f"{'ok    ' if holds else 'FAILED'} {claim} (found {found})")
sys.exit(1 if failed else 0)

#!/usr/bin/env python3
"""Prints which step of the Service Bus suites passed with which client, from the results that they left in `target`.

Exit status 1 says that a step failed, or that there are no results.
"""

import json
import sys

from servicebus_results import FOLDER, STEPS


def main() -> int:
    columns = [json.loads(file.read_text()) for file in sorted(FOLDER.glob("*.json"))]
    if not columns:
        print(f"no results in {FOLDER}", file=sys.stderr)
        return 1
    known = dict.fromkeys(STEPS)
    for column in columns:
        known.update(dict.fromkeys(column["steps"]))
    notes: list[str] = []
    print(row(["step", *(f"{column['client']} {column['version']}" for column in columns)]))
    print(row(["---"] * (len(columns) + 1)))
    for step in known:
        print(row([step, *(cell(column, step, notes) for column in columns)]))
    print()
    for number, note in enumerate(notes, 1):
        print(f"{number}. {note}")
    return int(any("fail" in column["steps"].values() for column in columns))


def row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def cell(column: dict, step: str, notes: list[str]) -> str:
    result = column["steps"].get(step, "")
    note = column.get("notes", {}).get(step)
    if note is None:
        return result
    if note not in notes:
        notes.append(note)
    return f"{result} ({notes.index(note) + 1})"


if __name__ == "__main__":
    sys.exit(main())

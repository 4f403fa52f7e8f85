"""Write findings as SARIF 2.1.0 (OASIS), with what GitHub's code scanning needs beyond what the standard requires."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from defects.lint.report import place
from defects.lint.rule import Finding, Rule
from defects.values import one_line

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
FINGERPRINT = "defectsLint/v1"
MAX_RESULTS = 25_000  # that GitHub reads of a run


def as_sarif(rules: Sequence[Rule], findings: Sequence[Finding]) -> str:
    """Return a log with one run, all rules and the findings."""
    index = {rule.id: number for number, rule in enumerate(rules)}
    driver = {
        "name": "defects.lint",
        "semanticVersion": "1.0.0",
        "rules": [_rule(rule) for rule in rules],
    }
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [_result(finding, index[finding.rule.id]) for finding in findings[:MAX_RESULTS]],
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=1)


def _rule(rule: Rule) -> dict[str, Any]:
    help_ = f"{rule.reason}\n\nTrue for: {rule.versions}.\n\nFix: {rule.fix}"
    return {
        "id": rule.id,
        "name": "".join(part.capitalize() for part in rule.id.split("-")),
        "shortDescription": {"text": rule.summary},
        "fullDescription": {"text": rule.reason},
        "help": {"text": help_, "markdown": help_},
        "defaultConfiguration": {"level": rule.level},
        "properties": {"tags": ["kserve", "kubernetes"], "precision": "high"},
    }


def _result(finding: Finding, index: int) -> dict[str, Any]:
    fingerprint = hashlib.sha256(f"{finding.rule.id}\n{place(finding)}".encode()).hexdigest()
    return {
        "ruleId": finding.rule.id,
        "ruleIndex": index,
        "level": finding.rule.level,
        "message": {"text": one_line(f"{place(finding)}: {finding.message}. {finding.rule.fix}", 4_000)},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": uri(finding.origin.file)},
                    "region": {"startLine": finding.field.line, "startColumn": 1},
                },
                "logicalLocations": [{"fullyQualifiedName": one_line(place(finding)), "kind": "member"}],
            }
        ],
        "partialFingerprints": {FINGERPRINT: fingerprint},
    }


def uri(file: str) -> str:
    """Return a file's name as a URI: relative to the working directory where it is below it."""
    path = Path(file)
    if path.is_absolute():
        try:
            path = path.relative_to(Path.cwd())
        except ValueError:
            return "file://" + quote(str(path))
    return quote(path.as_posix())

"""Write findings as text and as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from defects.lint.fields import Origin
from defects.lint.resources import Stream
from defects.lint.rule import LEVELS, Finding, Rule
from defects.values import one_line


def title(origin: Origin) -> str:
    """Return the kind and the name of an object."""
    return f"{origin.kind} {origin.namespace or '-'}/{origin.name or '-'}"


def place(finding: Finding) -> str:
    """Return the object and the path of a finding, and what it matters to where that is another object."""
    other = "" if finding.origin == finding.resource.origin else f", for {title(finding.resource.origin)}"
    return f"{title(finding.origin)}: {finding.field.path}{other}"


def counts(findings: Sequence[Finding]) -> dict[str, int]:
    """Return how many findings there are of each level."""
    found = Counter(finding.rule.level for finding in findings)
    return {level: found[level] for level in LEVELS}


def text(stream: Stream, findings: Sequence[Finding]) -> Iterator[str]:
    """Yield the lines of a report for people; the reasons of a rule come with the first of its findings."""
    explained: set[str] = set()
    for finding in findings:
        rule, origin = finding.rule, finding.origin
        yield one_line(f"{origin.file}:{finding.field.line}: {rule.level}: {finding.message} [{rule.id}]")
        yield one_line(f"    where: document {origin.document}, {place(finding)}")
        if rule.id not in explained:
            explained.add(rule.id)
            yield f"    why:   {rule.reason}"
            yield f"    true:  {rule.versions}"
            yield f"    fix:   {rule.fix}"
    found = ", ".join(f"{count} {level}{'' if count == 1 else 's'}" for level, count in counts(findings).items())
    services = len(stream.services)
    yield f"{found}; {services} InferenceService{'' if services == 1 else 's'} in {len(stream.resources)} objects"


def described(finding: Finding) -> dict[str, Any]:
    """Return a finding as JSON has it."""
    rule, origin, resource = finding.rule, finding.origin, finding.resource
    return {
        "rule": rule.id,
        "level": rule.level,
        "message": one_line(finding.message),
        "reason": rule.reason,
        "versions": rule.versions,
        "fix": rule.fix,
        "file": origin.file,
        "line": finding.field.line,
        "document": origin.document,
        "kind": origin.kind,
        "namespace": origin.namespace,
        "name": origin.name,
        "path": finding.field.path,
        "for": {"kind": resource.kind, "namespace": resource.namespace, "name": resource.name},
    }


def as_json(stream: Stream, findings: Sequence[Finding]) -> str:
    """Return a report as a JSON document."""
    content = {
        "findings": [described(finding) for finding in findings],
        "counts": counts(findings),
        "inference_services": len(stream.services),
    }
    return json.dumps(content, indent=1)


def table(rules: Sequence[Rule]) -> str:
    """Return the rules as a Markdown table."""
    rows = ["| Rule | Level | What it finds | True for |", "| --- | --- | --- | --- |"]
    return "\n".join(rows + [f"| `{rule.id}` | {rule.level} | {rule.summary} | {rule.versions} |" for rule in rules])

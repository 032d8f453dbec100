"""What `wiring check` prints."""
from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from .rules import RULES, Finding

SHOWN = 5


def report(path: Path, findings: Sequence[Finding]) -> str:
    """The broken rules, each with what breaks it, the reason and the fix, and a last line that counts them."""
    blocks = [_describe(finding) for finding in findings]
    broken = sum(not finding.rule.advice for finding in findings)
    rules = sum(not rule.advice for rule in RULES)
    if broken:
        blocks.append(f"{path} would be refused: it breaks {broken} of {rules} rules.")
    else:
        blocks.append(f"{path} keeps all {rules} rules. The site takes 5 uploads in 24 hours and counts bad ones too.")
    return "\n\n".join(blocks)


def _describe(finding: Finding) -> str:
    rule, found = finding.rule, list(finding.found[:SHOWN])
    if len(finding.found) > SHOWN:
        found.append(f"and {len(finding.found) - SHOWN} more")
    head = f"{rule.number}{' (advice)' if rule.advice else ''}  {rule.says}"
    details = [("Found", line) for line in found[:1]] + [("", line) for line in found[1:]]
    details += [("Why", rule.reason), ("Fix", rule.fix)]
    return "\n".join([head, *(_detail(label, text) for label, text in details)])


def _detail(label: str, text: str) -> str:
    text = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)  # strangers wrote it
    return textwrap.fill(text, width=110, initial_indent=f"    {label:<7}", subsequent_indent=" " * 11,
                         break_long_words=False, break_on_hyphens=False)

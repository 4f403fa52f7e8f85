"""Recognise dates and times in text, and read those of ISO 8601 as seconds."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_MONTH = r"(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
_WEEKDAY = r"((mon|tue|wed|thu|fri|sat|sun)[a-z]*\.?,? )?"
_TIME = r"\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?( ?[ap]\.?m\.?)?( ?(z|utc|gmt|[+-]\d{2}(:?\d{2})?))?"
_DATES = (
    r"[12]\d{3}(?P<s>[-/.])\d{1,2}(?P=s)\d{1,2}",  # 2026-01-31
    r"[12]\d{3}[-/](0\d|1[0-2])",  # 2026-01
    r"\d{1,2}(?P<t>[-/.])\d{1,2}(?P=t)(\d{4}|\d{2})",  # 31.1.2026, 1/31/26
    rf"\d{{1,2}}[. -]{{0,2}}{_MONTH}([ ,-]{{1,2}}(\d{{4}}|\d{{2}}))?",  # 31-Jan-2026
    rf"{_MONTH} ?\d{{1,2}}(st|nd|rd|th)?,? \d{{4}}",  # January 31, 2026
    rf"{_MONTH}[ -]\d{{2,4}}",  # Jan 2026
    rf"{_MONTH} {{1,2}}\d{{1,2}} {_TIME} \d{{4}}",  # Sat Jan 31 10:00:00 2026
)
_DATE_OR_TIME = re.compile(
    rf"{_WEEKDAY}({'|'.join(_DATES)})([ tT,]{{1,2}}{_TIME})?|{_TIME}|[12]\d{{7}}t\d{{4,6}}z?", re.ASCII | re.IGNORECASE
)


def is_date(text: str) -> bool:
    """Whether text looks like a date, a time, or both."""
    return bool(_DATE_OR_TIME.fullmatch(text))


def seconds(text: str) -> float:
    """Return the seconds since 1970 of a date, perhaps with a time, in ISO 8601; in UTC where it has no time zone.

    Raises `ValueError`.
    """
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()

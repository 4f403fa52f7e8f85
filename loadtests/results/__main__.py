"""Print the JSON schema of summary.json."""

from __future__ import annotations

import json
import sys

from loadtests.results import Summary

if __name__ == "__main__":
    sys.stdout.write(json.dumps(Summary.model_json_schema(), indent=1) + "\n")

"""Publish what `descend compare --suite small --out FOLDER` has found: `targets.json`, and tables.

descend compare --suite small --out runs/suite && python benchmarks/suite_targets.py runs/suite
"""

import json
import sys
from pathlib import Path

from descend.cli.compare_text import suite_lines
from descend.report.tables import screen
from descend.search.json_file import write_json
from descend.search.suite import suite_tasks
from descend.search.suite.published import FILE, as_published, document


def main(folder: Path) -> None:
    """Write the targets of a suite's comparisons, and print its tables."""
    results = {
        name: json.loads((folder / name / "results.json").read_text()) for name in suite_tasks()
    }
    write_json(FILE, document({name: as_published(one) for name, one in results.items()}))
    print("\n".join(suite_lines(results, screen())))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

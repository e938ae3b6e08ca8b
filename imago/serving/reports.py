"""The page of reports of the model that is served. Which files there are is fixed; no client names a path."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

HISTORY = "history.json"
LONGEST_HISTORY = 50  # events that are shown

_SAID = ("time", "action", "tag", "detail", "by", "reason")

LIST_POLICY = (
    "default-src 'none'; style-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_STILL = "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_SCRIPTED = (
    "sandbox allow-scripts; default-src 'none'; img-src data: blob:; font-src data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'"
)


@dataclass(frozen=True)
class Report:
    """A report that a model may have, and what its page may do: in a sandbox, which is no origin of anybody's."""

    title: str
    says: str
    policy: str = _STILL
    kind: str = "text/html"


REPORTS = {
    "data.html": Report("Data", "what was found in the pictures, and what was set aside"),
    "evaluation.html": Report("Evaluation", "how well it does on the test pictures, and where it does not"),
    "drift.html": Report("Drift", "whether it is asked what it was trained for", _SCRIPTED),
    "MODEL_CARD.md": Report("Model card", "what it is, and what it is not for", kind="text/plain"),
}
"""By the name of the file, which is also the last part of its address."""


def page(folder: Path, model: dict[str, str]) -> str:
    """Return the HTML that lists what there is of a model, and what happened to its deployment."""
    name, version = escape(model["name"]), escape(model["version"])
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f'<title>Reports of {name} version {version}</title><link rel="icon" href="data:,">',
            '<link rel="stylesheet" href="ui/page.css"></head><body>',
            f"<header><h1>Reports of {name} version {version}</h1>",
            '<p class="quiet"><a href="ui">Try it on a picture</a></p></header>',
            '<main><section class="card"><h2>What is known of it</h2><ul class="listed">',
            *_entries(folder),
            '</ul></section><section class="card"><h2>Deployments</h2>',
            *_history(folder / HISTORY),
            "</section></main></body></html>",
        ]
    )


def _entries(folder: Path) -> Iterator[str]:
    for file, report in REPORTS.items():
        try:
            changed = datetime.fromtimestamp((folder / file).stat().st_mtime, UTC)
        except OSError:
            yield f'<li class="quiet">{report.title}: there is none yet</li>'
        else:
            when = f"{changed:%Y-%m-%d %H:%M} UTC"
            link = f'<a href="reports/{file}">{report.title}</a>'
            yield f'<li>{link}: {report.says} <span class="quiet">({when})</span></li>'


def _history(file: Path) -> Iterator[str]:
    events = _events(file)
    if not events:
        yield '<p class="quiet">Nothing is known of them.</p>'
        return
    yield '<ul class="listed">'
    for event in reversed(events[-LONGEST_HISTORY:]):
        time, action, tag, detail, by, reason = (escape(str(event.get(key) or "")) for key in _SAID)
        if action.endswith("failed") or action in {"ended", "recovered", "shadow ended"}:
            detail = ""  # it names files and processes of this machine
        when = time[:16].replace("T", " ")
        who = f" by {by}" if by else ""
        yield f'<li><span class="quiet">{when} UTC{who}</span><br><b>{action}</b> {tag} {detail}<br>{reason}</li>'
    yield "</ul>"


def _events(file: Path) -> list[dict[str, Any]]:
    """Return what happened, the oldest first; nothing where it cannot be read."""
    try:
        history = json.loads(file.read_bytes())["history"]
    except (OSError, ValueError, LookupError, TypeError):
        return []
    return [event for event in history if isinstance(event, dict)] if isinstance(history, list) else []

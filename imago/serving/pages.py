"""What a person looks at in a browser: the page, the files that it is made of, and the reports of the model."""

from pathlib import Path

import anyio.to_thread
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from imago.serving import reports
from imago.serving.refusal import Refusal

FOLDER = Path(__file__).resolve().parent / "page"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_KINDS = {".css": "text/css", ".js": "text/javascript"}
_FILES = {file.name: _KINDS[file.suffix] for file in sorted(FOLDER.iterdir()) if file.suffix in _KINDS}
_FRESH = {"Cache-Control": "no-cache"}
OPEN_PATHS = frozenset({"/", "/ui", *(f"/ui/{name}" for name in _FILES)})
"""What is shown without a key: nothing in it is of the model."""


class Pages:
    """The routes of these pages; the reports are those on a `shelf`, where there is one."""

    def __init__(self, shelf: Path | None, model: dict[str, str]) -> None:
        self.shelf = shelf
        self.model = model
        self.routes = [
            Route("/", self.home),
            Route("/ui", self.page),
            Route("/ui/{file}", self.file),
            Route("/reports", self.reports),
            Route("/reports/{report}", self.report),
        ]

    async def home(self, _: Request) -> Response:
        return RedirectResponse("ui")

    async def page(self, _: Request) -> Response:
        headers = _FRESH | {"Content-Security-Policy": POLICY}
        return Response((FOLDER / "index.html").read_bytes(), media_type="text/html", headers=headers)

    async def file(self, request: Request) -> Response:
        name = request.path_params["file"]
        if name not in _FILES:
            raise HTTPException(404)
        return Response((FOLDER / name).read_bytes(), media_type=_FILES[name], headers=_FRESH)

    async def reports(self, _: Request) -> Response:
        listed = await anyio.to_thread.run_sync(reports.page, self._shelf(), self.model)
        return Response(listed, media_type="text/html", headers={"Content-Security-Policy": reports.LIST_POLICY})

    async def report(self, request: Request) -> Response:
        shelf, name = self._shelf(), request.path_params["report"]
        report = reports.REPORTS.get(name)
        if report is None:
            raise HTTPException(404)
        try:
            content = await anyio.to_thread.run_sync((shelf / name).read_bytes)
        except OSError as error:
            raise Refusal(404, "no_report", f"There is no such report of this model yet: {name}.") from error
        return Response(content, media_type=report.kind, headers={"Content-Security-Policy": report.policy})

    def _shelf(self) -> Path:
        if self.shelf is None:
            raise Refusal(404, "no_reports", "This endpoint shows no reports: deploy.reports is off.")
        return self.shelf

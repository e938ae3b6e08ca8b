"""A made-up hub of data sets, and a made-up Kaggle, on loopback: what the real clients ask of them."""

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.loopback import Handler, serving

COMMIT = "1" * 40


@contextmanager
def hub(name: str, files: dict[str, bytes]) -> Iterator[str]:
    """Serve the files of one data set at its newest commit; yield the address."""
    info = {"id": name, "sha": COMMIT, "private": False, "tags": [], "downloads": 0, "likes": 0}
    info["siblings"] = [{"rfilename": path} for path in files]
    tree = [{"type": "file", "oid": "0" * 40, "size": len(body), "path": path} for path, body in files.items()]

    class Hub(Handler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            asked = path.removeprefix(f"/datasets/{name}/resolve/").partition("/")[2]
            if path in {f"/api/datasets/{name}", f"/api/datasets/{name}/revision/{COMMIT}"}:
                self.reply(200, json.dumps(info).encode(), Content_Type="application/json")
            elif path == f"/api/datasets/{name}/tree/{COMMIT}":
                self.reply(200, json.dumps(tree).encode(), Content_Type="application/json")
            elif asked in files:
                etag = hashlib.sha256(files[asked]).hexdigest()
                self.reply(200, files[asked], X_Repo_Commit=COMMIT, ETag=f'"{etag}"')
            else:
                known = path.startswith((f"/datasets/{name}/", f"/api/datasets/{name}/"))
                self.reply(404, X_Error_Code="EntryNotFound" if known else "RepoNotFound")

    with serving(Hub) as address:
        yield address


@contextmanager
def kaggle(owner: str, name: str, folder: Path, *, cut: int = 0) -> Iterator[str]:
    """Serve a folder as the archive of a Kaggle data set, without its last bytes where `cut`; yield the address."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as whole:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            whole.write(path, path.relative_to(folder))
    body = archive.getvalue()[: -cut or None]

    class Kaggle(Handler):
        def do_POST(self) -> None:
            asked = json.loads(self.body())
            if (asked.get("ownerSlug"), asked.get("datasetSlug")) != (owner, name):
                self.reply(403, b'{"code": 403, "message": "Permission denied"}', Content_Type="application/json")
            elif self.path.endswith("/GetDataset"):
                about = {"ownerName": owner, "currentVersionNumber": 3}
                self.reply(200, json.dumps(about).encode(), Content_Type="application/json")
            else:
                self.reply(200, body, Content_Type="application/zip")

    with serving(Kaggle) as address:
        yield address

"""Takes the pictures of the README from what the last run on the local cloud left: the newest mail, and the page.

Usage: python3 local/pictures.py     (after `make run`; needs Chromium; pngquant makes the files smaller)
"""

import email
import os
import shutil
import subprocess
import sys
import tempfile
from email import policy
from pathlib import Path

from settings import DASHBOARD, MAIL, ROOT, endpoints

PICTURES = ROOT / "docs" / "pictures"
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")


def take(url: str, name: str, width: int, height: int) -> None:
    target = PICTURES / f"{name}.png"
    # Without a sandbox only where the kernel refuses one to root, as in a container.
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    subprocess.run(
        [CHROMIUM, "--headless", *sandbox, "--hide-scrollbars", f"--window-size={width},{height}",
         f"--screenshot={target}", url], check=True, capture_output=True)
    if shutil.which("pngquant"):
        subprocess.run(["pngquant", "--force", "--output", target, "32", target], check=True)
    print(f"{target.relative_to(ROOT)}: {target.stat().st_size // 1000} kB")


def unpacked(mail: Path, folder: Path) -> Path:
    """The mail's HTML with its pictures beside it, as a browser can open it."""
    message = email.message_from_bytes(mail.read_bytes(), policy=policy.default)
    html = message.get_body(("html",)).get_content()
    for part in message.walk():
        name = (part["Content-ID"] or "").strip("<>")
        if part.get_content_type() == "image/png" and name:
            (folder / f"{name}.png").write_bytes(part.get_payload(decode=True))
            html = html.replace(f"cid:{name}", f"{name}.png")
    page = folder / "mail.html"
    page.write_text(html)
    return page


def main() -> int:
    mails = sorted(MAIL.glob("*.eml"))
    if not mails:
        print("there is no mail yet: make run", file=sys.stderr)
        return 1
    PICTURES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        take(unpacked(mails[-1], Path(folder)).as_uri(), "mail", 700, 900)
    take(endpoints()[DASHBOARD.name].url, "page", 1100, 1000)
    return 0


if __name__ == "__main__":
    sys.exit(main())

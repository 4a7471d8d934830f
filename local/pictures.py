"""Takes the pictures of the README from what the last run on the local cloud left: the newest mail, the page, and what
the command line says of it.

Usage: python3 local/pictures.py     (after `make run`; needs Chromium; pngquant makes the files smaller)
"""

import email
import html
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
# What the picture of the terminal shows: how the last run went, what is held over, and what is in quarantine.
COMMANDS = ["alert-archive status latest", "alert-archive open --limit 3", "alert-archive quarantine list --limit 3"]
TERMINAL = """<!DOCTYPE html><meta charset="utf-8"><style>
body { margin: 0; background: #14191f; color: #e6ebf0; font: 13px/1.45 "DejaVu Sans Mono", Consolas, Menlo, monospace; }
pre { margin: 0; padding: 14px 18px; white-space: pre-wrap; } b { color: #6fd3a0; font-weight: normal; }
</style><pre>"""


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
    body = message.get_body(("html",)).get_content()
    for part in message.walk():
        name = (part["Content-ID"] or "").strip("<>")
        if part.get_content_type() == "image/png" and name:
            (folder / f"{name}.png").write_bytes(part.get_payload(decode=True))
            body = body.replace(f"cid:{name}", f"{name}.png")
    page = folder / "mail.html"
    page.write_text(body)
    return page


def terminal(folder: Path) -> Path:
    """What the commands print, as a terminal shows it."""
    shown = []
    for command in COMMANDS:
        pointed = f'eval "$(python3 local/cloud.py env)"; {command}'
        ended = subprocess.run(["bash", "-c", pointed], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        if ended.returncode > 1:  # 1 is an answer too: something needs a person
            raise SystemExit(f"{command} ended with {ended.returncode}")
        shown.append(f"<b>$ {html.escape(command)}</b>\n{html.escape(ended.stdout)}")
    page = folder / "terminal.html"
    page.write_text(TERMINAL + "\n".join(shown) + "</pre>")
    return page


def main() -> int:
    mails = sorted(MAIL.glob("*.eml"))
    if not mails:
        print("there is no mail yet: make run", file=sys.stderr)
        return 1
    PICTURES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        take(unpacked(mails[-1], Path(folder)).as_uri(), "mail", 700, 900)
        take(terminal(Path(folder)).as_uri(), "terminal", 860, 760)
    take(endpoints()[DASHBOARD.name].url, "page", 1100, 1000)
    return 0


if __name__ == "__main__":
    sys.exit(main())

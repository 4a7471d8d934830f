"""Says where a finished run left its archive, its mail and its dashboard."""

import deploy
from settings import AWS, DASHBOARD, MAIL, endpoints


def main() -> None:
    bucket = deploy.variables()["ALERT_ARCHIVE_BUCKET"]
    mails = sorted(MAIL.glob("*.eml"))
    print(f"""
archive    s3://{bucket}/archive/parquet/
mail       {mails[-1] if mails else "none yet"}
dashboard  {endpoints()[DASHBOARD.name].url if endpoints()[AWS.name].ours else f"s3://{bucket}/dashboard/index.html"}

point any AWS tool at it with: eval "$(make -s env)\"""")


main()

"""Says where a finished run left its archive, its mail and its dashboard."""

import deploy
from settings import AWS, MAIL, STATE, endpoints


def main() -> None:
    bucket = deploy.variables()["ALERT_ARCHIVE_BUCKET"]
    mails = sorted(MAIL.glob("*.eml"))
    print(f"""
archive    s3://{bucket}/archive/parquet/
mail       {mails[-1] if mails else "none yet"}
dashboard  {endpoints()[AWS.name].url}/{bucket}/dashboard/index.html
           (s3://{bucket}/dashboard/, also by: aws s3 sync s3://{bucket}/dashboard {STATE / 'dashboard'})

point any AWS tool at it with: eval "$(make -s env)\"""")


main()

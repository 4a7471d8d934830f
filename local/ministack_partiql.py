"""Lets ministack check the permissions of BatchExecuteStatement as the service does.

It is no action of IAM there: each statement needs `dynamodb:PartiQLInsert`, `PartiQLUpdate`, `PartiQLDelete` or
`PartiQLSelect` on its table. ministack asks for an action of the request's own name on `*`, which no policy that works
on the service would grant.
"""

import json
import re

from ministack.core import iam_actions

# The verb, and the first name in quotes: the table.
_STATEMENT = re.compile(r'^\s*(INSERT|UPDATE|DELETE|SELECT)\b[^"]*"([^"]+)"', re.IGNORECASE)


def statement_checks(iam_action: str, body: bytes, region: str, account: str,
                     original=iam_actions.dynamodb_transaction_checks) -> list[tuple[str, str]]:
    if iam_action != "dynamodb:BatchExecuteStatement":
        return original(iam_action, body, region, account)
    try:
        statements = json.loads(body or b"{}").get("Statements") or []
    except (ValueError, AttributeError):
        return []
    checks = set()
    for statement in statements:
        found = _STATEMENT.match(str(statement.get("Statement", "")))
        # A statement that is not understood here needs a permission that no role has.
        verb, table = found.groups() if found else ("Unreadable", "*")
        action = f"dynamodb:PartiQL{verb.capitalize()}"
        checks.add((action, f"arn:aws:dynamodb:{region}:{account}:table/{table}"))
    return sorted(checks)


def extend() -> None:
    iam_actions.dynamodb_transaction_checks = statement_checks

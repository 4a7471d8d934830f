"""Starts ministack with the Step Functions action that it lacks: RedriveExecution.

Follows the service's documentation: the execution keeps its name, ARN, start and history, goes back to RUNNING and
enters its unsuccessful state again with that state's input, by the definition it was started with. Where ministack
is simpler than the service, so are we:

- A Parallel state is entered again as a whole, where the service repeats only its unsuccessful branches; ministack
  keeps no record of a branch's states. Steps inside of a Parallel must bear to be repeated.
- A Distributed Map is entered again as a whole (a new Map Run), where the service redrives the failed children.
- `$$.Execution.RedriveCount` stays null: the service does not say whether a redriven state sees the new value, so
  nothing may depend on it here either.

The walk through the states replaces ministack's own, because a redrive must know the state an execution stands in
and because a stopped execution's old walk must not go on in the redriven one.
"""

import contextvars
import copy
import json
import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone

from ministack import app
from ministack.services import eventbridge
from ministack.services import stepfunctions as sfn

REDRIVE_PERIOD = timedelta(days=14)
# The service's limits: events an execution may have so that it can still be redriven, and how long a token counts.
MAX_EVENTS = 24_999
TOKEN_SECONDS = 15 * 60

logger = logging.getLogger("states.redrive")
_redrive_lock = threading.Lock()

_STEPS_WITH_EXECUTION = {"Task": "_execute_task", "Parallel": "_execute_parallel", "Map": "_execute_map"}
_STEPS = {"Pass": "_execute_pass", "Choice": "_execute_choice", "Wait": "_execute_wait"}


# --- Walking -------------------------------------------------------------------------------------------------------


def run_execution(arn: str) -> None:
    """The first walk of an execution, in its own thread; ministack's StartExecution calls this."""
    execution = sfn._executions.get(arn)
    if not execution:
        return
    machine = sfn._state_machines.get(execution["stateMachineArn"])
    try:
        definition = json.loads(machine["definition"])
        first_input = json.loads(execution["input"])
        start = definition["StartAt"]
    except (TypeError, KeyError, ValueError) as problem:
        sfn._fail_execution(execution, "States.Runtime", f"The definition or the input cannot be read: {problem!r}")
        return
    execution["redrive"] = {
        "count": 0, "date": None, "tokens": {}, "definition": machine["definition"], "machine": machine["name"],
        "state": start, "input": first_input, "walk": 0,
    }
    # Callers that start and describe at once see RUNNING first, as on the service.
    time.sleep(0.15)
    _walk(execution, walk=0)


def _walk(execution: dict, walk: int) -> None:
    position = execution["redrive"]

    def mine() -> bool:
        return execution["status"] == "RUNNING" and position["walk"] == walk

    try:
        definition = json.loads(position["definition"])
        context = _context(execution, definition)
        name, data = position["state"], position["input"]
        while name and mine():
            position.update(state=name, input=data)
            name, data = _step(execution, definition, context, name, data, mine)
        if mine():
            output = json.dumps(data)
            execution.update(status="SUCCEEDED", output=output, stopDate=sfn.now_iso())
            sfn._add_event(execution, "ExecutionSucceeded", {"executionSucceededEventDetails": {"output": output}})
            sfn._emit_execution_status_event(execution)
    except sfn._ExecutionError as error:
        if mine():
            sfn._fail_execution(execution, error.error, error.cause)
    except Exception as problem:
        logger.exception("Unexpected error in execution %s", execution["executionArn"])
        if mine():
            sfn._fail_execution(execution, "States.Runtime", str(problem))


def _step(execution: dict, definition: dict, context: dict, name: str, data, mine: Callable[[], bool]):
    """One state: its events, its work; gives the next state's name (None at the end) and input."""
    state = definition.get("States", {}).get(name)
    if state is None:
        raise sfn._ExecutionError("States.Runtime", f"State '{name}' not found in definition")
    kind = state.get("Type")
    context["State"] = {"Name": name, "EnteredTime": sfn.now_iso(), "RetryCount": 0}
    sfn._add_event(execution, f"{kind}StateEntered", {
        "stateEnteredEventDetails": {"name": name, "input": json.dumps(data)}})
    if kind == "Fail":
        raise sfn._ExecutionError(*sfn._fail_state_error(state, data, context))
    if kind == "Succeed":
        following = None
        data = sfn._apply_output_path(state, sfn._apply_input_path(state, data, context), context)
    elif kind in _STEPS_WITH_EXECUTION:
        data, following = getattr(sfn, _STEPS_WITH_EXECUTION[kind])(state, data, execution, context)
    elif kind in _STEPS:
        data, following = getattr(sfn, _STEPS[kind])(state, data, context)
    else:
        raise sfn._ExecutionError("States.Runtime", f"Unknown state type: {kind}")
    # A state that ends after its execution was stopped has no place in the history, which a redrive may have continued.
    if mine():
        sfn._add_event(execution, f"{kind}StateExited", {
            "stateExitedEventDetails": {"name": name, "output": json.dumps(data)}})
    return following, data


def _context(execution: dict, definition: dict) -> dict:
    return {
        "QueryLanguage": definition.get("QueryLanguage", "JSONPath"),
        "Execution": {
            "Id": execution["executionArn"], "Input": json.loads(execution["input"]), "Name": execution["name"],
            "StartTime": execution["startDate"],
        },
        "StateMachine": {"Id": execution["stateMachineArn"], "Name": execution["redrive"]["machine"]},
        "variables": {},
    }


# --- RedriveExecution ----------------------------------------------------------------------------------------------


def redrive_execution(request: dict):
    arn = request.get("executionArn")
    execution = sfn._executions.get(arn)
    if not execution:
        return sfn.error_response_json("ExecutionDoesNotExist", f"Execution Does Not Exist: '{arn}'", 400)
    with _redrive_lock:
        redrive = execution.get("redrive") or {}
        token = request.get("clientToken")
        earlier = redrive.get("tokens", {}).get(token) if token else None
        if earlier and time.time() - earlier["at"] < TOKEN_SECONDS:
            return sfn.json_response({"redriveDate": earlier["date"]})
        redrivable, reason = redrive_status(execution)
        if redrivable != "REDRIVABLE":
            return sfn.error_response_json(
                "ExecutionNotRedrivable", f"Execution is not redrivable: {reason} ('{arn}')", 400)
        date = sfn.now_iso()
        redrive.update(count=redrive["count"] + 1, date=date, walk=redrive["walk"] + 1)
        if token:
            redrive["tokens"][token] = {"at": time.time(), "date": date}
        for field in ("error", "cause"):
            execution.pop(field, None)
        execution.update(status="RUNNING", stopDate=None, output=None)
        sfn._add_event(execution, "ExecutionRedriven", {
            "executionRedrivenEventDetails": {"redriveCount": redrive["count"]}})
    sfn._emit_execution_status_event(execution)
    # The thread needs the request's account and region, which ministack keeps in context variables.
    threading.Thread(
        target=contextvars.copy_context().run, args=(_walk, execution, redrive["walk"]), daemon=True).start()
    logger.info("Redriven (%d): %s", redrive["count"], arn)
    return sfn.json_response({"redriveDate": date})


def redrive_status(execution: dict) -> tuple[str, str | None]:
    if execution.get("mapRunArn"):
        if execution["status"] in ("FAILED", "ABORTED", "TIMED_OUT"):
            return "REDRIVABLE_BY_MAP_RUN", "a child of a Distributed Map is redriven by its Map Run"
        return "NOT_REDRIVABLE", f"Execution is {execution['status']} and cannot be redriven"
    if execution.get("sync") or "redrive" not in execution:
        return "NOT_REDRIVABLE", "Execution is synchronous and cannot be redriven"
    if execution["status"] not in ("FAILED", "ABORTED", "TIMED_OUT"):
        return "NOT_REDRIVABLE", f"Execution is {execution['status']} and cannot be redriven"
    if len(execution["events"]) > MAX_EVENTS:
        return "NOT_REDRIVABLE", "Execution event history limit exceeded"
    if datetime.now(timezone.utc) - datetime.fromisoformat(execution["stopDate"]) > REDRIVE_PERIOD:
        return "NOT_REDRIVABLE", "Execution redrivable period exceeded"
    return "REDRIVABLE", None


def _redrive_fields(execution: dict) -> dict:
    redrive = execution.get("redrive") or {"count": 0, "date": None}
    status, reason = redrive_status(execution)
    fields = {"redriveCount": redrive["count"], "redriveStatus": status}
    if redrive["date"]:
        fields["redriveDate"] = redrive["date"]
    if reason:
        fields["redriveStatusReason"] = reason
    return fields


# --- The places where ministack is extended --------------------------------------------------------------------------


def _with_body(response, change):
    status, _, body = response
    if status != 200:
        return response
    payload = json.loads(body)
    change(payload)
    return sfn.json_response(payload)


def describe_execution(request: dict, original=sfn._describe_execution):
    execution = sfn._executions.get(request.get("executionArn"))
    return _with_body(original(request), lambda payload: payload.update(_redrive_fields(execution)))


def list_executions(request: dict, original=sfn._list_executions):
    def add_redrives(payload: dict) -> None:
        for row in payload["executions"]:
            fields = _redrive_fields(sfn._executions.get(row["executionArn"]))
            row.update({key: fields[key] for key in ("redriveCount", "redriveDate") if key in fields})

    return _with_body(original(request), add_redrives)


def put_events(request: dict, *arguments, original=eventbridge._put_events, **options):
    """Status events carry the redrive count too: ministack writes 0."""
    request = copy.deepcopy(request)
    for entry in request.get("Entries", []):
        if entry.get("Source") == "aws.states" and entry.get("Resources"):
            execution = sfn._executions.get(entry["Resources"][0])
            if execution:
                detail = json.loads(entry["Detail"])
                fields = _redrive_fields(execution)
                detail.update(
                    fields, redriveDate=sfn._iso_to_epoch_ms(fields.get("redriveDate")),
                    redriveStatusReason=fields.get("redriveStatusReason"))
                entry["Detail"] = json.dumps(detail)
    return original(request, *arguments, **options)


async def handle_request(method, path, headers, body, query_params, original=sfn.handle_request):
    if headers.get("x-amz-target", "").endswith(".RedriveExecution"):
        try:
            request = json.loads(body or b"{}")
        except ValueError:
            return sfn.error_response_json("SerializationException", "Invalid JSON", 400)
        return sfn._finalize_response(redrive_execution(request))
    return await original(method, path, headers, body, query_params)


def extend() -> None:
    sfn._run_execution = run_execution
    sfn._describe_execution = describe_execution
    sfn._list_executions = list_executions
    sfn.handle_request = handle_request
    eventbridge._put_events = put_events


if __name__ == "__main__":
    import ministack_partiql
    import ministack_responses

    ministack_partiql.extend()
    ministack_responses.extend()
    extend()
    app.main()

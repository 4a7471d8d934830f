# The state machine, its role and log, and the schedule that starts it.

locals {
  # `plan-windows` is the state `PlanWindows`, and `PlanWindowsArn` in the definition.
  states = { for name, function in var.functions : join("", [for word in split("-", name) : title(word)]) => function }
  arns   = { for state, function in local.states : "${state}Arn" => function.arn }

  # The definition is valid JSON before templating, so variables stand in strings only and this number is replaced.
  concurrency = "/\"MaxConcurrency\": \\d+/"
  definition  = replace(templatefile(var.definition, local.arns), local.concurrency, "\"MaxConcurrency\": ${var.max_concurrency}")

  written = jsondecode(file(var.definition))
  tasks = merge(
    local.written.States,
    local.written.States.Windows.ItemProcessor.States,
    [for branch in local.written.States.Report.Branches : branch.States]...
  )
}

resource "aws_cloudwatch_log_group" "workflow" {
  # The prefix keeps the log's resource policy from growing with each state machine of the account.
  name              = "/aws/vendedlogs/states/${var.name}"
  retention_in_days = var.log_retention_days
}

data "aws_iam_policy_document" "states_assumes" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["states.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [var.account]
    }
  }
}

resource "aws_iam_role" "workflow" {
  name               = var.name
  assume_role_policy = data.aws_iam_policy_document.states_assumes.json
}

resource "aws_iam_role_policy" "workflow" {
  name = "work"
  role = aws_iam_role.workflow.id
  policy = templatefile("${path.module}/policies/workflow.json", merge(local.arns, {
    bucket        = var.bucket_arn
    state_machine = var.state_machine_arn
    children      = "${trimsuffix(var.executions_arn, ":*")}/${local.written.States.Windows.Label}:*"
  }))
}

resource "aws_sfn_state_machine" "workflow" {
  name       = var.name
  role_arn   = aws_iam_role.workflow.arn
  definition = local.definition

  # Payloads hold keys and counts, never a message.
  logging_configuration {
    level                  = "ERROR"
    include_execution_data = true
    log_destination        = "${aws_cloudwatch_log_group.workflow.arn}:*"
  }

  lifecycle {
    precondition {
      condition     = length(regexall("\"MaxConcurrency\": \\d+", file(var.definition))) == 1
      error_message = "The definition must hold MaxConcurrency exactly once, written as the pattern above expects it."
    }

    # A timed-out Task leaves its function running, so the function must always end first.
    precondition {
      condition     = alltrue([for state, function in local.states : local.tasks[state].TimeoutSeconds > function.timeout])
      error_message = "Each Task's TimeoutSeconds must be larger than the timeout of its function."
    }
  }

  depends_on = [aws_iam_role_policy.workflow]
}

data "aws_iam_policy_document" "scheduler_assumes" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["scheduler.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [var.account]
    }
  }
}

resource "aws_iam_role" "scheduler" {
  name               = "${var.name}-scheduler"
  assume_role_policy = data.aws_iam_policy_document.scheduler_assumes.json
}

resource "aws_iam_role_policy" "scheduler" {
  name   = "work"
  role   = aws_iam_role.scheduler.id
  policy = templatefile("${path.module}/policies/scheduler.json", { state_machine = aws_sfn_state_machine.workflow.arn })
}

resource "aws_scheduler_schedule" "weekly" {
  name                         = var.name
  state                        = var.schedule_enabled ? "ENABLED" : "DISABLED"
  schedule_expression          = var.schedule
  schedule_expression_timezone = var.schedule_timezone

  flexible_time_window {
    mode = "OFF"
  }

  target {
    arn      = aws_sfn_state_machine.workflow.arn
    role_arn = aws_iam_role.scheduler.arn

    # jsonencode would escape the brackets, which the service then would not replace.
    input = "{\"mode\":\"scheduled\",\"scheduled_for\":\"<aws.scheduler.scheduled-time>\"}"

    # The same scheduled time twice does its work once, so a late start is better than none.
    retry_policy {
      maximum_event_age_in_seconds = 86400
      maximum_retry_attempts       = 185
    }
  }
}

output "state_machine_arn" {
  value = aws_sfn_state_machine.workflow.arn
}

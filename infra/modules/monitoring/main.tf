# Tells people of what the workflow cannot tell itself: executions that died before their report, and silence.

resource "aws_sns_topic" "alarms" {
  name = "${var.prefix}-alarms"
}

resource "aws_sns_topic_subscription" "mail" {
  for_each  = toset(var.alarm_mails)
  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = each.key
}

data "aws_iam_policy_document" "topic" {
  statement {
    sid       = "AlarmsAndEvents"
    actions   = ["sns:Publish"]
    resources = [aws_sns_topic.alarms.arn]

    principals {
      type        = "Service"
      identifiers = ["cloudwatch.amazonaws.com", "events.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [var.account]
    }
  }
}

resource "aws_sns_topic_policy" "alarms" {
  arn    = aws_sns_topic.alarms.arn
  policy = data.aws_iam_policy_document.topic.json
}

# Also WindowsFailed comes this way: its report may have gone to readers who are not the operators.
resource "aws_cloudwatch_event_rule" "ended_badly" {
  name        = "${var.prefix}-ended-badly"
  description = "Executions of the workflow that did not succeed."

  event_pattern = jsonencode({
    source      = ["aws.states"]
    detail-type = ["Step Functions Execution Status Change"]
    detail = {
      stateMachineArn = [var.state_machine_arn]
      status          = ["FAILED", "TIMED_OUT", "ABORTED"]
    }
  })
}

resource "aws_cloudwatch_event_target" "operators" {
  rule = aws_cloudwatch_event_rule.ended_badly.name
  arn  = aws_sns_topic.alarms.arn

  input_transformer {
    input_paths = {
      arn    = "$.detail.executionArn"
      name   = "$.detail.name"
      status = "$.detail.status"
    }
    input_template = "\"Run <name> ended <status>. Look at its report, put right what it names, then redrive the execution: <arn>\""
  }
}

# A dead execution cannot mark its run as failed, so another one does.
resource "aws_sfn_state_machine" "mark_dead_run" {
  name       = "${var.prefix}-mark-dead-run"
  role_arn   = aws_iam_role.mark_dead_run["states"].arn
  definition = templatefile(var.definition, { JobRunsTable = var.job_runs.name })

  depends_on = [aws_iam_role_policy.mark_dead_run]
}

data "aws_iam_policy_document" "assumes" {
  for_each = toset(["states", "events"])

  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["${each.key}.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [var.account]
    }
  }
}

# One role to do it, one to start it.
resource "aws_iam_role" "mark_dead_run" {
  for_each           = data.aws_iam_policy_document.assumes
  name               = "${var.prefix}-mark-dead-run-${each.key}"
  assume_role_policy = each.value.json
}

resource "aws_iam_role_policy" "mark_dead_run" {
  name   = "work"
  role   = aws_iam_role.mark_dead_run["states"].id
  policy = templatefile("${path.module}/policies/mark-dead-run.json", { job_runs = var.job_runs.arn })
}

resource "aws_iam_role_policy" "events" {
  name   = "work"
  role   = aws_iam_role.mark_dead_run["events"].id
  policy = templatefile("${path.module}/policies/events.json", { state_machine = aws_sfn_state_machine.mark_dead_run.arn })
}

resource "aws_cloudwatch_event_target" "mark_dead_run" {
  rule     = aws_cloudwatch_event_rule.ended_badly.name
  arn      = aws_sfn_state_machine.mark_dead_run.arn
  role_arn = aws_iam_role.mark_dead_run["events"].arn
}

locals {
  alarms = merge({
    throttled = {
      text       = "Lambda refuses calls: the account's concurrency is used up. Lower max_concurrency or raise the quota."
      namespace  = "AWS/States"
      metric     = "ExecutionThrottled"
      dimensions = { StateMachineArn = var.state_machine_arn }
      period     = 300
      periods    = 3
      compare    = "GreaterThanThreshold"
      threshold  = 0
      missing    = "notBreaching"
    }
    not-started = {
      text       = "The scheduler could not start the workflow."
      namespace  = "AWS/Scheduler"
      metric     = "TargetErrorCount"
      dimensions = { ScheduleGroup = "default" }
      period     = 3600
      periods    = 1
      compare    = "GreaterThanThreshold"
      threshold  = 0
      missing    = "notBreaching"
    }
    }, var.scheduled ? {
    silent = {
      text       = "No execution succeeded for a week."
      namespace  = "AWS/States"
      metric     = "ExecutionsSucceeded"
      dimensions = { StateMachineArn = var.state_machine_arn }
      period     = 86400
      periods    = 7
      compare    = "LessThanThreshold"
      threshold  = 1
      missing    = "breaching"
    }
  } : {})
}

resource "aws_cloudwatch_metric_alarm" "workflow" {
  for_each            = local.alarms
  alarm_name          = "${var.prefix}-${each.key}"
  alarm_description   = each.value.text
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  dimensions          = each.value.dimensions
  statistic           = "Sum"
  period              = each.value.period
  evaluation_periods  = each.value.periods
  comparison_operator = each.value.compare
  threshold           = each.value.threshold
  treat_missing_data  = each.value.missing
  alarm_actions       = [aws_sns_topic.alarms.arn]
}

locals {
  steps = ["query-messages", "classify-alerts", "write-partitions"]
  widgets = [
    {
      title = "Executions", stat = "Sum"
      metrics = [for metric in ["ExecutionsStarted", "ExecutionsSucceeded", "ExecutionsFailed", "ExecutionsTimedOut", "ExecutionsAborted"] :
      ["AWS/States", metric, "StateMachineArn", var.state_machine_arn]]
    },
    {
      title   = "Errors of the functions", stat = "Sum"
      metrics = [for function in var.functions : ["AWS/Lambda", "Errors", "FunctionName", function.name]]
    },
    {
      title   = "Longest call (ms)", stat = "Maximum"
      metrics = [for function in var.functions : ["AWS/Lambda", "Duration", "FunctionName", function.name]]
    },
    {
      title   = "Time of a step for a window (ms)", stat = "Average"
      metrics = [for step in local.steps : ["AlertArchive", "Duration", "Step", step]]
    },
  ]
}

resource "aws_cloudwatch_dashboard" "workflow" {
  dashboard_name = var.prefix

  dashboard_body = jsonencode({
    widgets = [for index, widget in local.widgets : {
      type   = "metric"
      x      = (index % 2) * 12
      y      = floor(index / 2) * 6
      width  = 12
      height = 6
      properties = {
        title   = widget.title
        region  = var.region
        stat    = widget.stat
        period  = 300
        metrics = widget.metrics
      }
    }]
  })
}

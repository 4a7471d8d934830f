# Tells people of what a workflow cannot tell itself: executions that died before their report, schedules that did not
# start, events that reached no target. Functions, tables and queues bring their own alarms to the same topic.

locals {
  here        = "${var.deployment.region}:${var.deployment.account}"
  with_marker = { for name, workflow in var.workflows : name => workflow if workflow.when_dead != null }
}

resource "aws_sns_topic" "alarms" {
  name = reverse(split(":", var.deployment.alarm_topic_arn))[0]
}

resource "aws_sns_topic_subscription" "mail" {
  for_each  = toset(var.alarm_mails)
  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = each.key
}

resource "aws_sns_topic_policy" "alarms" {
  arn = aws_sns_topic.alarms.arn

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "Alarms"
        Effect    = "Allow"
        Principal = { Service = "cloudwatch.amazonaws.com" }
        Action    = "sns:Publish"
        Resource  = var.deployment.alarm_topic_arn
        Condition = { StringEquals = { "aws:SourceAccount" = var.deployment.account } }
      },
      {
        # EventBridge sends no source account or ARN to a topic: with a condition its messages would be refused.
        Sid       = "Events"
        Effect    = "Allow"
        Principal = { Service = "events.amazonaws.com" }
        Action    = "sns:Publish"
        Resource  = var.deployment.alarm_topic_arn
      },
    ]
  })
}

# What EventBridge could not deliver: starts of schedules, and news of dead executions.
resource "aws_sqs_queue" "undelivered" {
  name                      = reverse(split(":", var.deployment.undelivered_arn))[0]
  message_retention_seconds = 14 * 86400
  sqs_managed_sse_enabled   = true
}

resource "aws_sqs_queue_policy" "undelivered" {
  queue_url = aws_sqs_queue.undelivered.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "RulesOfThisDeployment"
      Effect    = "Allow"
      Principal = { Service = "events.amazonaws.com" }
      Action    = "sqs:SendMessage"
      Resource  = var.deployment.undelivered_arn
      Condition = { ArnLike = { "aws:SourceArn" = "arn:${var.deployment.partition}:events:${local.here}:rule/${var.deployment.prefix}-*" } }
    }]
  })
}

# A reported failure comes this way too: its report may have gone to readers who are not the operators.
resource "aws_cloudwatch_event_rule" "ended_badly" {
  for_each    = var.workflows
  name        = "${var.deployment.prefix}-${each.key}-ended-badly"
  description = "Executions of ${each.key} that did not succeed."

  event_pattern = jsonencode({
    source      = ["aws.states"]
    detail-type = ["Step Functions Execution Status Change"]
    detail = {
      stateMachineArn = [each.value.arn]
      status          = ["FAILED", "TIMED_OUT", "ABORTED"]
    }
  })
}

resource "aws_cloudwatch_event_target" "operators" {
  for_each = var.workflows
  rule     = aws_cloudwatch_event_rule.ended_badly[each.key].name
  arn      = aws_sns_topic.alarms.arn

  input_transformer {
    input_paths = {
      arn    = "$.detail.executionArn"
      name   = "$.detail.name"
      status = "$.detail.status"
    }
    input_template = "\"${each.key}: run <name> ended <status>. Look at its report, put right what it names, then redrive the execution: <arn>\""
  }

  dead_letter_config {
    arn = aws_sqs_queue.undelivered.arn
  }
}

# A dead execution cannot mark its run as failed, so another state machine does.
resource "aws_iam_role" "events" {
  for_each = local.with_marker
  name     = "${var.deployment.prefix}-${each.key}-events"

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "Events"
      Effect    = "Allow"
      Principal = { Service = "events.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = { StringEquals = { "aws:SourceAccount" = var.deployment.account } }
    }]
  })
}

resource "aws_iam_role_policy" "events" {
  for_each = local.with_marker
  name     = "work"
  role     = aws_iam_role.events[each.key].id
  policy   = templatefile("${path.module}/events.json", { state_machine = each.value.when_dead })
}

resource "aws_cloudwatch_event_target" "marker" {
  for_each = local.with_marker
  rule     = aws_cloudwatch_event_rule.ended_badly[each.key].name
  arn      = each.value.when_dead
  role_arn = aws_iam_role.events[each.key].arn

  dead_letter_config {
    arn = aws_sqs_queue.undelivered.arn
  }
}

locals {
  alarms = {
    not-started = {
      text       = "A schedule could not start its workflow, and will try again for a day."
      namespace  = "AWS/Scheduler"
      metric     = "TargetErrorCount"
      dimensions = { ScheduleGroup = var.deployment.schedule_group }
      statistic  = "Sum"
    }
    undelivered = {
      text       = "EventBridge could not deliver an event, for a day long: a schedule's start or the news of a dead execution. It waits in the queue ${reverse(split(":", var.deployment.undelivered_arn))[0]}."
      namespace  = "AWS/SQS"
      metric     = "ApproximateNumberOfMessagesVisible"
      dimensions = { QueueName = reverse(split(":", var.deployment.undelivered_arn))[0] }
      statistic  = "Maximum"
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "delivery" {
  for_each            = local.alarms
  alarm_name          = "${var.deployment.prefix}-${each.key}"
  alarm_description   = each.value.text
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  dimensions          = each.value.dimensions
  statistic           = each.value.statistic
  period              = 300
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
}

locals {
  widgets = flatten([for name, workflow in var.workflows : [
    {
      title = "${name}: executions", stat = "Sum"
      metrics = [for metric in ["ExecutionsStarted", "ExecutionsSucceeded", "ExecutionsFailed", "ExecutionsTimedOut", "ExecutionsAborted"] :
      ["AWS/States", metric, "StateMachineArn", workflow.arn]]
    },
    {
      title   = "${name}: errors of its functions", stat = "Sum"
      metrics = [for function in workflow.functions : ["AWS/Lambda", "Errors", "FunctionName", function.name]]
    },
    {
      title   = "${name}: longest call (ms)", stat = "Maximum"
      metrics = [for function in workflow.functions : ["AWS/Lambda", "Duration", "FunctionName", function.name]]
    },
    {
      title   = "${name}: average call of a step (ms)", stat = "Average"
      metrics = [for function, _ in workflow.functions : ["AlertArchive", "Duration", "Deployment", var.deployment.prefix, "Step", function]]
    },
  ]])
}

resource "aws_cloudwatch_dashboard" "workflows" {
  dashboard_name = var.deployment.prefix

  dashboard_body = jsonencode({
    widgets = [for index, widget in local.widgets : {
      type   = "metric"
      x      = (index % 2) * 12
      y      = floor(index / 2) * 6
      width  = 12
      height = 6
      properties = {
        title   = widget.title
        region  = var.deployment.region
        stat    = widget.stat
        period  = 300
        metrics = widget.metrics
      }
    }]
  })
}

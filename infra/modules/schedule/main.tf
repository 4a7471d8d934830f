# A schedule that starts a state machine or calls a function, with the role that it needs for that.

variable "deployment" {
  description = "Account, schedule group, and the queue of what could not be delivered."
  type        = object({ account = string, schedule_group = string, undelivered_arn = string })
}

variable "name" {
  description = "Name of the schedule and of its role."
  type        = string
}

variable "target_arn" {
  description = "State machine or function that is started."
  type        = string
}

variable "action" {
  description = "What starting the target is called: states:StartExecution or lambda:InvokeFunction."
  type        = string
}

variable "schedule" {
  description = "Expression of EventBridge Scheduler with its time zone, whether it is enabled, and the input as JSON."
  type        = object({ expression = string, timezone = string, enabled = bool, input = string })
}

resource "aws_iam_role" "scheduler" {
  name = "${var.name}-scheduler"

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "Scheduler"
      Effect    = "Allow"
      Principal = { Service = "scheduler.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = { StringEquals = { "aws:SourceAccount" = var.deployment.account } }
    }]
  })
}

resource "aws_iam_role_policy" "scheduler" {
  name = "work"
  role = aws_iam_role.scheduler.id

  policy = templatefile("${path.module}/scheduler.json", {
    action      = var.action
    target      = var.target_arn
    undelivered = var.deployment.undelivered_arn
  })
}

resource "aws_scheduler_schedule" "schedule" {
  name                         = var.name
  group_name                   = var.deployment.schedule_group
  state                        = var.schedule.enabled ? "ENABLED" : "DISABLED"
  schedule_expression          = var.schedule.expression
  schedule_expression_timezone = var.schedule.timezone

  flexible_time_window {
    mode = "OFF"
  }

  target {
    arn      = var.target_arn
    role_arn = aws_iam_role.scheduler.arn
    input    = var.schedule.input

    # The same scheduled time twice does its work once, so a late start is better than none.
    retry_policy {
      maximum_event_age_in_seconds = 86400
      maximum_retry_attempts       = 185
    }

    dead_letter_config {
      arn = var.deployment.undelivered_arn
    }
  }

  depends_on = [aws_iam_role_policy.scheduler]
}

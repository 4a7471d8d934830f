# One function: its role with one policy file, its log group, its settings, and the alarms on it.

locals {
  name = "${var.deployment.prefix}-${var.name}"
  zip  = "${var.packages.folder}/${var.name}.zip"

  # From names and not from the resources, so that a plan shows every policy whole before anything exists.
  here      = "${var.deployment.region}:${var.deployment.account}"
  arn       = "arn:${var.deployment.partition}:lambda:${local.here}:function:${local.name}"
  log_group = "arn:${var.deployment.partition}:logs:${local.here}:log-group:/aws/lambda/${local.name}"
}

resource "aws_cloudwatch_log_group" "function" {
  name              = "/aws/lambda/${local.name}"
  retention_in_days = var.deployment.log_retention_days
}

resource "aws_iam_role" "function" {
  name = local.name

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "Lambda"
      Effect    = "Allow"
      Principal = { Service = "lambda.amazonaws.com" }
      Action    = "sts:AssumeRole"
    }]
  })
}

resource "aws_iam_role_policy" "function" {
  for_each = var.policies
  name     = each.key
  role     = aws_iam_role.function.id
  policy   = templatefile(each.value, merge(var.policy_variables, { log_group = local.log_group }))
}

resource "aws_iam_role_policy_attachment" "vpc" {
  count      = var.vpc == null ? 0 : 1
  role       = aws_iam_role.function.name
  policy_arn = "arn:${var.deployment.partition}:iam::aws:policy/service-role/AWSLambdaVPCAccessExecutionRole"
}

# Through S3, because the provider creates functions from local files one after the other.
resource "aws_s3_object" "package" {
  bucket      = var.packages.bucket
  key         = "packages/${var.name}.zip"
  source      = local.zip
  source_hash = filebase64sha256(local.zip)

  # Tags of objects are billed, and nothing asks for these.
  override_provider {
    default_tags {
      tags = {}
    }
  }
}

resource "aws_lambda_function" "function" {
  function_name                  = local.name
  role                           = aws_iam_role.function.arn
  runtime                        = "provided.al2023"
  handler                        = "bootstrap"
  architectures                  = [var.packages.architecture]
  s3_bucket                      = aws_s3_object.package.bucket
  s3_key                         = aws_s3_object.package.key
  source_code_hash               = filebase64sha256(local.zip)
  memory_size                    = var.size.memory
  timeout                        = var.size.timeout
  reserved_concurrent_executions = coalesce(var.concurrency, -1)

  ephemeral_storage {
    size = var.size.disk
  }

  environment {
    variables = merge(
      var.environment,
      { RUST_LOG = var.deployment.log_level, ALERT_ARCHIVE_DEPLOYMENT = var.deployment.prefix },
      var.deployment.endpoint == null ? {} : { AWS_ENDPOINT_URL = var.deployment.endpoint },
    )
  }

  dynamic "vpc_config" {
    for_each = var.vpc[*]

    content {
      subnet_ids         = vpc_config.value.subnet_ids
      security_group_ids = vpc_config.value.security_group_ids
    }
  }

  depends_on = [aws_iam_role_policy.function, aws_iam_role_policy_attachment.vpc, aws_cloudwatch_log_group.function]
}

module "schedule" {
  source = "../schedule"
  count  = var.schedule == null ? 0 : 1

  deployment = var.deployment
  name       = local.name
  target_arn = local.arn
  action     = "lambda:InvokeFunction"
  schedule   = var.schedule

  depends_on = [aws_lambda_function.function]
}

locals {
  # A step is tried seven times before its window fails, so a few errors are no news. What a queue or a schedule calls
  # fails once until it is called again, however badly: then two failures in a row are news. A period that is no shorter
  # than the time between two calls holds at least one of them.
  retry_period = 60 * ceil(coalesce(var.retry_seconds, 900) / 60)
  errors = var.retry_seconds == null ? {
    text      = "${local.name} failed more than 7 times within 15 minutes: its log says why."
    metric    = "Errors"
    statistic = "Sum"
    period    = 900
    periods   = 1
    threshold = 7
    } : {
    text      = "${local.name} fails again and again: it has for ${2 * local.retry_period / 60} minutes. Its log says why."
    metric    = "Errors"
    statistic = "Sum"
    period    = local.retry_period
    periods   = 2
    threshold = 0
  }

  alarms = {
    errors = local.errors
    throttles = {
      text      = "Lambda refuses calls of ${local.name}, and has for 15 minutes: raise the quota, or run less at once."
      metric    = "Throttles"
      statistic = "Sum"
      period    = 300
      periods   = 3
      threshold = 0
    }
    # Functions stop by themselves a minute, or a fifth of their time, before they would be ended.
    duration = {
      text      = "${local.name} came within a twentieth of its timeout: raise it, or give it more memory."
      metric    = "Duration"
      statistic = "Maximum"
      period    = 300
      periods   = 1
      threshold = var.size.timeout * 950
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "function" {
  for_each            = local.alarms
  alarm_name          = "${local.name}-${each.key}"
  alarm_description   = each.value.text
  namespace           = "AWS/Lambda"
  metric_name         = each.value.metric
  dimensions          = { FunctionName = local.name }
  statistic           = each.value.statistic
  period              = each.value.period
  evaluation_periods  = each.value.periods
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value.threshold
  treat_missing_data  = "notBreaching"
  alarm_actions       = [var.deployment.alarm_topic_arn]
}

# The eight functions, each with its own role, log group and no more environment than it reads.

locals {
  sizes = merge(jsondecode(file("${path.module}/sizes.json")), var.size_overrides)

  bucket           = { ALERT_ARCHIVE_BUCKET = var.storage.bucket }
  job_runs         = { ALERT_ARCHIVE_JOB_RUNS_TABLE = var.storage.job_runs_table }
  windows          = { ALERT_ARCHIVE_WINDOWS_TABLE = var.storage.windows_table }
  message_tracking = { ALERT_ARCHIVE_MESSAGE_TRACKING_TABLE = var.storage.message_tracking_table }
  indices = {
    ALERT_ARCHIVE_MESSAGES_INDEX = var.messages_index
    ALERT_ARCHIVE_HISTORY_INDEX  = var.history_index
    ALERT_ARCHIVE_AUDIT_INDEX    = var.audit_index
  }
  opensearch = {
    OPENSEARCH_URL                = var.opensearch_url
    ALERT_ARCHIVE_OPENSEARCH_AUTH = var.opensearch_auth
  }
  statuses = {
    ALERT_ARCHIVE_OPEN_STATUSES   = join(",", var.open_statuses)
    ALERT_ARCHIVE_CLOSED_STATUSES = join(",", var.closed_statuses)
  }
  everywhere = merge(
    local.bucket,
    { RUST_LOG = var.log_level },
    var.endpoint == null ? {} : { AWS_ENDPOINT_URL = var.endpoint },
  )

  environments = {
    plan-windows = merge(local.job_runs, local.windows, local.message_tracking, local.opensearch, local.indices, {
      ALERT_ARCHIVE_WINDOW_MESSAGES = tostring(var.window_messages)
      ALERT_ARCHIVE_SETTLE_MINUTES  = tostring(var.settle_minutes)
    })
    query-messages  = merge(local.job_runs, local.windows, local.opensearch, local.indices, local.statuses)
    classify-alerts = merge(local.windows, local.message_tracking)
    write-partitions = merge(local.job_runs, local.windows, local.message_tracking, {
      ALERT_ARCHIVE_WRITE_JSONL        = tostring(var.write_jsonl)
      ALERT_ARCHIVE_WRITE_MESSAGE_JSON = tostring(var.write_message_json)
    })
    collect-windows = merge(local.job_runs, local.windows, local.message_tracking)
    send-summary = merge(local.job_runs, {
      ALERT_ARCHIVE_MAIL_FROM = var.mail_from
      ALERT_ARCHIVE_MAIL_TO   = join(",", var.mail_to)
    }, var.dashboard_url == null ? {} : { ALERT_ARCHIVE_DASHBOARD_URL = var.dashboard_url })
    aggregate-dashboard = merge(local.job_runs, local.message_tracking)
    gate-run            = local.job_runs
  }

  reads_source = ["plan-windows", "query-messages"]
}

resource "aws_cloudwatch_log_group" "function" {
  for_each          = local.environments
  name              = "/aws/lambda/${var.prefix}-${each.key}"
  retention_in_days = var.log_retention_days
}

data "aws_iam_policy_document" "lambda_assumes" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["lambda.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "function" {
  for_each           = local.environments
  name               = "${var.prefix}-${each.key}"
  assume_role_policy = data.aws_iam_policy_document.lambda_assumes.json
}

# What a function may do stands in policies/<function>.json; a test reads the same files.
resource "aws_iam_role_policy" "function" {
  for_each = local.environments
  name     = "work"
  role     = aws_iam_role.function[each.key].id
  policy = templatefile("${path.module}/policies/${each.key}.json", {
    bucket           = var.storage.bucket_arn
    job_runs         = var.storage.job_runs_arn
    windows          = var.storage.windows_arn
    message_tracking = var.storage.message_tracking_arn
    executions       = var.executions_arn
    mail_identity    = var.mail_identity_arn
    log_group        = aws_cloudwatch_log_group.function[each.key].arn
  })
}

resource "aws_iam_role_policy" "source" {
  for_each = toset(var.opensearch_auth == "iam" ? local.reads_source : [])
  name     = "source"
  role     = aws_iam_role.function[each.key].id
  policy   = templatefile("${path.module}/policies/source/${each.key}.json", { domain = var.opensearch_domain_arn })
}

resource "aws_iam_role_policy_attachment" "vpc" {
  for_each   = toset(var.vpc == null ? [] : local.reads_source)
  role       = aws_iam_role.function[each.key].name
  policy_arn = "arn:aws:iam::aws:policy/service-role/AWSLambdaVPCAccessExecutionRole"
}

# Through S3, because the provider creates functions from local files one after the other.
resource "aws_s3_object" "package" {
  for_each    = local.environments
  bucket      = var.storage.bucket
  key         = "packages/${each.key}.zip"
  source      = "${var.package_dir}/${each.key}.zip"
  source_hash = filebase64sha256("${var.package_dir}/${each.key}.zip")
}

resource "aws_lambda_function" "function" {
  for_each         = local.environments
  function_name    = "${var.prefix}-${each.key}"
  role             = aws_iam_role.function[each.key].arn
  runtime          = "provided.al2023"
  handler          = "bootstrap"
  architectures    = [var.architecture]
  s3_bucket        = aws_s3_object.package[each.key].bucket
  s3_key           = aws_s3_object.package[each.key].key
  source_code_hash = filebase64sha256("${var.package_dir}/${each.key}.zip")
  memory_size      = local.sizes[each.key].memory
  timeout          = local.sizes[each.key].timeout

  environment {
    variables = merge(local.everywhere, each.value)
  }

  dynamic "vpc_config" {
    for_each = var.vpc != null && contains(local.reads_source, each.key) ? [var.vpc] : []

    content {
      subnet_ids         = vpc_config.value.subnet_ids
      security_group_ids = vpc_config.value.security_group_ids
    }
  }

  depends_on = [aws_iam_role_policy.function, aws_iam_role_policy_attachment.vpc]
}

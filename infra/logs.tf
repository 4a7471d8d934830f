# The log error report: gz logs arrive in a bucket, their errors become rows and Parquet, and a report tells of them.

locals {
  logs_environment = merge(local.bucket_environment, {
    ALERT_ARCHIVE_LOGS_BUCKET       = module.logs_pipeline.bucket
    ALERT_ARCHIVE_LOG_OBJECTS_TABLE = module.log_objects.name
    ALERT_ARCHIVE_LOG_ERRORS_TABLE  = module.log_errors.name
  })

  logs_functions = {
    extract-log-errors = {
      size = { memory = 1769, timeout = 900 }
      environment = merge(local.logs_environment, {
        ALERT_ARCHIVE_LOGS_MAX_BYTES = tostring(var.logs_limits.bytes)
        ALERT_ARCHIVE_LOGS_MAX_RATIO = tostring(var.logs_limits.ratio)
      })
    }
    search-log-errors = {
      size = { memory = 1769, timeout = 600 }
      environment = merge(local.bucket_environment, {
        ALERT_ARCHIVE_LOG_OBJECTS_TABLE = module.log_objects.name
        ALERT_ARCHIVE_LOG_ERRORS_TABLE  = module.log_errors.name
      })
    }
    send-log-report = {
      size = { memory = 1024, timeout = 120 }
      environment = merge(local.bucket_environment, local.mail_environment, {
        ALERT_ARCHIVE_LOG_OBJECTS_TABLE         = module.log_objects.name
        ALERT_ARCHIVE_MAIL_RECIPIENTS_PARAMETER = module.mail.recipients.log_errors.name
      })
    }
    aggregate-log-dashboard = {
      size        = { memory = 1024, timeout = 120 }
      environment = local.bucket_environment
    }
  }
}

locals {
  logs_visibility_seconds = local.logs_functions.extract-log-errors.size.timeout + 60
}

module "logs_function" {
  source   = "./modules/function"
  for_each = local.logs_functions

  deployment  = local.deployment
  packages    = local.packages
  name        = each.key
  size        = lookup(var.function_sizes, each.key, each.value.size)
  environment = each.value.environment
  policies    = { work = "${path.root}/policies/${each.key}.json" }

  retry_seconds = each.key == "extract-log-errors" ? local.logs_visibility_seconds : null
  policy_variables = merge(local.policy_variables, {
    logs        = module.logs_pipeline.bucket_arn
    logs_queue  = module.logs_pipeline.queue_arn
    log_objects = module.log_objects.arn
    log_errors  = module.log_errors.arn
  })
}

# To the administrators who are subscribed to the deployment's topic.
resource "aws_cloudwatch_metric_alarm" "unlisted_log_errors" {
  alarm_name          = "${var.prefix}-logs-unlisted-errors"
  alarm_description   = "A log has more kinds of errors than are noted of one: alert-archive logs status counts them. Its program may write ids into its messages in a new way."
  namespace           = "AlertArchive"
  metric_name         = "UnlistedEntries"
  dimensions          = { Deployment = var.prefix, Step = "extract-log-errors" }
  statistic           = "Maximum"
  period              = 900
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "notBreaching"
  alarm_actions       = [local.deployment.alarm_topic_arn]
}

module "logs_pipeline" {
  source = "./modules/s3-pipeline"

  deployment    = local.deployment
  name          = "logs"
  bucket        = "${var.prefix}-logs-${local.account}"
  protected     = var.protected
  function      = module.logs_function["extract-log-errors"].function
  suffix_filter = ".gz"

  # One object is up to ten minutes of work, so that few go into a call.
  batch_size      = 2
  max_concurrency = var.logs_concurrency
  # A call that was killed leaves its claim until it would have ended; then its message comes again.
  visibility_seconds = local.logs_visibility_seconds
  lifecycle_rules    = { noncurrent = { prefix = "", noncurrent_expiration_days = 30 } }
}

module "report_log_errors" {
  source = "./modules/state-machine"

  deployment = local.deployment
  name       = "report-log-errors"
  definition = "${path.root}/../statemachine/report-log-errors.asl.json"
  functions = {
    for name, function in module.logs_function : name => function.function if name != "extract-log-errors"
  }

  schedule = {
    expression = var.log_report_schedule
    timezone   = var.schedule_timezone
    enabled    = var.schedule_enabled
    # jsonencode would escape the brackets, which the service then would not replace.
    input = "{\"scheduled_for\":\"<aws.scheduler.scheduled-time>\"}"
  }
}

# Every principal that may put events can ask for a report of certain errors: the event's detail is the execution's input.
resource "aws_cloudwatch_event_rule" "log_report" {
  name        = "${var.prefix}-log-report"
  description = "Starts report-log-errors with the context in the event's detail."

  event_pattern = jsonencode({
    source        = [var.prefix]
    "detail-type" = ["Log error report requested"]
    account       = [local.account]
  })
}

resource "aws_iam_role" "log_report" {
  name = "${var.prefix}-log-report-events"

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "Events"
      Effect    = "Allow"
      Principal = { Service = "events.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = { StringEquals = { "aws:SourceAccount" = local.account } }
    }]
  })
}

resource "aws_iam_role_policy" "log_report" {
  name = "start"
  role = aws_iam_role.log_report.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid      = "Start"
      Effect   = "Allow"
      Action   = ["states:StartExecution"]
      Resource = module.report_log_errors.arn
    }]
  })
}

resource "aws_cloudwatch_event_target" "log_report" {
  rule       = aws_cloudwatch_event_rule.log_report.name
  arn        = module.report_log_errors.arn
  role_arn   = aws_iam_role.log_report.arn
  input_path = "$.detail"

  dead_letter_config {
    arn = local.deployment.undelivered_arn
  }
}

# One row a log object: which version is extracted, and the claim on the next.
module "log_objects" {
  source = "./modules/table"

  deployment = local.deployment
  name       = "log-objects"
  protected  = var.protected
  hash_key   = "object"
  indexes    = { not-read = { hash_key = "not_read_on" }, extracted = { hash_key = "extracted_on" } }
}

# One row an error and log object: how often in which hour, and a sample.
module "log_errors" {
  source = "./modules/table"

  deployment = local.deployment
  name       = "log-errors"
  protected  = var.protected
  hash_key   = "fingerprint"
  range_key  = "object"
}

resource "aws_s3_object" "log_patterns" {
  count        = var.log_patterns == null ? 0 : 1
  bucket       = module.storage.bucket
  key          = "log-errors/settings/patterns.toml"
  content      = file(var.log_patterns)
  content_type = "application/toml"
}

resource "aws_glue_catalog_database" "logs" {
  name = replace(var.prefix, "-", "_")
}

resource "aws_glue_catalog_table" "log_errors" {
  database_name = aws_glue_catalog_database.logs.name
  name          = "log_errors"
  description   = "Errors found in logs, one row an entry."
  table_type    = "EXTERNAL_TABLE"

  # Athena computes the partitions, so that no crawler and no repair is needed.
  parameters = {
    EXTERNAL                    = "TRUE"
    classification              = "parquet"
    "projection.enabled"        = "true"
    "projection.date.type"      = "date"
    "projection.date.format"    = "yyyy-MM-dd"
    "projection.date.range"     = "1970-01-01,NOW+1DAYS"
    "storage.location.template" = "s3://${module.storage.bucket}/log-errors/parquet/date=$${date}/"
  }

  partition_keys {
    name = "date"
    type = "string"
  }

  storage_descriptor {
    location      = "s3://${module.storage.bucket}/log-errors/parquet/"
    input_format  = "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat"
    output_format = "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat"

    ser_de_info {
      serialization_library = "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe"
    }

    dynamic "columns" {
      for_each = [
        ["time", "timestamp"], ["service", "string"], ["level", "string"], ["logger", "string"], ["category", "string"],
        ["fingerprint", "string"], ["exception", "string"], ["message", "string"], ["stack", "string"],
        ["object", "string"], ["line", "bigint"], ["byte", "bigint"],
      ]

      content {
        name = columns.value[0]
        type = columns.value[1]
      }
    }
  }
}

# SQL that Athena and DuckDB understand alike; a test runs it.
resource "aws_athena_named_query" "logs" {
  for_each = {
    log-errors-trend = "Errors by day, service and category, of the last 30 days."
    log-errors-top   = "The most frequent errors of the last 7 days, with when they were first and last seen."
  }

  name        = "${var.prefix}-${each.key}"
  description = each.value
  database    = aws_glue_catalog_database.logs.name
  query       = file("${path.root}/queries/${each.key}.sql")
}

output "logs_environment" {
  description = "What `make env` prints for the log errors."
  value = merge(local.logs_environment, {
    ALERT_ARCHIVE_LOGS_QUEUE_URL               = module.logs_pipeline.queue_url
    ALERT_ARCHIVE_LOGS_DLQ_URL                 = module.logs_pipeline.dlq_url
    ALERT_ARCHIVE_LOGS_DATABASE                = aws_glue_catalog_database.logs.name
    ALERT_ARCHIVE_LOG_REPORT_STATE_MACHINE_ARN = module.report_log_errors.arn
  })
}

# The warehouse: from PostgreSQL to JSON lines, and from objects that land to dimensions and facts in Parquet.

locals {
  ingestion_bucket = "${var.prefix}-ingestion-${local.account}"
  warehouse_bucket = "${var.prefix}-warehouse-${local.account}"
  warehouse_schema = "_schema/warehouse.yaml"

  warehouse_functions_environment = {
    ALERT_ARCHIVE_INGESTION_BUCKET = local.ingestion_bucket
    ALERT_ARCHIVE_WAREHOUSE_BUCKET = local.warehouse_bucket
    ALERT_ARCHIVE_WAREHOUSE_TABLE  = module.warehouse_table.name
  }
  warehouse_parameters = "/${var.prefix}/warehouse"

  database_authorities = "_database/authorities.pem"

  # For what the secret does not name; empty is as if not set.
  database_place = {
    ALERT_ARCHIVE_DATABASE_HOST        = var.database_host == null ? "" : var.database_host
    ALERT_ARCHIVE_DATABASE_PORT        = tostring(var.database_port)
    ALERT_ARCHIVE_DATABASE_NAME        = var.database_name == null ? "" : var.database_name
    ALERT_ARCHIVE_DATABASE_AUTHORITIES = var.database_ca_file == null ? "" : local.database_authorities
  }

  database_secret_arn = coalesce(var.database_secret_arn, one(aws_secretsmanager_secret.database[*].arn))

  # Where the partner feeds put what tables with `source: feed/...` are made of.
  feeds_bucket = "${var.prefix}-feeds-${local.account}"

  # Both know the tables by their rows and the bucket's documents; the policies say which of them each may change.
  warehouse_functions = {
    ingest-tables = {
      size = { memory = 1769, timeout = 900, disk = 4096 }
      vpc  = var.vpc
      environment = merge(local.database_place, {
        ALERT_ARCHIVE_DATABASE_SECRET      = local.database_secret_arn
        ALERT_ARCHIVE_READ_ROWS_PER_SECOND = tostring(var.ingest_rows_per_second)
        ALERT_ARCHIVE_READ_TIMEOUT_SECONDS = tostring(var.ingest_read_timeout_seconds)
      })
    }
    build-warehouse = {
      size        = { memory = 3538, timeout = 900, disk = 10240 }
      vpc         = null
      environment = { ALERT_ARCHIVE_FEEDS_BUCKET = local.feeds_bucket }
    }
  }
}

locals {
  warehouse_sizes = {
    for name, function in local.warehouse_functions : name => merge(function.size, try(var.function_sizes[name], {}))
  }
  warehouse_visibility_seconds = local.warehouse_sizes["build-warehouse"].timeout
}

module "warehouse_table" {
  source = "./modules/table"

  deployment = local.deployment
  name       = "warehouse"
  protected  = var.protected
  hash_key   = "name"
}

module "warehouse_bucket" {
  source = "./modules/bucket"

  deployment = local.deployment
  name       = local.warehouse_bucket
  protected  = var.protected

  # Tables are made anew from the JSON lines: earlier versions of their objects are of no use for long.
  lifecycle_rules = {
    tables = { prefix = "", noncurrent_expiration_days = 7 }
  }
}

module "warehouse_function" {
  source   = "./modules/function"
  for_each = local.warehouse_functions

  deployment = local.deployment
  packages   = local.packages
  name       = each.key
  size       = local.warehouse_sizes[each.key]
  environment = merge(local.bucket_environment, local.warehouse_functions_environment, each.value.environment, {
    ALERT_ARCHIVE_WAREHOUSE_PARAMETERS = local.warehouse_parameters
  })
  vpc           = each.value.vpc
  retry_seconds = each.key == "build-warehouse" ? local.warehouse_visibility_seconds : null
  policies = merge(
    { work = "${path.root}/policies/${each.key}.json" },
    each.key == "build-warehouse" && var.feeds_kms_key_arn != null ? { key = "${path.root}/policies/feeds-read-key.json" } : {},
  )

  policy_variables = merge(local.policy_variables, {
    ingestion  = "arn:${local.partition}:s3:::${local.ingestion_bucket}"
    warehouse  = "arn:${local.partition}:s3:::${local.warehouse_bucket}"
    rows       = module.warehouse_table.arn
    secret     = local.database_secret_arn
    parameters = "arn:${local.partition}:ssm:${local.here}:parameter${local.warehouse_parameters}"
    queue      = module.warehouse_pipeline.queue_arn
    feeds      = "arn:${local.partition}:s3:::${local.feeds_bucket}"
    key        = var.feeds_kms_key_arn
  })
}

# Objects land in the ingestion bucket, and build-warehouse takes them from the queue.
module "warehouse_pipeline" {
  source = "./modules/s3-pipeline"

  deployment = local.deployment
  name       = "warehouse"
  function   = module.warehouse_function["build-warehouse"].function
  bucket     = local.ingestion_bucket
  protected  = var.protected

  # A build takes along all that has landed: one works, and a second one waits for its turn.
  max_concurrency    = 2
  visibility_seconds = local.warehouse_visibility_seconds
  further_buckets    = [module.warehouse_bucket.arn, module.feeds_bucket.arn]
}

# A schema file that is put in force, and requests to build anew, start a build too.
resource "aws_s3_bucket_notification" "warehouse" {
  bucket = module.warehouse_bucket.bucket

  dynamic "queue" {
    for_each = toset(["_schema/", "_requests/"])

    content {
      queue_arn     = module.warehouse_pipeline.queue_arn
      events        = ["s3:ObjectCreated:*"]
      filter_prefix = queue.value
    }
  }

  depends_on = [module.warehouse_pipeline]
}

# What the partner feeds put out is the input of tables with `source: feed/CONTENT_TYPE`.
resource "aws_s3_bucket_notification" "consolidated_feeds" {
  bucket = module.feeds_bucket.bucket

  queue {
    queue_arn = module.warehouse_pipeline.queue_arn
    events    = ["s3:ObjectCreated:*"]
  }

  depends_on = [module.warehouse_pipeline]
}

# The example; `alert-archive warehouse apply` puts another one in its place, which stays.
resource "aws_s3_object" "warehouse_schema" {
  count      = var.local ? 1 : 0
  bucket     = module.warehouse_bucket.bucket
  key        = local.warehouse_schema
  source     = "${path.root}/../fixtures/warehouse/orders.yaml"
  depends_on = [aws_s3_bucket_notification.warehouse]

  lifecycle {
    ignore_changes = all
  }
}

# By whom the database's certificate may be signed, such as the authorities of RDS.
resource "aws_s3_object" "database_authorities" {
  count        = var.database_ca_file == null ? 0 : 1
  bucket       = module.warehouse_bucket.bucket
  key          = local.database_authorities
  source       = var.database_ca_file
  source_hash  = filesha256(var.database_ca_file)
  content_type = "application/x-pem-file"
}

# The local cloud knows the password of its database; on AWS it is put in by hand or by rotation, never by Terraform.
resource "aws_secretsmanager_secret" "database" {
  count       = var.database_secret_arn == null ? 1 : 0
  name        = "${var.prefix}-database"
  description = "What ingest-tables logs in with: username, password, host, port, dbname."

  recovery_window_in_days = var.protected ? 30 : 0
}

resource "aws_secretsmanager_secret_version" "database" {
  count         = var.local && var.database_secret_arn == null ? 1 : 0
  secret_id     = aws_secretsmanager_secret.database[0].id
  secret_string = var.local_database_credentials
}

# The read itself is repeated by the next start, so that a failed one is only told of.
resource "aws_scheduler_schedule" "ingest" {
  name                         = "${var.prefix}-ingest-tables"
  group_name                   = aws_scheduler_schedule_group.deployment.name
  state                        = var.ingest_enabled ? "ENABLED" : "DISABLED"
  schedule_expression          = var.ingest_schedule
  schedule_expression_timezone = var.schedule_timezone

  flexible_time_window {
    mode = "OFF"
  }

  target {
    arn      = module.warehouse_function["ingest-tables"].function.arn
    role_arn = aws_iam_role.ingest_schedule.arn
    input    = "{}"

    retry_policy {
      maximum_event_age_in_seconds = 3600
      maximum_retry_attempts       = 5
    }

    dead_letter_config {
      arn = local.deployment.undelivered_arn
    }
  }

  depends_on = [aws_iam_role_policy.ingest_schedule]
}

resource "aws_iam_role" "ingest_schedule" {
  name = "${var.prefix}-ingest-schedule"

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "Scheduler"
      Effect    = "Allow"
      Principal = { Service = "scheduler.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = { StringEquals = { "aws:SourceAccount" = local.account } }
    }]
  })
}

resource "aws_iam_role_policy" "ingest_schedule" {
  name = "work"
  role = aws_iam_role.ingest_schedule.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid      = "Ingest"
        Effect   = "Allow"
        Action   = "lambda:InvokeFunction"
        Resource = module.warehouse_function["ingest-tables"].function.arn
      },
      {
        Sid      = "Undelivered"
        Effect   = "Allow"
        Action   = "sqs:SendMessage"
        Resource = local.deployment.undelivered_arn
      },
    ]
  })
}

locals {
  warehouse_alarms = {
    # Counted by the function, because a schedule may be slower than any period.
    ingest-failures = {
      text      = "Tables could not be ingested three times in a row: alert-archive warehouse status names them."
      function  = "ingest-tables"
      metric    = "IngestFailuresInARow"
      threshold = 2
    }
    ingest-calls = {
      text      = "No table could be ingested at all: the log of ingest-tables says why."
      function  = "ingest-tables"
      metric    = "FailedIngestCalls"
      threshold = 0
    }
    failed-objects = {
      text      = "Objects of the warehouse could not be read: alert-archive warehouse status names them."
      function  = "build-warehouse"
      metric    = "FailedObjects"
      threshold = 0
    }
    sequence-gaps = {
      text      = "Objects are missing between those of a table: alert-archive warehouse status names the ids."
      function  = "build-warehouse"
      metric    = "SequenceGaps"
      threshold = 0
    }
  }
}

# To the administrators who are subscribed to the deployment's topic.
resource "aws_cloudwatch_metric_alarm" "warehouse" {
  for_each            = local.warehouse_alarms
  alarm_name          = "${var.prefix}-warehouse-${each.key}"
  alarm_description   = each.value.text
  namespace           = "AlertArchive"
  metric_name         = each.value.metric
  dimensions          = { Deployment = var.prefix, Function = each.value.function }
  statistic           = "Maximum"
  period              = 900
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value.threshold
  treat_missing_data  = "notBreaching"
  alarm_actions       = [local.deployment.alarm_topic_arn]
}

output "warehouse_environment" {
  description = "What `make env` prints for the warehouse."
  value = merge(local.warehouse_functions_environment, {
    ALERT_ARCHIVE_INGEST_TABLES_FUNCTION = module.warehouse_function["ingest-tables"].function.name
    ALERT_ARCHIVE_WAREHOUSE_SCHEMA       = "s3://${local.warehouse_bucket}/${local.warehouse_schema}"
  })
}

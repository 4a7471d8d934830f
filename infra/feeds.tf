# Partner feeds: files land in the source bucket, consolidate-feeds puts their records into objects of at most 500 KB.

module "feeds" {
  source = "./modules/s3-pipeline"

  deployment           = local.deployment
  name                 = "feeds"
  function             = module.consolidate_feeds.function
  bucket               = "${var.prefix}-feeds-source-${local.account}"
  protected            = var.protected
  kms_key_arn          = var.feeds_kms_key_arn
  replication          = local.feeds_replication
  batch_size           = var.feeds_batch_size
  batch_window_seconds = local.feeds_batch_window_seconds
  max_concurrency      = var.feeds_concurrency
  visibility_seconds   = local.feeds_visibility_seconds
  receive_wait_seconds = 20
  max_receives         = 10

  # S3 replicates to a bucket that is there and has versions.
  depends_on = [module.feeds_replica]
}

# What partners delivered cannot be had again from everyone: a second bucket keeps a copy.
module "feeds_replica" {
  source = "./modules/bucket"
  count  = var.feeds_replica_arn == null ? 1 : 0

  deployment  = local.deployment
  name        = "${var.prefix}-feeds-replica-${local.account}"
  protected   = var.protected
  kms_key_arn = var.feeds_kms_key_arn
}

module "feeds_bucket" {
  source = "./modules/bucket"

  deployment  = local.deployment
  name        = "${var.prefix}-feeds-${local.account}"
  protected   = var.protected
  kms_key_arn = var.feeds_kms_key_arn
}

# A row a version of a source object: how far its records have come out.
module "feed_files" {
  source = "./modules/table"

  deployment = local.deployment
  name       = "feed-files"
  protected  = var.protected
  hash_key   = "object"
  range_key  = "version"

  # Sparse: only files of blocked partners carry `blocked`.
  indexes = { blocked = { hash_key = "blocked" } }
}

# A row a batch, and the last number that was given to an output.
module "feed_batches" {
  source = "./modules/table"

  deployment = local.deployment
  name       = "feed-batches"
  protected  = var.protected
  hash_key   = "batch"
}

# Operators' table: which partners of a content type come first, and which are blocked. Read once in ten seconds.
module "feeds_partners" {
  source = "./modules/table"

  deployment = local.deployment
  name       = "feeds-partners"
  protected  = var.protected
  hash_key   = "content_type"
  capacity   = var.feeds_partners_capacity
}

locals {
  feeds_replica_arn = var.feeds_replica_arn != null ? var.feeds_replica_arn : one(module.feeds_replica[*].arn)
  feeds_replication = {
    bucket_arn = local.feeds_replica_arn
    # The bucket that is made here lies in the key's own region.
    kms_key_arn = var.feeds_replica_arn != null ? var.feeds_replica_kms_key_arn : var.feeds_kms_key_arn
  }
  feeds_function = "${var.prefix}-consolidate-feeds"

  feeds_batch_window_seconds = 120
  feeds_visibility_seconds   = 450

  # From names, so that a plan shows them before the queues exist.
  sqs_host        = "https://sqs.${var.region}.amazonaws.com${local.partition == "aws-cn" ? ".cn" : ""}"
  feeds_queue_url = "${trimsuffix(coalesce(var.endpoint, local.sqs_host), "/")}/${local.account}/${var.prefix}-feeds"

  feeds_environment = {
    ALERT_ARCHIVE_FEEDS_SOURCE_BUCKET  = module.feeds.bucket
    ALERT_ARCHIVE_FEEDS_BUCKET         = module.feeds_bucket.bucket
    ALERT_ARCHIVE_FEEDS_PARTNERS_TABLE = module.feeds_partners.name
    ALERT_ARCHIVE_FEED_FILES_TABLE     = module.feed_files.name
    ALERT_ARCHIVE_FEED_BATCHES_TABLE   = module.feed_batches.name
  }
}

module "consolidate_feeds" {
  source = "./modules/function"

  deployment = local.deployment
  packages   = local.packages
  name       = "consolidate-feeds"
  size       = lookup(var.function_sizes, "consolidate-feeds", { memory = 1024, timeout = 90 })

  retry_seconds = local.feeds_visibility_seconds + local.feeds_batch_window_seconds

  # The source bucket's name and not the module's output, which waits for the function.
  environment = merge(local.bucket_environment, local.feeds_environment, {
    ALERT_ARCHIVE_FEEDS_SOURCE_BUCKET = "${var.prefix}-feeds-source-${local.account}"
    ALERT_ARCHIVE_FEEDS_COMPRESSION   = var.feeds_compression
  })

  policies = merge(
    { work = "${path.root}/policies/consolidate-feeds.json" },
    var.feeds_kms_key_arn == null ? {} : { key = "${path.root}/policies/feeds-key.json" },
  )
  policy_variables = merge(local.policy_variables, {
    source   = "arn:${local.partition}:s3:::${var.prefix}-feeds-source-${local.account}"
    feeds    = module.feeds_bucket.arn
    files    = module.feed_files.arn
    batches  = module.feed_batches.arn
    partners = module.feeds_partners.arn
    queue    = module.feeds.queue_arn
    key      = var.feeds_kms_key_arn
  })
}

# Tells the page and the weekly mail what the feeds came to.
module "report_feeds" {
  source = "./modules/function"

  deployment = local.deployment
  packages   = local.packages
  name       = "report-feeds"
  size       = lookup(var.function_sizes, "report-feeds", { memory = 512, timeout = 300 })
  schedule   = { expression = "rate(1 hour)", timezone = "UTC", enabled = var.schedule_enabled, input = "{}" }

  retry_seconds = 3600

  environment = merge(local.bucket_environment, {
    ALERT_ARCHIVE_FEED_FILES_TABLE   = module.feed_files.name
    ALERT_ARCHIVE_FEED_BATCHES_TABLE = module.feed_batches.name
    ALERT_ARCHIVE_FEEDS_QUEUE_URL    = local.feeds_queue_url
    ALERT_ARCHIVE_FEEDS_DLQ_URL      = "${local.feeds_queue_url}-dlq"
  })

  policies = { work = "${path.root}/policies/report-feeds.json" }
  policy_variables = merge(local.policy_variables, {
    files   = module.feed_files.arn
    batches = module.feed_batches.arn
    queue   = module.feeds.queue_arn
    dead    = module.feeds.dlq_arn
  })
}

output "feeds_environment" {
  description = "What `make env` prints for the partner feeds."
  value = merge(local.feeds_environment, {
    ALERT_ARCHIVE_FEEDS_QUEUE_URL = module.feeds.queue_url
    ALERT_ARCHIVE_FEEDS_DLQ_URL   = module.feeds.dlq_url
  })
}

resource "aws_cloudwatch_dashboard" "feeds" {
  dashboard_name = "${var.prefix}-feeds"

  dashboard_body = jsonencode({
    widgets = [for index, widget in [
      { title = "records received", stat = "Sum", metrics = [["Records"], ["Quarantined"]] },
      { title = "objects processed", stat = "Sum", metrics = [["Objects"], ["Blocked"], ["Outputs"]] },
      { title = "messages received", stat = "Sum", metrics = [["AWS/SQS", "NumberOfMessagesReceived", "QueueName", "${var.prefix}-feeds"]] },
      { title = "age of the oldest message (s)", stat = "Maximum", metrics = [["AWS/SQS", "ApproximateAgeOfOldestMessage", "QueueName", "${var.prefix}-feeds"]] },
      { title = "messages that failed ten times", stat = "Maximum", metrics = [["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", "${var.prefix}-feeds-dlq"]] },
      {
        title   = "errors", stat = "Sum"
        metrics = [["AWS/Lambda", "Errors", "FunctionName", local.feeds_function], ["AWS/Lambda", "Throttles", "FunctionName", local.feeds_function], ["FailedMessages"]]
      },
      ] : {
      type   = "metric"
      x      = (index % 2) * 12
      y      = floor(index / 2) * 6
      width  = 12
      height = 6
      properties = {
        title  = widget.title
        region = var.region
        stat   = widget.stat
        period = 300
        # Metrics of the function's own are given by their name alone.
        metrics = [for metric in widget.metrics :
        length(metric) > 1 ? metric : ["AlertArchive", metric[0], "Deployment", var.prefix, "Step", "consolidate-feeds"]]
      }
    }]
  })
}

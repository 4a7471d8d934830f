# Objects arrive in a bucket, S3 puts a message for each into a queue, and a function takes them in batches. A message
# that fails again and again ends in the dead-letter queue, and an alarm tells of it.

locals {
  name       = "${var.deployment.prefix}-${var.name}"
  queues     = "arn:${var.deployment.partition}:sqs:${var.deployment.region}:${var.deployment.account}"
  queue_arn  = "${local.queues}:${local.name}"
  dlq_arn    = "${local.queues}:${local.name}-dlq"
  visibility = coalesce(var.visibility_seconds, var.function.timeout * 6 + var.batch_window_seconds)
}

module "source" {
  source = "../bucket"

  deployment      = var.deployment
  name            = var.bucket
  protected       = var.protected
  versioning      = var.versioning
  kms_key_arn     = var.kms_key_arn
  lifecycle_rules = var.lifecycle_rules
  replication     = var.replication
}

resource "aws_sqs_queue" "dead" {
  name                      = "${local.name}-dlq"
  message_retention_seconds = 14 * 86400
  sqs_managed_sse_enabled   = true

  redrive_allow_policy = jsonencode({ redrivePermission = "byQueue", sourceQueueArns = [local.queue_arn] })
}

resource "aws_sqs_queue" "events" {
  name                       = local.name
  visibility_timeout_seconds = local.visibility
  receive_wait_time_seconds  = var.receive_wait_seconds
  message_retention_seconds  = 14 * 86400
  sqs_managed_sse_enabled    = true

  redrive_policy = jsonencode({ deadLetterTargetArn = local.dlq_arn, maxReceiveCount = var.max_receives })
  depends_on     = [aws_sqs_queue.dead]

  lifecycle {
    # Lambda refuses the mapping otherwise: a message would come again while its call is still running.
    precondition {
      condition     = local.visibility >= var.function.timeout && local.visibility <= 43200
      error_message = "A message must stay hidden for at least the function's timeout, and for at most 12 hours."
    }
  }
}

resource "aws_sqs_queue_policy" "events" {
  queue_url = aws_sqs_queue.events.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "EventsOfBuckets"
      Effect    = "Allow"
      Principal = { Service = "s3.amazonaws.com" }
      Action    = "sqs:SendMessage"
      Resource  = local.queue_arn
      Condition = {
        ArnEquals    = { "aws:SourceArn" = concat([module.source.arn], var.further_buckets) }
        StringEquals = { "aws:SourceAccount" = var.deployment.account }
      }
    }]
  })
}

resource "aws_s3_bucket_notification" "source" {
  bucket = module.source.bucket

  queue {
    queue_arn     = aws_sqs_queue.events.arn
    events        = ["s3:ObjectCreated:*"]
    filter_prefix = var.prefix_filter
    filter_suffix = var.suffix_filter
  }

  depends_on = [aws_sqs_queue_policy.events]
}

resource "aws_lambda_event_source_mapping" "events" {
  event_source_arn                   = aws_sqs_queue.events.arn
  function_name                      = var.function.arn
  batch_size                         = var.batch_size
  maximum_batching_window_in_seconds = var.batch_window_seconds

  # Only the messages that failed come again.
  function_response_types = ["ReportBatchItemFailures"]

  dynamic "scaling_config" {
    for_each = var.max_concurrency[*]

    content {
      maximum_concurrency = scaling_config.value
    }
  }
}

locals {
  alarms = {
    dead = {
      text      = "Messages of ${local.name} failed ${var.max_receives} times and wait in ${local.name}-dlq: put right what the log of ${var.function.name} names, then replay them."
      queue     = "${local.name}-dlq"
      metric    = "ApproximateNumberOfMessagesVisible"
      threshold = 0
    }
    late = {
      text      = "A message of ${local.name} has waited for more than ${var.max_age_seconds} s: is ${var.function.name} throttled, or failing?"
      queue     = local.name
      metric    = "ApproximateAgeOfOldestMessage"
      threshold = var.max_age_seconds
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "queue" {
  for_each            = local.alarms
  alarm_name          = "${local.name}-${each.key}"
  alarm_description   = each.value.text
  namespace           = "AWS/SQS"
  metric_name         = each.value.metric
  dimensions          = { QueueName = each.value.queue }
  statistic           = "Maximum"
  period              = 300
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value.threshold
  treat_missing_data  = "notBreaching"
  alarm_actions       = [var.deployment.alarm_topic_arn]
}

# A DynamoDB table: on demand, encrypted, restorable to any second of the last 35 days, with alarms on throttling.

variable "deployment" {
  description = "What the parts of a deployment share."
  type = object({
    prefix          = string
    region          = string
    account         = string
    partition       = string
    alarm_topic_arn = string
  })
}

variable "name" {
  description = "Without the deployment's prefix."
  type        = string
}

variable "protected" {
  description = "Whether a destroy leaves the table alone."
  type        = bool
}

variable "hash_key" {
  description = "All keys are strings."
  type        = string
}

variable "range_key" {
  description = "The sort key; without it, the table has none."
  type        = string
  default     = null
}

variable "indexes" {
  description = "Global secondary indexes with all attributes, by name."
  type        = map(object({ hash_key = string, range_key = optional(string) }))
  default     = {}
}

variable "expires" {
  description = "Attribute with the second (since 1970) at which DynamoDB may delete the row; null for never."
  type        = string
  default     = null
}

variable "capacity" {
  description = "Read and write units of a table whose load is known and small; null for on demand."
  type        = object({ read = number, write = number })
  default     = null
}

locals {
  name = "${var.deployment.prefix}-${var.name}"
  arn  = "arn:${var.deployment.partition}:dynamodb:${var.deployment.region}:${var.deployment.account}:table/${local.name}"
  keys = toset(compact(flatten([
    var.hash_key, var.range_key, [for index in var.indexes : [index.hash_key, index.range_key]],
  ])))
}

resource "aws_dynamodb_table" "table" {
  name                        = local.name
  billing_mode                = var.capacity == null ? "PAY_PER_REQUEST" : "PROVISIONED"
  read_capacity               = var.capacity == null ? null : var.capacity.read
  write_capacity              = var.capacity == null ? null : var.capacity.write
  hash_key                    = var.hash_key
  range_key                   = var.range_key
  deletion_protection_enabled = var.protected

  dynamic "attribute" {
    for_each = local.keys

    content {
      name = attribute.value
      type = "S"
    }
  }

  dynamic "global_secondary_index" {
    for_each = var.indexes

    content {
      name            = global_secondary_index.key
      hash_key        = global_secondary_index.value.hash_key
      range_key       = global_secondary_index.value.range_key
      projection_type = "ALL"
    }
  }

  dynamic "ttl" {
    for_each = var.expires[*]

    content {
      attribute_name = ttl.value
      enabled        = true
    }
  }

  point_in_time_recovery {
    enabled = true
  }

  server_side_encryption {
    enabled = true
  }
}

resource "aws_cloudwatch_metric_alarm" "throttled" {
  for_each            = toset(["ReadThrottleEvents", "WriteThrottleEvents"])
  alarm_name          = "${local.name}-${each.key}"
  alarm_description   = "DynamoDB refuses calls to ${local.name}, and has for 15 minutes: a hot key, too little provisioned capacity, or the account's quota."
  namespace           = "AWS/DynamoDB"
  metric_name         = each.key
  dimensions          = { TableName = local.name }
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = 3
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "notBreaching"
  alarm_actions       = [var.deployment.alarm_topic_arn]
}

output "name" {
  description = "Name of the table."
  value       = aws_dynamodb_table.table.name
}

output "arn" {
  description = "ARN of the table, known before it exists."
  value       = local.arn
}

# The workflow archive-alerts: from OpenSearch to S3, once a week.

locals {
  # The steps of the workflow share the bucket; what only looks at runs does without.
  run_environment = merge(local.bucket_environment, local.job_runs_environment)
  tables_environment = merge(local.run_environment, {
    ALERT_ARCHIVE_WINDOWS_TABLE          = module.storage.windows_table
    ALERT_ARCHIVE_MESSAGE_TRACKING_TABLE = module.storage.message_tracking_table
  })
  windows_environment = { ALERT_ARCHIVE_WINDOWS_TABLE = module.storage.windows_table }
  source_environment = merge(local.api_environment, !local.reads_opensearch ? {} : {
    OPENSEARCH_URL                = var.opensearch_url
    ALERT_ARCHIVE_OPENSEARCH_AUTH = var.opensearch_auth
    ALERT_ARCHIVE_MESSAGES_INDEX  = var.messages_index
    ALERT_ARCHIVE_HISTORY_INDEX   = var.history_index
    ALERT_ARCHIVE_AUDIT_INDEX     = var.audit_index
    }, local.reads_opensearch && var.opensearch_auth == "basic" ? {
    ALERT_ARCHIVE_OPENSEARCH_SECRET_ID = var.opensearch_secret_arn
  } : {})
  reads_opensearch = var.message_source != "api"
  # What lets a function that reads the source do so, by the way in which OpenSearch knows who asks.
  source_policies = {
    for name in keys(local.archive_functions) : name => merge(
      local.reads_opensearch && var.opensearch_auth == "iam" ? { source = "${path.root}/policies/source/${name}.json" } : {},
      local.reads_opensearch && var.opensearch_auth == "basic" ? { source = "${path.root}/policies/source-secret.json" } : {},
      local.reads_api ? { api = "${path.root}/policies/api/${name}.json" } : {},
    ) if lookup(local.archive_functions[name], "reads_source", false)
  }

  # One entry a function: its memory (MB) is above what it needs because CPU comes with it; its timeout (seconds) stays
  # below TimeoutSeconds of its state. What it may do stands in policies/<function>.json.
  archive_functions = {
    plan-windows = {
      size         = { memory = 1024, timeout = 300 }
      reads_source = true
      environment = merge(local.tables_environment, local.source_environment, {
        ALERT_ARCHIVE_WINDOW_MESSAGES = tostring(var.window_messages)
        ALERT_ARCHIVE_RUN_WINDOWS     = tostring(var.run_windows)
        ALERT_ARCHIVE_SETTLE_MINUTES  = tostring(var.settle_minutes)
      })
    }
    query-messages = {
      size         = { memory = 1769, timeout = 900 }
      reads_source = true
      environment = merge(local.run_environment, local.windows_environment, local.source_environment, {
        ALERT_ARCHIVE_OPEN_STATUSES   = join(",", var.open_statuses)
        ALERT_ARCHIVE_CLOSED_STATUSES = join(",", var.closed_statuses)
      })
    }
    classify-alerts = {
      size = { memory = 1769, timeout = 900 }
      environment = merge(local.bucket_environment, local.windows_environment, {
        ALERT_ARCHIVE_MESSAGE_TRACKING_TABLE = module.storage.message_tracking_table
      })
    }
    write-partitions = {
      size = { memory = 1769, timeout = 900 }
      environment = merge(local.tables_environment, {
        ALERT_ARCHIVE_COLD_STORAGE       = tostring(var.cold_storage)
        ALERT_ARCHIVE_WRITE_JSONL        = tostring(var.write_jsonl)
        ALERT_ARCHIVE_WRITE_MESSAGE_JSON = tostring(var.write_message_json)
      })
    }
    collect-windows = {
      size = { memory = 1024, timeout = 300 }
      environment = merge(local.tables_environment, {
        for name, price in { ALERT_ARCHIVE_SOURCE_GB_MONTH = var.source_gb_month } : name => tostring(price)
        if price != null
      })
    }
    send-summary = {
      size        = { memory = 1024, timeout = 120 }
      environment = merge(local.run_environment, local.mail_environment, { ALERT_ARCHIVE_MAIL_RECIPIENTS_PARAMETER = module.mail.recipients.runs.name })
    }
    aggregate-dashboard = {
      size = { memory = 1024, timeout = 300 }
      environment = merge(local.run_environment, {
        ALERT_ARCHIVE_MESSAGE_TRACKING_TABLE = module.storage.message_tracking_table
        ALERT_ARCHIVE_SILENT_DAYS            = tostring(var.silent_days)
      })
    }
    gate-run = {
      size        = { memory = 1024, timeout = 60 }
      environment = local.run_environment
    }

    # Called by a schedule and by no state.
    watch-runs = {
      size = { memory = 512, timeout = 60 }
      environment = merge(local.job_runs_environment, local.mail_environment, {
        ALERT_ARCHIVE_MAIL_RECIPIENTS_PARAMETER = module.mail.recipients.overdue.name
        ALERT_ARCHIVE_SILENT_DAYS               = tostring(var.silent_days)
      })
      schedule      = { expression = "rate(6 hours)", timezone = "UTC", enabled = var.schedule_enabled, input = "{}" }
      retry_seconds = 6 * 3600
    }
  }

  archive_steps = { for name, function in module.archive_function : name => function.function if !can(local.archive_functions[name].schedule) }
}

module "archive_function" {
  source   = "./modules/function"
  for_each = local.archive_functions

  deployment  = local.deployment
  packages    = local.packages
  name        = each.key
  size        = lookup(var.function_sizes, each.key, each.value.size)
  environment = each.value.environment
  schedule    = lookup(each.value, "schedule", null)

  retry_seconds = lookup(each.value, "retry_seconds", null)
  vpc           = lookup(each.value, "reads_source", false) ? var.vpc : null
  policies      = merge({ work = "${path.root}/policies/${each.key}.json" }, lookup(local.source_policies, each.key, {}))
  policy_variables = merge(local.policy_variables, {
    executions        = module.archive_alerts.executions_arn
    domain            = var.opensearch_domain_arn
    opensearch_secret = var.opensearch_secret_arn
    messages          = var.messages_index
    history           = var.history_index
    audit             = var.audit_index
    api_secret        = local.api_secret_arn
  })
}

module "archive_alerts" {
  source = "./modules/state-machine"

  deployment       = local.deployment
  name             = "archive-alerts"
  definition       = "${path.root}/../statemachine/archive-alerts.asl.json"
  functions        = local.archive_steps
  max_concurrency  = var.max_concurrency
  policy           = "${path.root}/policies/archive-alerts.json"
  policy_variables = { bucket = module.storage.bucket_arn }

  schedule = {
    expression = var.schedule
    timezone   = var.schedule_timezone
    enabled    = var.schedule_enabled
    # jsonencode would escape the brackets, which the service then would not replace.
    input = "{\"mode\":\"scheduled\",\"scheduled_for\":\"<aws.scheduler.scheduled-time>\"}"
  }
}

# Started by EventBridge when an execution ended badly.
module "mark_dead_run" {
  source = "./modules/state-machine"

  deployment       = local.deployment
  name             = "mark-dead-run"
  definition       = "${path.root}/../statemachine/mark-dead-run.asl.json"
  functions        = { for name in ["send-summary", "aggregate-dashboard"] : name => module.archive_function[name].function }
  substitutions    = { JobRunsTable = module.storage.job_runs_table }
  policy           = "${path.root}/policies/mark-dead-run.json"
  policy_variables = { job_runs = module.storage.job_runs_arn }
}

# CloudWatch looks back seven days at most: so the days are counted by watch-runs, and a metric that stays away alarms too.
resource "aws_cloudwatch_metric_alarm" "silent" {
  count               = var.schedule_enabled ? 1 : 0
  alarm_name          = "${var.prefix}-silent"
  alarm_description   = "No run of archive-alerts has completed for more than ${var.silent_days} days, or none ever: look at the latest executions, and at the schedule ${var.prefix}-archive-alerts."
  namespace           = "AlertArchive"
  metric_name         = "DaysSinceCompletedRun"
  dimensions          = { Deployment = var.prefix }
  statistic           = "Maximum"
  period              = 86400
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = var.silent_days
  treat_missing_data  = "breaching"
  alarm_actions       = [local.deployment.alarm_topic_arn]
}

output "archive_environment" {
  description = "What `make env` prints for the archive."
  value = merge(local.tables_environment, local.mail_environment, {
    ALERT_ARCHIVE_STATE_MACHINE_ARN = module.archive_alerts.arn
    ALERT_ARCHIVE_WINDOW_MESSAGES   = tostring(var.window_messages)
  })
}

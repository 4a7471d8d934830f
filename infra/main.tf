# What all workflows share: names, the bucket and its tables, mail, monitoring. Each workflow has a file of its own.

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}

locals {
  account   = data.aws_caller_identity.current.account_id
  partition = data.aws_partition.current.partition
  here      = "${var.region}:${local.account}"

  # What modules need to know of the whole; each declares the part that it reads. ARNs follow from names, so that a plan
  # shows each policy whole, and that nothing waits for what it merely names.
  deployment = {
    prefix             = var.prefix
    region             = var.region
    account            = local.account
    partition          = local.partition
    local              = var.local
    endpoint           = var.endpoint
    log_level          = var.log_level
    log_retention_days = var.log_retention_days
    schedule_group     = aws_scheduler_schedule_group.deployment.name
    alarm_topic_arn    = "arn:${local.partition}:sns:${local.here}:${var.prefix}-alarms"
    undelivered_arn    = "arn:${local.partition}:sqs:${local.here}:${var.prefix}-undelivered"
  }

  # The zips say for which architecture they were built.
  packages = {
    folder       = var.package_dir
    bucket       = module.storage.bucket
    architecture = jsondecode(file("${var.package_dir}/manifest.json")).architecture
  }

  # What the templates in policies/ may name, for the functions of all workflows. A workflow adds its own.
  policy_variables = {
    bucket           = module.storage.bucket_arn
    job_runs         = module.storage.job_runs_arn
    windows          = module.storage.windows_arn
    message_tracking = module.storage.message_tracking_arn
    mail_from        = var.mail_from
    mail_identities  = module.mail.identity_arns
    recipients       = module.mail.recipients
  }

  # Environments that several functions share, and those of mail; each kind of report has recipients of its own.
  bucket_environment   = { ALERT_ARCHIVE_BUCKET = module.storage.bucket }
  job_runs_environment = { ALERT_ARCHIVE_JOB_RUNS_TABLE = module.storage.job_runs_table }
  mail_environment = merge(
    { ALERT_ARCHIVE_MAIL_FROM = var.mail_from },
    var.dashboard_url == null ? {} : { ALERT_ARCHIVE_DASHBOARD_URL = var.dashboard_url },
  )
}

# Schedules of their own group, so that its metrics tell of this deployment and no other.
resource "aws_scheduler_schedule_group" "deployment" {
  name = var.prefix
}

module "storage" {
  source = "./modules/storage"

  deployment                = local.deployment
  bucket                    = coalesce(var.bucket, "${var.prefix}-archive-${local.account}")
  protected                 = var.protected
  spool_retention_days      = var.spool_retention_days
  noncurrent_retention_days = var.noncurrent_retention_days
  kept_folders              = ["feeds/intents"]
  expiring_folders          = { "feeds/staged" = 35 }
  archive_transition_days   = var.archive_transition_days
}

module "mail" {
  source = "./modules/mail"

  deployment = local.deployment
  mail_from  = var.mail_from
  mail_to    = { for kind in ["runs", "overdue", "log_errors"] : kind => lookup(var.mail_to_by_kind, kind, var.mail_to) }
  identity   = var.mail_identity
}

# One entry a workflow.
module "monitoring" {
  source = "./modules/monitoring"

  deployment  = local.deployment
  alarm_mails = var.alarm_mails
  workflows = {
    archive-alerts = {
      arn       = module.archive_alerts.arn
      functions = local.archive_steps
      when_dead = module.mark_dead_run.arn
    }
    report-log-errors = {
      arn       = module.report_log_errors.arn
      functions = { for name, function in module.logs_function : name => function.function }
    }
  }
}

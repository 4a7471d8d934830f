data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}

locals {
  account   = data.aws_caller_identity.current.account_id
  partition = data.aws_partition.current.partition

  # The functions' roles name the state machine, and the state machine names the functions: so its ARN is built here.
  workflow_name     = "${var.prefix}-archive-alerts"
  state_machine_arn = "arn:${local.partition}:states:${var.region}:${local.account}:stateMachine:${local.workflow_name}"
  executions_arn    = "arn:${local.partition}:states:${var.region}:${local.account}:execution:${local.workflow_name}:*"

  # The local cloud checks the sending of mail against no resource at all, so nothing narrower would match.
  sender = local.elsewhere ? "*" : module.mail.identity_arn
}

module "storage" {
  source = "./modules/storage"

  prefix                    = var.prefix
  bucket                    = coalesce(var.bucket, "${var.prefix}-archive-${local.account}")
  protected                 = var.protected
  require_tls               = !local.elsewhere
  spool_retention_days      = var.spool_retention_days
  noncurrent_retention_days = var.noncurrent_retention_days
  archive_transition_days   = var.archive_transition_days
}

module "mail" {
  source = "./modules/mail"

  mail_from       = var.mail_from
  create_identity = var.create_mail_identity
  identity_prefix = "arn:${local.partition}:ses:${var.region}:${local.account}:identity"
}

module "functions" {
  source = "./modules/functions"

  prefix                = var.prefix
  package_dir           = var.package_dir
  architecture          = var.architecture
  size_overrides        = var.function_sizes
  log_retention_days    = var.log_retention_days
  log_level             = var.log_level
  endpoint              = var.endpoint
  vpc                   = var.vpc
  storage               = module.storage
  executions_arn        = local.executions_arn
  mail_identity_arn     = local.sender
  opensearch_url        = var.opensearch_url
  opensearch_auth       = var.opensearch_auth
  opensearch_domain_arn = var.opensearch_domain_arn
  messages_index        = var.messages_index
  history_index         = var.history_index
  audit_index           = var.audit_index
  open_statuses         = var.open_statuses
  closed_statuses       = var.closed_statuses
  window_messages       = var.window_messages
  settle_minutes        = var.settle_minutes
  write_jsonl           = var.write_jsonl
  write_message_json    = var.write_message_json
  mail_from             = var.mail_from
  mail_to               = var.mail_to
  dashboard_url         = var.dashboard_url
}

module "workflow" {
  source = "./modules/workflow"

  name               = local.workflow_name
  state_machine_arn  = local.state_machine_arn
  executions_arn     = local.executions_arn
  account            = local.account
  definition         = "${path.root}/../statemachine/archive-alerts.asl.json"
  functions          = module.functions.functions
  bucket_arn         = module.storage.bucket_arn
  max_concurrency    = var.max_concurrency
  log_retention_days = var.log_retention_days
  schedule           = var.schedule
  schedule_timezone  = var.schedule_timezone
  schedule_enabled   = var.schedule_enabled
}

module "monitoring" {
  source = "./modules/monitoring"

  prefix            = var.prefix
  region            = var.region
  account           = local.account
  state_machine_arn = module.workflow.state_machine_arn
  functions         = module.functions.functions
  scheduled         = var.schedule_enabled
  alarm_mails       = var.alarm_mails
  definition        = "${path.root}/../statemachine/mark-dead-run.asl.json"
  job_runs          = { name = module.storage.job_runs_table, arn = module.storage.job_runs_arn }
}

# Where everything of the archive stays that must outlive a run: the bucket and the three tables.

module "bucket" {
  source = "../bucket"

  deployment = var.deployment
  name       = var.bucket
  protected  = var.protected

  # Replacing a row rewrites its object: versions are the way back. The spool holds copies: its old versions are worth
  # nothing.
  lifecycle_rules = merge({
    # An intent may wait in the dead-letter queue for 14 days for the parts that it moves.
    log-staging = { prefix = "log-errors/staging/", expiration_days = 30, noncurrent_expiration_days = 1 }
    spool       = { prefix = "spool/", expiration_days = var.spool_retention_days, noncurrent_expiration_days = 1 }
    }, {
    for folder, days in var.expiring_folders : "intermediate-${folder}" => {
      prefix                     = "${folder}/"
      expiration_days            = days
      noncurrent_expiration_days = 1
    }
    }, {
    for folder in concat(["archive", "dashboard", "packages", "quarantine", "runs"], var.kept_folders) : "replaced-${folder}" => {
      prefix                     = "${folder}/"
      noncurrent_expiration_days = var.noncurrent_retention_days
      transition_days            = folder == "archive" ? var.archive_transition_days : null
    }
  })
}

module "job_runs" {
  source = "../table"

  deployment = var.deployment
  name       = "job-runs"
  protected  = var.protected
  hash_key   = "run_id"
}

module "windows" {
  source = "../table"

  deployment = var.deployment
  name       = "windows"
  protected  = var.protected
  hash_key   = "run_id"
  range_key  = "window_id"
}

module "message_tracking" {
  source = "../table"

  deployment = var.deployment
  name       = "message-tracking"
  protected  = var.protected
  hash_key   = "message_id"
  range_key  = "source_index"

  # Sparse: only open and unfinished rows carry `staging`, so it stays small beside millions of archived ones.
  indexes = { staging = { hash_key = "staging", range_key = "timestamp" } }
}

# Outputs whose names end with _environment hold what points the command line at this deployment; they stand with their
# workflows, and `make env` prints them.

output "bucket" {
  description = "The bucket of the archive."
  value       = module.storage.bucket
}

output "role_arns" {
  description = "By function: for the access policy of the source, for example."
  value       = { for name, function in merge(module.archive_function, module.warehouse_function, { consolidate-feeds = module.consolidate_feeds, report-feeds = module.report_feeds }, module.logs_function) : name => function.role_arn }
}

output "alarm_topic_arn" {
  description = "The SNS topic that every alarm goes to."
  value       = module.monitoring.topic_arn
}

output "bucket" {
  value = module.storage.bucket
}

output "job_runs_table" {
  value = module.storage.job_runs_table
}

output "windows_table" {
  value = module.storage.windows_table
}

output "message_tracking_table" {
  value = module.storage.message_tracking_table
}

output "state_machine_arn" {
  value = module.workflow.state_machine_arn
}

output "state_machine_name" {
  value = local.workflow_name
}

output "opensearch_url" {
  value = var.opensearch_url
}

output "alarm_topic_arn" {
  value = module.monitoring.topic_arn
}

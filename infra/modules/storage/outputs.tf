output "bucket" {
  description = "Name of the bucket of the archive."
  value       = module.bucket.bucket
}

output "bucket_arn" {
  description = "ARN of the bucket of the archive."
  value       = module.bucket.arn
}

output "job_runs_table" {
  description = "Table with a row a run."
  value       = module.job_runs.name
}

output "job_runs_arn" {
  description = "ARN of the table with a row a run."
  value       = module.job_runs.arn
}

output "windows_table" {
  description = "Table with a row a window."
  value       = module.windows.name
}

output "windows_arn" {
  description = "ARN of the table with a row a window."
  value       = module.windows.arn
}

output "message_tracking_table" {
  description = "Table with a row a message."
  value       = module.message_tracking.name
}

output "message_tracking_arn" {
  description = "ARN of the table with a row a message."
  value       = module.message_tracking.arn
}

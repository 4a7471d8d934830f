output "bucket" {
  value = module.bucket.bucket
}

output "bucket_arn" {
  value = module.bucket.arn
}

output "job_runs_table" {
  value = module.job_runs.name
}

output "job_runs_arn" {
  value = module.job_runs.arn
}

output "windows_table" {
  value = module.windows.name
}

output "windows_arn" {
  value = module.windows.arn
}

output "message_tracking_table" {
  value = module.message_tracking.name
}

output "message_tracking_arn" {
  value = module.message_tracking.arn
}

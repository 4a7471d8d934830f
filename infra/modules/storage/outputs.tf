output "bucket" {
  value = aws_s3_bucket.archive.bucket
}

output "bucket_arn" {
  value = aws_s3_bucket.archive.arn
}

output "job_runs_table" {
  value = aws_dynamodb_table.job_runs.name
}

output "job_runs_arn" {
  value = aws_dynamodb_table.job_runs.arn
}

output "windows_table" {
  value = aws_dynamodb_table.windows.name
}

output "windows_arn" {
  value = aws_dynamodb_table.windows.arn
}

output "message_tracking_table" {
  value = aws_dynamodb_table.message_tracking.name
}

output "message_tracking_arn" {
  value = aws_dynamodb_table.message_tracking.arn
}

output "requires_tls" {
  value = length(aws_s3_bucket_policy.archive) == 1
}

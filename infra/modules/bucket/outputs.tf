output "bucket" {
  description = "Name of the bucket."
  value       = aws_s3_bucket.bucket.bucket
}

output "arn" {
  description = "ARN of the bucket, known before it exists."
  value       = local.arn
}

output "bucket" {
  value = aws_s3_bucket.bucket.bucket
}

output "arn" {
  value = local.arn
}
